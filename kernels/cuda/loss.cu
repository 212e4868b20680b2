// Losses and what is made of them.
//
// Floor: a logit, a label and a gradient a row are so little that starting the kernels takes longer; so are the numbers of
// a few learners, of which a thread reads its row.
#include "block_sum.cuh"
#include "link.cuh"

#define THREADS 256

// What gradients of a part of the loss are multiplied by: one number for all rows, or one for those of each scenario.
struct Scale {
  const float* factors;
  // The scenario of each row, or null.
  const u32* scenarios;

  DEVICE float of(u32 row) const { return factors[scenarios ? scenarios[row] : 0]; }
};

// Leaves the sum of the losses of a block's threads in `partials`, or where they are summed by scenario the loss of each of
// `rows` rows; nothing where that is null. All threads call it.
DEVICE void leave_sum(double loss, const Scale& scale, u32 rows, double* partials) {
  if (!partials) return;
  if (scale.scenarios) {
    const u32 row = blockIdx.x * THREADS + threadIdx.x;
    if (row < rows) partials[row] = loss;
    return;
  }
  SHARED double sums[THREADS];
  const double sum = block_sum(loss, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// Writes a gradient, or adds it to what is there.
DEVICE void put(float* to, u32 accumulate, float gradient) { *to = accumulate ? *to + gradient : gradient; }

// The binary cross-entropies of `logits` [rows, 1]: their sums go to `partials`, see `leave_sum`, and the gradients, times
// `scale`, to or (accumulating) onto `d_logits`, unless that has no data. Rows where `counted` is not above 0 add nothing.
KERNEL(THREADS)
bce_with_logits(Mat logits, const float* labels, const float* counted, Scale scale, u32 accumulate, Mat d_logits,
                double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(logits);
  double loss = 0.0;
  if (row < rows) {
    const float z = *row_f32(logits, row), y = labels[row];
    const bool counts = !counted || counted[row] > 0.0f;
    const float e = math::exp(-fabsf(z));
    // A NaN goes through `larger`.
    if (counts) loss = math::larger(0.0f, z) - __fmul_rn(z, y) + math::log1p_of_unit(e);
    if (d_logits.data) {
      const float probability = (z > 0.0f ? 1.0f : e) / (1.0f + e);
      put(row_f32(d_logits, row), accumulate, counts ? __fmul_rn(scale.of(row), probability - y) : 0.0f);
    }
  }
  leave_sum(loss, scale, rows, partials);
}

// Events in a row: by event the logit of its probability, [rows, 1], where its gradient goes, or no data, and its labels,
// or null.
constexpr u32 MOST_EVENTS = 8;

struct Events {
  Mat logits[MOST_EVENTS], gradients[MOST_EVENTS];
  const float* labels[MOST_EVENTS];
};

// The binary cross-entropies of the products p of the probabilities of `count` events, each given the one before, and the
// gradients at their logits, as bce_with_logits has them; the bits of `accumulate` say which are added. ln p and ln (1 - p)
// are sums in f64: of large logits they are long, and what counts is how far they lie apart.
KERNEL(THREADS)
bce_of_product(Events events, u32 count, Scale scale, u32 accumulate, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(events.logits[0]);
  double loss = 0.0;
  if (row < rows) {
    const float factor = scale.of(row);
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
      log_rest = log_add(log_rest, log + log_sigmoid(-logits[j]));
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
      *to = accumulate >> j & 1 ? fmaf(factor, slope, *to) : factor * slope;
    }
  }
  leave_sum(loss, scale, rows, partials);
}

// The numbers of one row that are fused, and their weights: equal, or the softmax of the logits of a gate.
struct Scores {
  u32 link, count;
  const float *numbers, *gate;
  // ln of the sum of e^logit.
  double total;

  DEVICE Scores(u32 link, const Mat& z, const Mat& gates, u32 row)
      : link(link), count(z.cols), numbers(row_f32(z, row)), gate(gates.data ? row_f32(gates, row) : nullptr),
        total(MINUS_INFINITY) {
    for (u32 m = 0; m < count; m++) total = log_add(total, logit(m));
  }

  DEVICE float logit(u32 m) const { return gate ? gate[m] : 0.0f; }
  DEVICE double log_weight(u32 m) const { return logit(m) - total; }

  // ln of what is averaged: the probability, or its complement with a `sign` of -1; or the rate.
  DEVICE double log_term(u32 m, float sign) const {
    return link == RATE ? (double)numbers[m] : log_sigmoid(sign * numbers[m]);
  }

  DEVICE double log_mean(float sign) const {
    double sum = MINUS_INFINITY;
    for (u32 m = 0; m < count; m++) sum = log_add(sum, log_weight(m) + log_term(m, sign));
    return sum;
  }

  DEVICE double mean() const {
    double sum = 0.0;
    for (u32 m = 0; m < count; m++) sum += (double)math::exp((float)log_weight(m)) * numbers[m];
    return sum;
  }
};

// The number whose mean, by `link`, is the weighted mean of those of `z` [rows, learners]: to `fused` [rows, 1]. The weights
// are the softmax of `gate` [rows, learners], or equal where that has no data.
KERNEL(THREADS) fuse_scores(u32 link, Mat z, Mat gate, Mat fused) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows_of(z)) return;
  const Scores scores(link, z, gate, row);
  double number;
  if (link == VALUE) {
    number = scores.mean();
  } else {
    number = scores.log_mean(1.0f);
    if (link == PROBABILITY) number -= scores.log_mean(-1.0f);
  }
  *row_f32(fused, row) = (float)number;
}

