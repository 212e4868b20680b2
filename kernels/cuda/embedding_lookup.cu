// Look-ups: the pieces of a trunk, each from a table of its own to columns of its own, in one launch.
//
// A group of lanes, as many as a row has float4 (or values, where rows do not lie so), takes ROWS rows of a piece.
// Single ids: ROWS ids are read, then ROWS rows, then written, so that a trip to memory is paid once for all. Bags:
// AHEAD rows at a time are read, and added in the order of the list, as the CPU does.
//
// Floor: bytes of rows, ids, offsets and output over the rate of memory; 65,536 rows of 26 pieces of 64 values, bags of
// 10: 4.87 GB, 1.13 ms on an H200 (4.3 TB/s). A group that waits has 64 bytes a lane on their way; 1,024 threads a
// multiprocessor are 64 KB, of which some 25 KB cover the trip.

#include "embedding.cuh"

#define THREADS 256
// Rows of a piece that a group takes.
#define ROWS 4
// Rows of a bag that are on their way at once.
#define AHEAD 4

// A piece of a trunk: `Piece` of lookup.rs.
struct Piece {
  const float* table;
  // `rows of the output + 1` numbers for bags, null for single ids.
  const u32* offsets;
  // Null: row r of the table goes to row r.
  const u32* ids;
  // Of the table: rows, weights a row, values from one row to the next.
  u32 rows, dim, stride;
  // First column of the output.
  u32 column;
  // 1 for the mean of a bag, 0 for the sum.
  u32 mean;
  // 1 where all rows can be read and written as float4.
  u32 quads;
  u32 lane_bits;
  // First block of the launch that works on the piece.
  u32 first_block;
};

// The row of an id; one that the table does not have is unknown, as row 0 is.
DEVICE const float* row_of(const Piece& piece, u32 id) {
  return piece.table + (u64)(id < piece.rows ? id : 0) * piece.stride;
}

// The pieces of a row: the same for all, or those of its scenario.
struct Trunk {
  const Piece* pieces;
  u32 count;
  const u32* scenarios;

  DEVICE Piece piece(u32 number, u32 row) const {
    Piece piece = pieces[scenarios ? scenarios[row] * count + number : number];
    piece.table = global(piece.table), piece.offsets = global(piece.offsets), piece.ids = global(piece.ids);
    return piece;
  }
};

// The rows `first + i * step` of the output, ROWS of them, below `live`: one id each.
template <int N>
DEVICE void look_up_single(const Trunk& trunk, u32 number, u32 first, u32 step, u32 live, const Mat& out,
                           const Group& group) {
  if (first >= live) return;
  // Beyond the end the last row is read again: reads without conditions are on their way together.
  const float* from[ROWS];
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
    const u32 row = min(first + i * step, live - 1);
    const Piece piece = trunk.piece(number, row);
    from[i] = row_of(piece, piece.ids ? piece.ids[row] : row);
  }
  const u32 dim = trunk.pieces[number].dim, column = trunk.pieces[number].column;
  for (u32 c = group.lane * N; c < dim; c += group.lanes * N) {
    float values[ROWS][N];
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) load_values<N>(from[i] + c, values[i]);
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      const u32 row = first + i * step;
      if (row < live) store_values<N>(out, row, column + c, values[i]);
    }
  }
}

