// Products in f32, without tensor cores.
//
// A thread keeps 8 x 8 sums, as four squares of 4 x 4 so that its reads of shared memory are 16 bytes wide and a warp's
// never meet in a bank. Tiles of both operands lie in shared memory with the inner index across rows. They are copied
// four bytes at a time, so that an operand may lie anyhow and tiles can be transposed on the way; a warp's copies are
// of whole sectors of 32 bytes, and without bank conflicts.
#pragma once

#include "product.cuh"

// What a thread copies of each tile of an operand: four values, which lie as far apart in every tile.
template <bool INNER>
struct ShareF32 {
  static constexpr u32 DEPTH = 8, COUNT = DEPTH * TILE / THREADS;
  // Values from row to row of a tile in shared memory.
  static constexpr u32 STRIDE = TILE + 4;
  // Adjacent values that threads copy, and lines from one of a thread's values to the next.
  static constexpr u32 RUN = INNER ? DEPTH : TILE, LINES = THREADS / RUN;

  Operand from;
  u32 line, column;

  // Of the tiles that begin at `outer` in the index that the output has too.
  DEVICE ShareF32(const Operand& from, u32 outer)
      : from(from), line(threadIdx.x / RUN + (INNER ? outer : 0)), column(threadIdx.x % RUN + (INNER ? 0 : outer)) {}

  // Begins to copy the tile that begins at `inner`.
  DEVICE void copy(u32 inner, unsigned char* tile) const {
    const u32 first = INNER ? line : line + inner, col = INNER ? column + inner : column;
    const float* const data = (const float*)from.data + (u64)first * from.stride + col;
    constexpr u32 NEXT_LINE = INNER ? 1 : STRIDE, NEXT_COLUMN = INNER ? STRIDE : 1;
    float* const to = (float*)tile + threadIdx.x / RUN * NEXT_LINE + threadIdx.x % RUN * NEXT_COLUMN;
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
      const bool there = first + i * LINES < from.lines && col < from.run;
      copy_async_4(to + i * LINES * NEXT_LINE, data + (u64)(i * LINES) * from.stride, there);
    }
  }
};

template <bool A_INNER, bool B_INNER>
struct ProductF32 {
  using ShareA = ShareF32<A_INNER>;
  using ShareB = ShareF32<B_INNER>;
  static constexpr u32 DEPTH = ShareF32<true>::DEPTH, LINES_AHEAD = 1, PIECE = DEPTH, STAGES = 4;
  static constexpr u32 STRIDE = ShareF32<true>::STRIDE;
  static constexpr u32 TILE_BYTES = DEPTH * STRIDE * sizeof(float);
  static constexpr u32 BYTES = STAGES * 2 * TILE_BYTES;
  static constexpr u32 SHARED_BYTES = BYTES > SUMS_BYTES ? BYTES : SUMS_BYTES;

  float sums[2][2][4][4];

  DEVICE void begin() {
#pragma unroll
    for (u32 i = 0; i < 64; i++) sums[i / 32][i / 16 % 2][i / 4 % 4][i % 4] = 0.0f;
  }

  // Adds the product of a tile of each operand.
  DEVICE void add(const unsigned char* a, const unsigned char* b) {
    const u32 lane = threadIdx.x % 32;
    const float* const left = (const float*)a + warp_row() + lane / 4 * 4;
    const float* const right = (const float*)b + warp_col() + lane % 4 * 4;
#pragma unroll
    for (u32 k = 0; k < DEPTH; k++) {
      float4 down[2], across[2];
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        down[i] = *(const float4*)(left + k * STRIDE + i * 32);
        across[i] = *(const float4*)(right + k * STRIDE + i * 16);
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++) add_square(down[i / 2], across[i % 2], sums[i / 2][i % 2]);
    }
  }

  // Writes the warp's sums, to where its first column is.
  DEVICE void put(float* to) const {
    const u32 lane = threadIdx.x % 32, row = lane / 4 * 4, col = lane % 4 * 4;
#pragma unroll
    for (u32 square = 0; square < 4; square++) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const float(&line)[4] = sums[square / 2][square % 2][i];
        *(float4*)(to + (square / 2 * 32 + row + i) * SUMS_STRIDE + square % 2 * 16 + col) =
            make_float4(line[0], line[1], line[2], line[3]);
      }
    }
  }

 private:
  DEVICE static void add_square(const float4& left, const float4& right, float (&sums)[4][4]) {
    const float a[4] = {left.x, left.y, left.z, left.w}, b[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
    for (u32 i = 0; i < 16; i++) sums[i / 4][i % 4] = fmaf(a[i / 4], b[i % 4], sums[i / 4][i % 4]);
  }
};
