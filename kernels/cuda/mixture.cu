// Mixtures of low-rank experts of cross layers: groups of columns times a gate each, and the activation between maps.
//
// Floor: the bytes, z once and y once; 65,536 rows of 4 experts of rank 32 in f32: 67 MB, 16 us on an H200 (4.3 TB/s), as
// much for each gradient.
#include "share.cuh"

#define THREADS 256

// A row, and four of its columns.
struct Quad {
  u32 row, col;

  DEVICE Quad(u32 cols) {
    const u32 in_row = (cols + 3) / 4, index = blockIdx.x * THREADS + threadIdx.x;
    row = index / in_row, col = 4 * (index % in_row);
  }
};

// y = [g_1 z_1 ... g_K z_K ; the sum of g], of the K = `groups` equal parts of z; without data in `gates` all are 1.
KERNEL(THREADS) gate_groups(u32 groups, Mat z, Mat gates, Mat y) {
  const Quad at(y.cols);
  if (at.row >= rows_of(z)) return;
  const u32 width = z.cols / groups;
  float values[4];
  load_quad(z, has_quads(z), at.row, at.col, values);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 col = at.col + i;
    if (col < z.cols && gates.data) values[i] = __fmul_rn(values[i], load_value(gates, at.row, col / width));
    if (col != z.cols) continue;
    float sum = gates.data ? 0.0f : groups;
    for (u32 k = 0; gates.data && k < groups; k++) sum += load_value(gates, at.row, k);
    values[i] = sum;
  }
  store_quad(y, has_quads(y), at.row, at.col, values);
}

// dz_k = g_k dy_k, written or added.
KERNEL(THREADS) gate_groups_dz(u32 groups, Mat gates, Mat dy, u32 accumulate, Mat dz) {
  const Quad at(dz.cols);
  if (at.row >= rows_of(dy)) return;
  const u32 width = dz.cols / groups;
  const bool quads = has_quads(dz);
  float values[4], to[4] = {};
  load_quad(dy, has_quads(dy), at.row, at.col, values);
  if (accumulate) load_quad(dz, quads, at.row, at.col, to);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const bool is_gated = gates.data && at.col + i < dz.cols;
    to[i] = fmaf(is_gated ? load_value(gates, at.row, (at.col + i) / width) : 1.0f, values[i], to[i]);
  }
  store_quad(dz, quads, at.row, at.col, to);
}

// dg_k = z_k . dy_k + the last column of dy, written or added; `segment` lanes, a power of two, take a row.
KERNEL(THREADS) gate_groups_dg(u32 segment, Mat z, Mat dy, u32 accumulate, Mat dg) {
  const u32 row = (blockIdx.x * THREADS + threadIdx.x) / segment, lane = threadIdx.x % segment;
  const u32 width = z.cols / dg.cols;
  const bool is_there = row < rows_of(dy);
  for (u32 k = 0; k < dg.cols; k++) {
    float sum = 0.0f;
    for (u32 col = k * width + lane; is_there && col < (k + 1) * width; col += segment) {
      sum = fmaf(load_value(z, row, col), load_value(dy, row, col), sum);
    }
    for (u32 offset = segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    if (!is_there || lane > 0) continue;
    sum += load_value(dy, row, z.cols);
    store_value(dg, row, k, accumulate ? load_value(dg, row, k) + sum : sum);
  }
}

// y = x between -1 and 1, and the nearer of both beyond. NaN stays NaN.
KERNEL(THREADS) hard_tanh(Mat x, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_share(x, share, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = values[i] < -1.0f ? -1.0f : values[i] > 1.0f ? 1.0f : values[i];
  store_share(y, share, values);
}

// dx = dy where y is between -1 and 1, else 0; written or added.
KERNEL(THREADS) hard_tanh_dx(Mat y, Mat dy, u32 accumulate, Mat dx) {
  const Share share = share_of_thread(dx);
  if (is_empty(share)) return;
  ShareBits of_y, of_dy;
  load_share(y, share, of_y);
  load_share(dy, share, of_dy);
  float outputs[8], values[8];
  values_of(of_y, y, outputs);
  values_of(of_dy, dy, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = fabsf(outputs[i]) < 1.0f ? values[i] : 0.0f;
  put_share(dx, share, accumulate, values);
}
