// Sums over a block, in f64 and in an order that only the number of threads decides.
#pragma once

#include "common.cuh"

// The sum of the values of all THREADS threads of a block, a power of two, in thread 0. All threads call it, with
// shared memory that nobody uses otherwise.
template <u32 THREADS>
DEVICE double block_sum(double value, double (&sums)[THREADS]) {
  sums[threadIdx.x] = value;
#pragma unroll
  for (u32 half = THREADS / 2; half; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  return sums[threadIdx.x];
}
