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
