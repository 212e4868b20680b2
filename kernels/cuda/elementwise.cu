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

// Whether a scenario counts: whether it has rows, from `starts[s]` on and up to `starts[s + 1]`, or there are no `starts`.
DEVICE bool is_there(const u32* starts, u32 s) { return !starts || starts[s] < starts[s + 1]; }

// Weights of scenarios, each of `len` values: to = shared * own, or shared + own where it is no product. Those of scenarios
// that do not count stay as they are.
KERNEL(THREADS)
fold(const float* shared, const float* own, u32 is_product, const u32* starts, u32 scenarios, u32 len, float* to) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= len) return;
  const float mine = shared[i];
  for (u32 s = 0; s < scenarios; s++) {
    if (!is_there(starts, s)) continue;
    const u64 at = (u64)s * len + i;
    to[at] = is_product ? __fmul_rn(mine, own[at]) : __fadd_rn(mine, own[at]);
  }
}

// The gradients of `fold`, or what is added to them by the bits of `accumulate`: of shared those of all scenarios, in their
// order; of a scenario that does not count 0. Either may be null.
KERNEL(THREADS)
fold_dx(const float* shared, const float* own, const float* dy, u32 is_product, const u32* starts, u32 scenarios, u32 len,
        u32 accumulate, float* d_shared, float* d_own) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (i >= len) return;
  const float mine = is_product ? shared[i] : 1.0f;
  float sum = d_shared && (accumulate & 1) ? d_shared[i] : 0.0f;
  for (u32 s = 0; s < scenarios; s++) {
    const u64 at = (u64)s * len + i;
    const bool counts = is_there(starts, s);
    // What is left of the others may be anything.
    const float d = counts ? dy[at] : 0.0f;
    if (counts) sum += is_product ? __fmul_rn(d, own[at]) : d;
    if (d_own) d_own[at] = (accumulate & 2 ? d_own[at] : 0.0f) + __fmul_rn(d, mine);
  }
  if (d_shared) d_shared[i] = sum;
}

// Rows and columns of a tile of a transposed matrix.
constexpr u32 TILE = 32;

// Each of `gridDim.z` matrices y = that of x the other way round, written or added; x [rows, cols] and y [cols, rows] of f32,
// `next_x` and `next_y` values from one matrix to the next. Tiles go through shared memory, so that both sides are read and
// written along rows.
KERNEL(THREADS) transpose(Mat x, u32 next_x, u32 accumulate, Mat y, u32 next_y) {
  SHARED float tile[TILE][TILE + 1];
  const u32 along = threadIdx.x % TILE, first = threadIdx.x / TILE;
  const u32 top = blockIdx.y * TILE, left = blockIdx.x * TILE;
  for (u32 r = first; r < TILE; r += THREADS / TILE) {
    if (top + r < x.rows && left + along < x.cols) {
      tile[r][along] = row_f32(x, top + r)[(u64)blockIdx.z * next_x + left + along];
    }
  }
  __syncthreads();
  for (u32 c = first; c < TILE; c += THREADS / TILE) {
    if (left + c >= x.cols || top + along >= x.rows) continue;
    float* const to = row_f32(y, left + c) + (u64)blockIdx.z * next_y + top + along;
    *to = accumulate ? *to + tile[along][c] : tile[along][c];
  }
}
