// Gates over a bank of experts: softmax weights and weighted sums, and their gradients.
//
// Floor on an H200: the bank, by far the largest operand, read once (and its gradient written once). 8 experts of width
// 128 in bf16 and 65536 rows are 134 MB: 31 us forward, 62 us backward.
//
// A warp takes a row. Weights of all gates are made first, as many gates at a time as there are segments of lanes that
// hold one, and wait in shared memory. Then each lane goes over the experts with four columns: forward it has a sum for
// each of four gates; backward the gates' gradients, which give that of the expert and, summed over lanes, those of its
// weights. More than four gates read the columns again, out of the first-level cache. Where gates see a part of the bank
// each, forward every gate goes over its own experts, and what others have read comes out of that cache; backward each
// expert meets its readers.
//
// What bounds it is instructions: on an H200 800 of them a row, forward, took 90 us for three gates, and 2,050 backward
// 153 us, as many as the device gives. So over a whole bank weights stand four gates by four, with 0 for what is not
// there, and nobody asks for each of them whether it is; and a warp has row after row, of which it asks for the next one's
// lines meanwhile.
#include "activation.cuh"
#include "gate.cuh"
#include "self_scored.cuh"

// Gates that are served together.
constexpr u32 GATES = 4;
// Experts whose columns are on their way at once, and that are worked on together.
constexpr u32 AHEAD = 8, TOGETHER = 4;

// Experts, with those that are not there of the last ones that are worked on together.
DEVICE u32 padded(u32 experts) { return (experts + TOGETHER - 1) / TOGETHER * TOGETHER; }

// Weights of four gates for each expert.
DEVICE u32 quads_of(const Bank& bank) { return (bank.gates + GATES - 1) / GATES * padded(bank.experts); }

// Weights of gates that are served together, expert by expert; 0 for gates and experts that there are not. Nobody asks
// then, expert by expert, what there is.
DEVICE void group_weights(const Bank& bank, const float* weights, float4* grouped) {
  const u32 experts = padded(bank.experts);
  for (u32 first = 0; first < bank.gates; first += GATES) {
    for (u32 i = threadIdx.x % 32; i < experts * GATES; i += 32) {
      const u32 e = i / GATES, gate = first + i % GATES;
      const bool there = gate < bank.gates && e < bank.experts;
      ((float*)grouped)[i] = there ? weights[bank.first_logit(gate) + e] : 0.0f;
    }
    grouped += experts;
  }
}

// The columns of TOGETHER experts, or more, from `first` on, as they lie in memory; 0 for experts that there are not.
template <QuadKind KIND, u32 COUNT>
DEVICE void load_experts(const Bank& bank, const Parts& experts, u32 first, u32 col, QuadBits (&bits)[COUNT]) {
  const unsigned char* from = experts.at(col) + (u64)first * experts.part_bytes;
#pragma unroll
  for (u32 a = 0; a < COUNT; a++) {
    bits[a] = {};
    if (first + a < bank.experts) experts.load<KIND>(from, col, bits[a]);
    from += experts.part_bytes;
  }
}

// The sums of the experts by grouped weights, of each gate.
template <QuadKind KIND>
DEVICE void combine(const Bank& bank, const float4* grouped, const Parts& experts, const Parts& mixed) {
  for (u32 col = threadIdx.x % 32 * 4; col < bank.width; col += COLUMNS) {
    const float4* weights = grouped;
    for (u32 first = 0; first < bank.gates; first += GATES) {
      float sums[GATES][4] = {};
#pragma unroll 1
      for (u32 e = 0; e < bank.experts; e += AHEAD) {
        QuadBits bits[AHEAD];
        load_experts<KIND>(bank, experts, e, col, bits);
#pragma unroll
        for (u32 begin = 0; begin < AHEAD; begin += TOGETHER) {
          if (e + begin >= bank.experts) break;
#pragma unroll
          for (u32 a = begin; a < begin + TOGETHER; a++) {
            float values[4];
            experts.values<KIND>(bits[a], values);
            const float4 quad = *weights++;
            const float of_gates[GATES] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
            for (u32 gate = 0; gate < GATES; gate++) {
#pragma unroll
              for (u32 i = 0; i < 4; i++) sums[gate][i] = fmaf(of_gates[gate], values[i], sums[gate][i]);
            }
          }
        }
      }
      unsigned char* to = mixed.at(col) + (u64)first * mixed.part_bytes;
#pragma unroll
      for (u32 gate = 0; gate < GATES; gate++) {
        if (first + gate < bank.gates) mixed.store<KIND>(to, col, sums[gate]);
        to += mixed.part_bytes;
      }
    }
  }
}

