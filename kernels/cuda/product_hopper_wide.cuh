// Products of bf16 on the tensor cores of Hopper, in tiles of 256 x 128: for those that multiply-adds bound.
//
// A tile of 128 x 128 asks the second-level cache for 32 KiB of operands for each 2 MFLOP; at the tensor cores' rate that
// is 12 TB/s, about twice what it gives. A tile of 256 x 128 asks for three quarters of that, and its sums take the
// registers of a whole multiprocessor: no other block runs while it waits, begins or ends. So the work is divided. Two
// warpgroups multiply, 128 rows each. A piece of the operands has one of STAGES places in shared memory, and each place
// has a warp that does nothing but fill it. A block makes one tile after the other, and the pieces of the next one come
// while sums leave.
//
// They meet at barriers, of which each place has one for each of the two warpgroups that it is full, and one that it is
// empty again. The two need not keep step.
#pragma once

#include "copied_sums.cuh"
#include "product_hopper.cuh"

// The threads that multiply are the first ones, as many as a block of other products has. Registers are given and taken
// by warpgroups: the last warp of those that copy has no stage.
constexpr u32 WARPGROUP = 128, WARPGROUPS = THREADS / WARPGROUP, WIDE_THREADS = THREADS + WARPGROUP;
constexpr u32 WIDE_ROWS = WARPGROUPS * TILE, STAGES = 3;

// Whether there are registers for a thread that copies and for one that multiplies, in place of a third of all for each:
// else a warpgroup would wait for ever.
DEVICE constexpr bool there_are_registers(u32 copier, u32 multiplier) {
  return copier * WARPGROUP + multiplier * THREADS <= 65536 / WIDE_THREADS / 8 * 8 * WIDE_THREADS;
}

// Places of pieces of operands in shared memory, and the one at hand.
template <bool A_INNER, bool B_INNER>
struct Stages {
  using TileA = HopperTile<A_INNER>;
  using TileB = HopperTile<B_INNER>;
  static constexpr u32 PIECE = WARPGROUPS * TileA::BYTES + TileB::BYTES, BYTES = STAGES * PIECE;

  unsigned char* shared;
  u32 stage = 0;

  DEVICE Stages(unsigned char* shared) : shared(shared) {}

  DEVICE void go_on() { stage = stage == STAGES - 1 ? 0 : stage + 1; }
  DEVICE u32 before() const { return stage == 0 ? STAGES - 1 : stage - 1; }

  // Where the tile of A for a warpgroup is, and that of B.
  DEVICE unsigned char* a(u32 warpgroup) const { return shared + stage * PIECE + warpgroup * TileA::BYTES; }
  DEVICE unsigned char* b() const { return a(WARPGROUPS); }

  // Barriers that are taken: that of all threads, and those of stages.
  static constexpr u32 BARRIERS = 1 + STAGES * WARPGROUPS + STAGES;

  // Says, or waits for it, that a stage is full or empty.
  DEVICE static u32 full(u32 stage, u32 warpgroup) { return 1 + stage * WARPGROUPS + warpgroup; }
  DEVICE static u32 empty(u32 stage) { return 1 + STAGES * WARPGROUPS + stage; }
  DEVICE void say_full() const {
#pragma unroll
    for (u32 warpgroup = 0; warpgroup < WARPGROUPS; warpgroup++) arrive<32 + WARPGROUP>(full(stage, warpgroup));
  }
  DEVICE void await_full(u32 warpgroup) const { wait<32 + WARPGROUP>(full(stage, warpgroup)); }
  DEVICE void say_empty() const { arrive<32 + THREADS>(empty(stage)); }
  DEVICE void say_empty_before() const { arrive<32 + THREADS>(empty(before())); }
  DEVICE void await_empty() const { wait<32 + THREADS>(empty(stage)); }
};

