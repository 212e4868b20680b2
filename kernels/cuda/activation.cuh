// Activation functions of single values, for the end of other kernels: `Activation` of the CPU's `activation.rs`.
#pragma once

#include "math.cuh"

enum ActivationKind : u32 { IDENTITY = 0, RELU = 1, LEAKY_RELU = 2, TANH = 3, SIGMOID = 4 };

// As an argument of a kernel: `activation::to_bytes` of activation.rs.
struct Activation {
  u32 kind;
  // Of LEAKY_RELU.
  float slope;
};

// The function of `v`. NaN stays NaN.
DEVICE float activated(const Activation& act, float v) {
  switch (act.kind) {
    case RELU: return 0.0f > v ? 0.0f : v;
    case LEAKY_RELU: return v > 0.0f ? v : __fmul_rn(v, act.slope);
    case TANH: return math::tanh(v);
    case SIGMOID: return math::sigmoid(v);
    default: return v;
  }
}

// The derivative, from the output `y`. NaN where an output of RELU, TANH or SIGMOID is.
DEVICE float slope_from_output(const Activation& act, float y) {
  switch (act.kind) {
    case RELU: return y > 0.0f ? 1.0f : math::larger(0.0f, y);
    case LEAKY_RELU: return y > 0.0f ? 1.0f : act.slope;
    case TANH: return 1.0f - __fmul_rn(y, y);
    case SIGMOID: return y * (1.0f - y);
    default: return 1.0f;
  }
}
