// Sums over the threads before each one of a block.
#pragma once

#include "common.cuh"

// What a block of whole warps needs to sum over its threads.
struct ScanSpace {
  u32 of_warp[32];
};

// The sum of `value` over the threads before this one; `total` becomes that over all. The whole block has to come.
DEVICE u32 sum_before(u32 value, u32& total, ScanSpace& space) {
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  u32 sum = value;
#pragma unroll
  for (u32 offset = 1; offset < 32; offset <<= 1) {
    const u32 other = __shfl_up_sync(FULL_WARP, sum, offset);
    if (lane >= offset) sum += other;
  }
  if (lane == 31) space.of_warp[warp] = sum;
  __syncthreads();
  u32 before = 0;
  total = 0;
  for (u32 w = 0; w < blockDim.x / 32; w++) {
    if (w == warp) before = total;
    total += space.of_warp[w];
  }
  __syncthreads();
  return before + sum - value;
}
