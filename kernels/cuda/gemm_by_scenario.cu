// Products of layers with weights for each scenario, or with one weight for all groups of columns: the layers of gemm.cu,
// each row by the weights of its scenario. One product a row, however many scenarios there are.
//
// Rows stand in the order of their scenarios, so that a tile has rows of one alone. A scenario's last tile may be short;
// beyond that the floors are those of gemm.cu, with the bytes of each scenario's weights.
#include "gemm.cuh"
#include "product_f32.cuh"
#include "product_tensor.cuh"

// Rows by scenario, and weights of each: `Layers` of gemm_by_scenario.rs.
struct Layers {
  // The first row of each scenario, and the one behind the last; of several scenarios the first tile of each too.
  const u32* starts;
  u32 scenarios;
  // Whether all groups of a scenario have one weight, in place of one each.
  u32 shared;

  // Number of the weight of a group, of so many.
  DEVICE u32 weight_of(u32 scenario, u32 group, u32 groups) const {
    return shared ? scenario : scenario * groups + group;
  }
};

// Rows of a scenario.
struct ScenarioRows {
  u32 first, count;
};

DEVICE ScenarioRows rows_of_scenario(const Layers& layers, u32 scenario) {
  const u32 first = layers.starts[scenario];
  return {first, layers.starts[scenario + 1] - first};
}

// What a block makes of an output with a row a sample: a tile of a group, from `row` on and up to `end`, of the rows that
// have the weight of this number.
struct ScenarioTile {
  u32 row, end, weight;

  DEVICE bool is_there() const { return row < end; }

  // All of the inner index.
  template <class Product>
  DEVICE Part part(u32 across, u32 inner) const {
    return {row, blockIdx.x % across * TILE, 0, 1, tiles_of(inner, Product::DEPTH)};
  }
};

// The tile of this block; the tiles of a scenario, `across` side by side, follow those of the one before. It is found once
// more where sums end: while a tile is summed, registers are full of sums.
DEVICE ScenarioTile tile_of_block(const Layers& layers, u32 across) {
  const u32* const tiles = layers.starts + layers.scenarios + 1;
  const u32 tile = blockIdx.x / across;
  // The last scenario whose tiles begin at this one or before.
  u32 scenario = 0;
  for (u32 end = layers.scenarios; end - scenario > 1;) {
    const u32 middle = (scenario + end) / 2;
    if (tiles[middle] <= tile) {
      scenario = middle;
    } else {
      end = middle;
    }
  }
  const u32 before = scenario > 0 ? tiles[scenario] : 0;
  const ScenarioRows rows = rows_of_scenario(layers, scenario);
  return {rows.first + (tile - before) * TILE, rows.first + rows.count,
          layers.weight_of(scenario, blockIdx.z, gridDim.z)};
}

// y = act(x W^T + b).
template <class Product>
DEVICE void linear_by_scenario(const Mat& x, const Mat& weight, const Heads& heads, const Layers& layers, const Mat& y,
                               unsigned char* shared) {
  const u32 group = blockIdx.z, inner = weight.cols, out = y.cols / gridDim.z, across = tiles_of(out, TILE);
  Product product;
  {
    const ScenarioTile tile = tile_of_block(layers, across);
    if (!tile.is_there()) return;
    const Operand a = operand(columns_of(x, group * inner, inner), tile.end);
    const Operand b = operand(rows_from(weight, tile.weight * out, out), out);
    sum_tile(product, a, b, tile.part<Product>(across, inner), shared);
  }
  const ScenarioTile tile = tile_of_block(layers, across);
  Forward end(columns_of(y, group * out, out), heads, tile.weight);
  finish_tile(product, tile.part<Product>(across, inner), tile.end, end, shared);
}

// dx = dy W, see `Gradient`.
template <class Product>
DEVICE void linear_dx_by_scenario(const Mat& dy, const Mat& weight, const Layers& layers, u32 accumulate,
                                  const Activation& activation, const Mat& masked, const Mat& dx,
                                  unsigned char* shared) {
  const u32 group = blockIdx.z, inner = dy.cols / gridDim.z, in = weight.cols, across = tiles_of(in, TILE);
  Product product;
  {
    const ScenarioTile tile = tile_of_block(layers, across);
    if (!tile.is_there()) return;
    const Operand a = operand(columns_of(dy, group * inner, inner), tile.end);
    const Operand b = operand(rows_from(weight, tile.weight * inner, inner), inner);
    sum_tile(product, a, b, tile.part<Product>(across, inner), shared);
  }
  const ScenarioTile tile = tile_of_block(layers, across);
  Gradient end(columns_of(dx, group * in, in), accumulate, activation, columns_of(masked, group * in, in));
  finish_tile(product, tile.part<Product>(across, inner), tile.end, end, shared);
}

// Sums over rows: what a block makes of them. The third index of the grid goes over scenarios and the groups of each, the
// second over chunks of a scenario's rows: every `gridDim.y`-th piece of `depth` rows. Of several sums of a weight each has
// a matrix of its own, one below the other: of a chunk those of groups that share weights, each with all weights.
struct ScenarioSum {
  u32 group, chunk, place;
  ScenarioRows rows;

  DEVICE ScenarioSum(const Layers& layers, u32 groups)
      : group(blockIdx.z % groups), chunk(blockIdx.y), rows(rows_of_scenario(layers, blockIdx.z / groups)) {
    const u32 own = layers.shared ? group * layers.scenarios + blockIdx.z / groups : blockIdx.z;
    place = chunk * gridDim.z + own;
  }

  // Nobody reads the sums of a chunk without rows, but for the first.
  DEVICE bool is_there(u32 depth) const { return chunk == 0 || chunk * depth < rows.count; }

