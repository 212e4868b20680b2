// Losses and what is made of them.
//
// Floor: a logit, a label and a gradient a row are so little that starting the kernels takes longer.
#include "block_sum.cuh"
#include "math.cuh"

#define THREADS 256

// The binary cross-entropies of `logits` [rows, 1]: their sum over each block goes to `partials`, unless that is null,
// and the gradients, times `*scale`, to or (accumulating) onto `d_logits`, unless that has no data. Rows where
// `counted` is not above 0 add nothing.
KERNEL(THREADS)
bce_with_logits(Mat logits, const float* labels, const float* counted, const float* scale, u32 accumulate, Mat d_logits,
                double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  const bool is_there = row < rows_of(logits);
  double loss = 0.0;
  if (is_there) {
    const float z = *row_f32(logits, row), y = labels[row];
    const bool counts = !counted || counted[row] > 0.0f;
    const float e = math::exp(-fabsf(z));
    // A NaN goes through `larger`.
    if (counts) loss = math::larger(0.0f, z) - __fmul_rn(z, y) + math::log1p_of_unit(e);
    if (d_logits.data) {
      const float probability = (z > 0.0f ? 1.0f : e) / (1.0f + e);
      const float d = counts ? __fmul_rn(*scale, probability - y) : 0.0f;
      float* to = row_f32(d_logits, row);
      *to = accumulate ? *to + d : d;
    }
  }
  if (!partials) return;
  SHARED double sums[THREADS];
  const double sum = block_sum(loss, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// Events in a row: by event the logit of its probability given the one before, [rows, 1], where its gradient goes, or no
// data, and its labels.
constexpr u32 MOST_EVENTS = 8;

struct Events {
  Mat logits[MOST_EVENTS], gradients[MOST_EVENTS];
  const float* labels[MOST_EVENTS];
};

// ln sigma(x); NaN where x is not finite, so that it shows.
DEVICE double log_sigmoid(float x) {
  return (double)(math::smaller(x, 0.0f) + 0.0f * x) - math::log1p_of_unit(math::exp(-fabsf(x)));
}

// The binary cross-entropies of the products p of the probabilities of `count` events, and the gradients at their logits,
// as bce_with_logits has them; the bits of `accumulate` say which are added. ln p and ln (1 - p) are sums in f64: of large
// logits they are long, and what counts is how far they lie apart.
KERNEL(THREADS)
bce_of_product(Events events, u32 count, const float* scale, u32 accumulate, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  double loss = 0.0;
  if (row < rows_of(events.logits[0])) {
    float logits[MOST_EVENTS], label = 1.0f;
#pragma unroll
    for (u32 j = 0; j < MOST_EVENTS; j++) {
      logits[j] = j < count ? *row_f32(events.logits[j], row) : 0.0f;
      if (j < count) label *= events.labels[j][row];
    }
    double log = 0.0, log_rest = MINUS_INFINITY;
#pragma unroll
    for (u32 j = 0; j < MOST_EVENTS; j++) {
      if (j >= count) continue;
      const double missed = log + log_sigmoid(-logits[j]);
      // In this order a NaN comes through.
      const bool is_rest_high = log_rest > missed;
      const double high = is_rest_high ? log_rest : missed, low = is_rest_high ? missed : log_rest;
      log_rest = high + math::log1p_of_unit(math::exp((float)(low - high)));
      log += log_sigmoid(logits[j]);
    }
    loss = -(double)label * log - (1.0 - label) * log_rest;
#pragma unroll
    for (u32 j = 0; j < MOST_EVENTS; j++) {
      if (j >= count || !events.gradients[j].data) continue;
      const double log_complement = log_sigmoid(-logits[j]);
      const float of_rest = math::exp((float)(log + log_complement - log_rest));
      const float slope = fmaf(1.0f - label, of_rest, -label * math::exp((float)log_complement));
      float* to = row_f32(events.gradients[j], row);
      *to = accumulate >> j & 1 ? fmaf(*scale, slope, *to) : *scale * slope;
    }
  }
  if (!partials) return;
  SHARED double sums[THREADS];
  const double sum = block_sum(loss, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// *sum += the sum of `count` partial sums. One block.
KERNEL(THREADS) add_partials(const double* partials, u32 count, double* sum) {
  SHARED double sums[THREADS];
  double mine = 0.0;
  for (u32 i = threadIdx.x; i < count; i += THREADS) mine += partials[i];
  const double total = block_sum(mine, sums);
  if (threadIdx.x == 0) *sum += total;
}

// The mean of each part of the loss; `*go_on` becomes 0 where one is not finite, and stays it. A mean is the sum of
// `sums[i] / divisors[i]` over i from `begins[part]` to below `begins[part + 1]`, or of i = part alone where `begins`
// is null. One warp.
KERNEL(32)
losses_finite(const double* sums, const double* divisors, const u32* begins, u32 parts, double* means, u32* go_on) {
  bool are_finite = true;
  for (u32 part = threadIdx.x; part < parts; part += 32) {
    const u32 begin = begins ? begins[part] : part, end = begins ? begins[part + 1] : part + 1;
    double mean = 0.0;
    for (u32 i = begin; i < end; i++) mean += sums[i] / divisors[i];
    means[part] = mean;
    are_finite = are_finite && isfinite(mean);
  }
  are_finite = __all_sync(FULL_WARP, are_finite);
  if (threadIdx.x == 0) *go_on = are_finite && *go_on;
}
