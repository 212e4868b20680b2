// Arithmetic element by element, and sums over rows.
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
  float sums[8];
  load_share(addends.of[0], share, sums);
#pragma unroll
  for (u32 addend = 1; addend < 4; addend++) {
    if (addend < count) {
      float values[8];
      load_share(addends.of[addend], share, values);
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
  float values[8], factors[8];
  load_share(a, share, values);
  load_share(b, share, factors);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(values[i], factors[i]);
  put_share(y, share, accumulate, values);
}

// Each row of y = the first row of `vector`.
KERNEL(THREADS) broadcast(Mat vector, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_columns(vector, {0, share.of[0].first, share.of[0].count}, values);
  load_columns(vector, {0, share.of[1].first, share.of[1].count}, values + 4);
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

// Columns that a block sums.
#define COLUMNS 32
// Rows that it reads at a time.
#define ROWS (THREADS / COLUMNS)

// Sums over rows, in an order that depends on `span` alone: blocks of y sum rows `y span .. (y + 1) span` of x to
// `sums[y * cols]` and on, or accumulating, onto it.
KERNEL(THREADS) column_sums(Mat x, u32 span, u32 accumulate, float* sums) {
  SHARED float partials[ROWS][COLUMNS];
  const u32 lane = threadIdx.x % COLUMNS, first = threadIdx.x / COLUMNS;
  const u32 column = blockIdx.x * COLUMNS + lane;
  const u32 begin = blockIdx.y * span, end = min(rows_of(x), begin + span);
  float sum = 0.0f;
  if (column < x.cols) {
#pragma unroll 4
    for (u32 row = begin + first; row < end; row += ROWS) {
      sum += x.element == ELEMENT_F32 ? row_f32(x, row)[column] : to_f32(row_bf16(x, row)[column]);
    }
  }
  partials[first][lane] = sum;
  __syncthreads();
  if (first > 0 || column >= x.cols) return;
#pragma unroll
  for (u32 i = 1; i < ROWS; i++) sum += partials[i][lane];
  float* to = sums + (u64)blockIdx.y * x.cols + column;
  *to = accumulate ? *to + sum : sum;
}
