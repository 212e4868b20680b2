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
#include "activation.cuh"
#include "product_f32.cuh"
#include "product_tensor.cuh"

constexpr u32 MOST_HEADS = 8;

// Adjacent columns of a layer's output from `start` on, and what they end in.
struct Head {
  u32 start;
  Activation activation;
};

// The columns of a layer's output, `Heads` of gemm.rs. The first `biased` have a bias.
struct Heads {
  const float* bias;
  u32 biased;
  Head heads[MOST_HEADS];
};

// The end of a forward pass: y = act(sum + b).
struct Forward {
  Mat y;
  const Heads& heads;
  u32 group;
  bool quads;
  u32 col;
  float bias[4];
  Activation activation[4];

  DEVICE Forward(const Mat& y, const Heads& heads, u32 group)
      : y(y), heads(heads), group(group), quads(has_quads(y)) {}

  DEVICE void begin(u32 first) {
    col = first;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 at = col + i;
      bias[i] = at < heads.biased ? heads.bias[(u64)group * heads.biased + at] : 0.0f;
      activation[i] = heads.heads[0].activation;
#pragma unroll
      for (u32 head = 1; head < MOST_HEADS; head++) {
        if (at >= heads.heads[head].start) activation[i] = heads.heads[head].activation;
      }
    }
  }

  DEVICE void finish(u32 row, float (&values)[4]) const {
    if (col >= y.cols) return;
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = activated(activation[i], values[i] + bias[i]);
    store_quad(y, quads, row, col, values);
  }
};

// The end of a backward pass: to = sum, or to + sum, times the derivative of the activation whose output is `masked`.
struct Gradient {
  Mat to;
  u32 accumulate;
  Activation activation;
  Mat masked;
  bool quads, masked_quads;
  u32 col;

  DEVICE Gradient(const Mat& to, u32 accumulate, const Activation& activation, const Mat& masked)
      : to(to), accumulate(accumulate), activation(activation), masked(masked), quads(has_quads(to)),
        masked_quads(has_quads(masked)) {}

  DEVICE void begin(u32 first) { col = first; }

  DEVICE void finish(u32 row, float (&values)[4]) const {
    if (col >= to.cols) return;
    float other[4];
    if (accumulate) {
      load_quad(to, quads, row, col, other);
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] += other[i];
    }
    if (activation.kind != IDENTITY) {
      load_quad(masked, masked_quads, row, col, other);
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] *= slope_from_output(activation, other[i]);
    }
    store_quad(to, quads, row, col, values);
  }
};

DEVICE u32 tiles_of(u32 count, u32 tile) { return (count + tile - 1) / tile; }

// The tile of this block, of an output with `cols` columns, and all of the inner index.
DEVICE Part part_of_block(u32 cols, u32 inner, u32 depth) {
  const u32 across = tiles_of(cols, TILE);
  return {blockIdx.x / across * TILE, blockIdx.x % across * TILE, 0, 1, tiles_of(inner, depth)};
}

// y = act(x W^T + b), for a group of each: columns of x and y, rows of W.
template <class Product>
DEVICE void linear(const Mat& x, const Mat& weight, const Heads& heads, const Mat& y) {
  const u32 group = blockIdx.z, groups = gridDim.z;
  const u32 inner = weight.cols, out = y.cols / groups, rows = rows_of(x);
  const Part part = part_of_block(out, inner, Product::DEPTH);
  if (part.row >= rows) return;
  const Operand a = operand(columns_of(x, group * inner, inner), rows);
  const Operand b = operand(rows_from(weight, group * out, out), out);
  alignas(128) SHARED unsigned char shared[Product::SHARED_BYTES];
  Product product;
  sum_tile(product, a, b, part, shared);
  Forward end(columns_of(y, group * out, out), heads, group);
  finish_tile(product, part, rows, end, shared);
}

// dx = dy W, see `Gradient`, for a group of each: columns of dy, dx and the mask, rows of W.
template <class Product>
DEVICE void linear_dx(const Mat& dy, const Mat& weight, u32 accumulate, const Activation& activation,
                      const Mat& masked, const Mat& dx) {
  const u32 group = blockIdx.z, groups = gridDim.z;
  const u32 inner = dy.cols / groups, in = weight.cols, rows = rows_of(dy);
  const Part part = part_of_block(in, inner, Product::DEPTH);
  if (part.row >= rows) return;
  const Operand a = operand(columns_of(dy, group * inner, inner), rows);
  const Operand b = operand(rows_from(weight, group * inner, inner), inner);
  alignas(128) SHARED unsigned char shared[Product::SHARED_BYTES];
  Product product;
  sum_tile(product, a, b, part, shared);
  Gradient end(columns_of(dx, group * in, in), accumulate, activation, columns_of(masked, group * in, in));
  finish_tile(product, part, rows, end, shared);
}

// dw = dy^T x over every `gridDim.y`-th piece of the rows, for a group of each: columns of dy and x, rows of dw. Of
// several such sums each has a matrix of its own in `dw`, one below the other, with rows of whole quads.
template <class Product>
DEVICE void linear_dw(const Mat& dy, const Mat& x, u32 accumulate, const Mat& dw) {
  const u32 group = blockIdx.z, groups = gridDim.z, chunk = blockIdx.y, chunks = gridDim.y;
  const u32 out = dy.cols / groups, in = x.cols / groups, rows = rows_of(dy);
  Part part = part_of_block(in, rows, Product::DEPTH);
  part.first = chunk, part.step = chunks;
  if (chunk > 0 && chunk >= part.count) return;
  const Operand a = operand(columns_of(dy, group * out, out), rows);
  const Operand b = operand(columns_of(x, group * in, in), rows);
  alignas(128) SHARED unsigned char shared[Product::SHARED_BYTES];
  Product product;
  sum_tile(product, a, b, part, shared);
  const Mat to = rows_from(dw, (chunk * groups + group) * out, out);
  Gradient end(to, accumulate, Activation{IDENTITY, 0.0f}, to);
  finish_tile(product, part, out, end, shared);
}

#define PRODUCTS(PRECISION, Product)                                                                                \
  KERNEL(PRODUCT_THREADS) linear_##PRECISION(Mat x, Mat weight, Heads heads, Mat y) {                               \
    linear<Product<true, true>>(x, weight, heads, y);                                                               \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dx_##PRECISION(Mat dy, Mat weight, u32 accumulate, Activation activation,          \
                                                Mat masked, Mat dx) {                                               \
    linear_dx<Product<true, false>>(dy, weight, accumulate, activation, masked, dx);                                \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dw_##PRECISION(Mat dy, Mat x, u32 accumulate, Mat dw) {                            \
    linear_dw<Product<false, false>>(dy, x, accumulate, dw);                                                        \
  }

PRODUCTS(f32, ProductF32)
PRODUCTS(tf32, ProductTf32)
PRODUCTS(bf16, ProductBf16)

// Sums of the columns of dy over every `gridDim.y`-th eight of its rows: a matrix of one row in `sums` for each of
// these chunks, or the result itself.
KERNEL(256) column_sums(Mat dy, u32 accumulate, Mat sums) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, col = blockIdx.x * TILE + lane * 4;
  const u32 chunk = blockIdx.y, rows = rows_of(dy);
  if (chunk > 0 && chunk * 8 >= rows) return;
  const bool quads = has_quads(dy);
  float sum[4] = {};
#pragma unroll 4
  for (u32 row = chunk * 8 + warp; row < rows; row += gridDim.y * 8) {
    float values[4];
    load_quad(dy, quads, row, col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum[i] += values[i];
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
