// Sums of rows of gradients, f32 or bf16, by a group of lanes or by a block.
#pragma once

#include "embedding.cuh"

// Rows that are on their way at once.
#define AHEAD 4
// Threads of a block that sums.
#define SUM_THREADS 256

// A gradient row: its address, and in the lowest bit, which is 0 in all addresses of values, whether it is bf16.
typedef const char* GradientRow;

DEVICE bool is_bf16(GradientRow row) { return (u64)row & 1; }

// Reads `N` values of `count` rows of a kind, at most AHEAD, as they lie in memory: of f32 a word each, of bf16 two in a
// word. None is looked at before all are on their way.
template <int N>
DEVICE void load_bits(const GradientRow (&rows)[AHEAD], u32 count, bool halves, u32 column, u32 (&bits)[AHEAD][N]) {
  if (!halves) {
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      if (a >= count) continue;
      const u32* from = global((const u32*)rows[a]) + column;
      if (N == 4) {
        const uint4 words = *(const uint4*)from;
        bits[a][0] = words.x, bits[a][1 % N] = words.y, bits[a][2 % N] = words.z, bits[a][3 % N] = words.w;
      } else {
        bits[a][0] = *from;
      }
    }
  } else {
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) {
      if (a >= count) continue;
      const unsigned short* from = global((const unsigned short*)(rows[a] - 1)) + column;
      if (N == 4) {
        const uint2 pairs = *(const uint2*)from;
        bits[a][0] = pairs.x, bits[a][1 % N] = pairs.y;
      } else {
        bits[a][0] = *from;
      }
    }
  }
}

// Adds what `load_bits` read of a row.
template <int N>
DEVICE void add_bits(const u32 (&bits)[N], bool halves, float (&sum)[N]) {
  float values[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    const u32 half = bits[i / 2] >> (i % 2 * 16) << 16;
    values[i] = __uint_as_float(halves ? half : bits[i]);
  }
  add_values(sum, values);
}

// The sum of values of the rows `from .. to`, from `column` on, added in their order.
template <int N, class Rows>
DEVICE void sum_rows(const Rows& rows, u32 from, u32 to, u32 column, float (&sum)[N]) {
  clear_values(sum);
  for (u32 i = from, count; i < to; i += count) {
    GradientRow row[AHEAD];
    u32 bits[AHEAD][N] = {};
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) row[a] = rows.row(min(i + a, to - 1));
    count = min(to - i, AHEAD);
    bool halves = false;
    if (Rows::may_be_bf16) {
      halves = is_bf16(row[0]);
      // A table that several parts of a model read may have gradients of both kinds.
#pragma unroll
      for (u32 a = AHEAD - 1; a > 0; a--) {
        if (is_bf16(row[a]) != halves) count = min(count, a);
      }
    }
    load_bits<N>(row, count, halves, column, bits);
#pragma unroll
    for (u32 a = 0; a < AHEAD; a++) add_bits(bits[a], halves, sum);
  }
}

struct alignas(16) SumSpace {
  float of_thread[4 * SUM_THREADS];
};

// Sums the rows `from .. to` to `total`, by all groups of the block: each takes rows that stand together, and their
// sums are added in order. The whole block has to come; `total` may be one of the rows.
template <int N, class Rows>
DEVICE void sum_by_block(const Rows& rows, u32 from, u32 to, u32 dim, float* total, const Group& group,
                         SumSpace& space) {
  const u32 share = (to - from + group.count - 1) / group.count;
  const u32 own_from = min(from + group.number * share, to), own_to = min(own_from + share, to);
  for (u32 c0 = 0; c0 < dim; c0 += group.lanes * N) {
    const u32 c = c0 + group.lane * N;
    float sum[N];
    clear_values(sum);
    if (c < dim) sum_rows<N>(rows, own_from, own_to, c, sum);
    store_values<N>(&space.of_thread[threadIdx.x * N], sum);
    __syncthreads();
    if (group.number == 0 && c < dim) {
      for (u32 g = 1; g < group.count; g++) {
        float other[N];
        load_values<N>(&space.of_thread[(g * group.lanes + group.lane) * N], other);
        add_values(sum, other);
      }
      store_values<N>(total + c, sum);
    }
    __syncthreads();
  }
}

