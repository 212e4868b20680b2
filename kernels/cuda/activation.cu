// Activation functions as kernels of their own.
//
// Floor: the bytes, read once and written once; the arithmetic of a value, some 40 instructions at most (tanh), hides
// behind them.
#include "activation.cuh"
#include "share.cuh"

#define THREADS 256

// y = act(x). `x` may be `y`.
KERNEL(THREADS) activate(Activation act, Mat x, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_share(x, share, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = activated(act, values[i]);
  store_share(y, share, values);
}

// dx = dy * act' or, accumulating, dx += dy * act', with the derivative at the output `y`. `dy` may be `dx`.
KERNEL(THREADS) activation_dx(Activation act, Mat y, Mat dy, u32 accumulate, Mat dx) {
  const Share share = share_of_thread(dx);
  if (is_empty(share)) return;
  ShareBits of_y, of_dy;
  load_share(y, share, of_y);
  load_share(dy, share, of_dy);
  float outputs[8], values[8];
  values_of(of_y, y, outputs);
  values_of(of_dy, dy, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(values[i], slope_from_output(act, outputs[i]));
  put_share(dx, share, accumulate, values);
}

// Activations of which each unit learns a slope a: y = x * (p + (1 - p) * a). p is sigmoid((x - mean) * inverse
// deviation), which is Dice, or where there are no moments 1 above 0, else 0: a rectifier with learnt slopes. A thread has
// four units, which it prepares once, in several rows, which it reads before it uses the first.
//
// Floor: x and y once; of the gradients x, dy and dx once, with the sums over rows in passing. 65,536 rows of 512 units in
// f32: 268 MB and 403 MB, 62 and 94 us on an H200 (4.3 TB/s).

// Rows that a thread reads at a time, forward, where it has no others; and backward, where sums take registers.
constexpr u32 ROWS = 4, ROWS_BACKWARD = 2;

// Four columns of the rows `row`, `row + step` and on. Blocks are `across` threads wide, a power of two.
struct Place {
  u32 row, step, col;

  DEVICE Place(u32 across)
      : row(blockIdx.x * (THREADS / across) + threadIdx.x / across), step(gridDim.x * (THREADS / across)),
        col(4 * (blockIdx.y * across + threadIdx.x % across)) {}
};

struct Units {
  bool is_step;
  float mean[4], inverse[4], slope[4];

  // Columns beyond the last are as that one.
  DEVICE Units(const float* moments, float epsilon, const float* slopes, u32 col, u32 cols) : is_step(!moments) {
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
      const u32 at = min(col + c, cols - 1);
      mean[c] = moments ? moments[at] : 0.0f;
      inverse[c] = moments ? 1.0f / sqrtf(moments[cols + at] + epsilon) : 0.0f;
      slope[c] = slopes[at];
    }
  }

  DEVICE float standardised(u32 c, float x) const { return (x - mean[c]) * inverse[c]; }
  DEVICE float share(u32 c, float x) const {
    return !is_step ? math::sigmoid(standardised(c, x)) : x > 0.0f ? 1.0f : 0.0f;
  }
  DEVICE float factor(u32 c, float p) const { return fmaf(1.0f - p, slope[c], p); }
};

// Blocks are as many as it takes for ROWS rows a thread.
KERNEL(THREADS) dice(Mat x, const float* moments, float epsilon, const float* slopes, u32 across, Mat y) {
  const Place first(across);
  if (first.col >= x.cols) return;
  const Units units(moments, epsilon, slopes, first.col, x.cols);
  const bool quads_x = has_quads(x), quads_y = has_quads(y);
  const u32 rows = rows_of(y);
  QuadBits bits[ROWS];
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
    const u32 row = first.row + i * first.step;
    if (row < rows) load_quad(x, quads_x, row, first.col, bits[i]);
  }
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
    const u32 row = first.row + i * first.step;
    if (row >= rows) break;
    float values[4];
    values_of(bits[i], x.element, values);
#pragma unroll
    for (u32 c = 0; c < 4; c++) values[c] = __fmul_rn(values[c], units.factor(c, units.share(c, values[c])));
    store_quad(y, quads_y, row, first.col, values);
  }
}

