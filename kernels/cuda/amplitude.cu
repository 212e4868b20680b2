// Units times amplitudes, y = x * a(r), and the gradients: what a gate says of each unit, or of each part of a row, as a
// field is.
//
// Floor: the bytes, x, r and y once forward, x, r, dy, dx and dr once backward; 65,536 rows of 512 units in f32 and a gate
// for each: 403 MB and 671 MB, 94 and 156 us on an H200 (4.3 TB/s). An exponential for each amplitude hides behind them.
#include "activation.cuh"
#include "block_sum.cuh"
#include "share.cuh"

#define THREADS 256

enum AmplitudeKind : u32 { SIGMOID_OF = 0, EXP_OF = 1, ONE_PLUS = 2, PRUNED = 3, MASK = 4, MASK_STRAIGHT_THROUGH = 5 };

// As an argument of a kernel: `to_bytes` of amplitude.rs.
struct Amplitude {
  u32 kind;
  // Of a weight `scale * sigmoid(steepness * r)`, and above what a unit is not pruned.
  float scale, steepness, threshold;
};

// An amplitude and its derivative.
struct Sloped {
  float value, slope;
};

DEVICE Sloped weight_of(const Amplitude& of, float r) {
  const float share = math::sigmoid(__fmul_rn(of.steepness, r)), value = __fmul_rn(of.scale, share);
  return {value, __fmul_rn(__fmul_rn(of.steepness, value), 1.0f - share)};
}

// `open` where the weight is above the threshold, else 0, and NaN where it is NaN.
DEVICE float only(const Amplitude& of, float weight, float open) {
  return weight > of.threshold ? open : math::smaller(0.0f, weight);
}

DEVICE Sloped amplitude_of(const Amplitude& of, float r) {
  if (of.kind == ONE_PLUS) return {1.0f + r, 1.0f};
  if (of.kind == EXP_OF) {
    const float value = math::exp(r);
    return {value, value};
  }
  const Sloped weight = weight_of(of, r);
  switch (of.kind) {
    case PRUNED: return {only(of, weight.value, weight.value), only(of, weight.value, weight.slope)};
    case MASK: return {only(of, weight.value, 1.0f), 0.0f};
    case MASK_STRAIGHT_THROUGH: return {only(of, weight.value, 1.0f), weight.slope};
    default: return weight;
  }
}

// y = x * a(r), element by element. `x` may be `y`.
KERNEL(THREADS) amplify(Amplitude amplitude, Mat x, Mat r, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  ShareBits of_x, of_r;
  load_share(x, share, of_x);
  load_share(r, share, of_r);
  float values[8], arguments[8];
  values_of(of_x, x, values);
  values_of(of_r, r, arguments);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(amplitude_of(amplitude, arguments[i]).value, values[i]);
  store_share(y, share, values);
}

// dx = dy * a(r), times the derivative of `activation`, whose output x is, and dr = dy * x * a'(r): each written, or added
// to what is there before the activation, and left out where it has no data.
KERNEL(THREADS)
amplify_backward(Amplitude amplitude, Mat x, Mat r, Mat dy, u32 accumulate_x, Activation activation, Mat dx,
                 u32 accumulate_r, Mat dr) {
  const Share share = share_of_thread(dy);
  if (is_empty(share)) return;
  ShareBits of_x, of_r, of_dy, of_dx;
  load_share(x, share, of_x);
  load_share(r, share, of_r);
  load_share(dy, share, of_dy);
  if (dx.data && accumulate_x) load_share(dx, share, of_dx);
  float units[8], arguments[8], gradients[8], to_x[8] = {}, to_r[8];
  values_of(of_x, x, units);
  values_of(of_r, r, arguments);
  values_of(of_dy, dy, gradients);
  if (dx.data && accumulate_x) values_of(of_dx, dx, to_x);
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    const Sloped a = amplitude_of(amplitude, arguments[i]);
    to_x[i] = __fmul_rn(fmaf(a.value, gradients[i], to_x[i]), slope_from_output(activation, units[i]));
    to_r[i] = __fmul_rn(__fmul_rn(gradients[i], units[i]), a.slope);
  }
  if (dx.data) store_share(dx, share, to_x);
  if (dr.data) put_share(dr, share, accumulate_r, to_r);
}

// Units side by side that one amplitude multiplies.
struct Part {
  u32 first, width;
};

// The row and the part of a thread's group of `segment` lanes, a power of two: neighbours take neighbouring parts.
struct Place {
  u32 row, part, lane;
};

