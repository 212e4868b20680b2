// Attention head by head: of one query a sample to the ids of a list, and of the ids of a list, or of parts of a row, to
// each other. Nothing is padded, so nothing is masked.
//
// Floor: multiply-adds, two products a pair of query and key forward and five backward; 65,536 samples of 50 ids with two
// heads of 8 values: 5.2 G multiply-adds forward among each other, 0.16 ms on an H200 (33 T a second), and for one query
// the bytes of keys and values. `segment` lanes, a power of two, take a head of a query, four columns each at a time, and
// walk along the keys in their order. No weight is stored: what scores sum up to is found first, and scores again.
#include "math.cuh"
#include "quad.cuh"

#define THREADS 256

// What attends to what.
struct Heads {
  // The first id of each sample, or null: keys are equal parts of a row.
  const u32* offsets;
  // The number of samples.
  const u32* samples;
  // Parts of a row; 1 with offsets.
  u32 parts;
  u32 heads, width;
  float scale;
  // Whether each key is a query too; else a sample has one.
  u32 among_each_other;
  u32 segment;
};

// A head of a row: where its columns begin.
struct Place {
  u32 row, col;
};

// The sample that has the row `id`: the last whose first id is not behind it.
DEVICE u32 sample_of(const Heads& of, u32 id) {
  u32 low = 0, high = *of.samples;
  while (high - low > 1) {
    const u32 middle = (low + high) / 2;
    if (of.offsets[middle] <= id) low = middle;
    else high = middle;
  }
  return low;
}

// What a segment of lanes takes: a head of a query, and all keys of its sample.
struct Share {
  // Number of the query, and its head.
  u32 query, head;
  bool is_there;
  // Columns of a lane: the first, and how far the next ones are.
  u32 first, step;
  // Row of the first key, keys, and their number in the warp's longest list: all lanes of a warp go as far.
  u32 from, count, most;

  DEVICE Share(const Heads& of) {
    const u32 index = (blockIdx.x * THREADS + threadIdx.x) / of.segment;
    query = index / of.heads, head = index % of.heads, first = 4 * (threadIdx.x % of.segment), step = 4 * of.segment;
    const u32 samples = *of.samples;
    from = count = 0;
    if (!of.offsets) {
      is_there = query < samples * of.parts;
      from = query / of.parts, count = is_there ? of.parts : 0;
    } else {
      is_there = query < (of.among_each_other ? of.offsets[samples] : samples);
      if (is_there) {
        const u32 sample = of.among_each_other ? sample_of(of, query) : query;
        from = of.offsets[sample], count = of.offsets[sample + 1] - from;
      }
    }
    most = count;
    for (u32 offset = 16; offset; offset /= 2) most = max(most, __shfl_xor_sync(FULL_WARP, most, offset));
  }

  DEVICE Place place_of_query(const Heads& of) const {
    return {query / of.parts, (query % of.parts * of.heads + head) * of.width};
  }

  DEVICE Place place_of_key(const Heads& of, u32 key) const {
    if (of.parts > 1) return {from, (key * of.heads + head) * of.width};
    return {from + key, head * of.width};
  }

  // The number of the key among all, with its head.
  DEVICE u64 number_of_key(const Heads& of, u32 key) const {
    return (u64)(of.offsets ? from + key : from * of.parts + key) * of.heads + head;
  }
};

DEVICE void load_four(const Heads& of, const Mat& mat, const Place& at, u32 col, float (&values)[4]) {
  const bool whole = of.width % 4 == 0 && has_quads(mat);
  load_four(address_of(mat, at.row, at.col + col), mat.element, whole, of.width - col, values);
}

DEVICE void put_four(const Heads& of, const Mat& mat, const Place& at, u32 col, u32 accumulate,
                     const float (&values)[4]) {
  const bool whole = of.width % 4 == 0 && has_quads(mat);
  void* const to = address_of(mat, at.row, at.col + col);
  float sums[4] = {};
  if (accumulate) load_four(to, mat.element, whole, of.width - col, sums);
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] = accumulate ? sums[i] + values[i] : values[i];
  store_four(to, mat.element, whole, of.width - col, sums);
}

