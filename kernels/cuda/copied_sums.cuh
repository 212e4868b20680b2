// Sums of columns of an operand that is copied to shared memory anyway: the gradient of a bias, in passing by that of a
// weight.
#pragma once

#include "product.cuh"

// A first line of nobody's.
constexpr u32 NEVER = 0xffffffffu;

// What a lane sums up: a chunk of eight columns of bf16, of lines that it has copied itself. The blocks that copy the same
// rows, one for each tile of columns of the other operand, have every `step`-th of the lane's lines each.
struct CopiedSums {
  u32 first, step;
  float values[8];

  DEVICE CopiedSums(u32 first, u32 step) : first(first), step(step), values() {}

  // Adds those of the tile at `tile`, whose copies the lane has waited for.
  template <class Share>
  DEVICE void take(const Share& share, const unsigned char* tile) {
#pragma unroll 1
    for (u32 i = first; i < Share::COPIES; i += step) {
      const uint4 chunk = *(const uint4*)(tile + share.place(i));
      const u32 words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
      for (u32 pair = 0; pair < 4; pair++) {
        values[2 * pair] += __uint_as_float(words[pair] << 16);
        values[2 * pair + 1] += __uint_as_float(words[pair] & 0xffff0000u);
      }
    }
  }

  // Writes the sums of a warp, whose lanes `l` and `l + 16` have the same columns, to a row of `sums`: the columns from
  // `col` on, as many as there are below `end`.
  DEVICE void store(const Mat& sums, u32 row, u32 col, u32 end) const {
    const u32 lane = threadIdx.x % 32;
    col += lane % 16 * 8;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
      const float sum = values[i] + __shfl_xor_sync(FULL_WARP, values[i], 16);
      if (lane < 16 && col + i < end) row_f32(sums, row)[col + i] = sum;
    }
  }
};