// weights = softmax(logits) gate by gate, mixed = the sums of the experts by them. Segments of `2^bits` lanes hold
// a gate's logits each. A warp has `row_bytes` of shared memory.
KERNEL_SHARING(256, 3)
gate_combine(u32 gates, u32 bits, u32 row_bytes, Mat logits, Mat experts, Mat weights, Mat mixed) {
  DYNAMIC_SHARED(shared);
  const Bank bank = {gates, logits.cols / gates, mixed.cols / gates};
  float4* const grouped = (float4*)(shared + threadIdx.x / 32 * row_bytes);
  float* const own = (float*)(grouped + quads_of(bank));
  const u32 rows = rows_of(experts);
#pragma unroll 1
  for (u32 row = row_of_warp(); row < rows; row += rows_at_once()) {
    const u32 next = row + rows_at_once();
    if (next < rows) ask_for_row(logits, next), ask_for_row(experts, next);
    softmax(bank, bits, row, logits, weights, own);
    __syncwarp();
    group_weights(bank, own, grouped);
    __syncwarp();
    const Parts expert(experts, row, bank.width), mixture(mixed, row, bank.width);
    switch (common_kind(expert, expert, mixture)) {
      case QUAD_F32: combine<QUAD_F32>(bank, grouped, expert, mixture); break;
      case QUAD_BF16: combine<QUAD_BF16>(bank, grouped, expert, mixture); break;
      default: combine<ANY_QUAD>(bank, grouped, expert, mixture);
    }
  }
}

// Reads the columns `col .. col + 4` of the gates from `first` on; 0 for gates that there are not.
template <QuadKind KIND>
DEVICE void load_gates(u32 gates, const Parts& d_mixed, u32 first, u32 col, float (&gradients)[GATES][4]) {
  QuadBits bits[GATES] = {};
  const unsigned char* from = d_mixed.at(col) + (u64)first * d_mixed.part_bytes;
#pragma unroll
  for (u32 gate = 0; gate < GATES; gate++) {
    if (first + gate < gates) d_mixed.load<KIND>(from, col, bits[gate]);
    from += d_mixed.part_bytes;
  }
#pragma unroll
  for (u32 gate = 0; gate < GATES; gate++) d_mixed.values<KIND>(bits[gate], gradients[gate]);
}

// Sums over a warp of COUNT x GATES values: number `lane / SPREAD` in each lane, see below. Lanes halve the values that
// they go on with, so that there are hardly more exchanges than values.
template <u32 COUNT>
DEVICE float all_sums(float (&values)[COUNT * GATES]) {
  constexpr u32 SPREAD = 32 / (COUNT * GATES);
  const u32 lane = threadIdx.x % 32;
#pragma unroll
  for (u32 half = COUNT * GATES / 2; half; half /= 2) {
    const bool upper = lane & half * SPREAD;
#pragma unroll
    for (u32 i = 0; i < half; i++) {
      const float given = upper ? values[i] : values[i + half], kept = upper ? values[i + half] : values[i];
      values[i] = kept + __shfl_xor_sync(FULL_WARP, given, half * SPREAD);
    }
  }
  float sum = values[0];
#pragma unroll
  for (u32 offset = SPREAD / 2; offset; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
  return sum;
}

// Multiplies by the derivative of an activation, from its outputs.
DEVICE void differentiate(const Activation& activation, const float (&outputs)[4], float (&gradients)[4]) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) gradients[i] *= slope_from_output(activation, outputs[i]);
}