// The gradients of fuse_scores at the numbers and at the logits of the gate, each unless it has no data.
KERNEL(THREADS)
fuse_scores_backward(u32 link, Mat z, Mat gate, Mat d_fused, u32 accumulate_z, Mat dz, u32 accumulate_gate, Mat d_gate) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows_of(z)) return;
  const Scores scores(link, z, gate, row);
  const double log = link == VALUE ? scores.mean() : scores.log_mean(1.0f);
  const double log_rest = link == PROBABILITY ? scores.log_mean(-1.0f) : 0.0;
  const float d = *row_f32(d_fused, row);
  for (u32 m = 0; m < scores.count; m++) {
    const double log_weight = scores.log_weight(m);
    const float weight = math::exp((float)log_weight);
    float slope = weight, slope_of_gate = weight * (float)(scores.numbers[m] - log);
    if (link != VALUE) {
      const double term = scores.log_term(m, 1.0f), rest = link == PROBABILITY ? scores.log_term(m, -1.0f) : 0.0;
      const float share = math::exp((float)(log_weight + term - log));
      slope = math::exp((float)(log_weight + term + rest - log - log_rest));
      slope_of_gate = share - (link == PROBABILITY ? math::exp((float)(log_weight + rest - log_rest)) : weight);
    }
    if (dz.data) put(row_f32(dz, row) + m, accumulate_z, __fmul_rn(d, slope));
    if (d_gate.data) put(row_f32(d_gate, row) + m, accumulate_gate, __fmul_rn(d, slope_of_gate));
  }
}

// What learners are compared with: a label, or a teacher, by the divergence of their means or the square of a difference.
enum Target : u32 { LABEL = 0, DIVERGENCE = 1, SQUARE = 2 };

// The loss of a learner, and its derivatives there and at the teacher.
struct Distance {
  double loss;
  float slope, slope_of_teacher;
};

DEVICE Distance distance_of(u32 link, u32 target, float aim, float z) {
  if (target == LABEL) return {loss_of(link, z, aim), loss_slope(link, z, aim), 0.0f};
  if (target == DIVERGENCE) {
    return {divergence_of(link, aim, z), divergence_slope(link, aim, z), divergence_slope_of_teacher(link, aim, z)};
  }
  const float apart = mean_of(link, aim) - mean_of(link, z);
  return {(double)apart * apart, -2.0f * apart * slope_of(link, z), 2.0f * apart * slope_of(link, aim)};
}

// The mean over the learners `z` [rows, learners] of the loss of each, and its gradients there and at `teacher` [rows, 1],
// each unless it has no data; sums as bce_with_logits has them.
KERNEL(THREADS)
learner_loss(u32 link, u32 target, Mat z, const float* labels, const float* counted, Mat teacher, Scale scale,
             u32 accumulate_z, Mat dz, u32 accumulate_teacher, Mat d_teacher, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(z);
  double loss = 0.0;
  if (row < rows) {
    const bool counts = !counted || counted[row] > 0.0f;
    const float aim = target == LABEL ? labels[row] : *row_f32(teacher, row);
    const float share = scale.of(row) / (float)z.cols;
    double slope_of_teacher = 0.0;
    for (u32 m = 0; m < z.cols; m++) {
      const Distance of = counts ? distance_of(link, target, aim, row_f32(z, row)[m]) : Distance{};
      loss += of.loss;
      slope_of_teacher += of.slope_of_teacher;
      if (dz.data) put(row_f32(dz, row) + m, accumulate_z, __fmul_rn(share, of.slope));
    }
    loss /= z.cols;
    if (d_teacher.data) put(row_f32(d_teacher, row), accumulate_teacher, __fmul_rn(share, (float)slope_of_teacher));
  }
  leave_sum(loss, scale, rows, partials);
}

