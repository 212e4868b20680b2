// Optimisers of dense parameters: one launch moves all of them, each by the method and the constants of its group.
//
// Floor: the bytes. Adam reads 16 a parameter and writes 12; a thread has up to four reads of 16 bytes in flight.
//
// Products that are rounded before a sum are `__fmul_rn`, those that are not `fmaf`: the bits are the CPU's.
#include "block_sum.cuh"
#include "pieces.cuh"

enum Method : u32 { STILL = 0, ADAGRAD = 1, ADAM = 2, MOMENTUM = 3, SGD = 4 };

// What a group does at this step: `Step` of optim.rs. Of Momentum, `beta1` is the share of the velocity that is kept.
struct alignas(16) Group {
  u32 method, nesterov;
  float rate, l2, epsilon, kept, beta1, rest1, beta2, rest2, root2, unused;
};

// The parameters, and what is laid out like them.
struct Values {
  float *weights, *gradients, *first, *second;
};

struct Adagrad {
  static const bool HAS_FIRST = false, HAS_SECOND = true;
  DEVICE static void step(const Group& group, float gradient, float& weight, float&, float& square) {
    const float g = fmaf(group.l2, weight, gradient);
    square = fmaf(g, g, square);
    weight = weight - __fmul_rn(group.rate, g) / (sqrtf(square) + group.epsilon);
  }
};

struct Adam {
  static const bool HAS_FIRST = true, HAS_SECOND = true;
  DEVICE static void step(const Group& group, float gradient, float& weight, float& mean, float& square) {
    const float g = fmaf(group.l2, weight, gradient);
    mean = fmaf(group.beta1, mean, group.rest1 * g);
    square = fmaf(group.beta2, square, group.rest2 * (g * g));
    const float quotient = mean / (sqrtf(square) / group.root2 + group.epsilon);
    weight = __fmul_rn(weight, group.kept) - __fmul_rn(group.rate, quotient);
  }
};

struct Momentum {
  static const bool HAS_FIRST = true, HAS_SECOND = false;
  DEVICE static void step(const Group& group, float gradient, float& weight, float& velocity, float&) {
    const float g = fmaf(group.l2, weight, gradient);
    velocity = fmaf(group.beta1, velocity, g);
    const float direction = group.nesterov ? fmaf(group.beta1, velocity, g) : velocity;
    weight = __fmul_rn(weight, group.kept) - __fmul_rn(group.rate, direction);
  }
};

struct Sgd {
  static const bool HAS_FIRST = false, HAS_SECOND = false;
  DEVICE static void step(const Group& group, float gradient, float& weight, float&, float&) {
    const float g = fmaf(group.l2, weight, gradient);
    weight = weight - __fmul_rn(group.rate, g);
  }
};

template <class Method>
DEVICE void move(const Group& group, const Values& values, const Quad& at, float factor, float limit) {
  float gradients[4], weights[4], first[4] = {}, second[4] = {};
  load_quad(values.gradients, at, gradients);
  load_quad(values.weights, at, weights);
  if (Method::HAS_FIRST) load_quad(values.first, at, first);
  if (Method::HAS_SECOND) load_quad(values.second, at, second);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    Method::step(group, clipped(gradients[i], factor, limit), weights[i], first[i], second[i]);
  }
  store_quad(values.weights, at, weights);
  if (Method::HAS_FIRST) store_quad(values.first, at, first);
  if (Method::HAS_SECOND) store_quad(values.second, at, second);
}

// One step of every group, a piece a block; nothing moves where `*go_on` is 0. Gradients count times `*factor` (1 where
// it is null) and inside `-limit ..= limit`.
KERNEL(THREADS)
optimise(const u32* go_on, const Piece* pieces, const Group* groups, const float* factor, float limit, Values values) {
  if (go_on && *go_on == 0) return;
  const Piece piece = pieces[blockIdx.x];
  const Quad at = quad_of_thread(piece);
  if (at.begin >= at.end) return;
  const Group group = groups[piece.group];
  const float times = factor ? *factor : 1.0f;
  switch (group.method) {
    case ADAGRAD: return move<Adagrad>(group, values, at, times, limit);
    case ADAM: return move<Adam>(group, values, at, times, limit);
    case MOMENTUM: return move<Momentum>(group, values, at, times, limit);
    case SGD: return move<Sgd>(group, values, at, times, limit);
  }
}

// The sum of the squares of the gradients of each piece, to `partials`. A square of an f32 is exact in f64.
KERNEL(THREADS) sum_squares(const Piece* pieces, const float* gradients, double* partials) {
  SHARED double sums[THREADS];
  const Quad at = quad_of_thread(pieces[blockIdx.x]);
  double sum = 0.0;
  if (at.begin < at.end) {
    float quad[4];
    load_quad(gradients, at, quad);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum += (double)quad[i] * (double)quad[i];
  }
  const double total = block_sum(sum, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// *factor = what makes a gradient with these sums of squares no longer than `limit`; where they are not finite,
// *go_on = 0. One block.
KERNEL(THREADS) clip_factor(const double* partials, u32 count, double limit, float* factor, u32* go_on) {
  SHARED double sums[THREADS];
  double sum = 0.0;
  for (u32 i = threadIdx.x; i < count; i += THREADS) sum += partials[i];
  const double norm = sqrt(block_sum(sum, sums));
  if (threadIdx.x > 0) return;
  *factor = norm > limit ? (float)(limit / norm) : 1.0f;
  if (!isfinite(norm)) *go_on = 0;
}
