// Runs: the sorted look-ups of one row, in tiles that a block takes.
//
// A run belongs to the tile in which it begins. It may reach into the next tile; one of more than TILE look-ups is
// long, and each tile that it touches sums its own part.
#pragma once

#include "block_scan.cuh"
#include "embedding_gradients.cuh"
#include "embedding_sums.cuh"

#define TILE SUM_THREADS

// Sorted look-ups, their gradients, and the tables of their rows.
struct Lookups {
  const u32* keys;
  const u32* positions;
  const u32* count;
  const Source* sources;
  const TableRows* tables;
  u32 table_count;
  u32 row_bits;
  // Sums of parts of long runs: of each tile one of the run that reaches in, and one of the run that begins in it and
  // leaves it. `[2 * tiles, part_stride]`.
  float* parts;
  u32 part_stride;
  // Whether a long run begins in a tile.
  u32* long_runs;

  // The gradient row of a look-up.
  DEVICE GradientRow gradient(u32 lookup) const {
    const u32 position = positions[lookup];
    const Source& source = sources[position >> row_bits];
    const u64 values = (u64)(position & ((1u << row_bits) - 1)) * source.stride;
    const GradientRow first = (GradientRow)source.gradient;
    return source.element == ELEMENT_F32 ? first + 4 * values : first + 2 * values + 1;
  }
  DEVICE u32 table_of(u32 key) const {
    return last_at_most(&tables->first_key, sizeof(TableRows) / 4, table_count, key);
  }
  // The part that a tile has of the long run that begins in it, or of the one that reaches in.
  DEVICE float* part(u32 tile, bool begins) const { return parts + (u64)(2 * tile + begins) * part_stride; }
};

// The runs of a tile.
struct Tile {
  // Its look-ups.
  u32 first, end;
  // Runs that begin in it: run r takes the look-ups `starts[r] .. starts[r + 1]`.
  u32 runs;
  // Whether the last of them is long: where it ends is not known then.
  bool last_is_long;
  // Where the first of them begins, and whether what is before is part of a long run.
  u32 first_start;
  bool reaching_in_is_long;
};

struct TileSpace {
  // Of each run: its key and its first look-up; behind the last one's where it ends.
  u32 keys[TILE], starts[TILE + 1];
  // The gradient rows of the tile's look-ups, and of those of the next tile that belong to the last run.
  GradientRow gradients[2 * TILE];
  // Of each warp: run starts, and look-ups of the tiles before and behind that belong to the first and the last key.
  u32 of_warp[3][TILE / 32];
};

// Finds the runs of the block's tile of `count` look-ups, more than there are before it. A block has TILE threads.
DEVICE Tile find_runs(const Lookups& lookups, u32 count, TileSpace& space) {
  const u32* keys = lookups.keys;
  const u32 first = blockIdx.x * TILE, end = min(first + TILE, count), at = first + threadIdx.x;
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  const u32 first_key = keys[first], last_key = keys[end - 1];
  const u32 key = at < end ? keys[at] : last_key;
  const bool starts = at < end && (at == 0 || keys[at - 1] != key);
  const bool is_before = first > 0 && keys[at - TILE] == first_key;
  const bool is_behind = at + TILE < count && keys[at + TILE] == last_key;
  const u32 masks[3] = {
      __ballot_sync(FULL_WARP, starts),
      __ballot_sync(FULL_WARP, is_before),
      __ballot_sync(FULL_WARP, is_behind),
  };
  if (lane == 0) {
#pragma unroll
    for (u32 i = 0; i < 3; i++) space.of_warp[i][warp] = __popc(masks[i]);
  }
  __syncthreads();
  u32 runs = 0, runs_before = 0, before = 0, behind = 0;
#pragma unroll
  for (u32 w = 0; w < TILE / 32; w++) {
    if (w == warp) runs_before = runs;
    runs += space.of_warp[0][w], before += space.of_warp[1][w], behind += space.of_warp[2][w];
  }
  if (starts) {
    const u32 run = runs_before + __popc(masks[0] & ((1u << lane) - 1));
    space.keys[run] = key, space.starts[run] = at;
  }
  for (u32 i = threadIdx.x; i < (is_behind ? 2 * TILE : end - first); i += TILE) {
    space.gradients[i] = lookups.gradient(first + i);
  }
  if (threadIdx.x == 0) space.starts[runs] = end + behind;
  __syncthreads();
  const u32 first_start = runs ? space.starts[0] : end;
  const u32 reaching_in = first_start == first ? 0 : before + first_start - first + (runs ? 0 : behind);
  const bool last_is_long = runs && space.starts[runs] - space.starts[runs - 1] > TILE;
  return {first, end, runs, last_is_long, first_start, reaching_in > TILE};
}

