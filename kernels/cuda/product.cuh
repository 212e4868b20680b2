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

// Where the tiles of a stage are when those of another were at `stage`.
template <class Product>
DEVICE u32 after(u32 stage) {
  constexpr u32 BYTES = 2 * Product::TILE_BYTES;
  return stage == (Product::STAGES - 1) * BYTES ? 0 : stage + BYTES;
}

// Sums a tile. Pieces of the operands are on their way to shared memory, STAGES - 1 of them, while one is multiplied.
template <class Product>
DEVICE void sum_tile(Product& product, const Operand& a, const Operand& b, const Part& part, unsigned char* shared) {
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
    to = after<Product>(to);
    if (filled) {
      product.add(shared + from, shared + from + Product::TILE_BYTES);
      from = after<Product>(from);
      piece += part.step;
    } else {
      ahead++;
    }
  }
}

// Hands the sums of a tile to `end`, four columns of a row at a time. They pass through shared memory, so that a warp
// has whole rows, whose pieces are adjacent in the output.
template <class Product, class End>
DEVICE void finish_tile(const Product& product, const Part& part, u32 rows, End& end, unsigned char* shared) {
  float* const sums = (float*)shared;
  const u32 warp = threadIdx.x / 32, col = threadIdx.x % 32 * 4;
  end.begin(part.col + col);
#pragma unroll 1
  for (u32 half = 0; half < TILE; half += WARP_ROWS) {
    __syncthreads();
    if (warp_row() == half) product.put(sums + warp_col());
    __syncthreads();
#pragma unroll 1
    for (u32 line = warp; line < WARP_ROWS && part.row + half + line < rows; line += THREADS / 32) {
      const float4 quad = *(const float4*)(sums + line * SUMS_STRIDE + col);
      float values[4] = {quad.x, quad.y, quad.z, quad.w};
      end.finish(part.row + half + line, values);
    }
  }
}
