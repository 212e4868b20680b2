// What gates share: which logits a gate has, a row in parts of one width, softmax over segments of lanes and its gradient.
#pragma once

#include "math.cuh"
#include "prefetch.cuh"
#include "quad.cuh"

// How many gates and experts, and columns of each expert.
struct Bank {
  u32 gates, experts, width;

  // Where the logits of a gate begin.
  DEVICE u32 first_logit(u32 gate) const { return gate * experts; }
};

// Gates that see a part of the bank each: `Seen` of the CPU, as `seen_to_bytes` of gate.rs lays it out.
struct SeenGates {
  u32 gates, experts, width;
  // By gate where its logits begin, and the end.
  const u32* starts;
  // By logit, its expert; the highest bit is set where that is read from the second bank.
  const u32* seen;
  // By expert of the first bank, then of the second: where its readers begin, and the end.
  const u32* reader_starts;
  // The readers: gate and logit of each.
  const uint2* readers;

  DEVICE SeenGates(const u32* table, u32 gates, u32 experts, u32 width) : gates(gates), experts(experts), width(width) {
    // Pairs come first, so that they are aligned.
    const u32 logits = table[0];
    readers = (const uint2*)(table + 2);
    starts = table + 2 + 2 * logits;
    seen = starts + gates + 1;
    reader_starts = seen + logits;
  }

  DEVICE u32 first_logit(u32 gate) const { return starts[gate]; }
};

constexpr u32 APART = 1u << 31;

DEVICE u32 row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

// Rows that all warps of a launch have at a time.
DEVICE u32 rows_at_once() { return gridDim.x * (blockDim.x / 32); }

// Has a row brought to the second-level cache.
DEVICE void ask_for_row(const Mat& mat, u32 row) {
  const unsigned char* const begin = (const unsigned char*)address_of(mat, row, 0);
  const u32 bytes = mat.cols * element_bytes(mat);
  for (u32 at = threadIdx.x % 32 * CACHE_LINE; at < bytes; at += 32 * CACHE_LINE) prefetch(begin + at);
}

// A row of a matrix, in parts of `width` columns: experts, or what gates have mixed. A lane has the columns `col .. col +
// 4` of each part.
struct Parts {
  unsigned char* row;
  u32 element, width, part_bytes;
  // How four columns of a part that begin at a multiple of four are read and written.
  QuadKind kind;

  DEVICE Parts(const Mat& mat, u32 row, u32 width)
      : row((unsigned char*)address_of(mat, row, 0)), element(mat.element), width(width),
        part_bytes(width * element_bytes(mat)),
        kind(!has_quads(mat) || width % 4 ? ANY_QUAD : mat.element == ELEMENT_F32 ? QUAD_F32 : QUAD_BF16) {}

  // Where the first of the lane's columns is in part 0.
  DEVICE unsigned char* at(u32 col) const { return row + col * (element == ELEMENT_F32 ? 4 : 2); }

  // Reads the lane's columns of the part at `part`, as they lie in memory; 0 for those beyond the width.
  template <QuadKind KIND>
  DEVICE void load(const unsigned char* part, u32 col, QuadBits& bits) const {
    if (KIND == ANY_QUAD) {
      load_bits(part, element, false, col < width ? width - col : 0, bits);
    } else {
      bits = {};
      if (col < width) load_bits(part, element_of(KIND), true, 4, bits);
    }
  }

  template <QuadKind KIND>
  DEVICE void values(const QuadBits& bits, float (&values)[4]) const {
    values_of(bits, KIND == ANY_QUAD ? element : element_of(KIND), values);
  }

  // Writes them.
  template <QuadKind KIND>
  DEVICE void store(unsigned char* part, u32 col, const float (&values)[4]) const {
    if (KIND == ANY_QUAD) {
      store_four(part, element, false, col < width ? width - col : 0, values);
    } else if (col < width) {
      store_four(part, element_of(KIND), true, 4, values);
    }
  }
};

// How the columns of all of these are read and written.
DEVICE QuadKind common_kind(const Parts& a, const Parts& b, const Parts& c) {
  return a.kind == b.kind && b.kind == c.kind ? a.kind : ANY_QUAD;
}

