// Two sums of each column of a matrix over its rows, f64, in two stages: chunks of rows leave a row of first and one of
// second sums in `partials`, and blocks of COLUMNS columns add up the chunks. The order is that of the rows, of trees
// over threads and of chunks. The third index of a grid goes over groups of rows, each with sums of its own.
//
// A thread takes four columns in several rows, which it reads before it uses the first. Neighbours take neighbouring
// columns, and where a row is narrow, the next row.
#pragma once

#include "quad.cuh"

constexpr u32 THREADS = 256;
// Rows that a thread reads at a time.
constexpr u32 ROWS = 4;

// What a thread takes of a matrix: the columns `col .. col + 4` of the rows `row`, `row + step` and on.
struct Place {
  u32 row, step, col;
};

// Blocks are `across` threads wide and take every `gridDim.x`-th piece of as many rows as they are deep.
DEVICE Place place_of_chunk(u32 across) {
  const u32 depth = THREADS / across;
  return {blockIdx.x * depth + threadIdx.x / across, gridDim.x * depth,
          (blockIdx.y * across + threadIdx.x % across) * 4};
}

// Reads ROWS rows; those from `rows` on are 0.
DEVICE void load_rows(const Mat& mat, u32 rows, const Place& at, float (&values)[ROWS][4]) {
  const bool quads = has_quads(mat);
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
    const u32 row = at.row + i * at.step;
    if (row < rows) {
      load_quad(mat, quads, row, at.col, values[i]);
    } else {
      values[i][0] = values[i][1] = values[i][2] = values[i][3] = 0.0f;
    }
  }
}

// Columns of a block that adds chunks.
constexpr u32 COLUMNS = 16;

// Adds up what the threads have that differ by multiples of `across`; the sums are those of the first ones.
template <u32 COUNT>
DEVICE void add_threads(double (&sums)[COUNT][THREADS], u32 across) {
  for (u32 half = THREADS / 2; half >= across; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
#pragma unroll
      for (u32 i = 0; i < COUNT; i++) sums[i][threadIdx.x] += sums[i][threadIdx.x + half];
    }
  }
  __syncthreads();
}

// Adds up the sums of the threads of a chunk and writes them to `partials`.
DEVICE void leave_sums(const double (&first)[4], const double (&second)[4], u32 across, u32 cols, double* partials) {
  SHARED double sums[8][THREADS];
#pragma unroll
  for (u32 c = 0; c < 4; c++) sums[c][threadIdx.x] = first[c], sums[4 + c][threadIdx.x] = second[c];
  add_threads(sums, across);
  const u32 which = threadIdx.x / (4 * across), inside = threadIdx.x % (4 * across);
  const u32 col = blockIdx.y * 4 * across + inside;
  if (which > 1 || col >= cols) return;
  partials[(u64)(2 * (blockIdx.z * gridDim.x + blockIdx.x) + which) * cols + col] =
      sums[4 * which + inside % 4][inside / 4];
}

// The two sums of a column, in the first COLUMNS threads.
struct Sums {
  u32 col;
  double first, second;
};

// Adds up the chunks that had rows.
DEVICE Sums sums_of_chunks(const double* partials, u32 chunks, u32 across, u32 rows, u32 cols) {
  SHARED double sums[2][THREADS];
  const u32 col = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS, depth = THREADS / across;
  const u32 there = min(chunks, rows / depth + (rows % depth > 0));
  double first = 0.0, second = 0.0;
  if (col < cols) {
#pragma unroll 4
    for (u32 chunk = threadIdx.x / COLUMNS; chunk < there; chunk += THREADS / COLUMNS) {
      const double* from = partials + (u64)(blockIdx.z * chunks + chunk) * 2 * cols + col;
      first += from[0], second += from[cols];
    }
  }
  sums[0][threadIdx.x] = first, sums[1][threadIdx.x] = second;
  add_threads(sums, COLUMNS);
  return {col, sums[0][threadIdx.x], sums[1][threadIdx.x]};
}

// A gradient that exists once, unless it is null, and whether it is added to: `gradient_bytes` of column_sums.rs.
struct Gradient {
  float* values;
  u64 accumulate;
};

DEVICE void put(const Gradient& gradient, u32 at, double value) {
  gradient.values[at] = (gradient.accumulate ? gradient.values[at] : 0.0f) + (float)value;
}
