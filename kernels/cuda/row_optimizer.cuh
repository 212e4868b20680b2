// How a row of an embedding table moves by its summed gradient, with its state beside it: the CPU's `RowOptimizer`,
// rounding where it rounds and fusing where it fuses.
#pragma once

#include "embedding.cuh"

enum RowMethod : u32 {
  ROWS_STAY = 0,
  LAZY_ADAM = 1,
  ADAGRAD = 2,
  ROWWISE_ADAGRAD = 3,
  FTRL = 4,
  SGD = 5,
};

// A step of the rows of a table: `step_to_bytes` of update.rs.
struct RowStep {
  u32 method;
  // Of Adam with its bias correction, of FTRL 1 / alpha.
  float rate;
  float l2;
  float epsilon;
  // Decays of Adam's moments, and what they leave to 1.
  float beta1, beta2, rest1, rest2;
  // Of FTRL: beta / alpha + l2, and l1.
  float begin, l1;
};

// Blocks of `dim` values of state beside the weights.
DEVICE u32 state_blocks(u32 method) { return method == LAZY_ADAM || method == FTRL ? 2 : method == ADAGRAD ? 1 : 0; }

DEVICE void lazy_adam(const RowStep& step, float g, float& w, float& m, float& v) {
  g = fmaf(step.l2, w, g);
  m = fmaf(step.beta1, m, __fmul_rn(step.rest1, g));
  v = fmaf(step.beta2, v, __fmul_rn(step.rest2, __fmul_rn(g, g)));
  w = __fsub_rn(w, __fmul_rn(step.rate, m) / __fadd_rn(sqrtf(v), step.epsilon));
}

DEVICE void adagrad(const RowStep& step, float g, float& w, float& a) {
  g = fmaf(step.l2, w, g);
  a = fmaf(g, g, a);
  w = __fsub_rn(w, __fmul_rn(step.rate, g) / __fadd_rn(sqrtf(a), step.epsilon));
}

DEVICE void ftrl(const RowStep& step, float g, float& w, float& z, float& n) {
  const float moved = fmaf(g, g, n);
  const float towards = w > 0.0f ? -step.l1 : w < 0.0f ? step.l1 : 0.0f;
  const float start = __fsub_rn(towards, __fmul_rn(step.begin, w));
  const float sigma = __fmul_rn(__fsub_rn(sqrtf(moved), sqrtf(n)), step.rate);
  z = __fsub_rn(__fadd_rn(n > 0.0f ? z : start, g), __fmul_rn(sigma, w));
  // z without what lies inside +-l1.
  const float outside = __fsub_rn(z, fmaxf(fminf(z, step.l1), -step.l1));
  w = -outside / fmaf(sqrtf(moved), step.rate, step.begin);
  n = moved;
}

DEVICE void sgd(const RowStep& step, float g, float& w) { w = fmaf(-step.rate, fmaf(step.l2, w, g), w); }

// Moves values of a row by their gradients, by any method but row-wise Adagrad. `first` and `second` are their state.
template <int N>
DEVICE void move_values(const RowStep& step, const float (&g)[N], float (&w)[N], float (&first)[N],
                        float (&second)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    switch (step.method) {
      case LAZY_ADAM: lazy_adam(step, g[i], w[i], first[i], second[i]); break;
      case ADAGRAD: adagrad(step, g[i], w[i], first[i]); break;
      case FTRL: ftrl(step, g[i], w[i], first[i], second[i]); break;
      case SGD: sgd(step, g[i], w[i]); break;
    }
  }
}
