// Products of bf16 on the tensor cores of Hopper, by warpgroups.
//
// Each of a block's two warpgroups has 64 rows of the tile. A multiprocessor has two blocks: one multiplies while the
// other waits, begins or ends. (One block with 256 rows, which reads less of the second-level cache, was slower.)
//
// A piece of the inner index is 64 values. Lines of a tile are 128 bytes, 64 values: of the inner index, a line for each
// value of the outer one, or the other way round; there are then two tiles of 64 values one behind the other. The
// 16-byte chunks of a line are swapped by the line's number, as the hardware does when it reads ("128-byte swizzle").
#pragma once

#include "tile_share.cuh"
#include "warpgroup.cuh"

template <bool INNER>
struct HopperTile {
  static constexpr bool IS_INNER = INNER;
  static constexpr u32 VALUE = 2, CHUNK = 8, DEPTH = 64;
  // Chunks of a line of an operand, and bytes of one in a tile.
  static constexpr u32 CHUNKS = (INNER ? DEPTH : TILE) / CHUNK, LINE = 128;
  // Of 64 values of the outer index, and of all.
  static constexpr u32 PART = 64 * DEPTH * VALUE, BYTES = 2 * PART;

  // Where a chunk of a line is.
  DEVICE static u32 offset(u32 line, u32 chunk) {
    return chunk / 8 * PART + line * LINE + ((chunk ^ line) & 7) * 16;
  }

  // What tensor cores are told of the tile that is at `tile`, from the 64 values number `part` of the outer index and the
  // 16 number `step` of the inner one on: where it is, how far it is from 64 to the next 64 values of a line, and from 8
  // lines to the next 8, in units of 16 bytes; and that chunks are swapped in lines of 128 bytes.
  DEVICE static u64 describe(u32 tile, u32 part, u32 step) {
    const u32 from = (tile + part * PART + step * (INNER ? 32 : 16 * LINE)) >> 4;
    return from | (u64)(PART >> 4) << 16 | (u64)(8 * LINE >> 4) << 32 | (u64)1 << 62;
  }
};

template <bool A_INNER, bool B_INNER>
struct ProductHopper {
  using TileA = HopperTile<A_INNER>;
  using TileB = HopperTile<B_INNER>;
  // PIECE is that of ProductBf16, by which chunks of rows are counted for both.
  static constexpr u32 DEPTH = TileA::DEPTH, PIECE = 32, STAGES = 3;
  static constexpr u32 STAGE_BYTES = TileA::BYTES + TileB::BYTES, SHARED_BYTES = STAGES * STAGE_BYTES;

  float sums[64];

  // Begins to add the product of the tiles of the stage at `stage`.
  DEVICE void begin_add(const unsigned char* stage) {
    const u32 left = shared_address(stage), right = left + TileA::BYTES, part = threadIdx.x / 128;
    begin_products();
#pragma unroll
    for (u32 step = 0; step < DEPTH / 16; step++) {
      multiply_add_128<!A_INNER, !B_INNER>(sums, TileA::describe(left, part, step), TileB::describe(right, 0, step));
    }
    end_products();
  }

};

// Writes the sums of a warp's 16 rows, as lines.
DEVICE void put_lines(const float (&sums)[64], float* to) {
  const u32 lane = threadIdx.x % 32;
  to += lane / 4 * SUMS_STRIDE + lane % 4 * 2;
#pragma unroll
  for (u32 i = 0; i < TILE / 8; i++) {
    *(float2*)(to + i * 8) = make_float2(sums[4 * i], sums[4 * i + 1]);
    *(float2*)(to + 8 * SUMS_STRIDE + i * 8) = make_float2(sums[4 * i + 2], sums[4 * i + 3]);
  }
}

// Takes nothing of what is copied.
struct Nothing {
  template <class Share>
  DEVICE void take(const Share&, const unsigned char*) {}
};

// Sums a tile. Two pieces are on their way while one is multiplied: the second of them to the stage of the piece before,
// which all have left when they meet. `passing` sees all tiles of A.
template <bool A_INNER, bool B_INNER, class Passing = Nothing>
DEVICE void sum_tile(ProductHopper<A_INNER, B_INNER>& product, const Operand& a, const Operand& b, const Part& part,
                     unsigned char* shared, Passing&& passing = {}) {
  using Product = ProductHopper<A_INNER, B_INNER>;
  constexpr u32 AHEAD = Product::STAGES - 1, LAST = AHEAD * Product::STAGE_BYTES;
  const TileShare<typename Product::TileA> share_a(a, part.row);
  const TileShare<typename Product::TileB> share_b(b, part.col);
#pragma unroll
  for (u32 i = 0; i < 64; i++) product.sums[i] = 0.0f;
  hold_sums(product.sums);
  u32 next = part.first, to = 0, from = 0;
  const auto copy_next = [&] {
    if (next < part.count) {
      share_a.copy(next * Product::DEPTH, shared + to);
      share_b.copy(next * Product::DEPTH, shared + to + Product::TileA::BYTES);
    }
    end_copies();
    next += part.step;
    to = to == LAST ? 0 : to + Product::STAGE_BYTES;
  };
#pragma unroll 1
  for (u32 i = 0; i < AHEAD; i++) copy_next();
#pragma unroll 1
  for (u32 piece = part.first; piece < part.count; piece += part.step) {
    wait_for_copies<AHEAD - 1>();
    wait_for_products();
    publish_to_tensor_cores();
    __syncthreads();
    product.begin_add(shared + from);
    passing.take(share_a, shared + from);
    from = from == LAST ? 0 : from + Product::STAGE_BYTES;
    copy_next();
  }
  wait_for_products();
  hold_sums(product.sums);
}

// Hands the sums of a tile to `end`, see product.cuh. Each warp has lines of its own.
template <bool A_INNER, bool B_INNER, class End>
DEVICE void finish_tile(const ProductHopper<A_INNER, B_INNER>& product, const Part& part, u32 rows, End& end,
                        unsigned char* shared) {
  const u32 line = threadIdx.x / 32 * 16, row = part.row + line, col = threadIdx.x % 32 * 4;
  float* const own = (float*)shared + line * SUMS_STRIDE;
  end.begin(part.col + col);
  // Nobody reads tiles any more.
  __syncthreads();
  put_lines(product.sums, own);
  __syncwarp();
  finish_lines<8>(own + col, row, 1, rows_below(row, 1, min(rows, row + 16)), end);
}