// Gradients at the experts, before the activation that they end in, and at `weights`, which are added to `dots` in
// shared memory.
template <QuadKind KIND, u32 COUNT>
DEVICE void combine_dx(const Bank& bank, const float4* grouped, const Parts& experts, const Parts& d_mixed,
                       u32 accumulate, const Activation& activation, const Parts& d_experts, float* dots) {
  const u32 lane = threadIdx.x % 32;
  for (u32 start = 0; start < bank.width; start += COLUMNS) {
    const u32 col = start + lane * 4;
    float gradients[GATES][4];
#pragma unroll 1
    for (u32 e = 0; e < bank.experts; e += COUNT) {
      QuadBits bits[COUNT];
      load_experts<KIND>(bank, experts, e, col, bits);
      float sums[COUNT][4] = {};
      if (accumulate) {
        const unsigned char* from = d_experts.at(col) + (u64)e * d_experts.part_bytes;
#pragma unroll
        for (u32 a = 0; a < COUNT; a++) {
          if (e + a >= bank.experts) continue;
          QuadBits before;
          d_experts.load<KIND>(from + a * d_experts.part_bytes, col, before);
          d_experts.values<KIND>(before, sums[a]);
        }
      }
      const float4* weights = grouped + e;
#pragma unroll 1
      for (u32 first = 0; first < bank.gates; first += GATES) {
        if (e == 0 || bank.gates > GATES) load_gates<KIND>(bank.gates, d_mixed, first, col, gradients);
        float products[COUNT * GATES] = {};
#pragma unroll
        for (u32 a = 0; a < COUNT; a++) {
          float values[4];
          experts.values<KIND>(bits[a], values);
          const float4 quad = weights[a];
          const float of_gates[GATES] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
          for (u32 gate = 0; gate < GATES; gate++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
              products[a * GATES + gate] = fmaf(gradients[gate][i], values[i], products[a * GATES + gate]);
              sums[a][i] = fmaf(of_gates[gate], gradients[gate][i], sums[a][i]);
            }
          }
        }
        const float dot = all_sums<COUNT>(products);
        constexpr u32 SPREAD = 32 / (COUNT * GATES);
        const u32 own = e + lane / SPREAD / GATES, gate = first + lane / SPREAD % GATES;
        if (lane % SPREAD == 0 && own < bank.experts && gate < bank.gates) dots[bank.first_logit(gate) + own] += dot;
        weights += padded(bank.experts);
      }
      unsigned char* to = d_experts.at(col) + (u64)e * d_experts.part_bytes;
#pragma unroll
      for (u32 a = 0; a < COUNT; a++) {
        float values[4];
        experts.values<KIND>(bits[a], values);
        if (activation.kind == RELU) {
          differentiate({RELU, 0.0f}, values, sums[a]);
        } else if (activation.kind != IDENTITY) {
          differentiate(activation, values, sums[a]);
        }
        if (e + a < bank.experts) d_experts.store<KIND>(to, col, sums[a]);
        to += d_experts.part_bytes;
      }
    }
  }
}

