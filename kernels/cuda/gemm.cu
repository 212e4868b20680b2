// Products of linear layers: forward, gradients of inputs and of weights, and sums of columns for biases.
//
// Floors on an H200 (790 TFLOP/s in bf16, 4.3 TB/s), experts 512 -> 8 x [256, 128] for 16384 and 65536 rows: the first
// layer of all experts and gates, one product, is bound by multiply-adds, 43 and 174 us in bf16; the second, a product
// for each group, by memory, 24 and 94 us. Gradients are twice that. product.cuh says how a tile is made.
//
// Blocks that share rows of an operand are neighbours (tiles of columns go first), so that it comes from memory once
// and a weight from the second-level cache. Groups are the third index of the grid. The gradient of a weight has few
// tiles and a long inner index, the rows: it is cut into chunks that take every n-th piece of the rows, so that all
// have work however few rows are there; each leaves a matrix of sums and `sum_partials` adds them in their order.
#include "gemm.cuh"
#include "product_f32.cuh"
#include "product_tensor.cuh"

#define PRODUCTS(PRECISION, Product)                                                                                \
  KERNEL(PRODUCT_THREADS) linear_##PRECISION(Mat x, Mat weight, Heads heads, Mat y) {                               \
    alignas(128) SHARED unsigned char shared[Product<true, true>::SHARED_BYTES];                                    \
    linear<Product<true, true>>(x, weight, heads, y, shared);                                                       \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dx_##PRECISION(Mat dy, Mat weight, u32 accumulate, Activation activation,          \
                                                Mat masked, Mat dx) {                                               \
    alignas(128) SHARED unsigned char shared[Product<true, false>::SHARED_BYTES];                                   \
    linear_dx<Product<true, false>>(dy, weight, accumulate, activation, masked, dx, shared);                        \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dw_##PRECISION(Mat dy, Mat x, u32 accumulate, Mat dw) {                            \
    alignas(128) SHARED unsigned char shared[Product<false, false>::SHARED_BYTES];                                  \
    linear_dw<Product<false, false>>(dy, x, accumulate, dw, shared);                                                \
  }

PRODUCTS(f32, ProductF32)
PRODUCTS(tf32, ProductTf32)
PRODUCTS(bf16, ProductBf16)

// Rows of a sum that are on their way at once.
constexpr u32 AHEAD = 8;

// Sums of the columns of dy over every `gridDim.y`-th eight of its rows: a matrix of one row in `sums` for each of
// these chunks, or the result itself.
KERNEL(256) column_sums(Mat dy, u32 accumulate, Mat sums) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, col = blockIdx.x * TILE + lane * 4;
  const u32 chunk = blockIdx.y, rows = rows_of(dy);
  if (chunk > 0 && chunk * 8 >= rows) return;
  const bool quads = has_quads(dy);
  float sum[4] = {};
  for (u32 row = chunk * 8 + warp, step = gridDim.y * 8; row < rows; row += AHEAD * step) {
    QuadBits bits[AHEAD];
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      if (row + a * step < rows) load_quad(dy, quads, row + a * step, col, bits[a]);
    }
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      if (row + a * step >= rows) continue;
      float values[4];
      values_of(bits[a], dy.element, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sum[i] += values[i];
    }
  }
  SHARED float4 by_warp[8][32];
  by_warp[warp][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  __syncthreads();
  if (warp > 0 || col >= sums.cols) return;
  const bool sums_quads = has_quads(sums);
  float total[4] = {};
  if (accumulate) load_quad(sums, sums_quads, chunk, col, total);
  for (u32 other = 0; other < 8; other++) {
    const float4 part = by_warp[other][lane];
    total[0] += part.x, total[1] += part.y, total[2] += part.z, total[3] += part.w;
  }
  store_quad(sums, sums_quads, chunk, col, total);
}

// to = sum, or to + sum, of the matrices that chunks of rows have left in `partials`, one below the other, with rows of
// `stride` values, whole quads. A chunk takes every `chunks`-th piece of `depth` rows; those of which `live` has no row
// have left nothing.
KERNEL(256) sum_partials(const float* partials, u32 stride, u32 chunks, u32 depth, Mat live, u32 accumulate, Mat to) {
  const u32 across = tiles_of(to.cols, 4), index = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 row = index / across, col = index % across * 4;
  if (row >= to.rows) return;
  const u32 there = max(1u, min(chunks, tiles_of(rows_of(live), depth)));
  const bool quads = has_quads(to);
  float total[4] = {};
  if (accumulate) load_quad(to, quads, row, col, total);
  const u64 next = (u64)to.rows * stride;
  partials += (u64)row * stride + col;
#pragma unroll 4
  for (u32 chunk = 0; chunk < there; chunk++) {
    const float4 part = *(const float4*)(partials + chunk * next);
    total[0] += part.x, total[1] += part.y, total[2] += part.z, total[3] += part.w;
  }
  store_quad(to, quads, row, col, total);
}

// Casts of a table: `Casts` of gemm.rs.
struct Cast {
  Mat from, to;
  // The first of the blocks that make it.
  u32 first, unused;
};

// Values that a block casts, as quads.
constexpr u32 CAST_QUADS = 4 * THREADS;

// to = from, each value as the nearest bf16, for a table of `count` matrices.
KERNEL(THREADS) to_bf16(const Cast* casts, u32 count) {
  // The last cast that begins at this block or before.
  u32 low = 0;
  for (u32 high = count; high - low > 1;) {
    const u32 middle = (low + high) / 2;
    if (casts[middle].first <= blockIdx.x) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const Mat from = casts[low].from, to = casts[low].to;
  const u32 across = tiles_of(to.cols, 4), first = (blockIdx.x - casts[low].first) * CAST_QUADS + threadIdx.x;
  const bool from_quads = has_quads(from), to_quads = has_quads(to);
#pragma unroll
  for (u32 i = 0; i < CAST_QUADS / THREADS; i++) {
    const u32 index = first + i * THREADS, row = index / across, col = index % across * 4;
    if (row >= rows_of(to)) return;
    float values[4];
    load_quad(from, from_quads, row, col, values);
    store_quad(to, to_quads, row, col, values);
  }
}
