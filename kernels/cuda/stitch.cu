// Activations of several networks mixed by a matrix (cross-stitch units), and the gradient of the matrix.
//
// Floor: the bytes, x and y once; 65,536 rows of 3 networks of 256 units in f32: 403 MB, 94 us on an H200 (4.3 TB/s), as
// much for the gradient of x and for that of the matrix. Up to four networks are read once.
#include "activation.cuh"
#include "block_sum.cuh"
#include "quad.cuh"

#define THREADS 256

// Networks that are mixed together.
constexpr u32 TASKS = 4;

// Networks side by side, and how many weights a pair has: one, or one a unit.
struct Networks {
  u32 tasks, units, each;

  // Whether four units of every network, which begin at a multiple of four, are one access.
  DEVICE bool is_whole(const Mat& mat) const { return has_quads(mat) && units % 4 == 0; }

  DEVICE void load(const Mat& mat, bool whole, u32 row, u32 task, u32 col, QuadBits& bits) const {
    load_bits(address_of(mat, row, task * units + col), mat.element, whole, units - col, bits);
  }
};

// The weights of four units of a pair whose weights begin at `pair`.
DEVICE void load_weights(const Networks& of, const float* pair, u32 col, float (&weights)[4]) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) weights[i] = of.each == 1 ? *pair : col + i < of.units ? pair[col + i] : 0.0f;
}

// y_t = the sum of a[t, j] x_j over j, or of a[j, t] x_j where `transposed`, written or added; then times the derivative
// of `activation`, whose output `masked` is.
KERNEL(THREADS)
stitch(Networks of, const float* weights, u32 transposed, Mat x, u32 accumulate, Activation activation, Mat masked,
       Mat y) {
  const u32 in_row = (of.units + 3) / 4, index = blockIdx.x * THREADS + threadIdx.x;
  const u32 row = index / in_row, col = 4 * (index % in_row);
  if (row >= rows_of(y)) return;
  const u32 by_target = transposed ? of.each : of.tasks * of.each;
  const u32 by_source = transposed ? of.tasks * of.each : of.each;
  const bool whole_x = of.is_whole(x), whole_y = of.is_whole(y), whole_masked = of.is_whole(masked);
#pragma unroll 1
  for (u32 first = 0; first < of.tasks; first += TASKS) {
    float sums[TASKS][4] = {};
#pragma unroll
    for (u32 t = 0; t < TASKS; t++) {
      if (first + t >= of.tasks || !accumulate) continue;
      QuadBits bits;
      of.load(y, whole_y, row, first + t, col, bits);
      values_of(bits, y.element, sums[t]);
    }
    for (u32 j = 0; j < of.tasks; j++) {
      QuadBits bits;
      of.load(x, whole_x, row, j, col, bits);
      float values[4];
      values_of(bits, x.element, values);
#pragma unroll
      for (u32 t = 0; t < TASKS; t++) {
        if (first + t >= of.tasks) continue;
        float a[4];
        load_weights(of, weights + (first + t) * by_target + j * by_source, col, a);
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[t][i] = fmaf(a[i], values[i], sums[t][i]);
      }
    }
#pragma unroll
    for (u32 t = 0; t < TASKS; t++) {
      if (first + t >= of.tasks) continue;
      if (activation.kind != IDENTITY) {
        QuadBits bits;
        of.load(masked, whole_masked, row, first + t, col, bits);
        float outputs[4];
        values_of(bits, masked.element, outputs);
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[t][i] = __fmul_rn(sums[t][i], slope_from_output(activation, outputs[i]));
      }
      const u32 count = of.units - col;
      store_four(address_of(y, row, (first + t) * of.units + col), y.element, whole_y, count, sums[t]);
    }
  }
}

// The products of dy_t and x_j, unit by unit, summed over every `gridDim.y`-th piece of rows: to `partials` [chunks, tasks,
// tasks, units]. A block has `across` times four units, a power of two, of up to four t and four j, by the third index
// of the grid.
KERNEL(THREADS) stitch_dweights(Networks of, u32 across, Mat x, Mat dy, float* partials) {
  const u32 step = THREADS / across, place = threadIdx.x % across, own = threadIdx.x / across;
  const u32 col = 4 * (blockIdx.x * across + place), groups = (of.tasks + TASKS - 1) / TASKS;
  const u32 first_t = TASKS * (blockIdx.z / groups), first_j = TASKS * (blockIdx.z % groups);
  const bool whole_x = of.is_whole(x), whole_dy = of.is_whole(dy);
  float sums[TASKS][TASKS][4] = {};
  const u32 rows = col < of.units ? rows_of(dy) : 0;
#pragma unroll 1
  for (u32 row = blockIdx.y * step + own; row < rows; row += gridDim.y * step) {
    QuadBits of_x[TASKS], of_dy[TASKS];
#pragma unroll
    for (u32 i = 0; i < TASKS; i++) {
      of_x[i] = of_dy[i] = {};
      if (first_j + i < of.tasks) of.load(x, whole_x, row, first_j + i, col, of_x[i]);
      if (first_t + i < of.tasks) of.load(dy, whole_dy, row, first_t + i, col, of_dy[i]);
    }
    float values[TASKS][4];
#pragma unroll
    for (u32 j = 0; j < TASKS; j++) values_of(of_x[j], x.element, values[j]);
#pragma unroll
    for (u32 t = 0; t < TASKS; t++) {
      float gradients[4];
      values_of(of_dy[t], dy.element, gradients);
#pragma unroll
      for (u32 j = 0; j < TASKS; j++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[t][j][i] = fmaf(gradients[i], values[j][i], sums[t][j][i]);
      }
    }
  }
  SHARED float by_row[THREADS][4];
#pragma unroll
  for (u32 t = 0; t < TASKS; t++) {
#pragma unroll
    for (u32 j = 0; j < TASKS; j++) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) by_row[threadIdx.x][i] = sums[t][j][i];
      __syncthreads();
      if (own == 0 && first_t + t < of.tasks && first_j + j < of.tasks) {
        const u64 pair = ((u64)blockIdx.y * of.tasks + first_t + t) * of.tasks + first_j + j;
        for (u32 i = 0; i < 4 && col + i < of.units; i++) {
          float total = 0.0f;
          for (u32 other = 0; other < step; other++) total += by_row[other * across + place][i];
          partials[pair * of.units + col + i] = total;
        }
      }
      __syncthreads();
    }
  }
}

// The gradient of the matrix, or that added to it: the sum of `chunks` partial ones, and of the units of a pair where it
// has one weight. A block for each pair.
KERNEL(THREADS)
finish_stitch_dweights(Networks of, const float* partials, u32 chunks, u32 accumulate, float* d_weights) {
  const u64 next = (u64)of.tasks * of.tasks * of.units;
  const float* const pair = partials + (u64)blockIdx.x * of.units;
  float* const to = d_weights + (u64)blockIdx.x * of.each;
  double all = 0.0;
  for (u32 unit = threadIdx.x; unit < of.units; unit += THREADS) {
    double sum = 0.0;
    for (u32 chunk = 0; chunk < chunks; chunk++) sum += pair[chunk * next + unit];
    all += sum;
    if (of.each > 1) to[unit] = accumulate ? to[unit] + (float)sum : (float)sum;
  }
  if (of.each > 1) return;
  SHARED double sums[THREADS];
  const double total = block_sum(all, sums);
  if (threadIdx.x == 0) *to = accumulate ? *to + (float)total : (float)total;
}