// Adds up what the threads of a block have for the same four columns, times `factors`, and writes it to `to`.
DEVICE void leave_sums(const double (&sums)[4], const float (&factors)[4], u32 across, u32 count, float* to) {
  SHARED double by_thread[4][THREADS];
  __syncthreads();
#pragma unroll
  for (u32 c = 0; c < 4; c++) by_thread[c][threadIdx.x] = sums[c];
  for (u32 half = THREADS / 2; half >= across; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
#pragma unroll
    for (u32 c = 0; c < 4; c++) by_thread[c][threadIdx.x] += by_thread[c][threadIdx.x + half];
  }
  if (threadIdx.x >= across) return;
#pragma unroll
  for (u32 c = 0; c < 4; c++) {
    if (c < count) to[c] = (float)(factors[c] * by_thread[c][threadIdx.x]);
  }
}

// dx, written or added unless it has no data; and, unless `partials` is null, a row for each block: by unit its share of
// the gradient at the mean, then of those at the variance, then of those at the slope.
KERNEL(THREADS)
dice_backward(Mat x, const float* moments, float epsilon, const float* slopes, Mat dy, u32 across, u32 accumulate, Mat dx,
              float* partials) {
  const Place first(across);
  const Units units(moments, epsilon, slopes, first.col, x.cols);
  const bool quads_x = has_quads(x), quads_dy = has_quads(dy), quads_dx = has_quads(dx);
  const u32 rows = first.col < x.cols ? rows_of(x) : 0;
  double sums[4] = {}, along[4] = {}, of_slope[4] = {};
  for (u32 begin = first.row; begin < rows; begin += ROWS_BACKWARD * first.step) {
    QuadBits of_x[ROWS_BACKWARD], of_dy[ROWS_BACKWARD];
#pragma unroll
    for (u32 i = 0; i < ROWS_BACKWARD; i++) {
      const u32 row = begin + i * first.step;
      if (row >= rows) break;
      load_quad(x, quads_x, row, first.col, of_x[i]);
      load_quad(dy, quads_dy, row, first.col, of_dy[i]);
    }
#pragma unroll
    for (u32 i = 0; i < ROWS_BACKWARD; i++) {
      const u32 row = begin + i * first.step;
      if (row >= rows) break;
      float values[4], gradients[4], to[4] = {};
      if (dx.data && accumulate) load_quad(dx, quads_dx, row, first.col, to);
      values_of(of_x[i], x.element, values);
      values_of(of_dy[i], dy.element, gradients);
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const float p = units.share(c, values[c]), rest = 1.0f - p;
        const float weighed = __fmul_rn(gradients[c], values[c]);
        // The gradient at what the sigmoid is of.
        const float g = weighed * (1.0f - units.slope[c]) * p * rest;
        to[c] += gradients[c] * units.factor(c, p) + g * units.inverse[c];
        sums[c] += g;
        along[c] += __fmul_rn(g, units.standardised(c, values[c]));
        of_slope[c] += __fmul_rn(weighed, rest);
      }
      if (dx.data) store_quad(dx, quads_dx, row, first.col, to);
    }
  }
  if (!partials) return;
  float of_mean[4], of_variance[4];
#pragma unroll
  for (u32 c = 0; c < 4; c++) {
    of_mean[c] = -units.inverse[c];
    of_variance[c] = -0.5f * units.inverse[c] * units.inverse[c];
  }
  const u32 count = first.col < x.cols ? x.cols - first.col : 0;
  float* const own = partials + (u64)blockIdx.x * 3 * x.cols + first.col;
  leave_sums(sums, of_mean, across, count, own);
  leave_sums(along, of_variance, across, count, own + x.cols);
  leave_sums(of_slope, {1.0f, 1.0f, 1.0f, 1.0f}, across, count, own + 2 * x.cols);
}
