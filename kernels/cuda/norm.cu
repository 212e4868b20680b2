// Batch normalisation: statistics of columns, the normalisation, and their gradients.
//
// Floor on an H200: the bytes, each matrix read once by each kernel and written once. 65536 rows of 512 columns in f32
// are 134 MB: 31 us for statistics, 62 us for a normalisation. Sums are f64: in a cycle, in which memory brings a
// multiprocessor 5 values of f32 or 10 of bf16, it can convert 16 to f64 and add 64. (Devices for graphics add 2: there
// the sums take longer than the bytes.)
//
// Rows have statistics in common by group, the third index of the grid: all of a matrix, or those of each scenario, which
// stand together.
//
// A thread takes four columns, of which it prepares the statistics once, in several rows, which it reads before it uses
// the first. Neighbours take neighbouring columns, and where a row is narrow, the next row.
#include "activation.cuh"
#include "column_sums.cuh"

// The rows that a block's statistics are of, and where those lie among those of all groups.
struct Group {
  u32 first, rows;
  // Of the first mean, gamma or beta of the group; and how much further on variances lie than means.
  u32 own, behind;

  // Group s has the rows from `starts[s]` on, up to `starts[s + 1]`; without `starts` there is one, with those of x.
  DEVICE Group(const Mat& x, const u32* starts)
      : first(starts ? starts[blockIdx.z] : 0), rows(starts ? starts[blockIdx.z + 1] - first : rows_of(x)),
        own(blockIdx.z * x.cols), behind(gridDim.z * x.cols) {}

  DEVICE Mat of(const Mat& mat) const { return rows_from(mat, first, rows); }
};

// Blocks are `across` threads wide, a power of two, and take ROWS rows a thread.
DEVICE Place place_of_few_rows(u32 across) {
  const u32 step = THREADS / across;
  return {blockIdx.x * (ROWS * step) + threadIdx.x / across, step, (blockIdx.y * across + threadIdx.x % across) * 4};
}

// Writes those of ROWS rows that are below `rows`, or adds them to what is there.
DEVICE void put_rows(const Mat& mat, u32 rows, const Place& at, u32 accumulate, float (&values)[ROWS][4]) {
  if (accumulate) {
    float before[ROWS][4];
    load_rows(mat, rows, at, before);
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
      for (u32 c = 0; c < 4; c++) values[i][c] = __fadd_rn(before[i][c], values[i][c]);
    }
  }
  const bool quads = has_quads(mat);
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
    const u32 row = at.row + i * at.step;
    if (row < rows) store_quad(mat, quads, row, at.col, values[i]);
  }
}

// Reads a number for each of four columns; 0 for those that are not there.
DEVICE void load_vector(const float* vector, u32 col, u32 cols, float (&values)[4]) {
  const float* from = vector + col;
  load_four(from, ELEMENT_F32, col + 4 <= cols && (u64)from % 16 == 0, col < cols ? cols - col : 0, values);
}

DEVICE float inverse_deviation(float variance, float epsilon) { return 1.0f / sqrtf(variance + epsilon); }

// Reads the variances of four columns and makes inverse standard deviations of them.
DEVICE void load_inverse(const float* variances, float epsilon, u32 col, u32 cols, float (&inverse)[4]) {
  load_vector(variances, col, cols, inverse);
#pragma unroll
  for (u32 c = 0; c < 4; c++) inverse[c] = inverse_deviation(inverse[c], epsilon);
}

// Sums of the columns of x and of their squares, which are exact in f64.
KERNEL(THREADS) column_moments(Mat all, const u32* starts, u32 across, double* partials) {
  const Group group(all, starts);
  const Mat x = group.of(all);
  const u32 rows = group.rows;
  if (blockIdx.x * (THREADS / across) >= rows) return;
  double first[4] = {}, second[4] = {};
  for (Place at = place_of_chunk(across); at.row < rows; at.row += ROWS * at.step) {
    float values[ROWS][4];
    load_rows(x, rows, at, values);
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const double value = values[i][c];
        first[c] += value;
        second[c] += value * value;
      }
    }
  }
  leave_sums(first, second, across, x.cols, partials);
}

