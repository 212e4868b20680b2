// What rows have by their scenario, in whatever order they stand: values scaled and shifted, experts of scenarios and
// tasks fused, the other scenarios' values by weights of the own one.
//
// Floor: the bytes, what is read and what is written once. Scaled and shifted x and y, backward dy and dx, and x and dy
// for the sums over the rows of each scenario: 65,536 rows of 512 values in f32: 268 MB each, 62 us on an H200 (4.3
// TB/s). Of fusions all experts: of 5 scenarios and 3 tasks of 64 values, 65,536 rows in f32: 235 MB forward, 55 us. Of
// attention the values of all scenarios: of 5 of 64 values, 65,536 rows in f32: 119 MB forward, 28 us.
#include "block_sum.cuh"
#include "column_sums.cuh"
#include "math.cuh"
#include "share.cuh"

// The columns of a share in the row of its scenario, of matrices that have one for each.
DEVICE Share of_scenarios(const Share& share, const u32* scenario) {
  Share own = share;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    if (share.of[i].count > 0) own.of[i].row = scenario[share.of[i].row];
  }
  return own;
}

// y = m[s] * x + b[s], s the row's scenario.
KERNEL(THREADS) scenario_affine(const u32* scenario, Mat x, Mat m, Mat b, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  const Share own = of_scenarios(share, scenario);
  ShareBits of_x, of_m, of_b;
  load_share(x, share, of_x);
  load_share(m, own, of_m);
  load_share(b, own, of_b);
  float values[8], factors[8], shifts[8];
  values_of(of_x, x, values);
  values_of(of_m, m, factors);
  values_of(of_b, b, shifts);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = fmaf(factors[i], values[i], shifts[i]);
  store_share(y, share, values);
}

// dx = m[s] * dy, written or added.
KERNEL(THREADS) scenario_affine_dx(const u32* scenario, Mat m, Mat dy, u32 accumulate, Mat dx) {
  const Share share = share_of_thread(dy);
  if (is_empty(share)) return;
  ShareBits of_m, of_dy;
  load_share(dy, share, of_dy);
  load_share(m, of_scenarios(share, scenario), of_m);
  float values[8], factors[8];
  values_of(of_dy, dy, values);
  values_of(of_m, m, factors);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(factors[i], values[i]);
  put_share(dx, share, accumulate, values);
}

// Sums of the columns of dy, and of dy * x unless x has no data, over the rows of each scenario: the third index of the
// grid. Of every `gridDim.x`-th piece of THREADS rows, `across` lanes look at the scenarios of as many rows at once,
// and read those that are of theirs, four columns each.
KERNEL(THREADS) scenario_sums(const u32* scenario, Mat x, Mat dy, u32 across, double* partials) {
  const u32 rows = rows_of(dy), place = threadIdx.x % across, first_lane = threadIdx.x % 32 - place;
  if (blockIdx.x * THREADS >= rows) return;
  const u32 col = (blockIdx.y * across + place) * 4;
  const bool quads_x = has_quads(x), quads_dy = has_quads(dy);
  double first[4] = {}, second[4] = {};
  for (u32 from = blockIdx.x * THREADS; from < rows; from += gridDim.x * THREADS) {
    const u32 row = from + threadIdx.x;
    const u32 votes = __ballot_sync(FULL_WARP, row < rows && scenario[row] == blockIdx.z) >> first_lane;
    for (u32 left = votes & (FULL_WARP >> (32 - across)); left;) {
      QuadBits of_x[ROWS] = {}, of_dy[ROWS] = {};
#pragma unroll
      for (u32 i = 0; i < ROWS; i++) {
        if (!left) continue;
        const u32 own = row - place + __ffs(left) - 1;
        left &= left - 1;
        load_quad(dy, quads_dy, own, col, of_dy[i]);
        if (x.data) load_quad(x, quads_x, own, col, of_x[i]);
      }
      // What was not read is 0, and adds nothing.
#pragma unroll
      for (u32 i = 0; i < ROWS; i++) {
        float values[4], gradients[4];
        values_of(of_x[i], x.element, values);
        values_of(of_dy[i], dy.element, gradients);
#pragma unroll
        for (u32 c = 0; c < 4; c++) {
          const double gradient = gradients[c];
          first[c] += gradient;
          second[c] += gradient * (double)values[c];
        }
      }
    }
  }
  leave_sums(first, second, across, dy.cols, partials);
}

