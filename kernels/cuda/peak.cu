// What a device can do at the most: the measures behind the floors of benchmarks, see `peak.rs` of the CPU. And random
// values to measure kernels on: zeros are multiplied and moved faster than numbers.
#include "bench_numbers.cuh"

#define THREADS 256
// Accesses of 16 bytes that a thread of `copy` has on their way.
#define QUADS 4
// Independent chains of multiply-adds of a thread: two blocks of THREADS cover a latency of four cycles many times.
#define CHAINS 8
// Fragments of each operand that a warp multiplies with each other, as in a tile of a product.
#define FRAGMENTS 4

// Value i of `to` becomes number i of the stream `seed`, times `scale`. f32 or bf16.
KERNEL(THREADS) fill_random(void* to, u64 count, u32 element, u32 seed, float scale) {
  for (u64 i = first_of_thread(); i < count; i += (u64)gridDim.x * THREADS) {
    const float value = __fmul_rn(random_number(i, seed), scale);
    if (element == ELEMENT_F32) {
      ((float*)to)[i] = value;
    } else {
      ((bf16*)to)[i] = to_bf16(value);
    }
  }
}

// Value i of `to` becomes number i of the stream `seed`, below `below`.
KERNEL(THREADS) fill_ids(u32* to, u64 count, u32 seed, u32 below) {
  for (u64 i = first_of_thread(); i < count; i += (u64)gridDim.x * THREADS) to[i] = __umulhi(hashed(i, seed), below);
}

// Copies `count` times 16 bytes.
KERNEL(THREADS) copy(const uint4* from, uint4* to, u64 count) {
  const u64 first = (u64)blockIdx.x * THREADS * QUADS + threadIdx.x;
  uint4 quads[QUADS];
#pragma unroll
  for (u32 i = 0; i < QUADS; i++) {
    if (first + i * THREADS < count) quads[i] = from[first + i * THREADS];
  }
#pragma unroll
  for (u32 i = 0; i < QUADS; i++) {
    if (first + i * THREADS < count) to[first + i * THREADS] = quads[i];
  }
}

// Steps independent chains `runs` times, x -> 1.9 - x x: one multiply-add, numbers that never settle and stay within two.
// A thread leaves the last number of its first chain plus those of the others.
KERNEL(THREADS) multiply_adds(u32 runs, u32 seed, float* out) {
  const u64 thread = first_of_thread();
  float chains[CHAINS];
#pragma unroll
  for (u32 c = 0; c < CHAINS; c++) chains[c] = random_number(thread * CHAINS + c, seed);
#pragma unroll 4
  for (u32 run = 0; run < runs; run++) {
#pragma unroll
    for (u32 c = 0; c < CHAINS; c++) chains[c] = fmaf(-chains[c], chains[c], 1.9f);
  }
  float sum = chains[0];
#pragma unroll
  for (u32 c = 1; c < CHAINS; c++) sum = __fadd_rn(sum, chains[c]);
  out[thread] = sum;
}

struct Tf32 {
  DEVICE static u32 word(u64 index, u32 seed) { return to_tf32(__float_as_uint(random_number(index, seed))); }
  DEVICE static void multiply_add(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    multiply_add_tf32(sums, a, b[0], b[1]);
  }
};

struct Bf16 {
  DEVICE static u32 word(u64 index, u32 seed) { return random_bf16_pair(index, seed); }
  DEVICE static void multiply_add(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    multiply_add_bf16(sums, a, b[0], b[1]);
  }
};

// Multiplies fragments in registers by each other `runs` times: nothing but tensor cores. A thread leaves the sum of its
// sums.
template <class Precision>
DEVICE void multiply_fragments(u32 runs, u32 seed, float* out) {
  const u64 thread = first_of_thread();
  u32 a[FRAGMENTS][4], b[FRAGMENTS][2];
  float sums[FRAGMENTS][FRAGMENTS][4] = {};
#pragma unroll
  for (u32 i = 0; i < FRAGMENTS; i++) {
    const u64 word = (thread * FRAGMENTS + i) * 6;
#pragma unroll
    for (u32 k = 0; k < 4; k++) a[i][k] = Precision::word(word + k, seed);
#pragma unroll
    for (u32 k = 0; k < 2; k++) b[i][k] = Precision::word(word + 4 + k, seed);
  }
#pragma unroll 1
  for (u32 run = 0; run < runs; run++) {
#pragma unroll
    for (u32 i = 0; i < FRAGMENTS; i++) {
#pragma unroll
      for (u32 j = 0; j < FRAGMENTS; j++) Precision::multiply_add(sums[i][j], a[i], b[j]);
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (u32 i = 0; i < FRAGMENTS * FRAGMENTS * 4; i++) sum += sums[i / 16][i / 4 % 4][i % 4];
  out[thread] = sum;
}

KERNEL(THREADS) multiply_adds_tf32(u32 runs, u32 seed, float* out) { multiply_fragments<Tf32>(runs, seed, out); }

KERNEL(THREADS) multiply_adds_bf16(u32 runs, u32 seed, float* out) { multiply_fragments<Bf16>(runs, seed, out); }