DEVICE Place place_of_thread(u32 parts, u32 segment) {
  const u32 lane = threadIdx.x % segment;
  const u32 group = (blockIdx.x * THREADS + threadIdx.x) / segment;
  return {group / parts, group % parts, lane};
}

// Four columns of a part, or those that are left.
DEVICE Columns columns_of(const Part& part, u32 row, u32 at) {
  return {row, part.first + at, min(4u, part.width - at)};
}

// y = x * a(r), with a column of r for each of `count` parts.
KERNEL(THREADS) amplify_parts(Amplitude amplitude, const Part* parts, u32 count, u32 segment, Mat x, Mat r, Mat y) {
  const Place at = place_of_thread(count, segment);
  if (at.row >= rows_of(y)) return;
  const Part part = parts[at.part];
  float argument[4];
  load_columns(r, {at.row, at.part, 1}, argument);
  const float factor = amplitude_of(amplitude, argument[0]).value;
  for (u32 col = 4 * at.lane; col < part.width; col += 4 * segment) {
    const Columns four = columns_of(part, at.row, col);
    float values[4];
    load_columns(x, four, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(factor, values[i]);
    store_columns(y, four, values);
  }
}

// As amplify_backward, with a column of r for each of `count` parts, whose gradient is summed over the part.
KERNEL(THREADS)
amplify_parts_backward(Amplitude amplitude, const Part* parts, u32 count, u32 segment, Mat x, Mat r, Mat dy,
                       u32 accumulate_x, Activation activation, Mat dx, u32 accumulate_r, Mat dr) {
  const Place at = place_of_thread(count, segment);
  const bool is_there = at.row < rows_of(dy);
  Part part = {0, 0};
  Sloped a = {};
  if (is_there) {
    float argument[4];
    load_columns(r, {at.row, at.part, 1}, argument);
    a = amplitude_of(amplitude, argument[0]);
    part = parts[at.part];
  }
  float sum = 0.0f;
  for (u32 col = 4 * at.lane; col < part.width; col += 4 * segment) {
    const Columns four = columns_of(part, at.row, col);
    QuadBits of_x, of_dy;
    load_columns(x, four, of_x);
    load_columns(dy, four, of_dy);
    float units[4], gradients[4], to_x[4] = {};
    values_of(of_x, x.element, units);
    values_of(of_dy, dy.element, gradients);
    if (dx.data && accumulate_x) load_columns(dx, four, to_x);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      sum = fmaf(gradients[i], units[i], sum);
      to_x[i] = __fmul_rn(fmaf(a.value, gradients[i], to_x[i]), slope_from_output(activation, units[i]));
    }
    if (dx.data) store_columns(dx, four, to_x);
  }
  for (u32 offset = segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
  if (!is_there || at.lane > 0 || !dr.data) return;
  const Columns one = {at.row, at.part, 1};
  float to_r[4] = {};
  if (accumulate_r) load_columns(dr, one, to_r);
  to_r[0] += __fmul_rn(sum, a.slope);
  store_columns(dr, one, to_r);
}

// How many units of `r` are not pruned: the sum over each block goes to `partials`.
KERNEL(THREADS) unpruned(Amplitude amplitude, Mat r, double* partials) {
  const Share share = share_of_thread(r);
  float arguments[8];
  load_share(r, share, arguments);
  float open = 0.0f;
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    if (i % 4 < share.of[i / 4].count) open += only(amplitude, weight_of(amplitude, arguments[i]).value, 1.0f);
  }
  SHARED double sums[THREADS];
  const double sum = block_sum((double)open, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// The share of the units of `r` that is pruned, of `count` partial sums of those that are not. One block.
KERNEL(THREADS) finish_share(const double* partials, u32 count, Mat r, float* pruned) {
  SHARED double sums[THREADS];
  double mine = 0.0;
  for (u32 i = threadIdx.x; i < count; i += THREADS) mine += partials[i];
  const double open = block_sum(mine, sums);
  if (threadIdx.x == 0) *pruned = (float)(1.0 - open / ((double)rows_of(r) * r.cols));
}

// dr, written or added, of the gradient at the share of pruned units, straight through the step: minus the mean of weights.
KERNEL(THREADS) pruning_dr(Amplitude amplitude, Mat r, const float* d_pruned, u32 accumulate, Mat dr) {
  const Share share = share_of_thread(r);
  if (is_empty(share)) return;
  float values[8];
  load_share(r, share, values);
  const float factor = -*d_pruned / ((float)rows_of(r) * (float)r.cols);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(factor, weight_of(amplitude, values[i]).slope);
  put_share(dr, share, accumulate, values);
}