// The gradient rows of a tile's look-ups.
struct TileRows {
  const GradientRow* gradients;
  u32 first;
  static constexpr bool may_be_bf16 = true;

  DEVICE GradientRow row(u32 lookup) const { return gradients[lookup - first]; }
};

// The parts of a long run: that of the tile in which it begins, then those of the tiles that it reaches into.
struct PartRows {
  const Lookups& lookups;
  u32 tile;
  static constexpr bool may_be_bf16 = false;

  DEVICE GradientRow row(u32 part) const { return (GradientRow)lookups.part(tile + part, part == 0); }
};

// One row.
struct OneRow {
  const float* values;
  static constexpr bool may_be_bf16 = false;

  DEVICE GradientRow row(u32) const { return (GradientRow)values; }
};

// How the tables of a tile can be worked on: by the widest and the least aligned of them.
struct Width {
  u32 lane_bits;
  bool quads;
};

DEVICE Width width_of(const TableRows* tables, u32 first, u32 last) {
  u32 dim = 1;
  bool quads = true;
  for (u32 t = first; t <= last; t++) {
    dim = max(dim, tables[t].dim);
    quads = quads && tables[t].quads;
  }
  const u32 steps = quads ? (dim + 3) / 4 : dim;
  return {min(32u - (u32)__clz(steps - 1), 5u), quads};
}

// Gives the runs that begin in the block's tile to `consumer`, a group of lanes each, and sums the parts of long ones.
template <int N, class Consumer>
DEVICE void take_runs(const Lookups& lookups, const Consumer& consumer, const Tile& tile, u32 first_table,
                      const Group& group, const TileSpace& found, SumSpace& space) {
  const u32 whole = tile.runs - tile.last_is_long;
  const TileRows gradients = {found.gradients, tile.first};
  for (u32 base = 0; base < whole; base += group.count) {
    // The whole warp comes along, for its shuffles.
    const u32 run = base + group.number;
    const bool there = run < whole;
    const u32 from = there ? found.starts[run] : tile.first, to = there ? found.starts[run + 1] : tile.first;
    const u32 key = found.keys[there ? run : 0];
    u32 table = first_table;
    while (table + 1 < lookups.table_count && lookups.tables[table + 1].first_key <= key) table++;
    consumer.template take<N>(there, run, key, table, gradients, from, to, group);
  }
  // The parts of long runs that the tile has: of the one that reaches in, and of the one that begins in it.
#pragma unroll 1
  for (u32 begins = 0; begins < 2; begins++) {
    const u32 key = lookups.keys[begins ? tile.end - 1 : tile.first], table = lookups.table_of(key);
    const bool wanted = (begins ? tile.last_is_long : tile.reaching_in_is_long) && consumer.wants(key, table);
    if (begins && threadIdx.x == 0) lookups.long_runs[blockIdx.x] = wanted;
    if (!wanted) continue;
    const u32 from = begins ? found.starts[tile.runs - 1] : tile.first, to = begins ? tile.end : tile.first_start;
    sum_by_block<N>(gradients, from, to, lookups.tables[table].dim, lookups.part(blockIdx.x, begins), group, space);
  }
}

