// Interactions of fields: their bi-interaction, the inner products of their pairs, sums of all columns; and the gradients.
//
// Floor: the bytes, fields once forward and, with their gradient, twice backward; 65,536 rows of 26 fields of 16 values
// in f32: 109 MB, 25 us on an H200 (4.3 TB/s), 51 us backward, and 45 and 71 us with the 325 products of pairs. Those
// take 0.34 GFLOP forward, but two reads of shared memory for each multiply-add: some 90 us.
#include "quad.cuh"

#define THREADS 256

// Fields that are on their way at once.
constexpr u32 AHEAD = 4;

// Four columns of all fields of a row: `e` is [rows, fields * width].
struct Fields {
  u32 row, col, count, width;

  // Those of this thread, of which there may be none.
  DEVICE Fields(const Mat& e, u32 width) : width(width) {
    const u32 in_row = (width + 3) / 4;
    const u32 index = blockIdx.x * THREADS + threadIdx.x;
    row = index / in_row, col = 4 * (index % in_row);
    count = row < rows_of(e) ? min(4u, width - col) : 0;
  }

  DEVICE bool is_whole(const Mat& mat) const { return has_quads(mat) && width % 4 == 0; }

  DEVICE void load(const Mat& mat, bool whole, u32 field, QuadBits& bits) const {
    load_bits(address_of(mat, row, field * width + col), mat.element, whole, count, bits);
  }

  DEVICE void load(const Mat& mat, bool whole, u32 field, float (&values)[4]) const {
    QuadBits bits;
    load(mat, whole, field, bits);
    values_of(bits, mat.element, values);
  }

  DEVICE void store(const Mat& mat, bool whole, u32 field, const float (&values)[4]) const {
    store_four(address_of(mat, row, field * width + col), mat.element, whole, count, values);
  }

  // Gives `use` the values of each field in turn.
  template <class Use>
  DEVICE void each(const Mat& mat, u32 fields, Use use) const {
    const bool whole = is_whole(mat);
#pragma unroll 1
    for (u32 first = 0; first < fields; first += AHEAD) {
      QuadBits bits[AHEAD];
#pragma unroll
      for (u32 a = 0; a < AHEAD; a++) {
        if (first + a < fields) load(mat, whole, first + a, bits[a]);
      }
#pragma unroll
      for (u32 a = 0; a < AHEAD; a++) {
        if (first + a >= fields) continue;
        float values[4];
        values_of(bits[a], mat.element, values);
        use(first + a, values);
      }
    }
  }
};

// y = the sum of all products of two fields, element by element, as each field times the sum of those before it.
KERNEL(THREADS) bi_interaction(u32 fields, Mat e, Mat y) {
  const Fields at(e, y.cols);
  if (at.count == 0) return;
  float sums[4] = {}, before[4] = {};
  at.each(e, fields, [&](u32, const float(&values)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] = fmaf(values[i], before[i], sums[i]), before[i] += values[i];
  });
  at.store(y, at.is_whole(y), 0, sums);
}

// de_f = dy * (the sum of all fields - e_f), written or added.
KERNEL(THREADS) bi_interaction_de(u32 fields, Mat e, Mat dy, u32 accumulate, Mat de) {
  const Fields at(e, dy.cols);
  if (at.count == 0) return;
  float total[4] = {}, gradients[4];
  at.load(dy, at.is_whole(dy), 0, gradients);
  at.each(e, fields, [&](u32, const float(&values)[4]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) total[i] += values[i];
  });
  const bool whole = at.is_whole(de);
  at.each(e, fields, [&](u32 field, const float(&values)[4]) {
    float to[4] = {};
    if (accumulate) at.load(de, whole, field, to);
#pragma unroll
    for (u32 i = 0; i < 4; i++) to[i] = fmaf(gradients[i], total[i] - values[i], to[i]);
    at.store(de, whole, field, to);
  });
}

