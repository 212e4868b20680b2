// What is wanted later, asked for early: a load would wait for memory with all that it holds, and needs registers.
#pragma once

#include "common.cuh"

// Bytes that come from memory together.
constexpr u32 CACHE_LINE = 128;

// Has the line at an address brought to the second-level cache.
DEVICE void prefetch(const void* global) {
#ifdef __CUDACC__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
#else
  (void)global;
#endif
}
