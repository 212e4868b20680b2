// What samples have of the ids of their lists, and ids of their sample. Nothing is padded: a matrix has a row a sample or a
// row an id, and the ids of a sample stand together.
//
// Floor: the bytes, a row of each id read once, or written once; 65,536 samples with 50 ids of 16 values in f32 are 210 MB,
// 49 us on an H200 (4.3 TB/s). A thread takes four columns of a sample and walks along its ids, so that sums have the order
// of the list. Where a number is computed for each id, a warp takes a sample and a lane an id.
#include "column_sums.cuh"
#include "math.cuh"

// Ids that are on their way at once.
#define AHEAD 4

// The ids of sample r are the rows `offsets[r] .. offsets[r + 1]`.
struct Lists {
  const u32* offsets;
  // The number of samples.
  const u32* samples;
};

// Four columns of a sample, and the rows `from .. to` of its ids.
struct Walk {
  u32 sample, col, from, to;
  bool is_there;

  DEVICE Walk(const Lists& lists, u32 cols) {
    const u32 in_row = (cols + 3) / 4, index = blockIdx.x * THREADS + threadIdx.x;
    sample = index / in_row, col = 4 * (index % in_row), is_there = sample < *lists.samples;
    from = is_there ? lists.offsets[sample] : 0, to = is_there ? lists.offsets[sample + 1] : 0;
  }
};

// Writes four values, or adds them to what is there.
DEVICE void put_quad(const Mat& mat, u32 row, u32 col, u32 accumulate, const float (&values)[4]) {
  const bool quads = has_quads(mat);
  float sums[4] = {};
  if (accumulate) load_quad(mat, quads, row, col, sums);
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] = accumulate ? sums[i] + values[i] : values[i];
  store_quad(mat, quads, row, col, sums);
}

DEVICE void put_value(const Mat& mat, u32 row, u32 accumulate, float value) {
  store_value(mat, row, 0, accumulate ? load_value(mat, row, 0) + value : value);
}

DEVICE float scale_of(const Walk& at, u32 mean) { return mean ? 1.0f / (float)max(at.to - at.from, 1u) : 1.0f; }

// y = the sum of the rows of x of a sample's ids, or their mean; 0 for none.
KERNEL(THREADS) sequence_pool(Lists lists, u32 mean, Mat x, Mat y) {
  const Walk at(lists, x.cols);
  if (!at.is_there) return;
  const bool quads = has_quads(x);
  const float scale = scale_of(at, mean);
  float sums[4] = {};
#pragma unroll AHEAD
  for (u32 id = at.from; id < at.to; id++) {
    float values[4];
    load_quad(x, quads, id, at.col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] += values[i];
  }
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] *= scale;
  store_quad(y, has_quads(y), at.sample, at.col, sums);
}

// dx of each id = dy of its sample, divided by their number for means; written or added.
KERNEL(THREADS) sequence_pool_dx(Lists lists, u32 mean, Mat dy, u32 accumulate, Mat dx) {
  const Walk at(lists, dy.cols);
  if (!at.is_there) return;
  const float scale = scale_of(at, mean);
  float values[4];
  load_quad(dy, has_quads(dy), at.sample, at.col, values);
#pragma unroll
  for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(scale, values[i]);
  for (u32 id = at.from; id < at.to; id++) put_quad(dx, id, at.col, accumulate, values);
}