// A term of the counterfactual risk, see the op: errors by inverse propensity, the imputed error corrected by the true one,
// or how far the two are apart.
enum RiskKind : u32 { INVERSE = 0, ERROR = 1, IMPUTATION = 2 };

// The imputed error of a logit i: ln(1 + e^i), or sigmoid(i).
enum Imputed : u32 { SOFTPLUS = 0, BOUNDED = 1 };

// The risk `kind` of click, conversion and, where there is one, the imputed error, as `events` in that order, the first two
// with labels; a propensity below `least` counts as that. Gradients and sums as bce_of_product has them.
KERNEL(THREADS)
counterfactual_risk(u32 kind, u32 imputed, float least, Events events, Scale scale, u32 accumulate,
                    double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(events.logits[0]);
  double loss = 0.0;
  if (row < rows) {
    const float c = *row_f32(events.logits[0], row), u = *row_f32(events.logits[1], row);
    const float clicked = events.labels[0][row], converted = events.labels[1][row];
    const float propensity = mean_of(PROBABILITY, c), v = 1.0f / (propensity < least ? least : propensity);
    const float dv = propensity > least ? -v * mean_of(PROBABILITY, -c) : 0.0f;
    const double e = loss_of(PROBABILITY, u, converted);
    const float de = loss_slope(PROBABILITY, u, converted);
    double d = 0.0;
    float dd = 0.0f;
    if (kind != INVERSE) {
      const float i = *row_f32(events.logits[2], row), share = mean_of(PROBABILITY, i);
      d = imputed == SOFTPLUS ? -log_sigmoid(-i) : share;
      dd = imputed == SOFTPLUS ? share : slope_of(PROBABILITY, i);
    }
    const double apart = e - d;
    const float weight = clicked * v;
    // The error that the propensity divides, and its derivative.
    const double error = kind == IMPUTATION ? apart * apart : apart;
    const float steepness = kind == IMPUTATION ? 2.0f * (float)apart : 1.0f;
    loss = (kind == ERROR ? d : 0.0) + weight * error;
    const float slopes[3] = {clicked * dv * (float)error, weight * steepness * de,
                             ((kind == ERROR ? 1.0f : 0.0f) - weight * steepness) * dd};
#pragma unroll
    for (u32 i = 0; i < 3; i++) {
      if (!events.gradients[i].data) continue;
      put(row_f32(events.gradients[i], row), accumulate >> i & 1, __fmul_rn(scale.of(row), slopes[i]));
    }
  }
  leave_sum(loss, scale, rows, partials);
}

// How much likelier each of `count` events, in order, is than the one before, summed; gradients and sums as bce_of_product
// has them. Events have no labels.
KERNEL(THREADS) order_penalty(Events events, u32 count, Scale scale, u32 accumulate, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(events.logits[0]);
  double loss = 0.0;
  if (row < rows) {
    float before = *row_f32(events.logits[0], row);
    bool is_above = false;
#pragma unroll
    for (u32 t = 0; t < MOST_EVENTS; t++) {
      if (t >= count) continue;
      const float z = before, next = t + 1 < count ? *row_f32(events.logits[t + 1], row) : 0.0f;
      const bool is_next_above = t + 1 < count && next > z;
      if (t + 1 < count) {
        // A NaN goes through.
        const float difference = mean_of(PROBABILITY, next) - mean_of(PROBABILITY, z);
        loss += difference <= 0.0f ? 0.0f : difference;
      }
      if (events.gradients[t].data) {
        const float slope = ((float)is_above - (float)is_next_above) * slope_of(PROBABILITY, z);
        put(row_f32(events.gradients[t], row), accumulate >> t & 1, __fmul_rn(scale.of(row), slope));
      }
      before = next, is_above = is_next_above;
    }
  }
  leave_sum(loss, scale, rows, partials);
}