// What a lane of a warp copies of each tile of an operand, whose lines begin at multiples of 16 bytes.
template <class Tile>
struct LaneShare {
  static constexpr bool INNER = Tile::IS_INNER;
  // Lines of a tile, and those that a warp copies at once. Chunks are swapped alike in each 8 lines.
  static constexpr u32 ALL = Tile::BYTES / 16 / Tile::CHUNKS, LINES = 32 / Tile::CHUNKS, ALIKE = 8;
  static constexpr u32 COPIES = ALL / LINES;

  const unsigned char* data;
  u32 stride;
  // Lines and values of a line that there are from the first chunk on, in the tile that begins at 0.
  u32 lines, run;
  // Of the first chunk in a tile.
  u32 offset;

  // Of the tiles that begin at `outer` in the index that the output has too.
  DEVICE LaneShare(const Operand& from, u32 outer) : stride(from.stride) {
    const u32 lane = threadIdx.x % 32, line = lane / Tile::CHUNKS, chunk = lane % Tile::CHUNKS;
    const u32 first = line + (INNER ? outer : 0), col = chunk * Tile::CHUNK + (INNER ? 0 : outer);
    data = from.data + ((u64)first * stride + col) * Tile::VALUE;
    lines = from.lines > first ? from.lines - first : 0;
    run = from.run > col ? from.run - col : 0;
    offset = Tile::offset(line, chunk);
  }

  // Where in a tile the chunk number `i` of the lane is.
  DEVICE u32 place(u32 i) const { return (offset ^ i * LINES % ALIKE * 16) + i * LINES * Tile::LINE; }

  // Begins to copy the tile that begins at `inner`; what is not there is 0.
  DEVICE void copy(u32 inner, unsigned char* tile) const {
    const u32 left = INNER ? run : lines, further = left > inner ? left - inner : 0;
    const u32 bytes = min(INNER ? further : run, Tile::CHUNK) * Tile::VALUE, there = INNER ? lines : further;
    const unsigned char* const from = data + (INNER ? inner : (u64)inner * stride) * Tile::VALUE;
    if (bytes == 16 && there > ALL - LINES) {
      copy_lines<true>(from, tile, bytes, there);
    } else {
      copy_lines<false>(from, tile, bytes, there);
    }
  }

 private:
  template <bool WHOLE>
  DEVICE void copy_lines(const unsigned char* from, unsigned char* tile, u32 bytes, u32 there) const {
    const u64 next = (u64)LINES * stride * Tile::VALUE;
    u32 to[ALIKE / LINES];
#pragma unroll
    for (u32 i = 0; i < ALIKE / LINES; i++) {
      to[i] = shared_address(tile) + (offset ^ i * LINES * 16) + i * LINES * Tile::LINE;
    }
#pragma unroll WHOLE ? LINES : 1
    for (u32 first = 0; first < ALL; first += ALIKE) {
#pragma unroll
      for (u32 i = 0; i < ALIKE / LINES; i++) {
        const u32 at = to[i] + first * Tile::LINE;
        if (WHOLE) {
          copy_async_16(at, from);
        } else {
          copy_async_16(at, from, first + i * LINES < there ? bytes : 0);
        }
        from += next;
      }
    }
  }
};

// What the warps that copy do in passing.
template <class A, class B>
struct Passing {
  A upper, lower;
  B right;
};

// What a warp copies that fills one of the stages.
template <bool A_INNER, bool B_INNER>
struct Copier {
  using Own = Stages<A_INNER, B_INNER>;

  // The warp's stage is the one at hand after as many more pieces.
  u32 pieces_ahead = threadIdx.x / 32 - THREADS / 32;
  bool was_filled = false;

