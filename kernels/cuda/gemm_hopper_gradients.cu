// Both gradients of linear layers in bf16 for Hopper, in one pass over dy and x: for layers of 129 to 256 inputs and 65 to
// 128 outputs, as second layers of experts have, whose products wait for memory. dy is read once, and x once for the
// gradient of the weight and as the mask of the other; the weight stays in shared memory.
//
// Floor: the bytes, dy, x and dx. 65,536 rows of 8 layers of 256 inputs and 128 outputs: 671 MB, 156 us on an H200
// (4.3 TB/s), where a kernel for each gradient has 1.07 GB to read and write.
//
// A block takes every `gridDim.y`-th piece of 64 rows, for a group of layers. As in product_hopper_wide.cuh, warps that
// only copy fill stages, each with a piece of x, in two halves of 128 columns, and one of dy. Two warpgroups multiply, a
// half of the columns each: dx of the piece, and the sums of dw, which stay in registers until the last piece. dx takes the
// place of x, whose half nobody else reads, to leave in whole lines.
#include "gemm.cuh"
#include "product_hopper_wide.cuh"
#include "tile_share.cuh"

constexpr u32 COPIER_REGISTERS = 96, MULTIPLIER_REGISTERS = 200;
static_assert(there_are_registers(COPIER_REGISTERS, MULTIPLIER_REGISTERS), "");

// Pieces: rows across lines of 64 columns. A tile of the weight has 64 outputs and 128 inputs.
typedef HopperTile<false> Piece;
typedef Stages<false, false> PieceStages;

// Behind the barriers of stages: those of each warpgroup, and of both.
constexpr u32 OF_WARPGROUP = PieceStages::BARRIERS, OF_BOTH = OF_WARPGROUP + WARPGROUPS;

// What a launch is given, for the group of this block.
struct Layer {
  Mat dx, dw;
  Operand dy, x, weight;
  Part pieces;
  u32 group, chunk, in, out, rows;

  DEVICE Layer(const Mat& all_dy, const Mat& all_x, const Mat& weights, const Mat& all_dx, const Mat& all_dw)
      : group(blockIdx.z), chunk(blockIdx.y), in(weights.cols), out(all_dy.cols / gridDim.z), rows(rows_of(all_dy)) {
    dy = operand(columns_of(all_dy, group * out, out), rows);
    x = operand(columns_of(all_x, group * in, in), rows);
    weight = operand(rows_from(weights, group * out, out), out);
    dx = columns_of(all_dx, group * in, in);
    dw = rows_from(all_dw, (chunk * gridDim.z + group) * out, out);
    pieces = {0, 0, chunk, gridDim.y, tiles_of(rows, Piece::DEPTH)};
  }
};

// Copies the weight to shared memory: two tiles of outputs for each half of the inputs.
DEVICE void bring_weight(const Layer& layer, unsigned char* shared) {
#pragma unroll
  for (u32 half = 0; half < WARPGROUPS; half++) {
    const TileShare<Piece> share(layer.weight, half * TILE);
#pragma unroll
    for (u32 outputs = 0; outputs < 2; outputs++) {
      share.copy(outputs * Piece::DEPTH, shared + (2 * half + outputs) * Piece::BYTES);
    }
  }
  end_copies();
  wait_for_copies<0>();
  publish_to_tensor_cores();
  wait<THREADS>(OF_BOTH);
}

// Begins dx = dy W of a piece, of 64 columns: the outputs are the inner index, along the lines of dy and across those of the
// weight.
DEVICE void begin_inputs(float (&dx)[32], u32 dy, u32 weight, u32 part) {
#pragma unroll
  for (u32 i = 0; i < 32; i++) dx[i] = 0.0f;
  hold_sums(dx);
  begin_products();
#pragma unroll
  for (u32 step = 0; step < 8; step++) {
    const u64 left = HopperTile<true>::describe(dy, step / 4, step % 4);
    multiply_add_64<false, true>(dx, left, Piece::describe(weight + step / 4 * Piece::BYTES, part, step % 4));
  }
  end_products();
}

// Begins dw += dy^T x of a piece: the rows are the inner index, across all lines.
DEVICE void begin_weights(WideSums& dw, u32 dy, u32 x) {
#pragma unroll
  for (u32 step = 0; step < Piece::DEPTH / 16; step++) {
    const u64 right = Piece::describe(x, 0, step);
    multiply_add_128<true, true>(dw.upper, Piece::describe(dy, 0, step), right);
    multiply_add_128<true, true>(dw.lower, Piece::describe(dy, 1, step), right);
  }
  end_products();
}

// Where a lane's pair number `i` of dx is in the half piece at `x`: of a line, and then of 8 lines on, in each 8 columns.
DEVICE u32* pair_of(unsigned char* x, u32 i) {
  const u32 lane = threadIdx.x % 32, line = threadIdx.x % WARPGROUP / 32 * 16 + lane / 4;
  return (u32*)(x + Piece::offset(line, i / 2) + i % 2 * 8 * Piece::LINE) + lane % 4;
}

// dx times the derivative of the activation whose outputs x are, as pairs of bf16 from pair number `first` on.
template <u32 FIRST>
DEVICE void mask_inputs(const float (&dx)[32], const Activation& activation, unsigned char* x, u32 (&pairs)[32]) {
#pragma unroll
  for (u32 i = 0; i < 16; i++) {
    float low = dx[2 * i], high = dx[2 * i + 1];
    if (activation.kind != IDENTITY) {
      const Activation known = {RELU, activation.slope};
      const u32 outputs = *pair_of(x, FIRST + i);
      low *= slope_from_output(known, __uint_as_float(outputs << 16));
      high *= slope_from_output(known, __uint_as_float(outputs & 0xffff0000u));
    }
    pairs[FIRST + i] = to_bf16_pair(low, high);
  }
}

