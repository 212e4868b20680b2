// What rows have by their scenario, in whatever order they stand: values scaled and shifted.
//
// Floor: the bytes, x and y once, x, dy and dx once backward, x and dy once more for the sums over the rows of each scenario;
// 65,536 rows of 512 values in f32: 268 MB forward, 62 us on an H200 (4.3 TB/s).
#include "column_sums.cuh"
#include "share.cuh"

// The columns of a share in the row of its scenario, of matrices that have one for each.
DEVICE Share of_scenarios(const Share& share, const u32* scenario) {
  Share own = share;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    if (share.of[i].count > 0) own.of[i].row = scenario[share.of[i].row];
  }
  return own;
}

// y = m[s] * x + b[s], s the row's scenario.
KERNEL(THREADS) scenario_affine(const u32* scenario, Mat x, Mat m, Mat b, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  const Share own = of_scenarios(share, scenario);
  ShareBits of_x, of_m, of_b;
  load_share(x, share, of_x);
  load_share(m, own, of_m);
  load_share(b, own, of_b);
  float values[8], factors[8], shifts[8];
  values_of(of_x, x, values);
  values_of(of_m, m, factors);
  values_of(of_b, b, shifts);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = fmaf(factors[i], values[i], shifts[i]);
  store_share(y, share, values);
}

// dx = m[s] * dy, written or added.
KERNEL(THREADS) scenario_affine_dx(const u32* scenario, Mat m, Mat dy, u32 accumulate, Mat dx) {
  const Share share = share_of_thread(dy);
  if (is_empty(share)) return;
  ShareBits of_m, of_dy;
  load_share(dy, share, of_dy);
  load_share(m, of_scenarios(share, scenario), of_m);
  float values[8], factors[8];
  values_of(of_dy, dy, values);
  values_of(of_m, m, factors);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(factors[i], values[i]);
  put_share(dx, share, accumulate, values);
}

// Sums of the columns of dy, and of dy * x unless x has no data, over the rows of each scenario: the third index of the grid.
// Each of these reads the scenarios of all rows, and the rows of its own.
KERNEL(THREADS) scenario_sums(const u32* scenario, Mat x, Mat dy, u32 across, double* partials) {
  const u32 rows = rows_of(dy);
  if (blockIdx.x * (THREADS / across) >= rows) return;
  const bool quads_x = has_quads(x), quads_dy = has_quads(dy);
  double first[4] = {}, second[4] = {};
  for (Place at = place_of_chunk(across); at.row < rows; at.row += ROWS * at.step) {
    bool is_own[ROWS];
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      const u32 row = at.row + i * at.step;
      is_own[i] = row < rows && scenario[row] == blockIdx.z;
    }
    QuadBits of_x[ROWS] = {}, of_dy[ROWS] = {};
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      const u32 row = at.row + i * at.step;
      if (is_own[i]) load_quad(dy, quads_dy, row, at.col, of_dy[i]);
      if (is_own[i] && x.data) load_quad(x, quads_x, row, at.col, of_x[i]);
    }
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      if (!is_own[i]) continue;
      float values[4], gradients[4];
      values_of(of_x[i], x.element, values);
      values_of(of_dy[i], dy.element, gradients);
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const double gradient = gradients[c];
        first[c] += gradient;
        second[c] += gradient * (double)values[c];
      }
    }
  }
  leave_sums(first, second, across, dy.cols, partials);
}

// The sums that `scenario_sums` has left, a row for each scenario: of dy, and of dy * x.
KERNEL(THREADS)
finish_scenario_sums(Mat dy, u32 across, u32 chunks, const double* partials, Gradient of_dy, Gradient of_products) {
  const Sums sums = sums_of_chunks(partials, chunks, across, rows_of(dy), dy.cols);
  if (threadIdx.x >= COLUMNS || sums.col >= dy.cols) return;
  const u32 at = blockIdx.z * dy.cols + sums.col;
  if (of_dy.values) put(of_dy, at, sums.first);
  if (of_products.values) put(of_products, at, sums.second);
}