  // Copies its pieces of a tile. `passing` sees those of the upper and of the lower half of A, and of B.
  template <class Passing>
  DEVICE void copy(Own& stages, const Operand& a, const Operand& b, const Part& part, Passing& passing) {
    constexpr u32 DEPTH = Own::TileA::DEPTH;
    const LaneShare<typename Own::TileA> upper(a, part.row), lower(a, part.row + TILE);
    const LaneShare<typename Own::TileB> right(b, part.col);
#pragma unroll 1
    for (u32 piece = part.first; piece < part.count; piece += part.step) {
      if (pieces_ahead-- > 0) continue;
      pieces_ahead = STAGES - 1;
      if (was_filled) stages.await_empty();
      was_filled = true;
      upper.copy(piece * DEPTH, stages.a(0));
      lower.copy(piece * DEPTH, stages.a(1));
      right.copy(piece * DEPTH, stages.b());
      end_copies();
      wait_for_copies<0>();
      publish_to_tensor_cores();
      // A warp says so once, for all of its lanes.
      __syncwarp();
      stages.say_full();
      // The others do not write there, nor does this one before the stage is empty.
      passing.upper.take(upper, stages.a(0));
      passing.lower.take(lower, stages.a(1));
      passing.right.take(right, stages.b());
    }
  }
};

// Writes what the warp that fills `stage` has summed up, to a row of `sums` from `row` on, and 0 for warps that have no
// stage: there are rows for as many as a block of other products has.
DEVICE void store_of_stage(const CopiedSums& own, const Mat& sums, u32 row, u32 stage, u32 col, u32 end) {
  own.store(sums, row + stage, col, end);
  const CopiedSums none(NEVER, 1);
  for (u32 other = stage + STAGES; other < THREADS / 32; other += STAGES) none.store(sums, row + other, col, end);
}

// Sums of a warpgroup: 64 rows, and 64 below them.
struct WideSums {
  float upper[64], lower[64];

  DEVICE void clear() {
#pragma unroll
    for (u32 i = 0; i < 64; i++) upper[i] = lower[i] = 0.0f;
    hold();
  }

  DEVICE void hold() {
    hold_sums(upper);
    hold_sums(lower);
  }
};

// Sums the pieces of a tile. A piece is multiplied while the products of the one before end.
template <bool A_INNER, bool B_INNER>
DEVICE void sum_pieces(Stages<A_INNER, B_INNER>& stages, const Part& part, WideSums& sums) {
  using TileA = HopperTile<A_INNER>;
  using TileB = HopperTile<B_INNER>;
  const u32 warpgroup = threadIdx.x / WARPGROUP;
  sums.clear();
#pragma unroll 1
  for (u32 piece = part.first; piece < part.count; piece += part.step) {
    stages.await_full(warpgroup);
    const u32 left = shared_address(stages.a(warpgroup)), right = shared_address(stages.b());
    begin_products();
#pragma unroll
    for (u32 step = 0; step < TileA::DEPTH / 16; step++) {
      const u64 b = TileB::describe(right, 0, step);
      multiply_add_128<!A_INNER, !B_INNER>(sums.upper, TileA::describe(left, 0, step), b);
      multiply_add_128<!A_INNER, !B_INNER>(sums.lower, TileA::describe(left, 1, step), b);
    }
    end_products();
    wait_for_products<1>();
    if (piece != part.first) stages.say_empty_before();
    stages.go_on();
  }
  wait_for_products();
  if (part.first < part.count) stages.say_empty_before();
  sums.hold();
}

// Bytes of a warp's lines of sums.
constexpr u32 WARP_SUMS = 16 * SUMS_STRIDE * sizeof(float);

// Columns of a tile that a lane ends, four from here on.
DEVICE u32 wide_col() { return threadIdx.x % 32 * 4; }

// Hands the sums of a tile to `end`, see product.cuh. Each warp has lines of its own at `shared`.
template <class End>
DEVICE void finish_wide(const WideSums& sums, const Part& part, u32 rows, const End& end, unsigned char* shared) {
  const u32 warp = threadIdx.x / 32;
  float* const own = (float*)(shared + warp * WARP_SUMS);
  u32 row = part.row + warp / 4 * TILE + warp % 4 * 16;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    put_lines(half == 0 ? sums.upper : sums.lower, own);
    __syncwarp();
    finish_lines<4>(own + wide_col(), row, 1, rows_below(row, 1, min(rows, row + 16)), end);
    __syncwarp();
    row += 64;
  }
}
