// What is made of each row by itself: probabilities, rows of length 1, losses of rows and gradients of losses as values.
//
// Floor: the bytes, a row read once and written once, backward read twice; rows of scenarios and clusters are so narrow that
// starting the kernels takes longer: 65,536 rows of 8 values in f32 and their probabilities are 4 MB, 1 us on an H200
// (4.3 TB/s). `segment` lanes, a power of two, take a row, four columns each at a time.
#include "block_sum.cuh"
#include "link.cuh"
#include "quad.cuh"

#define THREADS 256

// The row of a lane, and where its columns begin.
struct Row {
  u32 index, first, step;
  bool is_there;

  DEVICE Row(const Mat& mat, u32 segment)
      : index((blockIdx.x * THREADS + threadIdx.x) / segment), first(threadIdx.x % segment * 4), step(4 * segment),
        is_there(index < rows_of(mat)) {}

  DEVICE bool is_first() const { return is_there && first == 0; }

  // Gives `use` all values of the row in `mat` that are this lane's, four at a time, with the column and how many there are.
  template <class Use>
  DEVICE void each(const Mat& mat, Use use) const {
    const bool quads = has_quads(mat);
    for (u32 col = first; is_there && col < mat.cols; col += step) {
      float values[4];
      load_quad(mat, quads, index, col, values);
      use(col, min(4u, mat.cols - col), values);
    }
  }

  // The sum over the lanes of the row, in all of them.
  template <class T>
  DEVICE T sum(T value) const {
    for (u32 offset = step / 8; offset; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
    return value;
  }
};

// Writes four values, or adds them to what is there.
DEVICE void put_quad(const Mat& mat, u32 row, u32 col, u32 accumulate, float (&values)[4]) {
  const bool quads = has_quads(mat);
  if (accumulate) {
    float before[4];
    load_quad(mat, quads, row, col, before);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] += before[i];
  }
  store_quad(mat, quads, row, col, values);
}

// The probabilities of a row of logits: `e^(z - largest) / sum`.
struct Probabilities {
  float largest, sum;

  DEVICE Probabilities(const Row& row, const Mat& z) {
    float most = MINUS_INFINITY, total = 0.0f;
    row.each(z, [&](u32, u32 count, const float(&values)[4]) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) most = i < count ? math::maximum(most, values[i]) : most;
    });
    for (u32 offset = row.step / 8; offset; offset /= 2) {
      most = math::maximum(most, __shfl_xor_sync(FULL_WARP, most, offset));
    }
    row.each(z, [&](u32, u32 count, const float(&values)[4]) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) total += i < count ? math::exp(values[i] - most) : 0.0f;
    });
    largest = most, sum = row.sum(total);
  }

  DEVICE float of(float z) const { return math::exp(z - largest) / sum; }
};

// q = softmax(z), row by row.
KERNEL(THREADS) softmax(u32 segment, Mat z, Mat q) {
  const Row row(z, segment);
  const Probabilities probabilities(row, z);
  row.each(z, [&](u32 col, u32, float(&values)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = probabilities.of(values[i]);
    store_quad(q, has_quads(q), row.index, col, values);
  });
}

// dz = q (dq - q . dq), written or added.
KERNEL(THREADS) softmax_dz(u32 segment, Mat q, Mat dq, u32 accumulate, Mat dz) {
  const Row row(q, segment);
  const bool quads = has_quads(dq);
  float mean = 0.0f;
  row.each(q, [&](u32 col, u32, const float(&values)[4]) {
    float gradients[4];
    load_quad(dq, quads, row.index, col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) mean = fmaf(values[i], gradients[i], mean);
  });
  mean = row.sum(mean);
  row.each(q, [&](u32 col, u32, const float(&values)[4]) {
    float gradients[4];
    load_quad(dq, quads, row.index, col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) gradients[i] = __fmul_rn(values[i], gradients[i] - mean);
    put_quad(dz, row.index, col, accumulate, gradients);
  });
}

// The length of a row.
DEVICE double length_of(const Row& row, const Mat& x) {
  double sum = 0.0;
  row.each(x, [&](u32, u32, const float(&values)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum = fma((double)values[i], (double)values[i], sum);
  });
  return sqrt(row.sum(sum));
}

// y = x / the length of the row, or `floor` where that is larger.
KERNEL(THREADS) row_normalise(u32 segment, float floor, Mat x, Mat y) {
  const Row row(x, segment);
  const double length = length_of(row, x), scale = 1.0 / (length < floor ? (double)floor : length);
  row.each(x, [&](u32 col, u32, float(&values)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = (float)(values[i] * scale);
    store_quad(y, has_quads(y), row.index, col, values);
  });
}