// The sums that `scenario_sums` has left, a row for each scenario: of dy, and of dy * x.
KERNEL(THREADS)
finish_scenario_sums(Mat dy, u32 chunks, const double* partials, Gradient of_dy, Gradient of_products) {
  // A block takes THREADS rows at a time, however wide they are.
  const Sums sums = sums_of_chunks(partials, chunks, 1, rows_of(dy), dy.cols);
  if (threadIdx.x >= COLUMNS || sums.col >= dy.cols) return;
  const u32 at = blockIdx.z * dy.cols + sums.col;
  if (of_dy.values) put(of_dy, at, sums.first);
  if (of_products.values) put(of_products, at, sums.second);
}

// Equal parts of a row side by side, of which a thread takes the same four columns each: `col` of a part and on.
struct Parts {
  u32 width, row, col;

  // The columns that this thread takes of the parts of a matrix, `width` wide; it is there where `row < rows`.
  DEVICE Parts(u32 width, u32 index) : width(width) {
    const u32 in_part = (width + 3) / 4;
    row = index / in_part, col = index % in_part * 4;
  }

  DEVICE Columns of(u32 part) const { return {row, part * width + col, min(4u, width - col)}; }

  DEVICE void load(const Mat& mat, u32 part, float (&values)[4]) const { load_columns(mat, of(part), values); }

  // The sum of `count` parts, of which four are on their way at a time.
  DEVICE void sum(const Mat& mat, u32 count, float (&total)[4]) const {
#pragma unroll
    for (u32 i = 0; i < 4; i++) total[i] = 0.0f;
    for (u32 first = 0; first < count; first += 4) {
      QuadBits bits[4];
#pragma unroll
      for (u32 p = 0; p < 4; p++) {
        bits[p] = {};
        if (first + p < count) load_columns(mat, of(first + p), bits[p]);
      }
#pragma unroll
      for (u32 p = 0; p < 4; p++) {
        float values[4];
        values_of(bits[p], mat.element, values);
#pragma unroll
        for (u32 i = 0; i < 4; i++) total[i] += values[i];
      }
    }
  }

  // Writes a part, or adds to it.
  DEVICE void put(const Mat& mat, u32 part, u32 accumulate, float (&values)[4]) const {
    const Columns at = of(part);
    if (accumulate) {
      float before[4];
      load_columns(mat, at, before);
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] += before[i];
    }
    store_columns(mat, at, values);
  }
};

// How a level of experts is weighed: one's own by alpha * beta, the others together by alpha * (1 - beta), or a single
// one by alpha.
struct Level {
  float alpha, beta, own, other;
  u32 count;

  DEVICE Level(float of_alpha, float of_beta, u32 count) : count(count) {
    alpha = math::sigmoid(of_alpha), beta = math::sigmoid(of_beta);
    own = count == 1 ? alpha : __fmul_rn(alpha, beta);
    other = count == 1 ? 0.0f : __fmul_rn(alpha, 1.0f - beta) / (float)(count - 1);
  }

  // `base` and the weighed experts, of the own one and the sum of all.
  DEVICE float mixed(float base, float own_value, float all) const {
    return fmaf(own, own_value, fmaf(other, all - own_value, base));
  }
};

// The levels of domains, which are scenarios, and of tasks; the logistic functions of `numbers` are alpha of domains and
// of tasks, beta of domains and of tasks. `Fusion` of scenario.rs.
struct Fusion {
  const u32* scenario;
  const float* numbers;
  u32 domains, tasks;

  DEVICE Level of_domains() const { return Level(numbers[0], numbers[2], domains); }
  DEVICE Level of_tasks() const { return Level(numbers[1], numbers[3], tasks); }
};

// y_t = shared_t + the mixture of the domains' experts + that of the tasks'.
KERNEL(THREADS) level_fusion(Fusion fusion, Mat shared, Mat domains, Mat tasks, Mat y) {
  const Parts parts(y.cols / fusion.tasks, blockIdx.x * THREADS + threadIdx.x);
  if (parts.row >= rows_of(y)) return;
  const Level of_domains = fusion.of_domains(), of_tasks = fusion.of_tasks();
  float own[4], of_domain[4], of_task[4];
  parts.sum(domains, fusion.domains, of_domain);
  parts.load(domains, fusion.scenario[parts.row], own);
  parts.sum(tasks, fusion.tasks, of_task);
#pragma unroll
  for (u32 i = 0; i < 4; i++) of_domain[i] = of_domains.mixed(0.0f, own[i], of_domain[i]);
  for (u32 t = 0; t < fusion.tasks; t++) {
    QuadBits of_shared, of_own;
    load_columns(shared, parts.of(t), of_shared);
    load_columns(tasks, parts.of(t), of_own);
    float values[4];
    values_of(of_shared, shared.element, values);
    values_of(of_own, tasks.element, own);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = of_tasks.mixed(values[i] + of_domain[i], own[i], of_task[i]);
    store_columns(y, parts.of(t), values);
  }
}

