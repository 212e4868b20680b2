// Arithmetic element by element.
//
// Floor: the bytes, each value read once and written once.
#include "share.cuh"

#define THREADS 256

// Up to four matrices.
struct Addends {
  Mat of[4];
};

// y = the sum of the first `count` addends, in order. Each of them may be `y`.
KERNEL(THREADS) add(Addends addends, u32 count, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  ShareBits bits[4];
#pragma unroll
  for (u32 addend = 0; addend < 4; addend++) {
    if (addend < count) load_share(addends.of[addend], share, bits[addend]);
  }
  float sums[8];
  values_of(bits[0], addends.of[0], sums);
#pragma unroll
  for (u32 addend = 1; addend < 4; addend++) {
    if (addend < count) {
      float values[8];
      values_of(bits[addend], addends.of[addend], values);
#pragma unroll
      for (u32 i = 0; i < 8; i++) sums[i] += values[i];
    }
  }
  store_share(y, share, sums);
}

// y = a + factor * b, or factor * b where `a` has no data. `a` or `b` may be `y`.
KERNEL(THREADS) add_scaled(Mat a, float factor, Mat b, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_share(b, share, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(factor, values[i]);
  if (a.data) {
    float before[8];
    load_share(a, share, before);
#pragma unroll
    for (u32 i = 0; i < 8; i++) values[i] = __fadd_rn(before[i], values[i]);
  }
  store_share(y, share, values);
}

// y = a * b or, accumulating, y += a * b. `a` or `b` may be `y`.
KERNEL(THREADS) multiply(Mat a, Mat b, u32 accumulate, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  ShareBits of_a, of_b;
  load_share(a, share, of_a);
  load_share(b, share, of_b);
  float values[8], factors[8];
  values_of(of_a, a, values);
  values_of(of_b, b, factors);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(values[i], factors[i]);
  put_share(y, share, accumulate, values);
}

// Each row of y = the first row of `vector`.
KERNEL(THREADS) broadcast(Mat vector, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  const Columns first = share.of[0], second = share.of[1];
  float values[8];
  load_share(vector, {{{0, first.first, first.count}, {0, second.first, second.count}}}, values);
  store_share(y, share, values);
}

// y = `value`.
KERNEL(THREADS) fill(float value, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = value;
  store_share(y, share, values);
}

// y = 1 in the column that the row's id names, 0 in the others.
KERNEL(THREADS) one_hot(const u32* ids, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const Columns& at = share.of[half];
    const u32 id = at.count ? ids[at.row] : 0;
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[4 * half + i] = at.first + i == id ? 1.0f : 0.0f;
  }
  store_share(y, share, values);
}

// Weights of scenarios, each of `len` values: to = shared * own, or shared + own where it is no product.
KERNEL(THREADS) fold(const float* shared, const float* own, u32 is_product, u32 scenarios, u32 len, float* to) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= len) return;
  const float mine = shared[i];
  for (u64 at = i; scenarios > 0; scenarios--, at += len) {
    to[at] = is_product ? __fmul_rn(mine, own[at]) : __fadd_rn(mine, own[at]);
  }
}

// The gradients of `fold`, or what is added to them by the bits of `accumulate`: of shared those of all scenarios, in their
// order. Either may be null.
KERNEL(THREADS)
fold_dx(const float* shared, const float* own, const float* dy, u32 is_product, u32 scenarios, u32 len, u32 accumulate,
        float* d_shared, float* d_own) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= len) return;
  const float mine = is_product ? shared[i] : 1.0f;
  float sum = d_shared && (accumulate & 1) ? d_shared[i] : 0.0f;
  for (u64 at = i; scenarios > 0; scenarios--, at += len) {
    const float d = dy[at];
    sum += is_product ? __fmul_rn(d, own[at]) : d;
    if (d_own) d_own[at] = (accumulate & 2 ? d_own[at] : 0.0f) + __fmul_rn(d, mine);
  }
  if (d_shared) d_shared[i] = sum;
}