// Writes them in the place of x, once all of the warpgroup have multiplied by it, and from there to the rows of dx from
// `row` on.
DEVICE void store_inputs(const Layer& layer, const u32 (&pairs)[32], unsigned char* x, u32 row) {
  const u32 warpgroup = threadIdx.x / WARPGROUP, thread = threadIdx.x % WARPGROUP;
  wait<WARPGROUP>(OF_WARPGROUP + warpgroup);
#pragma unroll
  for (u32 i = 0; i < 32; i++) *pair_of(x, i) = pairs[i];
  wait<WARPGROUP>(OF_WARPGROUP + warpgroup);
  const u32 line = thread / Piece::CHUNKS, chunk = thread % Piece::CHUNKS;
  const u32 col = warpgroup * TILE + chunk * Piece::CHUNK;
  if (col >= layer.in) return;
#pragma unroll
  for (u32 down = 0; down < Piece::DEPTH; down += WARPGROUP / Piece::CHUNKS) {
    if (row + line + down >= layer.rows) continue;
    const uint4 values = *(const uint4*)(x + Piece::offset(line + down, chunk));
    *(uint4*)address_of(layer.dx, row + line + down, col) = values;
  }
}

// What a warpgroup does that multiplies.
DEVICE void multiply(const Layer& layer, u32 accumulate, const Activation& activation, unsigned char* shared) {
  PieceStages stages(shared);
  const u32 warpgroup = threadIdx.x / WARPGROUP;
  unsigned char* const weight = shared + stages.BYTES;
  bring_weight(layer, weight);
  const u32 own_weight = shared_address(weight) + 2 * warpgroup * Piece::BYTES;
  WideSums dw;
  dw.clear();
#pragma unroll 1
  for (u32 piece = layer.pieces.first; piece < layer.pieces.count; piece += layer.pieces.step) {
    unsigned char* const x = stages.a(warpgroup);
    const u32 dy = shared_address(stages.b());
    float dx[32];
    u32 pairs[32];
    stages.await_full(warpgroup);
    begin_inputs(dx, dy, own_weight, 0);
    begin_weights(dw, dy, shared_address(x));
    wait_for_products<1>();
    hold_sums(dx);
    mask_inputs<0>(dx, activation, x, pairs);
    begin_inputs(dx, dy, own_weight, 1);
    wait_for_products();
    hold_sums(dx);
    mask_inputs<16>(dx, activation, x, pairs);
    dw.hold();
    store_inputs(layer, pairs, x, piece * Piece::DEPTH);
    stages.say_empty();
    stages.go_on();
  }
  // Sums leave through the place of the weight, once both have multiplied by it: stages may still be summed up.
  wait<THREADS>(OF_BOTH);
  Gradient end(layer.dw, accumulate, Activation{IDENTITY, 0.0f}, layer.dw);
  end.begin(warpgroup * TILE + wide_col());
  const u32 warp = threadIdx.x / 32;
  float* const lines = (float*)(weight + warp * WARP_SUMS);
  u32 row = warp % 4 * 16;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    put_lines(half == 0 ? dw.upper : dw.lower, lines);
    __syncwarp();
    finish_lines<4>(lines + wide_col(), row, 1, rows_below(row, 1, min(layer.out, row + 16)), end);
    __syncwarp();
    row += 64;
  }
}

// What a warp does that copies: it sums the columns of dy in passing, see `linear_dw` of gemm_hopper.cu.
DEVICE void copy(const Layer& layer, const Mat& sums, unsigned char* shared) {
  PieceStages stages(shared);
  stages.stage = threadIdx.x / 32 - THREADS / 32;
  if (stages.stage == STAGES) return;
  Copier<false, false> copier;
  Passing<Nothing, CopiedSums> passing = {{}, {}, CopiedSums(sums.data ? 0 : NEVER, 1)};
  copier.copy(stages, layer.x, layer.dy, layer.pieces, passing);
  if (copier.was_filled) stages.await_empty();
  if (!sums.data) return;
  // The rows of the other tile of columns of x are 0.
  const u32 turns = tiles_of(layer.in, TILE), warps = THREADS / 32;
  const u32 first = layer.group * layer.out, end = first + layer.out;
  store_of_stage(passing.right, sums, layer.chunk * turns * warps, stages.stage, first, end);
  for (u32 turn = 1; turn < turns; turn++) {
    const CopiedSums none(NEVER, 1);
    store_of_stage(none, sums, (layer.chunk * turns + turn) * warps, stages.stage, first, end);
  }
}

// dx = dy W, times the derivative of the activation whose outputs x are, and dw = dy^T x, or dw + dy^T x; see
// `linear_dx` and `linear_dw` of gemm.cuh and gemm_hopper.cu.
KERNEL_SHARING(WIDE_THREADS, 1)
linear_gradients_bf16(Mat dy, Mat x, u32 accumulate, Mat dw, Mat sums, Mat weight, Activation activation, Mat dx) {
  DYNAMIC_SHARED(shared);
  const Layer layer(dy, x, weight, dx, dw);
  // Nobody reads the sums of a chunk without rows, but for the first.
  if (layer.chunk > 0 && layer.chunk * ProductHopper<false, false>::PIECE >= layer.rows) return;
  if (threadIdx.x >= THREADS) {
    shrink_registers<COPIER_REGISTERS>();
    copy(layer, sums, shared);
  } else {
    grow_registers<MULTIPLIER_REGISTERS>();
    multiply(layer, accumulate, activation, shared);
  }
}
