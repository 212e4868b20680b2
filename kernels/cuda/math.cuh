// Elementary functions: the polynomials, the order of operations and so the bits of the CPU's `math.rs`, which says how
// exact they are. NaN stays NaN in all of them.
//
// A product that is rounded before something is added to it is written `__fmul_rn`: the compiler fuses the others.
#pragma once

#include "common.cuh"

namespace math {

// `a` if larger, else `b`: also where either is NaN.
DEVICE float larger(float a, float b) { return a > b ? a : b; }

// The larger of both; NaN where either is.
DEVICE float maximum(float a, float b) {
#ifdef __CUDACC__
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  return a > b || a != a ? a : b;
#endif
}

// `a` if smaller, else `b`: also where either is NaN.
DEVICE float smaller(float a, float b) { return a < b ? a : b; }

// The polynomial of these coefficients, highest power first.
template <int N>
DEVICE float horner(float x, const float (&coefficients)[N]) {
  float sum = coefficients[0];
#pragma unroll
  for (int i = 1; i < N; i++) sum = fmaf(sum, x, coefficients[i]);
  return sum;
}

// `e^x`; 0 below -87.33 and infinite above 88.376.
DEVICE float exp(float x) {
  const float highest = 88.37626f, lowest = -87.33654f;
  const float inside = larger(lowest, smaller(highest, x));
  const float n = rintf(inside * 1.44269504f);
  float r = fmaf(n, -355.0f / 512.0f, inside);
  r = fmaf(n, 2.1219444e-4f, r);
  const float q = horner(r, {1.3950538e-3f, 8.368918e-3f, 4.1666206e-2f, 1.6666518e-1f, 0.5f});
  const float p = fmaf(q, r * r, r) + 1.0f;
  const float e = __fmul_rn(p, __int_as_float(((int)n + 127) << 23));
  return x > highest ? -MINUS_INFINITY : x < lowest ? 0.0f : e;
}

// `1 / (1 + e^-x)`.
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// Hyperbolic tangent.
DEVICE float tanh(float x) {
  // Near 0 the exponential form cancels.
  const float z = x * x;
  const float q = horner(z, {-5.717037e-3f, 2.065058e-2f, -5.37435e-2f, 1.333149e-1f, -3.3333284e-1f});
  const float near_zero = fmaf(q * z, x, x);
  const float far = 1.0f - 2.0f / (exp(x + x) + 1.0f);
  return fabsf(x) > 0.625f ? far : near_zero;
}

// `ln(1 + e)` for `e` in 0 ..= 1.
DEVICE float log1p_of_unit(float e) {
  // ln(1 + e) = 2 atanh(e / (2 + e)).
  const float a = e / (e + 2.0f);
  const float z = a * a;
  const float q = horner(z, {1.4012232e-1f, 1.399957e-1f, 2.001085e-1f, 3.3333206e-1f});
  const float twice = a + a;
  return fmaf(q * z, twice, twice);
}

}  // namespace math