// The penalty of `count` numbers s outside of a range, by coefficients of the numbers f: its mean is added to `*sum`, unless
// that is null, and the gradients, times `*scale`, are written or added, each unless it is null. One block.
KERNEL(THREADS)
range_penalty(double low, double high, double factor, const float* s, const float* f, u32 count, const float* scale,
              u32 accumulate_s, float* ds, u32 accumulate_f, float* df, double* sum) {
  double loss = 0.0;
  for (u32 i = threadIdx.x; i < count; i += THREADS) {
    const double middle = (low + high) / 2.0, distance = s[i] - middle, beyond = f[i] - middle;
    const bool is_inside = low <= f[i] && f[i] <= high;
    const double coefficient = is_inside ? 0.0 : factor * fabs(beyond), share = *scale / (double)count;
    const double slope = is_inside ? 0.0 : factor * copysign(1.0, beyond);
    loss += coefficient * fabs(distance);
    if (ds) put(ds + i, accumulate_s, (float)(share * coefficient * copysign(1.0, distance)));
    if (df) put(df + i, accumulate_f, (float)(share * slope * fabs(distance)));
  }
  if (!sum) return;
  SHARED double sums[THREADS];
  const double total = block_sum(loss, sums);
  if (threadIdx.x == 0) *sum += total / count;
}

// sum[s] += the sum of the values of `partials` from `starts[s]` on, up to `starts[s + 1]`, by block s; or, where there are no
// `starts`, *sum += that of the first `count`, by the only one.
KERNEL(THREADS) add_partials(const double* partials, u32 count, const u32* starts, double* sum) {
  SHARED double sums[THREADS];
  const u32 begin = starts ? starts[blockIdx.x] : 0, end = starts ? starts[blockIdx.x + 1] : count;
  double mine = 0.0;
#pragma unroll 8
  for (u32 i = begin + threadIdx.x; i < end; i += THREADS) mine += partials[i];
  const double total = block_sum(mine, sums);
  if (threadIdx.x == 0) sum[blockIdx.x] += total;
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

// The losses of z [rows, 1], each times the weight of its row, and the gradients there, unless that has no data; sums as
// bce_with_logits has them.
KERNEL(THREADS)
weighted_loss(u32 link, Mat z, const float* labels, const float* counted, Mat weights, Scale scale, u32 accumulate,
              Mat dz, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(z);
  double loss = 0.0;
  if (row < rows) {
    const float number = *row_f32(z, row), label = labels[row], weight = *row_f32(weights, row);
    const bool counts = !counted || counted[row] > 0.0f;
    if (counts) loss = (double)weight * loss_of(link, number, label);
    const float factor = counts ? __fmul_rn(scale.of(row), weight) : 0.0f;
    if (dz.data) put(row_f32(dz, row), accumulate, __fmul_rn(factor, loss_slope(link, number, label)));
  }
  leave_sum(loss, scale, rows, partials);
}

// The negative log-likelihoods of labels under mixtures of normal distributions of variance 1, around the outputs `o` and
// weighed by the softmax of `z` [rows, experts], but for a constant: ln sum e^z - ln sum e^(z - (label - o)^2 / 2). The
// gradients at z and o are the softmax less each expert's share in the label, and that times o - label. Rows that count,
// gradients and sums as bce_with_logits has them.
KERNEL(THREADS)
mixture_likelihood(Mat z, Mat o, const float* labels, const float* counted, Scale scale, u32 accumulate_z, Mat dz,
                   u32 accumulate_o, Mat d_o, double* partials) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x, rows = rows_of(z);
  double loss = 0.0;
  if (row < rows) {
    const float* const logits = row_f32(z, row);
    const float* const outputs = row_f32(o, row);
    const double label = labels[row];
    const auto with_label = [&](u32 e) { return logits[e] - 0.5 * (label - outputs[e]) * (label - outputs[e]); };
    double total = MINUS_INFINITY, total_with_label = MINUS_INFINITY;
    for (u32 e = 0; e < z.cols; e++) {
      total = log_add(total, logits[e]), total_with_label = log_add(total_with_label, with_label(e));
    }
    const bool counts = !counted || counted[row] > 0.0f;
    if (counts) loss = total - total_with_label;
    const float factor = counts ? scale.of(row) : 0.0f;
    for (u32 e = 0; e < z.cols; e++) {
      const float weight = math::exp((float)(logits[e] - total));
      const float share = math::exp((float)(with_label(e) - total_with_label));
      if (dz.data) put(row_f32(dz, row) + e, accumulate_z, __fmul_rn(factor, weight - share));
      if (d_o.data) put(row_f32(d_o, row) + e, accumulate_o, __fmul_rn(factor * share, (float)(outputs[e] - label)));
    }
  }
  leave_sum(loss, scale, rows, partials);
}
