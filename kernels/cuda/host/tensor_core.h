// What tensor_core.cuh has for the device: asynchronous copies, and the instructions of tensor cores.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "scheduler.h"

// Devices fault where such an address is not a multiple of the size.
static inline void emulated_alignment(const void* address, u32 bytes, const char* what) {
  if ((uintptr_t)address % bytes == 0) return;
  fprintf(stderr, "%s: an address that is not a multiple of %u\n", what, bytes);
  abort();
}

static inline void copy_async_4(void* shared, const void* global, bool there) {
  emulated_alignment(shared, 4, "copy_async_4, to");
  if (there) emulated_alignment(global, 4, "copy_async_4, from");
  emulation::copy_later(shared, global, there ? 4 : 0, there ? 0 : 4);
}
static inline void copy_async_16(void* shared, const void* global, u32 bytes) {
  emulated_alignment(shared, 16, "copy_async_16, to");
  emulated_alignment(global, 16, "copy_async_16, from");
  emulation::copy_later(shared, global, bytes, 16 - bytes);
}
static inline void copy_async_16(void* shared, const void* global) { copy_async_16(shared, global, 16); }
static inline void end_copies() { emulation::commit_copies(); }
template <int PENDING>
static inline void wait_for_copies() {
  emulation::wait_for_copies(PENDING);
}

// The bytes of a lane: `read` is given the rows of one of the four matrices, and where to.
template <class Read>
static inline void emulated_matrices(const void* row, u32 (&matrices)[4], emulation::Place place, const Read& read) {
  emulated_alignment(row, 16, "load_matrices");
  emulation::together("load_matrices", 0xffffffff, place, row, [&](const emulation::Deposits& all) {
    for (u32 i = 0; i < 4; i++) {
      read([&](u32 of_matrix) { return all.get<const unsigned char*>(8 * i + of_matrix); }, &matrices[i]);
    }
    return 0;
  });
}
static inline void load_matrices(const void* row, u32 (&matrices)[4], EMULATED_CALLER) {
  const u32 lane = emulation::lane();
  emulated_matrices(row, matrices, {file, line},
                    [=](const auto& rows, void* to) { memcpy(to, rows(lane / 4) + 4 * (lane % 4), 4); });
}
static inline void load_matrices_transposed(const void* row, u32 (&matrices)[4], EMULATED_CALLER) {
  const u32 lane = emulation::lane();
  emulated_matrices(row, matrices, {file, line}, [=](const auto& rows, void* to) {
    for (u32 i = 0; i < 2; i++) memcpy((unsigned char*)to + 2 * i, rows(2 * (lane % 4) + i) + 2 * (lane / 4), 2);
  });
}

// What a lane holds of two operands.
struct emulated_fragment {
  u32 a[4], b[2];
};

// sums += a b, of 16 x INNER by INNER x 8 values; WORD of them are in a register, as `number(register, which)` tells.
// A register of `a` is four adjacent words of eight rows, first below and then beside each other; `b` is so by columns.
template <u32 INNER, u32 WORD, class Number>
static inline void emulated_multiply_add(const char* what, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1,
                                         emulation::Place place, const Number& number) {
  const emulated_fragment own = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const u32 lane = emulation::lane();
  emulation::together(what, 0xffffffff, place, own, [&](const emulation::Deposits& all) {
    for (u32 i = 0; i < 4; i++) {
      const u32 row = lane / 4, below = i / 2, col = 2 * (lane % 4) + i % 2;
      for (u32 k = 0; k < INNER; k++) {
        const u32 beside = k / (INNER / 2), word = k % (INNER / 2) / WORD;
        const u32 left = all.get<emulated_fragment>(4 * row + word).a[below + 2 * beside];
        const u32 right = all.get<emulated_fragment>(4 * col + word).b[beside];
        sums[i] += number(left, k % WORD) * number(right, k % WORD);
      }
    }
    return 0;
  });
}
static inline void multiply_add_bf16(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1, EMULATED_CALLER) {
  emulated_multiply_add<16, 2>("multiply_add_bf16", sums, a, b0, b1, {file, line}, [](u32 pair, u32 which) {
    return __uint_as_float(which ? pair & 0xffff0000 : pair << 16);
  });
}
// Tensor cores do not read the 13 lowest bits.
static inline void multiply_add_tf32(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1, EMULATED_CALLER) {
  emulated_multiply_add<8, 1>("multiply_add_tf32", sums, a, b0, b1, {file, line},
                              [](u32 bits, u32) { return __uint_as_float(bits & 0xffffe000); });
}
static inline u32 to_tf32(u32 bits) {
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  return is_nan ? 0x7fffffff : (bits + 0x1000) & 0xffffe000;
}
