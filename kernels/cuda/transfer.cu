// What scenarios give each other: mixtures of a scenario's own expert and what the others' are with its weights, and how much
// the gradients of scenarios are in each other's way.
//
// Floor: the bytes of mixtures, half of both banks once forward and twice backward: 65,536 rows of 5 scenarios of 64 values in
// f32: 101 MB, 23 us on an H200 (4.3 TB/s). Gradients of scenarios are a few thousand values each, which one block takes a pair
// after the other: what it waits for are sums, two for each pair forward and three backward, some 3 us each.
#include "block_sum.cuh"
#include "quad.cuh"

#define THREADS 256

// The experts of all scenarios of width n side by side, [rows, scenarios * n]: a row of scenario s has its own expert from
// `own`, and the others' from `others`.
struct Experts {
  Mat own, others;
  const u32* scenario;
  u32 scenarios;
};

// Four columns of an expert of a row.
DEVICE void* place_in(const Mat& bank, u32 width, u32 row, u32 expert, u32 col) {
  return address_of(bank, row, expert * width + col);
}

DEVICE bool is_whole(const Mat& bank, u32 width) { return width % 4 == 0 && has_quads(bank); }

DEVICE void load_expert(const Experts& of, u32 width, u32 row, u32 expert, u32 col, float (&values)[4]) {
  const Mat& bank = of.scenario[row] == expert ? of.own : of.others;
  load_four(place_in(bank, width, row, expert, col), bank.element, is_whole(bank, width), width - col, values);
}

// y = the sum of q_p times expert p; a thread takes four columns of a row.
KERNEL(THREADS) transfer_mixture(Mat q, Experts experts, Mat y) {
  const u32 in_row = (y.cols + 3) / 4, index = blockIdx.x * THREADS + threadIdx.x;
  const u32 row = index / in_row, col = 4 * (index % in_row);
  if (row >= rows_of(y)) return;
  float sums[4] = {};
  for (u32 p = 0; p < experts.scenarios; p++) {
    const float weight = load_value(q, row, p);
    float values[4];
    load_expert(experts, y.cols, row, p, col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] = fmaf(weight, values[i], sums[i]);
  }
  store_quad(y, has_quads(y), row, col, sums);
}

