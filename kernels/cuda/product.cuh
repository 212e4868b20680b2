// What products have in common, whatever they multiply in: operands, tiles of the output, and how sums leave.
//
// A block makes one tile of C = A B, 128 x 128 values, with eight warps, two down and four across, of 64 x 32 values
// each. A and B lie in either order: with the inner index contiguous (x and W of a forward pass) or across rows (W of
// the gradient of an input, both operands of that of a weight). What lies beyond an operand counts as 0.
#pragma once

#include "quad.cuh"
#include "tensor_core.cuh"

constexpr u32 THREADS = 256;
// As `KERNEL` takes it: threads, and blocks that a multiprocessor must have registers for.
#define PRODUCT_THREADS THREADS, 2
constexpr u32 TILE = 128;
constexpr u32 WARP_ROWS = 64, WARP_COLS = 32;
// Values from row to row of the sums in shared memory: warps write fragments there without bank conflicts.
constexpr u32 SUMS_STRIDE = TILE + 8;
constexpr u32 SUMS_BYTES = WARP_ROWS * SUMS_STRIDE * sizeof(float);

// An operand as it lies in memory: lines of adjacent values.
struct Operand {
  const unsigned char* data;
  // Values from line to line.
  u32 stride;
  u32 lines;
  // Values of a line.
  u32 run;
  // Whether 16-byte pieces of lines can be read at once.
  bool aligned;
};

// `lines` rows of `mat` as an operand.
DEVICE Operand operand(const Mat& mat, u32 lines) {
  const u64 bytes = (u64)mat.stride * element_bytes(mat);
  return {(const unsigned char*)mat.data, mat.stride, lines, mat.cols, (((u64)mat.data | bytes) & 15) == 0};
}

// Which part of a product a block makes: the tile at `row` and `col`, by the pieces `first`, `first + step` .. below
// `count` of the inner index.
struct Part {
  u32 row, col;
  u32 first, step, count;
};

// Where a warp's sums begin in a tile.
DEVICE u32 warp_row() { return threadIdx.x / 32 / (TILE / WARP_COLS) * WARP_ROWS; }
DEVICE u32 warp_col() { return threadIdx.x / 32 % (TILE / WARP_COLS) * WARP_COLS; }

// Sums a tile. Pieces of the operands are on their way to shared memory, STAGES - 1 of them, while one is multiplied.
template <class Product>
DEVICE void sum_tile(Product& product, const Operand& a, const Operand& b, const Part& part, unsigned char* shared) {
  constexpr u32 STAGE_BYTES = 2 * Product::TILE_BYTES, LAST = (Product::STAGES - 1) * STAGE_BYTES;
  const typename Product::ShareA share_a(a, part.row);
  const typename Product::ShareB share_b(b, part.col);
  product.begin();
  u32 next = part.first, to = 0, from = 0;
  for (u32 ahead = 0, piece = part.first; piece < part.count;) {
    const bool filled = ahead == Product::STAGES - 1;
    if (filled) {
      wait_for_copies<Product::STAGES - 2>();
      // What has come is there for all, and all have left the stage that is filled now.
      __syncthreads();
    }
    if (next < part.count) {
      share_a.copy(next * Product::DEPTH, shared + to);
      share_b.copy(next * Product::DEPTH, shared + to + Product::TILE_BYTES);
    }
    end_copies();
    next += part.step;
    to = to == LAST ? 0 : to + STAGE_BYTES;
    if (filled) {
      product.add(shared + from, shared + from + Product::TILE_BYTES);
      from = from == LAST ? 0 : from + STAGE_BYTES;
      piece += part.step;
    } else {
      ahead++;
    }
  }
}

// Hands `count` lines of sums to `end`, of the rows `row`, `row + step` .. of the output. What `end` reads of memory is on
// its way for AHEAD lines.
template <QuadKind KIND, u32 AHEAD, class End>
DEVICE void finish_lines(const float* sums, u32 row, u32 step, u32 count, const End& end) {
#pragma unroll 1
  for (u32 line = 0; line < count; line += AHEAD) {
    typename End::Before before[AHEAD];
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      if (line + i < count) end.template fetch<KIND>(row + (line + i) * step, before[i]);
    }
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      if (line + i >= count) continue;
      const float4 quad = *(const float4*)(sums + (line + i) * step * SUMS_STRIDE);
      float values[4] = {quad.x, quad.y, quad.z, quad.w};
      end.template finish<KIND>(row + (line + i) * step, before[i], values);
    }
  }
}

// The same; MOST_AHEAD is for how many lines there are registers.
template <u32 MOST_AHEAD, class End>
DEVICE void finish_lines(const float* sums, u32 row, u32 step, u32 count, const End& end) {
  constexpr u32 AHEAD = End::AHEAD < MOST_AHEAD ? End::AHEAD : MOST_AHEAD;
  if (end.kind == QUAD_BF16) {
    finish_lines<QUAD_BF16, AHEAD>(sums, row, step, count, end);
  } else if (end.kind == QUAD_F32) {
    finish_lines<QUAD_F32, AHEAD>(sums, row, step, count, end);
  } else {
    finish_lines<ANY_QUAD, 1>(sums, row, step, count, end);
  }
}

// How many of the rows `row`, `row + step` .. are below `end`.
DEVICE u32 rows_below(u32 row, u32 step, u32 end) { return row < end ? (end - row + step - 1) / step : 0; }

// Hands the sums of a tile to `end`, four columns of a row at a time. They pass through shared memory, so that a warp
// has whole rows, whose pieces are adjacent in the output.
template <class Product, class End>
DEVICE void finish_tile(const Product& product, const Part& part, u32 rows, End& end, unsigned char* shared) {
  constexpr u32 WARPS = THREADS / 32;
  float* const sums = (float*)shared;
  const u32 warp = threadIdx.x / 32, col = threadIdx.x % 32 * 4;
  end.begin(part.col + col);
#pragma unroll 1
  for (u32 half = 0; half < TILE; half += WARP_ROWS) {
    __syncthreads();
    if (warp_row() == half) product.put(sums + warp_col());
    __syncthreads();
    const u32 first = part.row + half, count = rows_below(first + warp, WARPS, min(rows, first + WARP_ROWS));
    finish_lines<Product::LINES_AHEAD>(sums + warp * SUMS_STRIDE + col, first + warp, WARPS, count, end);
  }
}