// a . b over a head, in all lanes of the segment; 0 where nothing is. The whole warp has to come.
DEVICE float dot(const Heads& of, const Share& share, bool is_there, const Mat& a, const Place& at_a, const Mat& b,
                 const Place& at_b) {
  float sum = 0.0f;
  for (u32 col = share.first; is_there && col < of.width; col += share.step) {
    float values[4], others[4];
    load_four(of, a, at_a, col, values);
    load_four(of, b, at_b, col, others);
#pragma unroll
    for (u32 i = 0; i < 4; i++) sum = fmaf(values[i], others[i], sum);
  }
  for (u32 offset = of.segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
  return sum;
}

// The logarithm of the sum of the exponentials of all scores of a query, kept relative to the largest so far.
DEVICE float log_sum_of(const Heads& of, const Share& share, const Mat& q, const Mat& k) {
  const Place query = share.place_of_query(of);
  float most = MINUS_INFINITY, sum = 0.0f;
  for (u32 key = 0; key < share.most; key++) {
    const bool is_there = key < share.count;
    const float score = of.scale * dot(of, share, is_there, q, query, k, share.place_of_key(of, key));
    if (!is_there) continue;
    const float larger = math::maximum(most, score);
    sum = fmaf(sum, math::exp(most - larger), math::exp(score - larger)), most = larger;
  }
  return most + logf(sum);
}

// out = the sum of the values of all keys, by the exponentials of their scores; 0 without keys.
DEVICE void mix(const Heads& of, const Share& share, const Mat& q, const Mat& k, const Mat& v, float log_sum,
                const Mat& out) {
  const Place query = share.place_of_query(of);
  for (u32 from = 0; from < of.width; from += share.step) {
    const u32 col = from + share.first;
    const bool has_columns = share.is_there && col < of.width;
    float sums[4] = {};
    for (u32 key = 0; key < share.most; key++) {
      const bool is_there = key < share.count;
      const Place at = share.place_of_key(of, key);
      const float score = of.scale * dot(of, share, is_there, q, query, k, at);
      if (!is_there || !has_columns) continue;
      const float weight = math::exp(score - log_sum);
      float values[4];
      load_four(of, v, at, col, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[i] = fmaf(weight, values[i], sums[i]);
    }
    if (has_columns) put_four(of, out, query, col, false, sums);
  }
}

// Attention of one query a sample; leaves the logarithms of sums, [samples, heads].
KERNEL(THREADS) attend(Heads of, Mat q, Mat k, Mat v, Mat out, Mat log_sums) {
  const Share share(of);
  const float log_sum = log_sum_of(of, share, q, k);
  mix(of, share, q, k, v, log_sum, out);
  if (share.is_there && share.first == 0) store_value(log_sums, share.query, share.head, log_sum);
}

// Attention among each other.
KERNEL(THREADS) self_attention(Heads of, Mat q, Mat k, Mat v, Mat out) {
  const Share share(of);
  mix(of, share, q, k, v, log_sum_of(of, share, q, k), out);
}

// The gradients of `attend`, with weights p: dv = p dout, ds = scale p (dout . v - dout . out), dk = ds q and dq = the
// sum of ds k. Each is written or, by the bits of `accumulate`, added, unless it has no data.
KERNEL(THREADS)
attend_backward(Heads of, Mat q, Mat k, Mat v, Mat out, Mat log_sums, Mat dout, u32 accumulate, Mat dq, Mat dk,
                Mat dv) {
  const Share share(of);
  const Place query = share.place_of_query(of);
  const float mean = dot(of, share, share.is_there, dout, query, out, query);
  const float log_sum = share.is_there ? load_value(log_sums, share.query, share.head) : 0.0f;
  for (u32 from = 0; from < of.width; from += share.step) {
    const u32 col = from + share.first;
    const bool has_columns = share.is_there && col < of.width;
    float of_query[4] = {}, of_out[4] = {}, sums[4] = {};
    if (has_columns) load_four(of, q, query, col, of_query), load_four(of, dout, query, col, of_out);
    for (u32 key = 0; key < share.most; key++) {
      const bool is_there = key < share.count;
      const Place at = share.place_of_key(of, key);
      const float score = of.scale * dot(of, share, is_there, q, query, k, at);
      const float along = dot(of, share, is_there, dout, query, v, at);
      if (!is_there || !has_columns) continue;
      const float weight = math::exp(score - log_sum), ds = __fmul_rn(of.scale * weight, along - mean);
      float values[4];
      if (dv.data) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(weight, of_out[i]);
        put_four(of, dv, at, col, accumulate & 4, values);
      }
      if (dk.data) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(ds, of_query[i]);
        put_four(of, dk, at, col, accumulate & 2, values);
      }
      load_four(of, k, at, col, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[i] = fmaf(ds, values[i], sums[i]);
    }
    if (dq.data && has_columns) put_four(of, dq, query, col, accumulate & 1, sums);
  }
}

// What a query's gradients are made of: the logarithm of its sum, and the mean of dout . v by its weights.
struct Sums {
  float log_sum, mean;
};

// The gradients of `self_attention` at queries, the sums of ds k, written or added, unless dq has no data; leaves the
// sums of each head of each query.
KERNEL(THREADS)
self_attention_dq(Heads of, Mat q, Mat k, Mat v, Mat dout, u32 accumulate, Mat dq, Sums* sums_of_queries) {
  const Share share(of);
  const Place query = share.place_of_query(of);
  const float log_sum = log_sum_of(of, share, q, k);
  float mean = 0.0f;
  for (u32 key = 0; key < share.most; key++) {
    const bool is_there = key < share.count;
    const Place at = share.place_of_key(of, key);
    const float score = of.scale * dot(of, share, is_there, q, query, k, at);
    const float along = dot(of, share, is_there, dout, query, v, at);
    if (is_there) mean = fmaf(math::exp(score - log_sum), along, mean);
  }
  if (share.is_there && share.first == 0) sums_of_queries[(u64)share.query * of.heads + share.head] = {log_sum, mean};
  for (u32 from = 0; dq.data && from < of.width; from += share.step) {
    const u32 col = from + share.first;
    const bool has_columns = share.is_there && col < of.width;
    float sums[4] = {};
    for (u32 key = 0; key < share.most; key++) {
      const bool is_there = key < share.count;
      const Place at = share.place_of_key(of, key);
      const float score = of.scale * dot(of, share, is_there, q, query, k, at);
      const float along = dot(of, share, is_there, dout, query, v, at);
      if (!is_there || !has_columns) continue;
      const float ds = __fmul_rn(of.scale * math::exp(score - log_sum), along - mean);
      float values[4];
      load_four(of, k, at, col, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[i] = fmaf(ds, values[i], sums[i]);
    }
    if (has_columns) put_four(of, dq, query, col, accumulate, sums);
  }
}

// And at keys and values, the sums of ds q and of p dout over all queries, by what `self_attention_dq` has left. Here a
// segment takes a key, and walks along the queries. Each is written or, by the bits of `accumulate`, added, unless it
// has no data.
KERNEL(THREADS)
self_attention_dkv(Heads of, Mat q, Mat k, Mat v, Mat dout, const Sums* sums_of_queries, u32 accumulate, Mat dk,
                   Mat dv) {
  const Share share(of);
  const Place own = share.place_of_query(of);
  for (u32 from = 0; from < of.width; from += share.step) {
    const u32 col = from + share.first;
    const bool has_columns = share.is_there && col < of.width;
    float of_key[4] = {}, of_value[4] = {};
    for (u32 query = 0; query < share.most; query++) {
      const bool is_there = query < share.count;
      const Place at = share.place_of_key(of, query);
      const float score = of.scale * dot(of, share, is_there, q, at, k, own);
      const float along = dot(of, share, is_there, dout, at, v, own);
      if (!is_there || !has_columns) continue;
      const Sums sums = sums_of_queries[share.number_of_key(of, query)];
      const float weight = math::exp(score - sums.log_sum), ds = __fmul_rn(of.scale * weight, along - sums.mean);
      float values[4], gradients[4];
      load_four(of, q, at, col, values);
      load_four(of, dout, at, col, gradients);
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        of_key[i] = fmaf(ds, values[i], of_key[i]), of_value[i] = fmaf(weight, gradients[i], of_value[i]);
      }
    }
    if (dk.data && has_columns) put_four(of, dk, own, col, accumulate & 1, of_key);
    if (dv.data && has_columns) put_four(of, dv, own, col, accumulate & 2, of_value);
  }
}
