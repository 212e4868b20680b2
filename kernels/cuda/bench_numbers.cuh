// Random numbers to measure kernels on.
#pragma once

#include "tensor_core.cuh"

// The random number at `index` of the stream `seed`: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), its upper half.
DEVICE u32 hashed(u64 index, u32 seed) {
  u64 z = seed * 0xd1342543de82ef95ull + (index + 1) * 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return (u32)((z ^ z >> 31) >> 32);
}

// The same as one of 2^24 numbers in -1 .. 1, each exact in f32.
DEVICE float random_number(u64 index, u32 seed) { return (float)(hashed(index, seed) >> 8) * 0x1p-23f - 1.0f; }

DEVICE u64 first_of_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

// Two of them as bf16.
DEVICE u32 random_bf16_pair(u64 index, u32 seed) {
  return to_bf16_pair(random_number(2 * index, seed), random_number(2 * index + 1, seed));
}