// The largest and the sum over the segment of `2^bits` lanes that this one is in.
DEVICE float segment_max(float value, u32 bits) {
  for (u32 offset = 1u << bits >> 1; offset; offset /= 2) {
    value = math::larger(value, __shfl_xor_sync(FULL_WARP, value, offset));
  }
  return value;
}

DEVICE float segment_sum(float value, u32 bits) {
  for (u32 offset = 1u << bits >> 1; offset; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}

// Sums of four values over a warp: number `lane / 8` in each lane. Lanes halve the values that they go on with.
DEVICE float four_sums(const float (&values)[4]) {
  const u32 lane = threadIdx.x % 32;
  const bool upper = lane & 16, odd = lane & 8;
  const float a = (upper ? values[2] : values[0]) + __shfl_xor_sync(FULL_WARP, upper ? values[0] : values[2], 16);
  const float b = (upper ? values[3] : values[1]) + __shfl_xor_sync(FULL_WARP, upper ? values[1] : values[3], 16);
  return segment_sum((odd ? b : a) + __shfl_xor_sync(FULL_WARP, odd ? a : b, 8), 3);
}

// Which of a row's logits a lane takes: those at `begin`, `begin + step` .. below `end`.
struct Logits {
  u32 begin, end, step;

  // Of the gate that this lane's segment has when the first one has `gate`.
  template <class Gates>
  DEVICE Logits(const Gates& gates, u32 gate, u32 bits) : step(1u << bits) {
    const u32 lane = threadIdx.x % 32, own = gate + (lane >> bits);
    begin = own < gates.gates ? gates.first_logit(own) + (lane & (step - 1)) : 0;
    end = own < gates.gates ? gates.first_logit(own + 1) : 0;
  }
};

// Writes the softmax over each gate's logits to `weights`, and to `shared` for the warp. Minus infinity weighs 0;
// infinity or NaN make the whole gate NaN.
template <class Gates>
DEVICE void softmax(const Gates& gates, u32 bits, u32 row, const Mat& logits, const Mat& weights, float* shared) {
  for (u32 gate = 0; gate < gates.gates; gate += 32u >> bits) {
    const Logits own(gates, gate, bits);
    float largest = MINUS_INFINITY;
    for (u32 i = own.begin; i < own.end; i += own.step) {
      shared[i] = load_value(logits, row, i);
      largest = math::larger(shared[i], largest);
    }
    largest = segment_max(largest, bits);
    float sum = 0.0f;
    for (u32 i = own.begin; i < own.end; i += own.step) {
      shared[i] = math::exp(shared[i] - largest);
      sum += shared[i];
    }
    const float scale = 1.0f / segment_sum(sum, bits);
    for (u32 i = own.begin; i < own.end; i += own.step) {
      shared[i] *= scale;
      store_value(weights, row, i, shared[i]);
    }
  }
}

// Reads the weights of a row to shared memory, and begins the gradients at them.
DEVICE void begin_dots(u32 row, const Mat& weights, float* own, float* dots) {
  for (u32 i = threadIdx.x % 32; i < weights.cols; i += 32) {
    own[i] = load_value(weights, row, i);
    dots[i] = 0.0f;
  }
}

// Gradients at the logits, of those at the weights.
template <class Gates>
DEVICE void logit_gradients(const Gates& gates, u32 bits, u32 row, const float* weights, const float* dots,
                            u32 accumulate, const Mat& d_logits) {
  for (u32 gate = 0; gate < gates.gates; gate += 32u >> bits) {
    const Logits own(gates, gate, bits);
    float mean = 0.0f;
    for (u32 i = own.begin; i < own.end; i += own.step) mean = fmaf(weights[i], dots[i], mean);
    mean = segment_sum(mean, bits);
    for (u32 i = own.begin; i < own.end; i += own.step) {
      const float before = accumulate ? load_value(d_logits, row, i) : 0.0f;
      store_value(d_logits, row, i, fmaf(weights[i], dots[i] - mean, before));
    }
  }
}
