// Products on tensor cores, of operands stored as bf16, or as f32 and rounded to tf32.
//
// A piece of the inner index is 64 bytes, 32 values of bf16 or 16 of f32, so that tiles have 8 KB and fragments lie in
// the same bytes in both. Where the inner index is contiguous, a line of a tile is 64 bytes and fragments are read by
// `ldmatrix`. Where it goes across lines, a line is 128 values and bf16 is transposed by `ldmatrix`; f32, which it
// cannot transpose, is read value by value. The 16-byte chunks of lines are swapped by the line's number so that no two
// lines that a warp reads at once share a bank.
#pragma once

#include "product.cuh"
#include "tile_share.cuh"

struct Bf16 {
  static constexpr u32 BYTES = 2;

  // Of a line across the inner index: what the number of a chunk is swapped by.
  DEVICE static u32 swap_of(u32 line) { return line & 7; }

  DEVICE static void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_bf16(sums, a, b0, b1);
  }
};

struct Tf32 {
  static constexpr u32 BYTES = 4;

  DEVICE static u32 swap_of(u32 line) { return (line & 3) << 1; }

  DEVICE static void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_add_tf32(sums, a, b0, b1);
  }
};

// Tiles of an operand in shared memory.
template <class Precision, bool INNER>
struct TensorTile {
  static constexpr bool IS_INNER = INNER;
  // Bytes of a value, values of a chunk of 16 bytes, and those of the inner index in a piece.
  static constexpr u32 VALUE = Precision::BYTES, CHUNK = 16 / VALUE, DEPTH = 64 / VALUE;
  // Chunks and bytes of a line.
  static constexpr u32 CHUNKS = (INNER ? DEPTH : TILE) / CHUNK, LINE = CHUNKS * 16;
  // Of a tile.
  static constexpr u32 BYTES = TILE * 64;

  // Where a chunk of a line is.
  DEVICE static u32 offset(u32 line, u32 chunk) {
    return line * LINE + (chunk ^ (INNER ? line >> 1 & 3 : Precision::swap_of(line))) * 16;
  }

  // Where this lane reads of the fragments that begin at `first`, a multiple of 16, in the outer index. A fragment is
  // 16 values of the outer index by 32 bytes of the inner one: four matrices of 8 x 16 bytes, of which the second is
  // beside the first in the outer index (`OUTER_FIRST`) or in the inner one.
  template <bool OUTER_FIRST>
  DEVICE static u32 lane_offset(u32 first) {
    const u32 lane = threadIdx.x % 32, second = lane >> 3 & 1, later = lane >> 4;
    const u32 outer = OUTER_FIRST ? second : later, inner = OUTER_FIRST ? later : second;
    if (INNER) return offset(first + outer * 8 + lane % 8, inner);
    if (Precision::BYTES == 2) return offset(inner * 8 + lane % 8, first / CHUNK + outer);
    return offset(lane % 4, (first + lane / 4) / CHUNK) + lane / 4 % CHUNK * 4;
  }

  // Reads the fragment that is `further` times 16 values further on in the outer index and `step` times 32 bytes in the
  // inner one. What a chunk's number is further on is a bit that it lacks, so that the swap stays as it is.
  template <bool OUTER_FIRST>
  DEVICE static void load(const unsigned char* tile, u32 lane_offset, u32 further, u32 step, u32 (&fragment)[4]) {
    if (INNER) {
      load_matrices(tile + (lane_offset ^ step * 32) + further * 16 * LINE, fragment);
    } else if (Precision::BYTES == 2) {
      load_matrices_transposed(tile + (lane_offset ^ further * 32) + step * 16 * LINE, fragment);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const u32 outer = OUTER_FIRST ? i & 1 : i >> 1, inner = OUTER_FIRST ? i >> 1 : i & 1;
        const u32 at = (lane_offset ^ (further * 64 + outer * 32)) + (step * 8 + inner * 4) * LINE;
        fragment[i] = *(const u32*)(tile + at);
      }
    }
    if (Precision::BYTES == 4) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) fragment[i] = to_tf32(fragment[i]);
    }
  }
};

template <class Precision, bool A_INNER, bool B_INNER>
struct ProductTensor {
  using TileA = TensorTile<Precision, A_INNER>;
  using TileB = TensorTile<Precision, B_INNER>;
  using ShareA = TileShare<TileA>;
  using ShareB = TileShare<TileB>;
  static constexpr u32 DEPTH = TileA::DEPTH, LINES_AHEAD = 2, PIECE = DEPTH, STAGES = 3;
  static constexpr u32 TILE_BYTES = TileA::BYTES;
  static constexpr u32 BYTES = STAGES * 2 * TILE_BYTES;
  static constexpr u32 SHARED_BYTES = BYTES > SUMS_BYTES ? BYTES : SUMS_BYTES;

  // Of each 16 rows and 8 columns, as `multiply_add_bf16` has them.
  float sums[WARP_ROWS / 16][WARP_COLS / 8][4];
  u32 left_offset, right_offset;

  DEVICE void begin() {
    left_offset = TileA::template lane_offset<true>(warp_row());
    right_offset = TileB::template lane_offset<false>(warp_col());
#pragma unroll
    for (u32 i = 0; i < 64; i++) sums[i / 16][i / 4 % 4][i % 4] = 0.0f;
  }

  // Adds the product of a tile of each operand.
  DEVICE void add(const unsigned char* a, const unsigned char* b) {
#pragma unroll
    for (u32 step = 0; step < 2; step++) {
      u32 left[WARP_ROWS / 16][4], right[WARP_COLS / 16][4];
#pragma unroll
      for (u32 i = 0; i < WARP_ROWS / 16; i++) {
        TileA::template load<true>(a, left_offset, i, step, left[i]);
      }
#pragma unroll
      for (u32 j = 0; j < WARP_COLS / 16; j++) {
        TileB::template load<false>(b, right_offset, j, step, right[j]);
      }
#pragma unroll
      for (u32 i = 0; i < WARP_ROWS / 16; i++) {
#pragma unroll
        for (u32 j = 0; j < WARP_COLS / 8; j++) {
          const u32(&pair)[4] = right[j / 2];
          Precision::multiply_add(sums[i][j], left[i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
        }
      }
    }
  }

  // Writes the warp's sums, to where its first column is.
  DEVICE void put(float* to) const {
    const u32 lane = threadIdx.x % 32;
    to += lane / 4 * SUMS_STRIDE + lane % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < WARP_ROWS / 16; i++) {
#pragma unroll
      for (u32 j = 0; j < WARP_COLS / 8; j++) {
        const float(&pairs)[4] = sums[i][j];
        *(float2*)(to + i * 16 * SUMS_STRIDE + j * 8) = make_float2(pairs[0], pairs[1]);
        *(float2*)(to + (i * 16 + 8) * SUMS_STRIDE + j * 8) = make_float2(pairs[2], pairs[3]);
      }
    }
  }
};

template <bool A_INNER, bool B_INNER>
using ProductTf32 = ProductTensor<Tf32, A_INNER, B_INNER>;
template <bool A_INNER, bool B_INNER>
using ProductBf16 = ProductTensor<Bf16, A_INNER, B_INNER>;