// p = softmax(x) over the ids of each sample, column by column.
KERNEL(THREADS) sequence_softmax(Lists lists, Mat x, Mat p) {
  const Walk at(lists, x.cols);
  if (!at.is_there) return;
  const bool quads_x = has_quads(x), quads_p = has_quads(p);
  float most[4] = {MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY, MINUS_INFINITY}, sums[4] = {};
  float values[4];
  for (u32 id = at.from; id < at.to; id++) {
    load_quad(x, quads_x, id, at.col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) most[i] = math::maximum(most[i], values[i]);
  }
  for (u32 id = at.from; id < at.to; id++) {
    load_quad(x, quads_x, id, at.col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] += math::exp(values[i] - most[i]);
  }
  for (u32 id = at.from; id < at.to; id++) {
    load_quad(x, quads_x, id, at.col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = math::exp(values[i] - most[i]) / sums[i];
    store_quad(p, quads_p, id, at.col, values);
  }
}

// dx = p (dp - sum of p dp over the ids), written or added.
KERNEL(THREADS) sequence_softmax_dx(Lists lists, Mat p, Mat dp, u32 accumulate, Mat dx) {
  const Walk at(lists, p.cols);
  if (!at.is_there) return;
  const bool quads_p = has_quads(p), quads_dp = has_quads(dp);
  float means[4] = {}, values[4], gradients[4];
#pragma unroll AHEAD
  for (u32 id = at.from; id < at.to; id++) {
    load_quad(p, quads_p, id, at.col, values);
    load_quad(dp, quads_dp, id, at.col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) means[i] = fmaf(values[i], gradients[i], means[i]);
  }
  for (u32 id = at.from; id < at.to; id++) {
    load_quad(p, quads_p, id, at.col, values);
    load_quad(dp, quads_dp, id, at.col, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(values[i], gradients[i] - means[i]);
    put_quad(dx, id, at.col, accumulate, values);
  }
}

// Weights of ids, [ids, 1]; with those of a second list, unless its offsets are null, whose last ids are partners of the
// last ones of the first.
struct Weights {
  Mat w, u;
  const u32* offsets;
};

// The ids of a sample from `first` on have partners, which are `partner` and on; the second list begins at `begin`.
struct Pairs {
  u32 first, partner, begin;

  DEVICE Pairs(const Weights& weights, u32 sample, u32 from, u32 to) {
    begin = weights.offsets ? weights.offsets[sample] : from;
    const u32 end = weights.offsets ? weights.offsets[sample + 1] : to, count = min(to - from, end - begin);
    first = to - count, partner = end - count;
  }

  DEVICE u32 partner_of(u32 id) const { return partner + (id - first); }

  DEVICE float weight(const Weights& weights, u32 id) const {
    const float w = load_value(weights.w, id, 0);
    return weights.offsets ? __fmul_rn(w, load_value(weights.u, partner_of(id), 0)) : w;
  }
};

// y = the sum of the weights of a sample's ids times their rows of x.
KERNEL(THREADS) weighted_pool(Lists lists, Weights weights, Mat x, Mat y) {
  const Walk at(lists, x.cols);
  if (!at.is_there) return;
  const Pairs pairs(weights, at.sample, at.from, at.to);
  const bool quads = has_quads(x);
  float sums[4] = {};
#pragma unroll AHEAD
  for (u32 id = pairs.first; id < at.to; id++) {
    float values[4];
    load_quad(x, quads, id, at.col, values);
    const float weight = pairs.weight(weights, id);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] = fmaf(weight, values[i], sums[i]);
  }
  store_quad(y, has_quads(y), at.sample, at.col, sums);
}

// dx = weight times dy of the sample, 0 for ids without a partner; written or added.
KERNEL(THREADS) weighted_pool_dx(Lists lists, Weights weights, Mat dy, u32 accumulate, Mat dx) {
  const Walk at(lists, dy.cols);
  if (!at.is_there) return;
  const Pairs pairs(weights, at.sample, at.from, at.to);
  float gradients[4];
  load_quad(dy, has_quads(dy), at.sample, at.col, gradients);
  for (u32 id = at.from; id < at.to; id++) {
    const float weight = id < pairs.first ? 0.0f : pairs.weight(weights, id);
    float values[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(weight, gradients[i]);
    put_quad(dx, id, at.col, accumulate, values);
  }
}

// Gradients of weights: x . dy of the sample, times the weight of the partner, and 0 for ids without one. Each is written
// or, by the bits of `accumulate`, added, unless it has no data.
KERNEL(THREADS) weighted_pool_dw(Lists lists, Weights weights, Mat x, Mat dy, u32 accumulate, Mat dw, Mat du) {
  const u32 sample = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (sample >= *lists.samples) return;
  const u32 from = lists.offsets[sample], to = lists.offsets[sample + 1];
  const Pairs pairs(weights, sample, from, to);
  const bool quads_x = has_quads(x), quads_dy = has_quads(dy);
  for (u32 id = from + lane; id < to; id += 32) {
    float dot = 0.0f;
    for (u32 col = 0; id >= pairs.first && col < x.cols; col += 4) {
      float values[4], gradients[4];
      load_quad(x, quads_x, id, col, values);
      load_quad(dy, quads_dy, sample, col, gradients);
#pragma unroll
      for (u32 i = 0; i < 4; i++) dot = fmaf(values[i], gradients[i], dot);
    }
    const bool has_partner = id >= pairs.first && weights.offsets;
    const float u = has_partner ? load_value(weights.u, pairs.partner_of(id), 0) : 1.0f;
    if (dw.data) put_value(dw, id, accumulate & 1, __fmul_rn(dot, u));
    if (du.data && has_partner) {
      put_value(du, pairs.partner_of(id), accumulate & 2, __fmul_rn(dot, load_value(weights.w, id, 0)));
    }
  }
  for (u32 id = pairs.begin + lane; du.data && !(accumulate & 2) && id < pairs.partner; id += 32) {
    store_value(du, id, 0, 0.0f);
  }
}

// z = [q ; k ; q - k ; q * k] for the query q of a sample and the row k of each of its ids.
KERNEL(THREADS) compare(Lists lists, Mat q, Mat k, Mat z) {
  const Walk at(lists, q.cols);
  if (!at.is_there) return;
  const bool quads = has_quads(k);
  Mat parts[4];
#pragma unroll
  for (u32 part = 0; part < 4; part++) parts[part] = columns_of(z, part * q.cols, q.cols);
  float query[4];
  load_quad(q, has_quads(q), at.sample, at.col, query);
  for (u32 id = at.from; id < at.to; id++) {
    float key[4], less[4], product[4];
    load_quad(k, quads, id, at.col, key);
#pragma unroll
    for (u32 i = 0; i < 4; i++) less[i] = query[i] - key[i], product[i] = __fmul_rn(query[i], key[i]);
    put_quad(parts[0], id, at.col, false, query);
    put_quad(parts[1], id, at.col, false, key);
    put_quad(parts[2], id, at.col, false, less);
    put_quad(parts[3], id, at.col, false, product);
  }
}

// The gradient of `compare` at k, with dz in parts a, b, c, d: b - c + q * d; written or added.
KERNEL(THREADS) compare_dk(Lists lists, Mat q, Mat dz, u32 accumulate, Mat dk) {
  const Walk at(lists, q.cols);
  if (!at.is_there) return;
  float query[4];
  load_quad(q, has_quads(q), at.sample, at.col, query);
  for (u32 id = at.from; id < at.to; id++) {
    float parts[4][4], values[4];
#pragma unroll
    for (u32 part = 1; part < 4; part++) {
      const Mat of_part = columns_of(dz, part * q.cols, q.cols);
      load_quad(of_part, has_quads(of_part), id, at.col, parts[part]);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = fmaf(query[i], parts[3][i], parts[1][i] - parts[2][i]);
    put_quad(dk, id, at.col, accumulate, values);
  }
}

// And at q: the sum of a + c + k * d over the ids; written or added.
KERNEL(THREADS) compare_dq(Lists lists, Mat k, Mat dz, u32 accumulate, Mat dq) {
  const Walk at(lists, k.cols);
  if (!at.is_there) return;
  float sums[4] = {};
  for (u32 id = at.from; id < at.to; id++) {
    float parts[4][4], key[4];
    load_quad(k, has_quads(k), id, at.col, key);
#pragma unroll
    for (u32 part = 0; part < 4; part++) {
      if (part == 1) continue;
      const Mat of_part = columns_of(dz, part * k.cols, k.cols);
      load_quad(of_part, has_quads(of_part), id, at.col, parts[part]);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] += fmaf(key[i], parts[3][i], parts[0][i] + parts[2][i]);
  }
  put_quad(dq, at.sample, at.col, accumulate, sums);
}

// y = x + the row of p of an id's place in its list.
KERNEL(THREADS) position_embedding(Lists lists, Mat x, Mat p, Mat y) {
  const Walk at(lists, x.cols);
  if (!at.is_there) return;
  const bool quads_x = has_quads(x), quads_p = has_quads(p), quads_y = has_quads(y);
#pragma unroll AHEAD
  for (u32 id = at.from; id < at.to; id++) {
    float values[4], place[4];
    load_quad(x, quads_x, id, at.col, values);
    load_quad(p, quads_p, id - at.from, at.col, place);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] += place[i];
    store_quad(y, quads_y, id, at.col, values);
  }
}

// Sums of the rows of dy of the ids at a place, the third index of the grid, over the samples that have one there.
KERNEL(THREADS) position_sums(Lists lists, u32 across, Mat dy, double* partials) {
  const u32 samples = *lists.samples;
  if (blockIdx.x * (THREADS / across) >= samples) return;
  const Place at = place_of_chunk(across);
  const bool quads = has_quads(dy);
  double sums[4] = {};
  const double none[4] = {};
  for (u32 sample = at.row; sample < samples; sample += at.step) {
    const u32 id = lists.offsets[sample] + blockIdx.z;
    if (id >= lists.offsets[sample + 1]) continue;
    float values[4];
    load_quad(dy, quads, id, at.col, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[i] += values[i];
  }
  leave_sums(sums, none, across, dy.cols, partials);
}

// Adds them up to the gradient of all places, [places, cols].
KERNEL(THREADS)
finish_position_sums(Lists lists, u32 across, u32 chunks, u32 cols, const double* partials, Gradient gradient) {
  const Sums sums = sums_of_chunks(partials, chunks, across, *lists.samples, cols);
  if (threadIdx.x < COLUMNS && sums.col < cols) put(gradient, blockIdx.z * cols + sums.col, sums.first);
}
