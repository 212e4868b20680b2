// Vectors of a row that score themselves: a row has the key, query and value of each side by side, parts of one width. A
// warp takes a row.
#pragma once

#include "share.cuh"

constexpr u32 MOST_SOURCES = 8;
// Columns that a warp takes at a time.
constexpr u32 COLUMNS = 4 * 32;

// The lane's columns of a part of a row.
DEVICE Columns columns_of_part(u32 row, u32 part, u32 width, u32 col) {
  return {row, part * width + col, min(4u, width - col)};
}

// The inner product of two parts of rows of `width` values.
DEVICE float product_of_parts(const Mat& a, u32 part_a, const Mat& b, u32 part_b, u32 row, u32 width) {
  float sum = 0.0f;
  for (u32 col = threadIdx.x % 32 * 4; col < width; col += COLUMNS) {
    QuadBits of_a, of_b;
    load_columns(a, columns_of_part(row, part_a, width, col), of_a);
    load_columns(b, columns_of_part(row, part_b, width, col), of_b);
    float x[4], y[4];
    values_of(of_a, a.element, x);
    values_of(of_b, b.element, y);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum = fmaf(x[i], y[i], sum);
  }
  return warp_sum(sum);
}

// Writes `factor` times four columns of `from`, or adds it to what is there.
DEVICE void put_scaled(const Mat& from, const Columns& at, float factor, u32 accumulate, const Mat& to,
                       const Columns& place) {
  float values[4], sums[4] = {};
  load_columns(from, at, values);
  if (accumulate) load_columns(to, place, sums);
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] = fmaf(factor, values[i], sums[i]);
  store_columns(to, place, sums);
}
