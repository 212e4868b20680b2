// Instructions of Hopper's tensor cores, which four warps give together: a warpgroup. They read both operands from shared
// memory and run beside the warps until these wait for them.
#pragma once

#include "tensor_core.cuh"

#ifdef __CUDACC__

// Gives registers of this warpgroup back, or takes some that others gave, so that each thread has COUNT.
template <u32 COUNT>
DEVICE void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <u32 COUNT>
DEVICE void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// At one of the block's 16 barriers, which is for THREADS threads, some of which say that they are there, and the others
// wait for all.
template <u32 THREADS>
DEVICE void arrive(u32 barrier) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}
template <u32 THREADS>
DEVICE void wait(u32 barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

// 32 and 64 sums as operands that are read and written.
#define SUMS_4(sums, i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define SUMS_16(sums, i) SUMS_4(sums, i), SUMS_4(sums, i + 4), SUMS_4(sums, i + 8), SUMS_4(sums, i + 12)
#define HALF_SUMS(sums) SUMS_16(sums, 0), SUMS_16(sums, 16)
#define ALL_SUMS(sums) HALF_SUMS(sums), SUMS_16(sums, 32), SUMS_16(sums, 48)

// Lets tensor cores see what this thread has written to shared memory, once those who use them have met it.
DEVICE void publish_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Comes before products whose sums the warps have touched.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Begins sums += a b: 64 x 16 by 16 x 128 values of bf16, which are where `HopperTile::describe` tells. ACROSS_A and
// ACROSS_B tell that the inner index of an operand goes across its lines. Of the sums, a warp has 16 rows, the warpgroup's
// in its order; a lane has of each 8 columns what `multiply_add_bf16` has.
template <bool ACROSS_A, bool ACROSS_B>
DEVICE void multiply_add_128(float (&sums)[64], u64 a, u64 b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, 1, 1, 1, %66, %67;"
      : ALL_SUMS(sums)
      : "l"(a), "l"(b), "n"(ACROSS_A), "n"(ACROSS_B));
}

// The same for 16 x 64 values.
template <bool ACROSS_A, bool ACROSS_B>
DEVICE void multiply_add_64(float (&sums)[32], u64 a, u64 b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, 1, 1, 1, %34, %35;"
      : HALF_SUMS(sums)
      : "l"(a), "l"(b), "n"(ACROSS_A), "n"(ACROSS_B));
}

// Ends a group of products: those begun since the last one.
DEVICE void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most PENDING groups of products, the last ones, are not done.
template <int PENDING = 0>
DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// A point that no reading or writing of `sums` is moved across.
DEVICE void hold_sums(float (&sums)[64]) {
  asm volatile("" : ALL_SUMS(sums)::"memory");
}
DEVICE void hold_sums(float (&sums)[32]) {
  asm volatile("" : HALF_SUMS(sums)::"memory");
}

#endif