// Means, then biased variances, of what `column_moments` has left; zeros where x has no rows.
KERNEL(THREADS)
finish_moments(Mat x, const u32* starts, u32 across, u32 chunks, const double* partials, float* moments) {
  const Group group(x, starts);
  const u32 rows = group.rows;
  const Sums sums = sums_of_chunks(partials, chunks, across, rows, x.cols);
  if (threadIdx.x >= COLUMNS || sums.col >= x.cols) return;
  const double count = max(rows, 1u), mean = sums.first / count;
  moments += group.own + sums.col;
  moments[0] = (float)mean;
  moments[group.behind] = (float)fmax(sums.second / count - __dmul_rn(mean, mean), 0.0);
}

// y = act(gamma * (x - mean) * inverse deviation + beta). `x` may be `y`.
KERNEL(THREADS)
normalise(Mat all, const u32* starts, const float* moments, const float* gamma, const float* beta, float epsilon,
          Activation act, u32 across, Mat y) {
  const Group group(all, starts);
  const Mat x = group.of(all);
  const u32 rows = group.rows;
  const Place at = place_of_few_rows(across);
  if (at.row >= rows || at.col >= x.cols) return;
  float values[ROWS][4], mean[4], inverse[4], scale[4], shift[4];
  load_rows(x, rows, at, values);
  load_vector(moments + group.own, at.col, x.cols, mean);
  load_inverse(moments + group.own + group.behind, epsilon, at.col, x.cols, inverse);
  load_vector(gamma + group.own, at.col, x.cols, scale);
  load_vector(beta + group.own, at.col, x.cols, shift);
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
      const float normal = __fmul_rn(values[i][c] - mean[c], inverse[c]);
      values[i][c] = activated(act, fmaf(scale[c], normal, shift[c]));
    }
  }
  put_rows(group.of(y), rows, at, false, values);
}

// Sums of the columns of dz and of dz * xhat, with xhat = (x - mean) * inverse deviation.
KERNEL(THREADS)
norm_gradient_sums(Mat all, const u32* starts, const float* moments, float epsilon, Mat all_dz, u32 across,
                   double* partials) {
  const Group group(all, starts);
  const Mat x = group.of(all), dz = group.of(all_dz);
  const u32 rows = group.rows;
  if (blockIdx.x * (THREADS / across) >= rows) return;
  Place at = place_of_chunk(across);
  float mean[4], inverse[4];
  load_vector(moments + group.own, at.col, x.cols, mean);
  load_inverse(moments + group.own + group.behind, epsilon, at.col, x.cols, inverse);
  double first[4] = {}, second[4] = {};
  for (; at.row < rows; at.row += ROWS * at.step) {
    float values[ROWS][4], gradients[ROWS][4];
    load_rows(x, rows, at, values);
    load_rows(dz, rows, at, gradients);
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      // What is not there could be far from the mean.
      if (at.row + i * at.step >= rows) break;
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const double gradient = gradients[i][c];
        first[c] += gradient;
        second[c] += gradient * (double)__fmul_rn(values[i][c] - mean[c], inverse[c]);
      }
    }
  }
  leave_sums(first, second, across, x.cols, partials);
}

