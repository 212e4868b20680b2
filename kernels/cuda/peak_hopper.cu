// What the tensor cores of Hopper do at the most, by its own instructions: see peak.cu.
#include "bench_numbers.cuh"
#include "product_hopper.cuh"

// Multiplies two tiles in shared memory by each other `runs` times, 64 x 128 x 16 values a warpgroup, which are as many
// multiply-adds as those of peak.cu. A thread leaves the sum of its sums.
KERNEL_SHARING(THREADS, 2) multiply_adds_bf16(u32 runs, u32 seed, float* out) {
  using Tile = HopperTile<true>;
  DYNAMIC_SHARED(shared);
  u32* const words = (u32*)shared;
  const u64 first = (u64)blockIdx.x * (2 * Tile::BYTES / 4);
  for (u32 i = threadIdx.x; i < 2 * Tile::BYTES / 4; i += THREADS) words[i] = random_bf16_pair(first + i, seed);
  publish_to_tensor_cores();
  __syncthreads();
  const u32 tiles = shared_address(shared);
  const u64 a = Tile::describe(tiles, threadIdx.x / 128, 0), b = Tile::describe(tiles + Tile::BYTES, 0, 0);
  float sums[64];
#pragma unroll
  for (u32 i = 0; i < 64; i++) sums[i] = 0.0f;
  hold_sums(sums);
#pragma unroll 1
  for (u32 run = 0; run < runs; run++) {
    begin_products();
    multiply_add_128<false, false>(sums, a, b);
    end_products();
  }
  wait_for_products();
  hold_sums(sums);
  float sum = 0.0f;
#pragma unroll
  for (u32 i = 0; i < 64; i++) sum += sums[i];
  out[first_of_thread()] = sum;
}
