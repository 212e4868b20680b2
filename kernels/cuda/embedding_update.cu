// Gradients of rows from sorted look-ups: summed for each row, and applied to it with the optimiser's state beside it.
//
// A block takes TILE look-ups, finds the runs in them, and gives each to a group of lanes, as many as a row has
// float4s: all rows of a tile, their weights and gradients, are on their way together. A run of more than TILE look-ups
// is long: every tile sums its part of it by all its groups, and a second launch adds the parts.
//
// Sums are in the order of the look-ups, which is that of the CPU, for every run that is not long. Long ones are summed
// in parts, whose bounds depend on the sorted look-ups alone, and so on every device alike.
//
// Floor: a gradient row a look-up, and of each distinct row weights and state, read and written. 65,536 rows of 26 bags
// of 10, dim 64, row-wise Adagrad: 12.5 M distinct rows, 11.5 GB, 2.7 ms on an H200 (4.3 TB/s); gradients that stay in
// the second-level cache (a table's are 17 MB, and its look-ups are neighbours after the sort) take off up to a third.

#include "embedding_runs.cuh"
#include "row_optimizer.cuh"

// Moves rows.
struct Update {
  const TableRows* tables;
  const RowStep* steps;

  // Row 0, the unknown one, is never trained.
  DEVICE bool wants(u32 key, u32 table) const {
    return key != tables[table].first_key && steps[table].method != ROWS_STAY;
  }

  template <int N, class Rows>
  DEVICE void take(bool there, u32, u32 key, u32 table_index, const Rows& gradients, u32 from, u32 to,
                   const Group& group) const {
    const TableRows& table = tables[table_index];
    const RowStep& step = steps[table_index];
    const u32 dim = there && wants(key, table_index) ? table.dim : 0;
    const u32 blocks = state_blocks(step.method);
    // Row-wise Adagrad looks at all of a row before any of it moves. What a lane has of a row of one step it keeps.
    const bool by_row = step.method == ROWWISE_ADAGRAD;
    const bool keeps = by_row && dim <= group.lanes * N;
    float* row = global(table.data) + (u64)(key - table.first_key) * table.stride;
    float accumulator = by_row && dim ? row[dim] : 0.0f, squares = 0.0f, rate = 0.0f;
    float g[N], w[N], first[N], second[N];
#pragma unroll 1
    for (u32 pass = 0; pass < 2; pass++) {
      const u32 end = pass || by_row ? dim : 0;
      for (u32 c = group.lane * N; c < end; c += group.lanes * N) {
        if (!pass || !keeps) {
          load_values<N>(row + c, w);
          if (blocks > 0) load_values<N>(row + dim + c, first);
          if (blocks > 1) load_values<N>(row + 2 * dim + c, second);
          sum_rows<N>(gradients, from, to, c, g);
          if (by_row) add_scaled(step.l2, w, g);
        }
        if (!pass) {
#pragma unroll
          for (int i = 0; i < N; i++) squares = fmaf(g[i], g[i], squares);
          continue;
        }
        if (by_row) {
          add_scaled(-rate, g, w);
        } else {
          move_values<N>(step, g, w, first, second);
        }
        store_values<N>(row + c, w);
        if (blocks > 0) store_values<N>(row + dim + c, first);
        if (blocks > 1) store_values<N>(row + 2 * dim + c, second);
      }
      if (pass) break;
      squares = group_sum(squares, group);
      if (by_row && dim) {
        accumulator += squares / (float)dim;
        if (group.lane == 0) row[dim] = accumulator;
        rate = step.rate / (sqrtf(accumulator) + step.epsilon);
      }
    }
  }

  template <int N>
  DEVICE void take_long(bool there, u32, u32 key, u32 table, const OneRow& sum, const Group& group) const {
    take<N>(there, 0, key, table, sum, 0, 1, group);
  }
};

// Moves all rows with gradients but those of long runs, whose parts it sums. `steps` has one for each table.
KERNEL_SHARING(TILE, 3) update_rows(Lookups lookups, const RowStep* steps) {
  take_tile(lookups, Update{lookups.tables, steps});
}

// Moves the rows of long runs.
KERNEL_SHARING(TILE, 2) update_long_rows(Lookups lookups, const RowStep* steps) {
  take_long_runs(lookups, Update{lookups.tables, steps});
}

// Counts the runs that begin in each tile.
KERNEL(TILE) count_runs(const u32* keys, const u32* count, u32* runs) {
  SHARED ScanSpace space;
  const u32 at = blockIdx.x * TILE + threadIdx.x;
  if (blockIdx.x * TILE >= *count) return;
  const bool starts = at < *count && (at == 0 || keys[at - 1] != keys[at]);
  u32 total;
  sum_before(starts, total, space);
  if (threadIdx.x == 0) runs[blockIdx.x] = total;
}

// Replaces the counts of the tiles by their sums over those before; `distinct` is their sum. One block.
KERNEL(1024) number_runs(const u32* count, u32* runs, u32* distinct) {
  SHARED ScanSpace space;
  const u32 tiles = (*count + TILE - 1) / TILE;
  u32 before = 0;
  for (u32 from = 0; from < tiles; from += 1024) {
    const u32 tile = from + threadIdx.x;
    const u32 own = tile < tiles ? runs[tile] : 0;
    u32 total;
    const u32 sum = before + sum_before(own, total, space);
    if (tile < tiles) runs[tile] = sum;
    before += total;
  }
  if (threadIdx.x == 0) *distinct = before;
}

// Writes sums out.
struct Coalesce {
  const TableRows* tables;
  // Runs that begin before each tile.
  const u32* runs;
  u32* keys;
  float* sums;
  u32 stride;

  DEVICE bool wants(u32, u32) const { return true; }

  template <int N, class Rows>
  DEVICE void write(bool there, u32 run, u32 key, u32 table, const Rows& gradients, u32 from, u32 to,
                    const Group& group) const {
    if (!there) return;
    if (group.lane == 0) keys[run] = key;
    for (u32 c = group.lane * N; c < tables[table].dim; c += group.lanes * N) {
      float sum[N];
      sum_rows<N>(gradients, from, to, c, sum);
      store_values<N>(sums + (u64)run * stride + c, sum);
    }
  }

  template <int N>
  DEVICE void take(bool there, u32 run, u32 key, u32 table, const TileRows& gradients, u32 from, u32 to,
                   const Group& group) const {
    write<N>(there, runs[blockIdx.x] + run, key, table, gradients, from, to, group);
  }

  // The long run is the last that begins in its tile.
  template <int N>
  DEVICE void take_long(bool there, u32 tile, u32 key, u32 table, const OneRow& sum, const Group& group) const {
    write<N>(there, runs[tile + 1] - 1, key, table, sum, 0, 1, group);
  }
};

// Writes the key of every distinct row, ascending, to `keys_out` and its summed gradient to `sums` `[distinct,
// stride]`, but for long runs, whose parts it sums. `runs` is what `number_runs` leaves.
KERNEL_SHARING(TILE, 4) coalesce(Lookups lookups, const u32* runs, u32* keys_out, float* sums, u32 stride) {
  take_tile(lookups, Coalesce{lookups.tables, runs, keys_out, sums, stride});
}

// The same for long runs.
KERNEL_SHARING(TILE, 4) coalesce_long(Lookups lookups, const u32* runs, u32* keys_out, float* sums, u32 stride) {
  take_long_runs(lookups, Coalesce{lookups.tables, runs, keys_out, sums, stride});
}