// With dw[t, e] = d_mixed_t . expert_e: d_logits[t, e] = w (dw[t, e] - sum_e w dw), d_expert_e = sum_t w[t, e]
// d_mixed_t. Each of the two is added to what is there, or written; then that of an expert is multiplied by the
// derivative of `activation`, whose output the expert is. A warp has `row_bytes` of shared memory.
KERNEL_SHARING(256, 2)
gate_combine_dx(u32 gates, u32 bits, u32 row_bytes, Mat weights, Mat experts, Mat d_mixed, u32 accumulate_logits,
                Mat d_logits, u32 accumulate_experts, Activation activation, Mat d_experts) {
  DYNAMIC_SHARED(shared);
  const Bank bank = {gates, weights.cols / gates, d_mixed.cols / gates};
  float4* const grouped = (float4*)(shared + threadIdx.x / 32 * row_bytes);
  float* const own = (float*)(grouped + quads_of(bank));
  float* const dots = own + weights.cols;
  const u32 rows = rows_of(experts);
#pragma unroll 1
  for (u32 row = row_of_warp(); row < rows; row += rows_at_once()) {
    const u32 next = row + rows_at_once();
    if (next < rows) ask_for_row(weights, next), ask_for_row(experts, next), ask_for_row(d_mixed, next);
    begin_dots(row, weights, own, dots);
    __syncwarp();
    group_weights(bank, own, grouped);
    __syncwarp();
    const Parts expert(experts, row, bank.width), d_mixture(d_mixed, row, bank.width);
    const Parts d_expert(d_experts, row, bank.width);
    switch (common_kind(expert, d_mixture, d_expert)) {
      case QUAD_F32:
        combine_dx<QUAD_F32, 2>(bank, grouped, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
        break;
      case QUAD_BF16:
        combine_dx<QUAD_BF16, 2>(bank, grouped, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
        break;
      default:
        combine_dx<ANY_QUAD, 1>(bank, grouped, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
    }
    __syncwarp();
    logit_gradients(bank, bits, row, own, dots, accumulate_logits, d_logits);
    __syncwarp();
  }
}

// The sums of the experts that each gate sees, by `weights`.
template <QuadKind KIND>
DEVICE void combine_seen(const SeenGates& gates, const float* weights, const Parts& bank, const Parts& other,
                         const Parts& mixed) {
  for (u32 col = threadIdx.x % 32 * 4; col < gates.width; col += COLUMNS) {
    for (u32 gate = 0; gate < gates.gates; gate++) {
      const u32 end = gates.starts[gate + 1];
      float sums[4] = {};
#pragma unroll 1
      for (u32 first = gates.starts[gate]; first < end; first += AHEAD) {
        QuadBits bits[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
          if (first + a >= end) continue;
          const u32 expert = gates.seen[first + a];
          const Parts& from = expert & APART ? other : bank;
          from.load<KIND>(from.at(col) + (u64)(expert & ~APART) * from.part_bytes, col, bits[a]);
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
          if (first + a >= end) continue;
          float values[4];
          (gates.seen[first + a] & APART ? other : bank).values<KIND>(bits[a], values);
#pragma unroll
          for (u32 i = 0; i < 4; i++) sums[i] = fmaf(weights[first + a], values[i], sums[i]);
        }
      }
      mixed.store<KIND>(mixed.at(col) + (u64)gate * mixed.part_bytes, col, sums);
    }
  }
}

// As gate_combine for gates that see a part of the bank each, which the list at `table` tells, and a part of a second
// bank of the same shape.
KERNEL_SHARING(256, 3)
gate_combine_seen(const u32* table, u32 gates, u32 experts, u32 bits, Mat logits, Mat bank, Mat other, Mat weights,
                  Mat mixed) {
  DYNAMIC_SHARED(shared);
  const u32 row = row_of_warp();
  if (row >= rows_of(bank)) return;
  const SeenGates seen(table, gates, experts, mixed.cols / gates);
  float* const own = (float*)shared + threadIdx.x / 32 * logits.cols;
  softmax(seen, bits, row, logits, weights, own);
  __syncwarp();
  const Parts first(bank, row, seen.width), second(other, row, seen.width), mixture(mixed, row, seen.width);
  switch (common_kind(first, second, mixture)) {
    case QUAD_F32: combine_seen<QUAD_F32>(seen, own, first, second, mixture); break;
    case QUAD_BF16: combine_seen<QUAD_BF16>(seen, own, first, second, mixture); break;
    default: combine_seen<ANY_QUAD>(seen, own, first, second, mixture);
  }
}

// A bank in the backward pass: its experts, the first place of theirs among all readers, and where their gradients go.
struct SeenBank {
  Parts experts, gradients;
  const u32* reader_starts;
  bool is_wanted;
  u32 accumulate;
};

// Gradients at the experts of a bank, where they are wanted, and at `weights`, which are added to `dots` in shared
// memory.
template <QuadKind KIND>
DEVICE void combine_seen_dx(const SeenGates& gates, const float* weights, const SeenBank& bank, const Parts& d_mixed,
                            float* dots) {
  const u32 lane = threadIdx.x % 32;
  for (u32 start = 0; start < gates.width; start += COLUMNS) {
    const u32 col = start + lane * 4;
#pragma unroll 1
    for (u32 e = 0; e < gates.experts; e++) {
      const u32 begin = bank.reader_starts[e], end = bank.reader_starts[e + 1];
      QuadBits bits;
      float values[4], sum[4] = {};
      bank.experts.load<KIND>(bank.experts.at(col) + (u64)e * bank.experts.part_bytes, col, bits);
      bank.experts.values<KIND>(bits, values);
      unsigned char* const to = bank.gradients.at(col) + (u64)e * bank.gradients.part_bytes;
      if (bank.is_wanted && bank.accumulate) {
        bank.gradients.load<KIND>(to, col, bits);
        bank.gradients.values<KIND>(bits, sum);
      }
#pragma unroll 1
      for (u32 first = begin; first < end; first += GATES) {
        float products[GATES] = {};
#pragma unroll
        for (u32 i = 0; i < GATES; i++) {
          if (first + i >= end) continue;
          const uint2 reader = gates.readers[first + i];
          float gradients[4];
          d_mixed.load<KIND>(d_mixed.at(col) + (u64)reader.x * d_mixed.part_bytes, col, bits);
          d_mixed.values<KIND>(bits, gradients);
          const float weight = weights[reader.y];
#pragma unroll
          for (u32 c = 0; c < 4; c++) {
            products[i] = fmaf(gradients[c], values[c], products[i]);
            sum[c] = fmaf(weight, gradients[c], sum[c]);
          }
        }
        const float dot = four_sums(products);
        const u32 own = first + lane / 8;
        if (lane % 8 == 0 && own < end) dots[gates.readers[own].y] += dot;
      }
      if (bank.is_wanted) bank.gradients.store<KIND>(to, col, sum);
    }
  }
}

// As gate_combine_dx for gates that see a part of the bank each, and of a second one, which has no data where nobody
// reads it. The gradient of a bank is left out where it has no data, and that of an
// expert which nobody reads is 0.
KERNEL_SHARING(256, 3)
gate_combine_seen_dx(const u32* table, u32 gates, u32 experts, u32 bits, Mat weights, Mat bank, Mat other,
                     Mat d_mixed, u32 accumulate_logits, Mat d_logits, u32 accumulate_bank, Mat d_bank,
                     u32 accumulate_other, Mat d_other) {
  DYNAMIC_SHARED(shared);
  const u32 row = row_of_warp();
  if (row >= rows_of(bank)) return;
  const SeenGates seen(table, gates, experts, d_mixed.cols / gates);
  float* const own = (float*)shared + threadIdx.x / 32 * 2 * weights.cols;
  float* const dots = own + weights.cols;
  begin_dots(row, weights, own, dots);
  __syncwarp();
  const Parts d_mixture(d_mixed, row, seen.width);
#pragma unroll 1
  for (u32 second = 0; second < 2; second++) {
    const Mat of = second ? other : bank, to = second ? d_other : d_bank;
    if (!of.data) continue;
    const Parts of_row(of, row, seen.width), to_row(to.data ? to : of, row, seen.width);
    const SeenBank part = {of_row, to_row, seen.reader_starts + second * experts, to.data != nullptr,
                           second ? accumulate_other : accumulate_bank};
    switch (common_kind(of_row, d_mixture, to_row)) {
      case QUAD_F32: combine_seen_dx<QUAD_F32>(seen, own, part, d_mixture, dots); break;
      case QUAD_BF16: combine_seen_dx<QUAD_BF16>(seen, own, part, d_mixture, dots); break;
      default: combine_seen_dx<ANY_QUAD>(seen, own, part, d_mixture, dots);
    }
    __syncwarp();
  }
  logit_gradients(seen, bits, row, own, dots, accumulate_logits, d_logits);
}

// y = the sum of the values of `sources` vectors of `kqv`, by the softmax of `scale` times the products of their keys and
// queries, which `weights` becomes.
KERNEL(256) self_scored(u32 sources, float scale, Mat kqv, Mat weights, Mat y) {
  const u32 row = row_of_warp(), width = y.cols;
  if (row >= rows_of(y)) return;
  float w[MOST_SOURCES], largest = MINUS_INFINITY, sum = 0.0f;
#pragma unroll
  for (u32 u = 0; u < MOST_SOURCES; u++) {
    if (u >= sources) continue;
    w[u] = __fmul_rn(scale, product_of_parts(kqv, 3 * u, kqv, 3 * u + 1, row, width));
    largest = math::larger(w[u], largest);
  }
#pragma unroll
  for (u32 u = 0; u < MOST_SOURCES; u++) {
    if (u < sources) w[u] = math::exp(w[u] - largest), sum += w[u];
  }
#pragma unroll
  for (u32 u = 0; u < MOST_SOURCES; u++) {
    if (u >= sources) continue;
    w[u] *= 1.0f / sum;
    if (threadIdx.x % 32 == 0) store_value(weights, row, u, w[u]);
  }
  for (u32 col = threadIdx.x % 32 * 4; col < width; col += COLUMNS) {
    float mixed[4] = {};
#pragma unroll
    for (u32 u = 0; u < MOST_SOURCES; u++) {
      if (u >= sources) continue;
      float values[4];
      load_columns(kqv, columns_of_part(row, 3 * u + 2, width, col), values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) mixed[i] = fmaf(w[u], values[i], mixed[i]);
    }
    store_columns(y, columns_of_part(row, 0, width, col), mixed);
  }
}

// The gradients of self_scored at keys, queries and values, written or added.
KERNEL(256)
self_scored_dx(u32 sources, float scale, Mat kqv, Mat weights, Mat dy, u32 accumulate, Mat d_kqv) {
  const u32 row = row_of_warp(), width = dy.cols;
  if (row >= rows_of(dy)) return;
  float w[MOST_SOURCES], dw[MOST_SOURCES], mean = 0.0f;
#pragma unroll
  for (u32 u = 0; u < MOST_SOURCES; u++) {
    if (u >= sources) continue;
    w[u] = load_value(weights, row, u);
    dw[u] = product_of_parts(dy, 0, kqv, 3 * u + 2, row, width);
    mean = fmaf(w[u], dw[u], mean);
  }
#pragma unroll
  for (u32 u = 0; u < MOST_SOURCES; u++) {
    if (u >= sources) continue;
    const float factor = scale * w[u] * (dw[u] - mean);
    for (u32 col = threadIdx.x % 32 * 4; col < width; col += COLUMNS) {
      const Columns k = columns_of_part(row, 3 * u, width, col), q = columns_of_part(row, 3 * u + 1, width, col);
      put_scaled(kqv, q, factor, accumulate, d_kqv, k);
      put_scaled(kqv, k, factor, accumulate, d_kqv, q);
      put_scaled(dy, columns_of_part(row, 0, width, col), w[u], accumulate, d_kqv,
                 columns_of_part(row, 3 * u + 2, width, col));
    }
  }
}