// dq_p = dy . expert p, written or added; `segment` lanes, a power of two, take a row.
KERNEL(THREADS) transfer_mixture_dq(u32 segment, Experts experts, Mat dy, u32 accumulate, Mat dq) {
  const u32 row = (blockIdx.x * THREADS + threadIdx.x) / segment, lane = threadIdx.x % segment;
  const bool is_there = row < rows_of(dy), quads = has_quads(dy);
  for (u32 p = 0; p < experts.scenarios; p++) {
    float sum = 0.0f;
    for (u32 col = 4 * lane; is_there && col < dy.cols; col += 4 * segment) {
      float values[4], gradients[4];
      load_expert(experts, dy.cols, row, p, col, values);
      load_quad(dy, quads, row, col, gradients);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sum = fmaf(values[i], gradients[i], sum);
    }
    for (u32 offset = segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    if (is_there && lane == 0) store_value(dq, row, p, accumulate ? load_value(dq, row, p) + sum : sum);
  }
}

// The gradient of the experts that rows have from one bank, own ones or not: q_p dy, and 0 for those that they have from the
// other bank; written or added.
KERNEL(THREADS)
transfer_mixture_dexperts(const u32* scenario, u32 scenarios, u32 of_own, Mat q, Mat dy, u32 accumulate, Mat to) {
  const u32 in_row = (dy.cols + 3) / 4, index = blockIdx.x * THREADS + threadIdx.x;
  const u32 row = index / in_row, col = 4 * (index % in_row);
  if (row >= rows_of(dy)) return;
  const bool whole = is_whole(to, dy.cols);
  const u32 own = scenario[row], count = dy.cols - col;
  float gradients[4];
  load_quad(dy, has_quads(dy), row, col, gradients);
  for (u32 p = 0; p < scenarios; p++) {
    const float weight = (p == own) == (of_own != 0) ? load_value(q, row, p) : 0.0f;
    void* const place = place_in(to, dy.cols, row, p, col);
    float values[4] = {};
    if (accumulate) load_four(place, to.element, whole, count, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = fmaf(weight, gradients[i], values[i]);
    store_four(place, to.element, whole, count, values);
  }
}

// Vectors of `width` values, of which thread t has the values t, t + THREADS and on of all, so that only sums bring threads
// together.
struct Vectors {
  u32 width;
  double* sums;

  template <class Use>
  DEVICE void each(Use use) const {
    for (u32 i = threadIdx.x; i < width; i += THREADS) use(i);
  }

  // The sum of all threads, in all of them.
  DEVICE double total(double value) const {
    block_sum(value, *(double(*)[THREADS])sums);
    __syncthreads();
    const double all = sums[0];
    __syncthreads();
    return all;
  }

  DEVICE double dot(const float* a, const float* b) const {
    double sum = 0.0;
    each([&](u32 i) { sum = fma((double)a[i], (double)b[i], sum); });
    return total(sum);
  }

  // to += factor * from
  DEVICE void add(float* to, double factor, const float* from) const {
    each([&](u32 i) { to[i] += (float)(factor * from[i]); });
  }
};

// Keeps a division by the length of a gradient from one by 0.
constexpr double FLOOR = 1e-9;

// `*loss += 1/2 sum |g_d - c_d|^2` of gradients g_d of scenarios, [scenarios, width] one behind the other, and their orthogonal
// basis c by Gram and Schmidt, unless `loss` is null; and the gradient times `*scale`, added to `dg` unless that is null.
// Scenarios that are `scenario` of none of the rows that are there are left out. `work` holds three times as many values as
// g, `present` a number for each scenario. One block.
KERNEL(THREADS)
gradient_conflict(const float* g, u32 scenarios, u32 width, const u32* scenario, const u32* rows, u32 basis_fixed,
                  const float* scale, double* loss, float* dg, float* work, u32* present) {
  SHARED double sums[THREADS];
  const Vectors vectors = {width, sums};
  const u64 all = (u64)scenarios * width;
  float* const basis = work;
  float* const taken = work + all;
  float* const d_basis = taken + all;
  for (u32 s = threadIdx.x; s < scenarios; s += THREADS) present[s] = 0;
  __syncthreads();
  for (u32 r = threadIdx.x; r < *rows; r += THREADS) atomicMax(present + scenario[r], 1u);
  __syncthreads();
  double squares = 0.0;
  for (u32 d = 0; d < scenarios; d++) {
    if (!present[d]) continue;
    const float* const own = g + (u64)d * width;
    float* const of_own = taken + (u64)d * width;
    vectors.each([&](u32 i) { of_own[i] = 0.0f; });
    for (u32 j = 0; j < d; j++) {
      if (!present[j]) continue;
      const float* const c = basis + (u64)j * width;
      vectors.add(of_own, vectors.dot(c, own) / (vectors.dot(c, c) + FLOOR), c);
    }
    vectors.each([&](u32 i) {
      basis[(u64)d * width + i] = own[i] - of_own[i];
      d_basis[(u64)d * width + i] = 0.0f;
      squares = fma((double)of_own[i], (double)of_own[i], squares);
    });
  }
  if (loss) {
    const double total = vectors.total(squares);
    if (threadIdx.x == 0) *loss += 0.5 * total;
  }
  for (u32 d = scenarios; dg && d-- > 0;) {
    if (!present[d]) continue;
    const float* const own = g + (u64)d * width;
    float* const of_own = taken + (u64)d * width;
    float* const to = dg + (u64)d * width;
    vectors.each([&](u32 i) {
      const float from_later = d_basis[(u64)d * width + i];
      to[i] += from_later;
      of_own[i] = fmaf(*scale, of_own[i], -from_later);
    });
    for (u32 j = 0; j < d; j++) {
      if (!present[j]) continue;
      const float* const c = basis + (u64)j * width;
      const double norm = vectors.dot(c, c) + FLOOR;
      const double a = vectors.dot(c, own) / norm, da = vectors.dot(of_own, c);
      vectors.add(to, da / norm, c);
      if (basis_fixed) continue;
      vectors.each([&](u32 i) {
        const double change = a * of_own[i] + da / norm * own[i] - 2.0 * a * da / norm * c[i];
        d_basis[(u64)j * width + i] += (float)change;
      });
    }
  }
}
