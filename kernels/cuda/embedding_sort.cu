// The look-ups of a batch as pairs (key, position), and a stable radix sort of them by key.
//
// Pairs are made source by source and in each by rows, so that after the sort the look-ups of a row stand in the order
// in which the CPU adds their gradients. How many there are is known on the device alone: grids are sized for the most.
//
// A pass over a digit of at most 8 bits: every block counts the digits of its TILE pairs (`count_digits`), a block for
// each digit sums its counts over the tiles before each (`scan_digits`), and the pairs move (`scatter`): sorted inside
// the tile first, so that those of a digit are written side by side.
//
// Floor: 20 bytes a pair and pass (keys twice, positions once, both written); 17.0 M look-ups of 26 M rows, 4 passes:
// 1.4 GB, 0.32 ms on an H200 (4.3 TB/s). Making the pairs: 12 bytes each, 0.05 ms.

#include "block_scan.cuh"
#include "embedding_gradients.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
// Pairs that a thread and a block sort.
#define ITEMS 16
#define TILE (THREADS * ITEMS)
// Values of the widest digit.
#define DIGIT_BITS 8
#define DIGITS (1 << DIGIT_BITS)
#define SCAN_THREADS 1024

// Numbers the look-ups: `starts[s]` becomes the number of those of the sources before `s`, `starts[count]` that of all.
// Where `*go_on` is 0 there are none, so that nothing after this moves a row. One block.
KERNEL(THREADS) number_lookups(const u32* go_on, const Source* sources, u32 count, u32* starts) {
  SHARED ScanSpace space;
  const bool counts = !go_on || *go_on;
  u32 before = 0;
  for (u32 from = 0; from < count; from += THREADS) {
    const u32 s = from + threadIdx.x;
    u32 lookups = 0;
    if (counts && s < count) {
      const Source& source = sources[s];
      const u32 first = global(source.rows)[0], end = global(source.rows)[1];
      const u32* offsets = global(source.offsets);
      lookups = offsets ? offsets[end] - offsets[first] : end - first;
    }
    u32 total;
    const u32 start = before + sum_before(lookups, total, space);
    if (s < count) starts[s] = start;
    before += total;
  }
  if (threadIdx.x == 0) starts[count] = before;
}

// The last of `count` bags that begins at `at` or before.
DEVICE u32 bag_of(const u32* offsets, u32 count, u32 at) {
  u32 low = 0, high = count;
  while (high - low > 1) {
    const u32 middle = (low + high) / 2;
    if (offsets[middle] <= at) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Makes the pairs of all sources. A block takes THREADS rows of a source. An id that the table does not have is
// unknown, as row 0 is.
KERNEL(THREADS) make_keys(const Source* sources, u32 count, const u32* starts, u32 row_bits, u32* keys,
                          u32* positions) {
  SHARED u32 offsets[THREADS + 1];
  const u32 s = last_at_most(&sources->first_block, sizeof(Source) / 4, count, blockIdx.x);
  const Source& source = sources[s];
  const u32* rows = global(source.rows);
  const u32* ids = global(source.ids);
  const u32* ends = global(source.offsets);
  const u32 first = rows[0] + (blockIdx.x - source.first_block) * THREADS, end = rows[1];
  if (first >= end || starts[count] == 0) return;
  const u32 block_rows = min(end - first, THREADS);
  // Single ids are numbered as rows are.
  for (u32 i = threadIdx.x; i <= block_rows; i += THREADS) offsets[i] = ends ? ends[first + i] : first + i;
  __syncthreads();
  const u32 from = offsets[0], to = offsets[block_rows], numbered_from = ends ? ends[rows[0]] : rows[0];
  for (u32 i = from + threadIdx.x; i < to; i += THREADS) {
    const u32 row = !ends || source.by_position ? i : first + bag_of(offsets, block_rows, i);
    const u32 id = ids[i], at = starts[s] + (i - numbered_from);
    keys[at] = source.first_key + (id < source.table_rows ? id : 0);
    positions[at] = s << row_bits | row;
  }
}

// A digit of a key.
struct Digit {
  u32 shift, bits;

  DEVICE u32 of(u32 key) const { return (key >> shift) & ((1u << bits) - 1); }
};

// The lanes whose digit is this one's: a vote for each bit, which takes less than `__match_any_sync` of many values.
DEVICE u32 equal_digits(u32 digit) {
  u32 equal = FULL_WARP;
#pragma unroll
  for (u32 bit = 0; bit < DIGIT_BITS; bit++) {
    const bool own = digit >> bit & 1;
    const u32 lanes = __ballot_sync(FULL_WARP, own);
    equal &= own ? lanes : ~lanes;
  }
  return equal;
}

// How often each digit occurs in every tile: `counts` `[digits, tiles]`.
KERNEL(THREADS) count_digits(const u32* keys, const u32* count, Digit digit, u32* counts) {
  SHARED u32 tile_counts[DIGITS];
  const u32 from = blockIdx.x * TILE, all = *count;
  if (from >= all) return;
  tile_counts[threadIdx.x] = 0;
  __syncthreads();
  u32 digits[ITEMS];
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    const u32 at = from + i * THREADS + threadIdx.x;
    digits[i] = at < all ? digit.of(keys[at]) : DIGITS;
  }
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    const u32 own = digits[i];
    // Where a warp has the same, as of a hot row, one adds for all: the others would wait for each other.
    const u32 first = __shfl_sync(FULL_WARP, own, 0);
    if (__all_sync(FULL_WARP, own == first)) {
      if (own < DIGITS && (threadIdx.x & 31) == 0) atomicAdd(&tile_counts[own], 32);
    } else if (own < DIGITS) {
      atomicAdd(&tile_counts[own], 1);
    }
  }
  __syncthreads();
  if (threadIdx.x < 1u << digit.bits) counts[(u64)threadIdx.x * gridDim.x + blockIdx.x] = tile_counts[threadIdx.x];
}

