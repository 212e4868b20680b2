// Products of linear layers in bf16 for Hopper, see gemm.cu, in tiles of 256 x 128: kernels of the same names and
// arguments, and behind these how many chunks and groups there are. Blocks take tiles in turns.
//
// At the floor that gemm.cu tells of the first layer, a tile is eight pieces of some 1000 cycles; its end has as many
// instructions as two of them take cycles.
#include "gemm.cuh"
#include "product_hopper_wide.cuh"

constexpr u32 COPIER_REGISTERS = 96, MULTIPLIER_REGISTERS = 200;
static_assert(there_are_registers(COPIER_REGISTERS, MULTIPLIER_REGISTERS), "");

// The tiles of all outputs, which blocks take in turns: columns go first, then rows, chunks of the inner index, groups.
struct WideTiles {
  u32 across, down, chunks, groups;

  DEVICE WideTiles(u32 rows, u32 cols, u32 chunks, u32 groups)
      : across(tiles_of(cols, TILE)), down(tiles_of(rows, WIDE_ROWS)), chunks(chunks), groups(groups) {}

  DEVICE u32 count() const { return across * down * chunks * groups; }
};

// One of them, which takes every `chunks`-th piece of the inner index.
struct WideTile {
  u32 group, chunk;
  Part part;

  DEVICE WideTile(const WideTiles& tiles, u32 number, u32 inner) {
    const u32 row = number / tiles.across, product = row / tiles.down;
    chunk = product % tiles.chunks, group = product / tiles.chunks;
    part.row = row % tiles.down * WIDE_ROWS, part.col = number % tiles.across * TILE;
    part.first = chunk, part.step = tiles.chunks, part.count = tiles_of(inner, HopperTile<true>::DEPTH);
  }
};

// Makes all tiles of a layer, which tells of each its operands and what its sums end in.
template <bool A_INNER, bool B_INNER, class Layer>
DEVICE void make_tiles(const Layer& layer, unsigned char* shared) {
  Stages<A_INNER, B_INNER> stages(shared);
  const u32 count = layer.tiles.count();
  if (threadIdx.x >= THREADS) {
    shrink_registers<COPIER_REGISTERS>();
    stages.stage = threadIdx.x / 32 - THREADS / 32;
    if (stages.stage == STAGES) return;
    Copier<A_INNER, B_INNER> copier;
#pragma unroll 1
    for (u32 number = blockIdx.x; number < count; number += gridDim.x) {
      const WideTile tile(layer.tiles, number, layer.inner);
      auto passing = layer.passing(tile);
      if (layer.is_there(tile)) copier.copy(stages, layer.a(tile), layer.b(tile), tile.part, passing);
      layer.end_passing(tile, passing, stages.stage);
    }
    if (copier.was_filled) stages.await_empty();
  } else {
    grow_registers<MULTIPLIER_REGISTERS>();
#pragma unroll 1
    for (u32 number = blockIdx.x; number < count; number += gridDim.x) {
      const WideTile tile(layer.tiles, number, layer.inner);
      if (!layer.is_there(tile)) continue;
      // What sums end in comes from memory meanwhile.
      auto end = layer.end(tile);
      end.begin(tile.part.col + wide_col());
      WideSums sums;
      sum_pieces(stages, tile.part, sums);
      finish_wide(sums, tile.part, layer.rows, end, shared + stages.BYTES);
    }
  }
}

// What the warps that copy a tile do in passing: nothing, or sums of columns of A.
typedef Passing<Nothing, Nothing> WideNothing;
typedef Passing<CopiedSums, Nothing> WideSumsOfCopies;

// y = act(x W^T + b), see `linear` of gemm.cuh.
struct WideForward {
  const Mat &x, &weight, &y;
  const Heads& heads;
  // Columns of the output, the inner index, and rows of the output.
  u32 out, inner, rows;
  WideTiles tiles;

  DEVICE WideForward(const Mat& x, const Mat& weight, const Heads& heads, const Mat& y, u32 chunks, u32 groups)
      : x(x), weight(weight), y(y), heads(heads), out(y.cols / groups), inner(weight.cols), rows(rows_of(x)),
        tiles(rows, out, chunks, groups) {}

  DEVICE bool is_there(const WideTile&) const { return true; }
  DEVICE WideNothing passing(const WideTile&) const { return {}; }
  DEVICE void end_passing(const WideTile&, const WideNothing&, u32) const {}
  DEVICE Operand a(const WideTile& t) const { return operand(columns_of(x, t.group * inner, inner), rows); }
  DEVICE Operand b(const WideTile& t) const { return operand(rows_from(weight, t.group * out, out), out); }
  DEVICE Forward end(const WideTile& t) const { return Forward(columns_of(y, t.group * out, out), heads, t.group); }
};

