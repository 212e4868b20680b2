// What every kernel file begins with: types, matrices and small helpers. `host/emulation.h` stands in for the device
// where the same files are built as host C++.
#pragma once

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
// A kernel for blocks of at most THREADS threads.
#define KERNEL(THREADS) extern "C" __global__ void __launch_bounds__(THREADS)
// The same, with registers for BLOCKS of them on a multiprocessor: what the compiler would aim at may spill.
#define KERNEL_SHARING(THREADS, BLOCKS) extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
#define SHARED __shared__
// Dynamic shared memory, as bytes.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#else
#include "host/emulation.h"
#define KERNEL_SHARING(THREADS, BLOCKS) KERNEL(THREADS)
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define MINUS_INFINITY __int_as_float(0xff800000)

// The upper half of an f32.
struct bf16 {
  unsigned short bits;
};

DEVICE float to_f32(bf16 value) { return __uint_as_float((u32)value.bits << 16); }

// The nearest bf16, of two the even one.
DEVICE bf16 to_bf16(float value) {
  bf16 rounded;
#ifdef __CUDACC__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded.bits) : "f"(value));
#else
  rounded.bits = emulated_to_bf16(value);
#endif
  return rounded;
}

// The nearest bf16 of two values, the first in the lower half.
DEVICE u32 to_bf16_pair(float low, float high) {
#ifdef __CUDACC__
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return to_bf16(low).bits | (u32)to_bf16(high).bits << 16;
#endif
}

enum ElementKind : u32 { ELEMENT_F32 = 0, ELEMENT_BF16 = 1 };

// A matrix in device memory: `DeviceMat` of view.rs. Rows are `*live_rows` where that is given, at most `rows`.
struct Mat {
  void* data;
  const u32* live_rows;
  u32 rows, cols, stride, element;
};

DEVICE u32 rows_of(const Mat& mat) { return mat.live_rows ? *mat.live_rows : mat.rows; }

DEVICE float* row_f32(const Mat& mat, u32 row) { return (float*)mat.data + (u64)row * mat.stride; }

DEVICE bf16* row_bf16(const Mat& mat, u32 row) { return (bf16*)mat.data + (u64)row * mat.stride; }

// The sum over a warp, in every lane; the order of the sum is fixed.
DEVICE float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset; offset >>= 1) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}