// A block's tile of look-ups.
template <class Consumer>
DEVICE void take_tile(const Lookups& lookups, const Consumer& consumer) {
  SHARED TileSpace tile_space;
  SHARED SumSpace sum_space;
  const u32 count = *lookups.count;
  if (blockIdx.x * TILE >= count) return;
  const Tile tile = find_runs(lookups, count, tile_space);
  const u32 first_table = lookups.table_of(lookups.keys[tile.first]);
  const u32 last_table = lookups.table_of(lookups.keys[tile.end - 1]);
  const Width width = width_of(lookups.tables, first_table, last_table);
  const Group group = group_of_thread(width.lane_bits);
  if (width.quads) {
    take_runs<4>(lookups, consumer, tile, first_table, group, tile_space, sum_space);
  } else {
    take_runs<1>(lookups, consumer, tile, first_table, group, tile_space, sum_space);
  }
}

// Where the run of `key` ends that has look-up `from - 1`. The whole warp has to come.
DEVICE u32 run_end(const u32* keys, u32 from, u32 count, u32 key) {
  const u32 lane = threadIdx.x & 31;
  // Each step leaves a 32nd of what may still belong to the run.
  while (from < count) {
    const u32 step = (count - from + 31) / 32;
    const u32 at = from + lane * step;
    const u32 equal = __popc(__ballot_sync(FULL_WARP, at < count && keys[at] == key));
    if (equal == 0) return from;
    if (step == 1) return from + equal;
    count = min(count, from + equal * step);
    from = from + (equal - 1) * step + 1;
  }
  return from;
}

// The long run that begins in `tile`: its parts are summed to the first of them, which `consumer` is given.
template <int N, class Consumer>
DEVICE void take_long_run(const Lookups& lookups, const Consumer& consumer, u32 tile, u32 key, u32 table,
                          const Group& group, SumSpace& space) {
  const u32 behind = (tile + 1) * TILE;
  const u32 end = run_end(lookups.keys, behind, *lookups.count, key);
  const u32 parts = 1 + (end - behind + TILE - 1) / TILE;
  const PartRows rows = {lookups, tile};
  float* total = lookups.part(tile, true);
  sum_by_block<N>(rows, 0, parts, lookups.tables[table].dim, total, group, space);
  if (threadIdx.x < 32) {
    const OneRow sum = {total};
    consumer.template take_long<N>(group.number == 0, tile, key, table, sum, group);
  }
}

// The long runs, a block each. Every block looks for some in tiles that lie far apart: the tiles of hot rows do not.
template <class Consumer>
DEVICE void take_long_runs(const Lookups& lookups, const Consumer& consumer) {
  SHARED SumSpace space;
  SHARED u32 begin[TILE / 32];
  const u32 tiles = (*lookups.count + TILE - 1) / TILE;
  for (u32 base = 0; base * gridDim.x < tiles; base += TILE) {
    const u32 own = (base + threadIdx.x) * gridDim.x + blockIdx.x;
    const u32 mask = __ballot_sync(FULL_WARP, own < tiles && lookups.long_runs[own]);
    if ((threadIdx.x & 31) == 0) begin[threadIdx.x / 32] = mask;
    __syncthreads();
#pragma unroll 1
    for (u32 w = 0; w < TILE / 32; w++) {
#pragma unroll 1
      for (u32 left = begin[w]; left;) {
        const u32 last = 31 - __clz(left);
        left ^= 1u << last;
        const u32 tile = (base + 32 * w + last) * gridDim.x + blockIdx.x;
        const u32 key = lookups.keys[(tile + 1) * TILE - 1], table = lookups.table_of(key);
        const Width width = width_of(lookups.tables, table, table);
        const Group group = group_of_thread(width.lane_bits);
        if (width.quads) {
          take_long_run<4>(lookups, consumer, tile, key, table, group, space);
        } else {
          take_long_run<1>(lookups, consumer, tile, key, table, group, space);
        }
      }
    }
    __syncthreads();
  }
}