// Gradients of the moments, gamma and beta, of what `norm_gradient_sums` has left.
KERNEL(THREADS)
finish_gradients(Mat x, const u32* starts, const float* moments, const float* gamma, float epsilon, u32 across,
                 u32 chunks, const double* partials, Gradient d_moments, Gradient d_gamma, Gradient d_beta) {
  const Group group(x, starts);
  const Sums sums = sums_of_chunks(partials, chunks, across, group.rows, x.cols);
  if (threadIdx.x >= COLUMNS || sums.col >= x.cols) return;
  const u32 col = group.own + sums.col;
  if (d_beta.values) put(d_beta, col, sums.first);
  if (d_gamma.values) put(d_gamma, col, sums.second);
  if (d_moments.values) {
    const float inverse = inverse_deviation(moments[group.behind + col], epsilon);
    const double scale = __fmul_rn(gamma[col], inverse);
    put(d_moments, col, -scale * sums.first);
    put(d_moments, group.behind + col, -0.5 * scale * (double)inverse * sums.second);
  }
}

// dx = dz * gamma * inverse deviation or, accumulating, dx += it: what does not go through the moments. `dz` may be
// `dx`.
KERNEL(THREADS)
normalise_dx(Mat x, const u32* starts, const float* moments, const float* gamma, float epsilon, Mat all_dz, u32 across,
             u32 accumulate, Mat all_dx) {
  const Group group(x, starts);
  const Mat dz = group.of(all_dz), dx = group.of(all_dx);
  const u32 rows = group.rows;
  const Place at = place_of_few_rows(across);
  if (at.row >= rows || at.col >= x.cols) return;
  float values[ROWS][4], before[ROWS][4] = {}, inverse[4], scale[4];
  load_rows(dz, rows, at, values);
  if (accumulate) load_rows(dx, rows, at, before);
  load_inverse(moments + group.own + group.behind, epsilon, at.col, x.cols, inverse);
  load_vector(gamma + group.own, at.col, x.cols, scale);
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
    for (u32 c = 0; c < 4; c++) values[i][c] = fmaf(__fmul_rn(scale[c], inverse[c]), values[i][c], before[i][c]);
  }
  put_rows(dx, rows, at, false, values);
}

// dx = (d_mean + 2 d_var (x - mean)) / rows or, accumulating, dx += it.
KERNEL(THREADS)
batch_moments_dx(Mat all, const u32* starts, const float* moments, const float* d_moments, u32 across, u32 accumulate,
                 Mat dx) {
  const Group group(all, starts);
  const Mat x = group.of(all);
  const u32 rows = group.rows;
  const Place at = place_of_few_rows(across);
  if (at.row >= rows || at.col >= x.cols) return;
  float values[ROWS][4], mean[4], d_mean[4], d_variance[4];
  load_rows(x, rows, at, values);
  load_vector(moments + group.own, at.col, x.cols, mean);
  load_vector(d_moments + group.own, at.col, x.cols, d_mean);
  load_vector(d_moments + group.own + group.behind, at.col, x.cols, d_variance);
  const float scale = 1.0f / (float)rows;
#pragma unroll
  for (u32 i = 0; i < ROWS; i++) {
#pragma unroll
    for (u32 c = 0; c < 4; c++) {
      const float from_variance = __fmul_rn(2.0f * d_variance[c], values[i][c] - mean[c]);
      values[i][c] = __fmul_rn(scale, d_mean[c] + from_variance);
    }
  }
  put_rows(group.of(dx), rows, at, accumulate, values);
}

// Moves running means and variances, `state`, towards those of a batch, of `groups` groups of rows: those of group s begin
// at `starts[s]`. Nothing moves where `*go_on` is 0 or a group has no rows. With `unbiased`, variances are those of the
// population, which one row does not tell.
KERNEL(THREADS)
move_running(const u32* go_on, const u32* starts, u32 groups, u32 cols, const float* moments, float momentum,
             u32 unbiased, float* state) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x, half = groups * cols;
  if (*go_on == 0 || i >= 2 * half) return;
  const u32 group = i % half / cols, rows = starts[group + 1] - starts[group];
  if (rows == 0) return;
  float moment = moments[i];
  if (i >= half && unbiased) {
    if (rows == 1) return;
    moment = __fmul_rn(moment, (float)rows / (float)(rows - 1));
  }
  state[i] = state[i] + __fmul_rn(momentum, moment - state[i]);
}