  // The scenario's rows of the group's columns.
  DEVICE Mat of(const Mat& mat, u32 cols) const {
    return rows_from(columns_of(mat, group * cols, cols), rows.first, rows.count);
  }
};

// dw = dy^T x, or the sums of chunks and groups.
template <class Product>
DEVICE void linear_dw_by_scenario(const Mat& dy, const Mat& x, const Layers& layers, u32 groups, u32 accumulate,
                                  const Mat& dw, unsigned char* shared) {
  const u32 out = dy.cols / groups, in = x.cols / groups;
  const ScenarioSum sum(layers, groups);
  if (!sum.is_there(Product::PIECE)) return;
  Part part = part_of_block<Product>(in, sum.rows.count);
  part.first = sum.chunk, part.step = gridDim.y;
  const Operand a = operand(sum.of(dy, out), sum.rows.count), b = operand(sum.of(x, in), sum.rows.count);
  Product product;
  sum_tile(product, a, b, part, shared);
  const Mat to = rows_from(dw, sum.place * out, out);
  Gradient end(to, accumulate, Activation{IDENTITY, 0.0f}, to);
  finish_tile(product, part, out, end, shared);
}

#define PRODUCTS(PRECISION, Product)                                                                                \
  KERNEL(PRODUCT_THREADS) linear_by_scenario_##PRECISION(Mat x, Mat weight, Heads heads, Layers layers, Mat y) {     \
    alignas(128) SHARED unsigned char shared[Product<true, true>::SHARED_BYTES];                                    \
    linear_by_scenario<Product<true, true>>(x, weight, heads, layers, y, shared);                                   \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dx_by_scenario_##PRECISION(Mat dy, Mat weight, Layers layers, u32 accumulate,       \
                                                            Activation activation, Mat masked, Mat dx) {            \
    alignas(128) SHARED unsigned char shared[Product<true, false>::SHARED_BYTES];                                   \
    linear_dx_by_scenario<Product<true, false>>(dy, weight, layers, accumulate, activation, masked, dx, shared);    \
  }                                                                                                                 \
  KERNEL(PRODUCT_THREADS) linear_dw_by_scenario_##PRECISION(Mat dy, Mat x, Layers layers, u32 groups,                \
                                                            u32 accumulate, Mat dw) {                               \
    alignas(128) SHARED unsigned char shared[Product<false, false>::SHARED_BYTES];                                  \
    linear_dw_by_scenario<Product<false, false>>(dy, x, layers, groups, accumulate, dw, shared);                    \
  }

PRODUCTS(f32, ProductF32)
PRODUCTS(tf32, ProductTf32)
PRODUCTS(bf16, ProductBf16)

// Rows of a piece of `column_sums_by_scenario`, one for each warp.
constexpr u32 SUM_DEPTH = THREADS / 32;

// Sums of the columns of dy over the rows of each scenario, and of groups that share a bias those of each: see
// `ScenarioSum`.
KERNEL(THREADS) column_sums_by_scenario(Mat dy, Layers layers, u32 groups, u32 accumulate, Mat sums) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, col = blockIdx.x * TILE + lane * 4;
  const ScenarioSum own(layers, groups);
  if (!own.is_there(SUM_DEPTH)) return;
  const Mat from = own.of(dy, dy.cols / groups);
  const bool quads = has_quads(from);
  float sum[4] = {};
#pragma unroll 4
  for (u32 row = own.chunk * SUM_DEPTH + warp; row < own.rows.count; row += gridDim.y * SUM_DEPTH) {
    float values[4];
    load_quad(from, quads, row, col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum[i] += values[i];
  }
  SHARED float4 by_warp[SUM_DEPTH][32];
  by_warp[warp][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  __syncthreads();
  if (warp > 0 || col >= sums.cols) return;
  const bool sums_quads = has_quads(sums);
  float total[4] = {};
  if (accumulate) load_quad(sums, sums_quads, own.place, col, total);
  for (u32 other = 0; other < SUM_DEPTH; other++) {
    const float4 part = by_warp[other][lane];
    total[0] += part.x, total[1] += part.y, total[2] += part.z, total[3] += part.w;
  }
  store_quad(sums, sums_quads, own.place, col, total);
}

// to = sum, or to + sum, of the matrices that blocks have left, see `ScenarioSum`, with rows of `stride` values, whole
// quads: `chunks` times `copies`, one for each of the groups that share weights. A chunk takes pieces of `depth` rows;
// those of which a scenario has no row have left nothing of it. A scenario has `to.rows / layers.scenarios` rows.
KERNEL(THREADS)
sum_partials_by_scenario(const float* partials, u32 stride, u32 chunks, u32 copies, u32 depth, Layers layers,
                         u32 accumulate, Mat to) {
  const u32 across = tiles_of(to.cols, 4), index = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 row = index / across, col = index % across * 4;
  if (row >= to.rows) return;
  const u32 rows = rows_of_scenario(layers, row / (to.rows / layers.scenarios)).count;
  const u32 there = max(1u, min(chunks, tiles_of(rows, depth))) * copies;
  const bool quads = has_quads(to);
  float total[4] = {};
  if (accumulate) load_quad(to, quads, row, col, total);
  const u64 next = (u64)to.rows * stride;
  partials += (u64)row * stride + col;
#pragma unroll 4
  for (u32 part = 0; part < there; part++) {
    const float4 values = *(const float4*)(partials + part * next);
    total[0] += values.x, total[1] += values.y, total[2] += values.z, total[3] += values.w;
  }
  store_quad(to, quads, row, col, total);
}