// A gradient with a row a sample, unless it has no data, and whether it is added to.
struct RowGradient {
  Mat to;
  u64 accumulate;
};

// Gradients of the three inputs of `level_fusion`.
KERNEL(THREADS)
level_fusion_backward(Fusion fusion, Mat dy, RowGradient d_shared, RowGradient d_domains, RowGradient d_tasks) {
  const Parts parts(dy.cols / fusion.tasks, blockIdx.x * THREADS + threadIdx.x);
  if (parts.row >= rows_of(dy)) return;
  const Level of_domains = fusion.of_domains(), of_tasks = fusion.of_tasks();
  const u32 own = fusion.scenario[parts.row];
  float all[4], values[4];
  parts.sum(dy, fusion.tasks, all);
  for (u32 t = 0; t < fusion.tasks; t++) {
    float gradients[4];
    parts.load(dy, t, gradients);
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = of_tasks.mixed(0.0f, gradients[i], all[i]);
    if (d_tasks.to.data) parts.put(d_tasks.to, t, d_tasks.accumulate, values);
    if (d_shared.to.data) parts.put(d_shared.to, t, d_shared.accumulate, gradients);
  }
  for (u32 d = 0; d_domains.to.data && d < fusion.domains; d++) {
    const float weight = d == own ? of_domains.own : of_domains.other;
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = __fmul_rn(weight, all[i]);
    parts.put(d_domains.to, d, d_domains.accumulate, values);
  }
}

// What the gradients of the numbers of `level_fusion` need, with d = the sum of dy_t: of the domains' experts d . own
// and d . sum, of the tasks' dy . experts and d . sum, all summed over rows. The sums of a block go to `partials`
// [blocks, 4].
KERNEL(THREADS) level_fusion_products(Fusion fusion, Mat domains, Mat tasks, Mat dy, double* partials) {
  const u32 width = dy.cols / fusion.tasks, rows = rows_of(dy);
  double products[4] = {};
  for (u32 index = blockIdx.x * THREADS + threadIdx.x;; index += gridDim.x * THREADS) {
    const Parts parts(width, index);
    if (parts.row >= rows) break;
    float all[4], own[4], of_domains[4], of_tasks[4];
    parts.sum(dy, fusion.tasks, all);
    parts.sum(domains, fusion.domains, of_domains);
    parts.load(domains, fusion.scenario[parts.row], own);
    parts.sum(tasks, fusion.tasks, of_tasks);
    float sums[4] = {};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      sums[0] = fmaf(all[i], own[i], sums[0]);
      sums[1] = fmaf(all[i], of_domains[i], sums[1]);
      sums[3] = fmaf(all[i], of_tasks[i], sums[3]);
    }
    for (u32 t = 0; t < fusion.tasks; t++) {
      float gradients[4];
      parts.load(dy, t, gradients);
      parts.load(tasks, t, own);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[2] = fmaf(gradients[i], own[i], sums[2]);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) products[i] += sums[i];
  }
  SHARED double sums[THREADS];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const double sum = block_sum(products[i], sums);
    if (threadIdx.x == 0) partials[4 * blockIdx.x + i] = sum;
    __syncthreads();
  }
}

// Adds the gradients of the numbers behind alpha and beta, of the products with the own experts and with all.
DEVICE void put_slopes(const Gradient& numbers, u32 at, const Level& level, double own, double all) {
  const double alpha = level.alpha, beta = level.beta;
  const double others = level.count == 1 ? own : (all - own) / (level.count - 1);
  const double mixed = level.count == 1 ? own : beta * own + (1.0 - beta) * others;
  put(numbers, at, mixed * alpha * (1.0 - alpha));
  put(numbers, 2 + at, alpha * (own - others) * beta * (1.0 - beta));
}

// The gradients of the numbers, of `count` blocks' products. One block.
KERNEL(THREADS) finish_level_fusion(Fusion fusion, const double* partials, u32 count, Gradient d_numbers) {
  SHARED double sums[THREADS];
  double products[4];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    double mine = 0.0;
    for (u32 block = threadIdx.x; block < count; block += THREADS) mine += partials[4 * block + i];
    products[i] = block_sum(mine, sums);
    __syncthreads();
  }
  if (threadIdx.x > 0) return;
  put_slopes(d_numbers, 0, fusion.of_domains(), products[0], products[1]);
  put_slopes(d_numbers, 1, fusion.of_tasks(), products[2], products[3]);
}

// Weights of scenarios: the softmax of a row of logits over all of them or, unless `drops`, over all but the own one.
struct Attention {
  const float* logits;
  u32 scenarios, own, drops;
  float largest, sum;