// One row of the output: the sum or mean of a bag.
template <int N>
DEVICE void pool_bag(const Piece& piece, u32 row, const Mat& out, const Group& group) {
  const u32 from = piece.offsets[row], to = piece.offsets[row + 1];
  const float scale = piece.mean && from < to ? 1.0f / (float)(to - from) : 1.0f;
  for (u32 c = group.lane * N; c < piece.dim; c += group.lanes * N) {
    float sum[N];
    clear_values(sum);
    for (u32 k = from; k < to; k += AHEAD) {
      u32 ids[AHEAD];
      float rows[AHEAD][N];
#pragma unroll
      for (u32 a = 0; a < AHEAD; a++) ids[a] = piece.ids[min(k + a, to - 1)];
#pragma unroll
      for (u32 a = 0; a < AHEAD; a++) {
        clear_values(rows[a]);
        if (k + a < to) load_values<N>(row_of(piece, ids[a]) + c, rows[a]);
      }
#pragma unroll
      for (u32 a = 0; a < AHEAD; a++) add_values(sum, rows[a]);
    }
#pragma unroll
    for (int i = 0; i < N; i++) sum[i] *= scale;
    store_values<N>(out, row, piece.column + c, sum);
  }
}

template <int N>
DEVICE void look_up(const Trunk& trunk, u32 number, u32 first, u32 step, const Mat& out, const Group& group) {
  const u32 live = rows_of(out);
  if (!trunk.pieces[number].offsets) {
    look_up_single<N>(trunk, number, first, step, live, out, group);
    return;
  }
#pragma unroll 1
  for (u32 row = first; row < live && row < first + ROWS * step; row += step) {
    pool_bag<N>(trunk.piece(number, row), row, out, group);
  }
}

// Looks up `count` pieces for every row of `out`. With `scenarios`, the scenario of each row, `pieces` are
// `[scenarios, count]`, those of a number alike in kind and width.
KERNEL(THREADS) lookup(const Piece* pieces, u32 count, const u32* scenarios, Mat out) {
  const u32 number = last_at_most(&pieces->first_block, sizeof(Piece) / 4, count, blockIdx.x);
  const Piece& piece = pieces[number];
  const Group group = group_of_thread(piece.lane_bits);
  const u32 first = (blockIdx.x - piece.first_block) * group.count * ROWS + group.number;
  const Trunk trunk = {pieces, count, scenarios};
  if (piece.quads) {
    look_up<4>(trunk, number, first, group.count, out, group);
  } else {
    look_up<1>(trunk, number, first, group.count, out, group);
  }
}

// Looks up one piece.
KERNEL(THREADS) gather(Piece piece, Mat out) {
  const Group group = group_of_thread(piece.lane_bits);
  const u32 first = blockIdx.x * group.count * ROWS + group.number;
  const Trunk trunk = {&piece, 1, nullptr};
  if (piece.quads) {
    look_up<4>(trunk, 0, first, group.count, out, group);
  } else {
    look_up<1>(trunk, 0, first, group.count, out, group);
  }
}

template <int N>
DEVICE void scale_row(const Piece& piece, u32 row, const Mat& d, const Group& group) {
  const u32 ids = piece.offsets[row + 1] - piece.offsets[row];
  if (ids <= 1) return;
  const float scale = 1.0f / (float)ids;
  for (u32 c = group.lane * N; c < piece.dim; c += group.lanes * N) {
    float values[N];
    load_values<N>(d, row, piece.column + c, values);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] *= scale;
    store_values<N>(d, row, piece.column + c, values);
  }
}

// Turns the gradient at means of bags, columns of `d`, into that of each row of a bag, in place. All pieces are means.
KERNEL(THREADS) scale_bag_gradient(const Piece* pieces, u32 count, const u32* scenarios, Mat d) {
  const u32 number = last_at_most(&pieces->first_block, sizeof(Piece) / 4, count, blockIdx.x);
  const Piece& piece = pieces[number];
  const Group group = group_of_thread(piece.lane_bits);
  const u32 first = (blockIdx.x - piece.first_block) * group.count * ROWS + group.number;
  const u32 live = rows_of(d);
  const Trunk trunk = {pieces, count, scenarios};
#pragma unroll 1
  for (u32 row = first; row < live && row < first + ROWS * group.count; row += group.count) {
    if (piece.quads) {
      scale_row<4>(trunk.piece(number, row), row, d, group);
    } else {
      scale_row<1>(trunk.piece(number, row), row, d, group);
    }
  }
}
