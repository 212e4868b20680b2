// Asynchronous copies into shared memory, and the instructions of tensor cores. `host/emulation.h` has the same for the
// host.
#pragma once

#include "common.cuh"

#ifdef __CUDACC__

DEVICE u32 shared_address(const void* shared) { return (u32)__cvta_generic_to_shared(shared); }

// Begins to copy 4 bytes to shared memory, or to write 0 there; `global` may be anything then.
DEVICE void copy_async_4(void* shared, const void* global, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(there ? 4 : 0));
}

// Begins to copy 16 bytes to shared memory.
DEVICE void copy_async_16(u32 shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global));
}
DEVICE void copy_async_16(void* shared, const void* global) { copy_async_16(shared_address(shared), global); }

// Begins to copy the first `bytes` of 16 to shared memory and to write 0 for the others.
DEVICE void copy_async_16(u32 shared, const void* global, u32 bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes));
}
DEVICE void copy_async_16(void* shared, const void* global, u32 bytes) {
  copy_async_16(shared_address(shared), global, bytes);
}

// Ends a group of copies: those begun since the last one.
DEVICE void end_copies() { asm volatile("cp.async.commit_group;"); }

// Waits until at most PENDING groups of this thread's copies, the last ones, are not done.
template <int PENDING>
DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Reads four matrices of 8 x 8 values of two bytes, or 8 x 4 of four. Lane `l` has the address of row `l % 8` of matrix
// `l / 8`, 16 bytes, and gets of each matrix the four bytes number `l % 4` of row `l / 4`.
DEVICE void load_matrices(const void* row, u32 (&matrices)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, transposed: values of two bytes, of which a lane gets those of rows `2 (l % 4)` and the next in column
// `l / 4`.
DEVICE void load_matrices_transposed(const void* row, u32 (&matrices)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row))
               : "memory");
}

// The nearest tf32, of two the one away from zero.
DEVICE u32 to_tf32(u32 value) {
  u32 rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(value)));
  return rounded;
}

// sums += a b: 16 x 16 by 16 x 8 values. Of the sums a lane has rows `l / 4` and 8 below, columns `2 (l % 4)` and the
// next; of a, as of four matrices, first below and then beside each other; of b, transposed, two below each other.
DEVICE void multiply_add_bf16(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same for 16 x 8 by 8 x 8 values of four bytes.
DEVICE void multiply_add_tf32(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