  DEVICE Attention(const Mat& of_all, u32 own, u32 drops)
      : logits(row_f32(of_all, own)), scenarios(of_all.cols), own(own), drops(drops), largest(MINUS_INFINITY),
        sum(0.0f) {
    for (u32 m = 0; m < scenarios; m++) largest = counts(m) ? math::maximum(largest, logits[m]) : largest;
    for (u32 m = 0; m < scenarios; m++) sum += counts(m) ? math::exp(logits[m] - largest) : 0.0f;
  }

  DEVICE bool counts(u32 m) const { return drops || m != own; }

  DEVICE float of(u32 m) const { return counts(m) ? math::exp(logits[m] - largest) / sum : 0.0f; }
};

// y = the values of the row's own scenario, then those of the others by their weights, which go to `weights` [rows,
// scenarios].
KERNEL(THREADS) scenario_attention(const u32* scenario, u32 drops, Mat logits, Mat groups, Mat weights, Mat y) {
  const Parts parts(y.cols / 2, blockIdx.x * THREADS + threadIdx.x);
  if (parts.row >= rows_of(y)) return;
  const u32 own = scenario[parts.row];
  const Attention attention(logits, own, drops);
  float of_own[4], of_others[4] = {};
  parts.load(groups, own, of_own);
  for (u32 first = 0; first < logits.cols; first += 4) {
    QuadBits bits[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      bits[i] = {};
      if (first + i < logits.cols) load_columns(groups, parts.of(first + i), bits[i]);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 m = first + i;
      if (m >= logits.cols) break;
      const float weight = attention.of(m);
      if (parts.col == 0) row_f32(weights, parts.row)[m] = weight;
      float values[4];
      values_of(bits[i], groups.element, values);
#pragma unroll
      for (u32 c = 0; c < 4; c++) of_others[c] = m == own ? of_others[c] : fmaf(weight, values[c], of_others[c]);
    }
  }
  store_columns(y, parts.of(0), of_own);
  store_columns(y, parts.of(1), of_others);
}

// What each row adds to the gradient of its scenario's logits: g_m (dg_m - sum g dg), with dg_m = the values of m times
// the second half of dy, 0 of the own. `segment` lanes, a power of two, take a row.
KERNEL(THREADS)
scenario_attention_slopes(u32 segment, const u32* scenario, Mat groups, Mat weights, Mat dy, Mat slopes) {
  const u32 row = (blockIdx.x * THREADS + threadIdx.x) / segment, lane = threadIdx.x % segment, width = dy.cols / 2;
  const bool is_there = row < rows_of(dy);
  const u32 own = is_there ? scenario[row] : 0;
  float mean = 0.0f;
  for (u32 m = 0; m < slopes.cols; m++) {
    float sum = 0.0f;
    for (u32 col = 4 * lane; is_there && m != own && col < width; col += 4 * segment) {
      const u32 count = min(4u, width - col);
      QuadBits of_values, of_dy;
      load_columns(groups, Columns{row, m * width + col, count}, of_values);
      load_columns(dy, Columns{row, width + col, count}, of_dy);
      float values[4], gradients[4];
      values_of(of_values, groups.element, values);
      values_of(of_dy, dy.element, gradients);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sum = fmaf(values[i], gradients[i], sum);
    }
    for (u32 offset = segment / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    if (!is_there || lane > 0) continue;
    row_f32(slopes, row)[m] = sum;
    mean = fmaf(row_f32(weights, row)[m], sum, mean);
  }
  if (!is_there || lane > 0) return;
  for (u32 m = 0; m < slopes.cols; m++) {
    float* const slope = row_f32(slopes, row) + m;
    *slope = __fmul_rn(row_f32(weights, row)[m], *slope - mean);
  }
}

// The gradient of all scenarios' values: the first half of dy for the own one, the second by its weight for each other;
// written or added.
KERNEL(THREADS)
scenario_attention_dgroups(const u32* scenario, Mat weights, Mat dy, u32 accumulate, Mat dgroups) {
  const Parts parts(dy.cols / 2, blockIdx.x * THREADS + threadIdx.x);
  if (parts.row >= rows_of(dy)) return;
  const u32 own = scenario[parts.row];
  float of_own[4], of_others[4];
  parts.load(dy, 0, of_own);
  parts.load(dy, 1, of_others);
  for (u32 m = 0; m < weights.cols; m++) {
    const float weight = row_f32(weights, parts.row)[m];
    float values[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) values[i] = m == own ? of_own[i] : __fmul_rn(weight, of_others[i]);
    parts.put(dgroups, m, accumulate, values);
  }
}
