// Layer normalisation: each row, or each of equal parts of it, by its own mean and variance, and the gradients.
//
// Floor: the bytes, x and y once, x, dy and dx once backward, x and dy once more for the sums over rows; 65,536 rows of
// 512 values in f32: 268 MB forward, 62 us on an H200 (4.3 TB/s), 403 and 268 MB backward. A part is read again from
// the nearest cache: its variance is of differences from its mean. `segment` lanes, a power of two, take a part, four
// columns each at a time.
#include "column_sums.cuh"
#include "share.cuh"

// What lanes take together: one of `groups` parts of a row.
struct RowPart {
  u32 row, group, width, first, step;
  bool is_there;

  DEVICE RowPart(const Mat& x, u32 segment, u32 groups)
      : width(x.cols / groups), first(threadIdx.x % segment * 4), step(4 * segment) {
    const u32 index = (blockIdx.x * THREADS + threadIdx.x) / segment;
    row = index / groups, group = index % groups, is_there = row < rows_of(x);
  }

  // Gives `use` all columns of the part that are this lane's, four at a time.
  template <class Use>
  DEVICE void each(Use use) const {
    for (u32 col = first; is_there && col < width; col += step) {
      use(Columns{row, group * width + col, min(4u, width - col)});
    }
  }

  // The mean of what lanes have summed, in all of them.
  template <class T>
  DEVICE T mean(T sum) const {
    for (u32 offset = step / 8; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    return sum / (T)width;
  }
};

// Reads a number for each of the columns at `at`.
DEVICE void load_vector(const float* vector, const Columns& at, float (&values)[4]) {
  const float* const from = vector + at.first;
  load_four(from, ELEMENT_F32, at.count == 4 && (u64)from % 16 == 0, at.count, values);
}

// Mean and inverse standard deviation of a part.
struct Moments {
  float mean, inverse;

  DEVICE Moments(const RowPart& part, const Mat& x, float epsilon) {
    double sum = 0.0, squares = 0.0;
    part.each([&](const Columns& at) {
      float values[4];
      load_columns(x, at, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sum += values[i];
    });
    const double middle = part.mean(sum);
    part.each([&](const Columns& at) {
      float values[4];
      load_columns(x, at, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        const double difference = i < at.count ? values[i] - middle : 0.0;
        squares = fma(difference, difference, squares);
      }
    });
    mean = (float)middle, inverse = (float)(1.0 / sqrt(part.mean(squares) + epsilon));
  }

  DEVICE float normal(float x) const { return __fmul_rn(x - mean, inverse); }
};

// y = gamma * (x - mean) * inverse deviation + beta.
KERNEL(THREADS)
layer_norm(u32 segment, u32 groups, float epsilon, Mat x, const float* gamma, const float* beta, Mat y) {
  const RowPart part(x, segment, groups);
  const Moments moments(part, x, epsilon);
  part.each([&](const Columns& at) {
    float values[4], scale[4], shift[4];
    load_columns(x, at, values);
    load_vector(gamma, at, scale);
    load_vector(beta, at, shift);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = fmaf(scale[i], moments.normal(values[i]), shift[i]);
    store_columns(y, at, values);
  });
}

// Moments of all parts of all rows, for the sums over rows; and unless dx has no data, with g = dy * gamma,
// dx = (g - mean(g) - xhat mean(g * xhat)) * inverse deviation, written or added.
KERNEL(THREADS)
layer_norm_dx(u32 segment, u32 groups, float epsilon, Mat x, const float* gamma, Mat dy, u32 accumulate, Mat dx,
              float2* moments_of_parts) {
  const RowPart part(x, segment, groups);
  const Moments moments(part, x, epsilon);
  if (part.is_there && part.first == 0) {
    moments_of_parts[(u64)part.row * groups + part.group] = make_float2(moments.mean, moments.inverse);
  }
  if (!dx.data) return;
  // Reads gradients before gamma, and the normalised values.
  const auto load = [&](const Columns& at, float(&normal)[4], float(&gradients)[4]) {
    float scale[4];
    load_columns(x, at, normal);
    load_columns(dy, at, gradients);
    load_vector(gamma, at, scale);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      normal[i] = moments.normal(normal[i]);
      gradients[i] = __fmul_rn(gradients[i], scale[i]);
    }
  };
  float sum = 0.0f, along = 0.0f;
  part.each([&](const Columns& at) {
    float normal[4], gradients[4];
    load(at, normal, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum += gradients[i], along = fmaf(gradients[i], normal[i], along);
  });
  sum = part.mean(sum), along = part.mean(along);
  part.each([&](const Columns& at) {
    float normal[4], gradients[4], to[4] = {};
    load(at, normal, gradients);
    if (accumulate) load_columns(dx, at, to);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      to[i] = fmaf(gradients[i] - sum - __fmul_rn(normal[i], along), moments.inverse, to[i]);
    }
    store_columns(dx, at, to);
  });
}

// Sums of the columns of dy and of dy * xhat, by the moments that `layer_norm_dx` has left.
KERNEL(THREADS)
layer_norm_sums(u32 groups, Mat x, const float2* moments_of_parts, Mat dy, u32 across, double* partials) {
  const u32 rows = rows_of(x), width = x.cols / groups;
  if (blockIdx.x * (THREADS / across) >= rows) return;
  Place at = place_of_chunk(across);
  const bool quads_x = has_quads(x), quads_dy = has_quads(dy);
  const float2* moments_of_columns[4];
#pragma unroll
  for (u32 c = 0; c < 4; c++) moments_of_columns[c] = moments_of_parts + min(at.col + c, x.cols - 1) / width;
  double first[4] = {}, second[4] = {};
  for (; at.row < rows; at.row += ROWS * at.step) {
    QuadBits of_x[ROWS] = {}, of_dy[ROWS] = {};
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      const u32 row = at.row + i * at.step;
      if (row < rows) load_quad(x, quads_x, row, at.col, of_x[i]);
      if (row < rows) load_quad(dy, quads_dy, row, at.col, of_dy[i]);
    }
#pragma unroll
    for (u32 i = 0; i < ROWS; i++) {
      const u32 row = at.row + i * at.step;
      if (row >= rows) break;
      float values[4], gradients[4];
      values_of(of_x[i], x.element, values);
      values_of(of_dy[i], dy.element, gradients);
#pragma unroll
      for (u32 c = 0; c < 4; c++) {
        const float2 moments = moments_of_columns[c][(u64)row * groups];
        const double gradient = gradients[c];
        first[c] += gradient;
        second[c] += gradient * (double)__fmul_rn(values[c] - moments.x, moments.y);
      }
    }
  }
  leave_sums(first, second, across, x.cols, partials);
}

// Gradients of gamma and beta, of what `layer_norm_sums` has left.
KERNEL(THREADS)
finish_layer_norm_sums(Mat x, u32 across, u32 chunks, const double* partials, Gradient d_gamma, Gradient d_beta) {
  const Sums sums = sums_of_chunks(partials, chunks, across, rows_of(x), x.cols);
  if (threadIdx.x >= COLUMNS || sums.col >= x.cols) return;
  if (d_gamma.values) put(d_gamma, sums.col, sums.second);
  if (d_beta.values) put(d_beta, sums.col, sums.first);
}