// dx = (dy - y (y . dy)) / the length of the row, or dy / floor where that is larger; written or added.
KERNEL(THREADS) row_normalise_dx(u32 segment, float floor, Mat x, Mat y, Mat dy, u32 accumulate, Mat dx) {
  const Row row(x, segment);
  const double length = length_of(row, x), scale = 1.0 / (length < floor ? (double)floor : length);
  const bool quads = has_quads(dy);
  double along = 0.0;
  row.each(y, [&](u32 col, u32, const float(&values)[4]) {
    float gradients[4];
    load_quad(dy, quads, row.index, col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) along = fma((double)values[i], (double)gradients[i], along);
  });
  along = row.sum(along);
  if (length < floor) along = 0.0;
  row.each(y, [&](u32 col, u32, const float(&values)[4]) {
    float gradients[4];
    load_quad(dy, quads, row.index, col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) gradients[i] = (float)((gradients[i] - values[i] * along) * scale);
    put_quad(dx, row.index, col, accumulate, gradients);
  });
}

// The cross-entropies of the class that `ids` name in each row of logits: their sum over each block goes to `partials`,
// unless that is null, and the gradients, `*scale` times the probabilities less one for the class, to dz or (accumulating)
// onto it, unless it has no data.
KERNEL(THREADS)
cross_entropy(u32 segment, Mat z, const u32* ids, const float* scale, u32 accumulate, Mat dz, double* partials) {
  const Row row(z, segment);
  const Probabilities probabilities(row, z);
  const u32 id = row.is_there ? ids[row.index] : 0;
  if (dz.data) {
    row.each(z, [&](u32 col, u32, float(&values)[4]) {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        values[i] = __fmul_rn(*scale, probabilities.of(values[i]) - (col + i == id ? 1.0f : 0.0f));
      }
      put_quad(dz, row.index, col, accumulate, values);
    });
  }
  if (!partials) return;
  const double loss = row.is_first() ? probabilities.largest + logf(probabilities.sum) - load_value(z, row.index, id) : 0.0;
  SHARED double sums[THREADS];
  const double sum = block_sum(loss, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// The same of squares of x [rows, 1], whose gradients are `*scale` times 2 x.
KERNEL(THREADS) mean_square(Mat x, const float* scale, u32 accumulate, Mat dx, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  double loss = 0.0;
  if (row < rows_of(x)) {
    const float value = load_value(x, row, 0);
    loss = (double)value * value;
    if (dx.data) {
      const float d = __fmul_rn(__fmul_rn(2.0f, *scale), value);
      store_value(dx, row, 0, accumulate ? load_value(dx, row, 0) + d : d);
    }
  }
  if (!partials) return;
  SHARED double sums[THREADS];
  const double sum = block_sum(loss, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// y = (sigmoid(z) - label) / the rows that are there: the gradient of a mean binary cross-entropy, as a value [rows, 1].
KERNEL(THREADS) bce_residual(Mat z, const float* labels, Mat y) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(z);
  if (row >= rows) return;
  store_value(y, row, 0, (math::sigmoid(load_value(z, row, 0)) - labels[row]) / rows);
}

// dz = dy p (1 - p) / the rows that are there, p = sigmoid(z); written or added.
KERNEL(THREADS) bce_residual_dz(Mat z, Mat dy, u32 accumulate, Mat dz) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(z);
  if (row >= rows) return;
  const float p = math::sigmoid(load_value(z, row, 0));
  const float d = load_value(dy, row, 0) * p * (1.0f - p) / rows;
  store_value(dz, row, 0, accumulate ? load_value(dz, row, 0) + d : d);
}

// ln(1 - sigma(a) sigma(b)).
DEVICE double log_rest(float a, float b) { return log_add(log_sigmoid(-a), log_sigmoid(a) + log_sigmoid(-b)); }

// z = the logit of sigma(a) sigma(b), of a [rows, 1] and each column of b.
KERNEL(THREADS) product_logit(Mat a, Mat b, Mat z) {
  const u32 index = blockIdx.x * THREADS + threadIdx.x, row = index / b.cols, col = index % b.cols;
  if (row >= rows_of(b)) return;
  const float first = load_value(a, row, 0), then = load_value(b, row, col);
  store_value(z, row, col, (float)(log_sigmoid(first) + log_sigmoid(then) - log_rest(first, then)));
}

// With r = 1 - sigma(a) sigma(b), db = dz sigma(-b) / r, and da the sum of dz sigma(-a) / r over the columns. Each is
// written or, by the bits of `accumulate`, added, unless it has no data.
KERNEL(THREADS) product_logit_backward(Mat a, Mat b, Mat dz, u32 accumulate, Mat da, Mat db) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows_of(b)) return;
  const float first = load_value(a, row, 0);
  double sum = 0.0;
  for (u32 col = 0; col < b.cols; col++) {
    const float then = load_value(b, row, col), gradient = load_value(dz, row, col);
    const double rest = log_rest(first, then);
    sum = fma((double)gradient, (double)math::exp((float)(log_sigmoid(-first) - rest)), sum);
    if (!db.data) continue;
    const float d = __fmul_rn(gradient, math::exp((float)(log_sigmoid(-then) - rest)));
    store_value(db, row, col, accumulate & 2 ? load_value(db, row, col) + d : d);
  }
  if (da.data) store_value(da, row, 0, accumulate & 1 ? load_value(da, row, 0) + (float)sum : (float)sum);
}
