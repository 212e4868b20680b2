// Cross layers with a vector, y = x0 (w . x) + b + residual, and the gradients of values with rows.
//
// Floor: the bytes, x0, x, the residual and y once; 65,536 rows of 1,024 values in f32 in the first layer, where x0, x and
// the residual are one: 537 MB, 125 us on an H200 (4.3 TB/s), and 805 MB backward.
//
// A warp takes a row twice: first for its sum, then, out of the first-level cache, for what it writes.
#include "quad.cuh"

#define THREADS 256

// Columns that a warp takes at a time, and how often at once.
constexpr u32 COLUMNS = 4 * 32;
constexpr u32 AHEAD = 4;

// A row of a warp.
struct Row {
  u32 row, lane;
};

DEVICE Row row_of_warp() { return {blockIdx.x * (THREADS / 32) + threadIdx.x / 32, threadIdx.x % 32}; }

// A row of a matrix times a row of another, in every lane.
DEVICE float dot(const Mat& a, u32 row_of_a, const Mat& b, u32 row_of_b) {
  const bool quads_a = has_quads(a), quads_b = has_quads(b);
  float sum = 0.0f;
  for (u32 col = threadIdx.x % 32 * 4; col < a.cols; col += AHEAD * COLUMNS) {
    QuadBits of_a[AHEAD], of_b[AHEAD];
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      if (col + i * COLUMNS >= a.cols) continue;
      load_quad(a, quads_a, row_of_a, col + i * COLUMNS, of_a[i]);
      load_quad(b, quads_b, row_of_b, col + i * COLUMNS, of_b[i]);
    }
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
      if (col + i * COLUMNS >= a.cols) continue;
      float left[4], right[4];
      values_of(of_a[i], a.element, left);
      values_of(of_b[i], b.element, right);
#pragma unroll
      for (u32 c = 0; c < 4; c++) sum = fmaf(left[c], right[c], sum);
    }
  }
  return warp_sum(sum);
}

// y = x0 (w . x) + bias + residual, and the numbers w . x of the rows to `dots` [rows, 1]; w and bias are one row.
KERNEL(THREADS) cross_vector(Mat x0, Mat x, Mat residual, Mat w, Mat bias, Mat dots, Mat y) {
  const Row at = row_of_warp();
  if (at.row >= rows_of(y)) return;
  const float number = dot(x, at.row, w, 0);
  if (at.lane == 0) *row_f32(dots, at.row) = number;
  const bool quads = has_quads(x0) && has_quads(residual) && has_quads(bias) && has_quads(y);
  for (u32 col = at.lane * 4; col < y.cols; col += COLUMNS) {
    QuadBits of_x0, of_residual, of_bias;
    load_quad(x0, quads, at.row, col, of_x0);
    load_quad(residual, quads, at.row, col, of_residual);
    load_quad(bias, quads, 0, col, of_bias);
    float factors[4], rests[4], added[4];
    values_of(of_x0, x0.element, factors);
    values_of(of_residual, residual.element, rests);
    values_of(of_bias, bias.element, added);
#pragma unroll
    for (u32 i = 0; i < 4; i++) rests[i] = fmaf(factors[i], number, __fadd_rn(added[i], rests[i]));
    store_quad(y, quads, at.row, col, rests);
  }
}

// What a value is in the layer, as bits: multiplied by the number of its row, what gives that number, added.
enum Role : u32 { FACTOR = 1, INNER = 2, RESIDUAL = 4 };

// Where the gradient of a value goes, or no data.
struct Target {
  Mat to;
  u32 roles, accumulate;
};

struct Targets {
  Target of[3];
};

// With s = w . x (`dots`) and q = dy . x0 of a row: the gradient of each value, s dy as the factor, q w as the inner one
// and dy as the residual; q goes to `inner` [rows, 1].
KERNEL(THREADS) cross_vector_dx(Mat x0, Mat w, Mat dots, Mat dy, Mat inner, Targets targets) {
  const Row at = row_of_warp();
  if (at.row >= rows_of(dy)) return;
  const float number = *row_f32(dots, at.row), q = dot(dy, at.row, x0, at.row);
  if (at.lane == 0) *row_f32(inner, at.row) = q;
  const bool quads_dy = has_quads(dy), quads_w = has_quads(w);
#pragma unroll
  for (u32 i = 0; i < 3; i++) {
    const Target& target = targets.of[i];
    if (!target.to.data) continue;
    const float of_dy = (target.roles & FACTOR ? number : 0.0f) + (target.roles & RESIDUAL ? 1.0f : 0.0f);
    const float of_w = target.roles & INNER ? q : 0.0f;
    const bool quads = has_quads(target.to);
    for (u32 col = at.lane * 4; col < dy.cols; col += COLUMNS) {
      float gradients[4], weights[4], sums[4] = {};
      load_quad(dy, quads_dy, at.row, col, gradients);
      load_quad(w, quads_w, 0, col, weights);
      if (target.accumulate) load_quad(target.to, quads, at.row, col, sums);
#pragma unroll
      for (u32 c = 0; c < 4; c++) sums[c] = fmaf(of_w, weights[c], fmaf(of_dy, gradients[c], sums[c]));
      store_quad(target.to, quads, at.row, col, sums);
    }
  }
}
