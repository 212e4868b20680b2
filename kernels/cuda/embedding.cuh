// What kernels on rows of embedding tables share: groups of lanes, and values of a row taken one or four at a time.
#pragma once

#include "common.cuh"

// A power of two of adjacent lanes that take a row together, `N` columns each at a time.
struct Group {
  u32 lanes, lane;
  // Which of the block's groups it is, and how many there are.
  u32 number, count;
};

DEVICE Group group_of_thread(u32 lane_bits) {
  const u32 lanes = 1u << lane_bits;
  return {lanes, threadIdx.x & (lanes - 1), threadIdx.x >> lane_bits, blockDim.x >> lane_bits};
}

// The sum over a group, in all its lanes. The whole warp has to come.
DEVICE float group_sum(float value, const Group& group) {
#pragma unroll
  for (u32 offset = 16; offset; offset >>= 1) {
    const float other = __shfl_xor_sync(FULL_WARP, value, offset);
    value += offset < group.lanes ? other : 0.0f;
  }
  return value;
}

// The last of `count` ascending numbers, `stride` apart, that is not above `value`; the first one is not. The whole
// warp has to come, with the same arguments.
DEVICE u32 last_at_most(const u32* numbers, u32 stride, u32 count, u32 value) {
  u32 found = 0;
#pragma unroll 1
  for (u32 from = 0; from < count; from += 32) {
    const u32 i = from + (threadIdx.x & 31);
    found += __popc(__ballot_sync(FULL_WARP, i < count && numbers[(u64)i * stride] <= value));
  }
  return found - 1;
}

// An address read from memory, of which the compiler does not know otherwise that it is one of global memory.
template <class T>
DEVICE T* global(T* address) {
#ifdef __CUDACC__
  __builtin_assume(__isGlobal(address));
#endif
  return address;
}

// `N` values from an address that is a multiple of their size.
template <int N>
DEVICE void load_values(const float* from, float (&to)[N]) {
  if (N == 4) {
    const float4 values = *(const float4*)from;
    to[0] = values.x, to[1 % N] = values.y, to[2 % N] = values.z, to[3 % N] = values.w;
  } else {
    to[0] = *from;
  }
}

template <int N>
DEVICE void load_values(const bf16* from, float (&to)[N]) {
  if (N == 4) {
    const uint2 pairs = *(const uint2*)from;
    to[0] = __uint_as_float(pairs.x << 16), to[1 % N] = __uint_as_float(pairs.x & 0xffff0000u);
    to[2 % N] = __uint_as_float(pairs.y << 16), to[3 % N] = __uint_as_float(pairs.y & 0xffff0000u);
  } else {
    to[0] = to_f32(*from);
  }
}

template <int N>
DEVICE void store_values(float* to, const float (&values)[N]) {
  if (N == 4) {
    *(float4*)to = make_float4(values[0], values[1 % N], values[2 % N], values[3 % N]);
  } else {
    *to = values[0];
  }
}

template <int N>
DEVICE void store_values(bf16* to, const float (&values)[N]) {
  if (N == 4) {
    *(uint2*)to = make_uint2(to_bf16_pair(values[0], values[1 % N]), to_bf16_pair(values[2 % N], values[3 % N]));
  } else {
    *to = to_bf16(values[0]);
  }
}

// The same in a row of a matrix of either kind.
template <int N>
DEVICE void load_values(const Mat& mat, u32 row, u32 column, float (&to)[N]) {
  if (mat.element == ELEMENT_F32) {
    load_values<N>(row_f32(mat, row) + column, to);
  } else {
    load_values<N>(row_bf16(mat, row) + column, to);
  }
}

template <int N>
DEVICE void store_values(const Mat& mat, u32 row, u32 column, const float (&values)[N]) {
  if (mat.element == ELEMENT_F32) {
    store_values<N>(row_f32(mat, row) + column, values);
  } else {
    store_values<N>(row_bf16(mat, row) + column, values);
  }
}

// `sum += values`.
template <int N>
DEVICE void add_values(float (&sum)[N], const float (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) sum[i] += values[i];
}

// `sum += factor * values`, rounded once.
template <int N>
DEVICE void add_scaled(float factor, const float (&values)[N], float (&sum)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) sum[i] = fmaf(factor, values[i], sum[i]);
}

template <int N>
DEVICE void clear_values(float (&values)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) values[i] = 0.0f;
}