// Replaces the counts of a digit, one block for each, by their sums over the tiles before; `totals` are over all tiles.
// A block has as many threads as there are tiles, or the most.
KERNEL(SCAN_THREADS) scan_digits(const u32* count, u32 tiles, u32* counts, u32* totals) {
  SHARED ScanSpace space;
  const u32 live = (*count + TILE - 1) / TILE;
  u32* row = counts + (u64)blockIdx.x * tiles;
  u32 before = 0;
  for (u32 from = 0; from < live; from += blockDim.x) {
    const u32 tile = from + threadIdx.x;
    const u32 own = tile < live ? row[tile] : 0;
    u32 total;
    const u32 sum = before + sum_before(own, total, space);
    if (tile < live) row[tile] = sum;
    before += total;
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = before;
}

// Pairs.
struct Pairs {
  u32* keys;
  u32* positions;
};

struct ScatterSpace {
  // How many pairs with a digit a warp has, then where those of a warp go to in the sorted tile.
  u32 of_warp[WARPS][DIGITS];
  // What has to be added to a place in the sorted tile to have that among all pairs.
  u32 shift[DIGITS];
  u32 keys[TILE], positions[TILE];
  ScanSpace scan;
};

// Counts the digits of a warp, pair by pair in their order: `ranks` become the number of equal ones before each.
DEVICE void rank_in_warp(const u32 (&keys)[ITEMS], Digit digit, u32* warp_counts, u32 (&ranks)[ITEMS]) {
  const u32 lane = threadIdx.x & 31;
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    const u32 own = digit.of(keys[i]);
    const u32 equal = equal_digits(own);
    const u32 leader = 31 - __clz(equal);
    u32 before = 0;
    if (lane == leader) before = atomicAdd(&warp_counts[own], __popc(equal));
    ranks[i] = __shfl_sync(FULL_WARP, before, leader) + __popc(equal & ((1u << lane) - 1));
  }
}

// From counts to places: thread d knows all about digit d.
DEVICE void place_digits(ScatterSpace& space, Digit digit, const u32* counts, const u32* totals) {
  const u32 d = threadIdx.x;
  const bool there = d < 1u << digit.bits;
  u32 in_tile = 0;
#pragma unroll
  for (u32 w = 0; w < WARPS; w++) {
    const u32 own = space.of_warp[w][d];
    space.of_warp[w][d] = in_tile;
    in_tile += own;
  }
  u32 all;
  const u32 tile_place = sum_before(in_tile, all, space.scan);
  const u32 place = sum_before(there ? totals[d] : 0, all, space.scan);
  space.shift[d] = (there ? place + counts[(u64)d * gridDim.x + blockIdx.x] : 0) - tile_place;
#pragma unroll
  for (u32 w = 0; w < WARPS; w++) space.of_warp[w][d] += tile_place;
}

// Moves pairs to the order of a digit, keeping that of equal ones. `counts` and `totals` are what `scan_digits` leaves.
KERNEL_SHARING(THREADS, 3)
scatter(Pairs from, const u32* count, Digit digit, const u32* counts, const u32* totals, Pairs to) {
  SHARED ScatterSpace space;
  const u32 first = blockIdx.x * TILE, all = *count;
  if (first >= all) return;
  const u32 here = min(all - first, TILE);
  const u32 lane = threadIdx.x & 31, warp = threadIdx.x / 32;
#pragma unroll
  for (u32 w = 0; w < WARPS; w++) space.of_warp[w][threadIdx.x] = 0;
  __syncthreads();
  // A warp takes pairs that stand together. Beyond the end there are the largest keys, which go behind all others.
  const u32 own = warp * ITEMS * 32 + lane;
  const u32* own_keys = from.keys + first + own;
  const u32* own_positions = from.positions + first + own;
  u32 keys[ITEMS], places[ITEMS];
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) keys[i] = own + i * 32 < here ? own_keys[i * 32] : 0xffffffffu;
  rank_in_warp(keys, digit, space.of_warp[warp], places);
  __syncthreads();
  place_digits(space, digit, counts, totals);
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    places[i] += space.of_warp[warp][digit.of(keys[i])];
    space.keys[places[i]] = keys[i];
  }
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    if (own + i * 32 < here) space.positions[places[i]] = own_positions[i * 32];
  }
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    const u32 at = i * THREADS + threadIdx.x;
    if (at < here) {
      const u32 key = space.keys[at], place = at + space.shift[digit.of(key)];
      to.keys[place] = key;
      to.positions[place] = space.positions[at];
    }
  }
}