// y = the sum of the columns of a row, or y + it; `segment` lanes, a power of two, take a row.
KERNEL(THREADS) sum_columns(u32 segment, Mat x, u32 accumulate, Mat y) {
  const u32 row = (blockIdx.x * THREADS + threadIdx.x) / segment, lane = threadIdx.x % segment;
  const bool is_there = row < rows_of(x), quads = has_quads(x);
  float sum = 0.0f;
  for (u32 col = 4 * lane; is_there && col < x.cols; col += 4 * segment) {
    float values[4];
    load_quad(x, quads, row, col, values);
    sum += (values[0] + values[1]) + (values[2] + values[3]);
  }
  for (u32 offset = segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
  if (!is_there || lane > 0) return;
  float* const to = row_f32(y, row);
  *to = accumulate ? *to + sum : sum;
}

// Each column of dx = the gradient of its row, dy [rows, 1], or dx + it.
KERNEL(THREADS) sum_columns_dx(Mat dy, u32 accumulate, Mat dx) {
  const Fields at(dx, dx.cols);
  if (at.count == 0) return;
  const bool whole = at.is_whole(dx);
  const float gradient = *row_f32(dy, at.row);
  float to[4] = {};
  if (accumulate) at.load(dx, whole, 0, to);
#pragma unroll
  for (u32 i = 0; i < 4; i++) to[i] += gradient;
  at.store(dx, whole, 0, to);
}

// Place of the pair (f, f + 1) among the pairs of `fields` fields.
DEVICE u32 first_pair(u32 fields, u32 f) { return f * (2 * fields - f - 1) / 2; }

// A warp's row of fields in shared memory. Fields lie an odd number of values apart, so that lanes that read the same
// column of different ones meet different banks.
struct SharedFields {
  float* values;
  u32 width, stride;

  DEVICE SharedFields(const Mat& e, u32 fields, u32 row, float* shared)
      : values(shared), width(e.cols / fields), stride(width | 1) {
    for (u32 i = threadIdx.x % 32; i < e.cols; i += 32) {
      shared[i / width * stride + i % width] = load_value(e, row, i);
    }
  }

  DEVICE float at(u32 field, u32 col) const { return values[field * stride + col]; }
};

// y = the inner products of all pairs of fields, in the order (0, 1), (0, 2) .. (1, 2) ..; a warp takes a row, of which
// `values` f32 lie in shared memory.
KERNEL(THREADS) pair_products(u32 fields, u32 values, Mat e, Mat y) {
  DYNAMIC_SHARED(shared);
  const u32 warp = threadIdx.x / 32, row = blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= rows_of(e)) return;
  const SharedFields of_row(e, fields, row, (float*)shared + warp * values);
  __syncwarp();
  u32 f = 0;
  for (u32 pair = threadIdx.x % 32; pair < y.cols; pair += 32) {
    while (pair >= first_pair(fields, f + 1)) f++;
    const u32 g = f + 1 + pair - first_pair(fields, f);
    float sum = 0.0f;
    for (u32 i = 0; i < of_row.width; i++) sum = fmaf(of_row.at(f, i), of_row.at(g, i), sum);
    store_value(y, row, pair, sum);
  }
}

// de_f = the sum of dy_fg e_g over the other fields g, written or added. As pair_products, with dy behind the fields.
KERNEL(THREADS) pair_products_de(u32 fields, u32 values, Mat e, Mat dy, u32 accumulate, Mat de) {
  DYNAMIC_SHARED(shared);
  const u32 warp = threadIdx.x / 32, row = blockIdx.x * (blockDim.x / 32) + warp;
  if (row >= rows_of(e)) return;
  const SharedFields of_row(e, fields, row, (float*)shared + warp * values);
  float* const gradients = of_row.values + fields * of_row.stride;
  for (u32 i = threadIdx.x % 32; i < dy.cols; i += 32) gradients[i] = load_value(dy, row, i);
  __syncwarp();
  for (u32 at = threadIdx.x % 32; at < e.cols; at += 32) {
    const u32 f = at / of_row.width, col = at % of_row.width;
    float sum = accumulate ? load_value(de, row, at) : 0.0f;
    for (u32 g = 0; g < f; g++) sum = fmaf(gradients[first_pair(fields, g) + f - g - 1], of_row.at(g, col), sum);
    for (u32 g = f + 1; g < fields; g++) {
      sum = fmaf(gradients[first_pair(fields, f) + g - f - 1], of_row.at(g, col), sum);
    }
    store_value(de, row, at, sum);
  }
}