// dx = dy W, see `linear_dx` of gemm.cuh.
struct WideInputGradient {
  const Mat &dy, &weight, &masked, &dx;
  const Activation& activation;
  u32 accumulate, in, inner, rows;
  WideTiles tiles;

  DEVICE WideInputGradient(const Mat& dy, const Mat& weight, u32 accumulate, const Activation& activation,
                           const Mat& masked, const Mat& dx, u32 chunks, u32 groups)
      : dy(dy), weight(weight), masked(masked), dx(dx), activation(activation), accumulate(accumulate),
        in(weight.cols), inner(dy.cols / groups), rows(rows_of(dy)), tiles(rows, in, chunks, groups) {}

  DEVICE bool is_there(const WideTile&) const { return true; }
  DEVICE WideNothing passing(const WideTile&) const { return {}; }
  DEVICE void end_passing(const WideTile&, const WideNothing&, u32) const {}
  DEVICE Operand a(const WideTile& t) const { return operand(columns_of(dy, t.group * inner, inner), rows); }
  DEVICE Operand b(const WideTile& t) const { return operand(rows_from(weight, t.group * inner, inner), inner); }
  DEVICE Gradient end(const WideTile& t) const {
    return Gradient(columns_of(dx, t.group * in, in), accumulate, activation, columns_of(masked, t.group * in, in));
  }
};

// dw = dy^T x, see `linear_dw` of gemm.cuh, and sums of columns of dy, see gemm_hopper.cu: here of stages, and 0 for the other
// warps.
struct WideWeightGradient {
  const Mat &dy, &x, &dw, &sums;
  u32 accumulate, groups, in, inner, rows;
  WideTiles tiles;

  DEVICE WideWeightGradient(const Mat& dy, const Mat& x, u32 accumulate, const Mat& dw, const Mat& sums, u32 chunks,
                            u32 groups)
      : dy(dy), x(x), dw(dw), sums(sums), accumulate(accumulate), groups(groups), in(x.cols / groups), inner(rows_of(dy)),
        rows(dy.cols / groups), tiles(rows, in, chunks, groups) {}

  // Nobody reads the sums of a chunk without rows, but for the first.
  DEVICE bool is_there(const WideTile& t) const {
    return t.chunk == 0 || t.chunk * ProductHopper<false, false>::PIECE < inner;
  }
  DEVICE Operand a(const WideTile& t) const { return operand(columns_of(dy, t.group * rows, rows), inner); }
  DEVICE Operand b(const WideTile& t) const { return operand(columns_of(x, t.group * in, in), inner); }
  DEVICE Gradient end(const WideTile& t) const {
    const Mat to = rows_from(dw, (t.chunk * groups + t.group) * rows, rows);
    return Gradient(to, accumulate, Activation{IDENTITY, 0.0f}, to);
  }
  DEVICE WideSumsOfCopies passing(const WideTile& t) const {
    const CopiedSums columns(sums.data ? t.part.col / TILE : NEVER, tiles.across);
    return {columns, columns, {}};
  }
  DEVICE void end_passing(const WideTile& t, const WideSumsOfCopies& passing, u32 stage) const {
    if (!sums.data) return;
    const u32 row = (t.chunk * tiles.across + t.part.col / TILE) * (THREADS / 32), first = t.group * rows;
    const u32 col = first + t.part.row, end = first + rows;
    store_of_stage(passing.upper, sums, row, stage, col, end);
    store_of_stage(passing.lower, sums, row, stage, col + TILE, end);
  }
};

KERNEL_SHARING(WIDE_THREADS, 1) linear_bf16(Mat x, Mat weight, Heads heads, Mat y, u32 chunks, u32 groups) {
  DYNAMIC_SHARED(shared);
  make_tiles<true, true>(WideForward(x, weight, heads, y, chunks, groups), shared);
}

KERNEL_SHARING(WIDE_THREADS, 1)
linear_dx_bf16(Mat dy, Mat weight, u32 accumulate, Activation activation, Mat masked, Mat dx, u32 chunks, u32 groups) {
  DYNAMIC_SHARED(shared);
  make_tiles<true, false>(WideInputGradient(dy, weight, accumulate, activation, masked, dx, chunks, groups), shared);
}

KERNEL_SHARING(WIDE_THREADS, 1)
linear_dw_bf16(Mat dy, Mat x, u32 accumulate, Mat dw, Mat sums, u32 chunks, u32 groups) {
  DYNAMIC_SHARED(shared);
  make_tiles<false, false>(WideWeightGradient(dy, x, accumulate, dw, sums, chunks, groups), shared);
}
