// Gates over a bank of experts: softmax weights and weighted sums, and their gradients.
//
// Floor on an H200: the bank, by far the largest operand, read once (and its gradient written once). 8 experts of width
// 128 in bf16 and 65536 rows are 134 MB: 31 us forward, 62 us backward.
//
// A warp takes a row. Weights of all gates are made first, as many gates at a time as there are segments of lanes that
// hold one, and wait in shared memory. Then each lane goes over the experts with four columns: forward it has a sum for
// each of four gates; backward the gates' gradients, which give that of the expert and, summed over lanes, those of its
// weights. More than four gates read the columns again, out of the first-level cache.
#include "activation.cuh"
#include "quad.cuh"

// Gates that are served together.
constexpr u32 GATES = 4;
// Experts whose columns are on their way at once.
constexpr u32 AHEAD = 8;
// Columns that a warp takes at a time.
constexpr u32 COLUMNS = 4 * 32;

// How many gates and experts, and columns of each expert.
struct Bank {
  u32 gates, experts, width;
};

DEVICE float load_value(const Mat& mat, u32 row, u32 col) {
  return mat.element == ELEMENT_F32 ? row_f32(mat, row)[col] : to_f32(row_bf16(mat, row)[col]);
}

DEVICE void store_value(const Mat& mat, u32 row, u32 col, float value) {
  if (mat.element == ELEMENT_F32) {
    row_f32(mat, row)[col] = value;
  } else {
    row_bf16(mat, row)[col] = to_bf16(value);
  }
}

DEVICE u32 row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

// A row of a matrix, in parts of `width` columns: experts, or what gates have mixed. A lane has the columns `col .. col +
// 4` of each part.
struct Parts {
  unsigned char* row;
  u32 element, width, part_bytes;
  // How four columns of a part that begin at a multiple of four are read and written.
  QuadKind kind;

  DEVICE Parts(const Mat& mat, u32 row, u32 width)
      : row((unsigned char*)address_of(mat, row, 0)), element(mat.element), width(width),
        part_bytes(width * element_bytes(mat)),
        kind(!has_quads(mat) || width % 4 ? ANY_QUAD : mat.element == ELEMENT_F32 ? QUAD_F32 : QUAD_BF16) {}

  // Where the first of the lane's columns is in part 0.
  DEVICE unsigned char* at(u32 col) const { return row + col * (element == ELEMENT_F32 ? 4 : 2); }

  // Reads the lane's columns of the part at `part`, as they lie in memory; 0 for those beyond the width.
  template <QuadKind KIND>
  DEVICE void load(const unsigned char* part, u32 col, QuadBits& bits) const {
    if (KIND == ANY_QUAD) {
      load_bits(part, element, false, col < width ? width - col : 0, bits);
    } else {
      bits = {};
      if (col < width) load_bits(part, element_of(KIND), true, 4, bits);
    }
  }

  template <QuadKind KIND>
  DEVICE void values(const QuadBits& bits, float (&values)[4]) const {
    values_of(bits, KIND == ANY_QUAD ? element : element_of(KIND), values);
  }

  // Writes them.
  template <QuadKind KIND>
  DEVICE void store(unsigned char* part, u32 col, const float (&values)[4]) const {
    if (KIND == ANY_QUAD) {
      store_four(part, element, false, col < width ? width - col : 0, values);
    } else if (col < width) {
      store_four(part, element_of(KIND), true, 4, values);
    }
  }
};

// How the columns of all of these are read and written.
DEVICE QuadKind common_kind(const Parts& a, const Parts& b, const Parts& c) {
  return a.kind == b.kind && b.kind == c.kind ? a.kind : ANY_QUAD;
}

// The largest and the sum over the `segment` lanes that this one is among, a power of two.
DEVICE float segment_max(float value, u32 segment) {
  for (u32 offset = segment / 2; offset; offset /= 2) {
    value = math::larger(value, __shfl_xor_sync(FULL_WARP, value, offset));
  }
  return value;
}

DEVICE float segment_sum(float value, u32 segment) {
  for (u32 offset = segment / 2; offset; offset /= 2) value += __shfl_xor_sync(FULL_WARP, value, offset);
  return value;
}

// Sums of four values over a warp: number `lane / 8` in each lane. Lanes halve the values that they go on with.
DEVICE float four_sums(const float (&values)[4]) {
  const u32 lane = threadIdx.x % 32;
  const bool upper = lane & 16, odd = lane & 8;
  const float a = (upper ? values[2] : values[0]) + __shfl_xor_sync(FULL_WARP, upper ? values[0] : values[2], 16);
  const float b = (upper ? values[3] : values[1]) + __shfl_xor_sync(FULL_WARP, upper ? values[1] : values[3], 16);
  return segment_sum((odd ? b : a) + __shfl_xor_sync(FULL_WARP, odd ? a : b, 8), 8);
}

// Which of a row's logits a lane takes: those at `begin`, `begin + segment` .. below `end`.
struct Logits {
  u32 begin, end;

  // Of the gate that this lane's segment has when the first one has `gate`.
  DEVICE Logits(const Bank& bank, u32 gate, u32 segment) {
    const u32 lane = threadIdx.x % 32, own = gate + lane / segment;
    begin = own * bank.experts + lane % segment;
    end = own < bank.gates ? (own + 1) * bank.experts : 0;
  }
};

// Writes the softmax over each gate's logits to `weights`, and to `shared` for the warp. Minus infinity weighs 0;
// infinity or NaN make the whole gate NaN.
DEVICE void softmax(const Bank& bank, u32 segment, u32 row, const Mat& logits, const Mat& weights, float* shared) {
  for (u32 gate = 0; gate < bank.gates; gate += 32 / segment) {
    const Logits own(bank, gate, segment);
    float largest = MINUS_INFINITY;
    for (u32 i = own.begin; i < own.end; i += segment) {
      shared[i] = load_value(logits, row, i);
      largest = math::larger(shared[i], largest);
    }
    largest = segment_max(largest, segment);
    float sum = 0.0f;
    for (u32 i = own.begin; i < own.end; i += segment) {
      shared[i] = math::exp(shared[i] - largest);
      sum += shared[i];
    }
    const float scale = 1.0f / segment_sum(sum, segment);
    for (u32 i = own.begin; i < own.end; i += segment) {
      shared[i] *= scale;
      store_value(weights, row, i, shared[i]);
    }
  }
}

// The sums of the experts by `weights`, of each gate.
template <QuadKind KIND>
DEVICE void combine(const Bank& bank, const float* weights, const Parts& experts, const Parts& mixed) {
  for (u32 col = threadIdx.x % 32 * 4; col < bank.width; col += COLUMNS) {
    for (u32 first = 0; first < bank.gates; first += GATES) {
      const u32 there = min(GATES, bank.gates - first);
      const float* const of_first = weights + first * bank.experts;
      float sums[GATES][4] = {};
#pragma unroll 1
      for (u32 e = 0; e < bank.experts; e += AHEAD) {
        const unsigned char* const from = experts.at(col) + (u64)e * experts.part_bytes;
        QuadBits bits[AHEAD];
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
          if (e + a < bank.experts) experts.load<KIND>(from + a * experts.part_bytes, col, bits[a]);
        }
#pragma unroll
        for (u32 a = 0; a < AHEAD; a++) {
          if (e + a >= bank.experts) continue;
          float values[4];
          experts.values<KIND>(bits[a], values);
#pragma unroll
          for (u32 gate = 0; gate < GATES; gate++) {
            if (gate >= there) continue;
            const float weight = of_first[gate * bank.experts + e + a];
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums[gate][i] = fmaf(weight, values[i], sums[gate][i]);
          }
        }
      }
#pragma unroll
      for (u32 gate = 0; gate < GATES; gate++) {
        if (gate < there) mixed.store<KIND>(mixed.at(col) + (u64)(first + gate) * mixed.part_bytes, col, sums[gate]);
      }
    }
  }
}

// weights = softmax(logits) gate by gate, mixed = the sums of the experts by them. `segment` lanes hold a gate's
// logits.
KERNEL_SHARING(256, 3)
gate_combine(u32 gates, u32 segment, Mat logits, Mat experts, Mat weights, Mat mixed) {
  DYNAMIC_SHARED(shared);
  const Bank bank = {gates, logits.cols / gates, mixed.cols / gates};
  const u32 row = row_of_warp();
  if (row >= rows_of(experts)) return;
  float* const own = (float*)shared + threadIdx.x / 32 * logits.cols;
  softmax(bank, segment, row, logits, weights, own);
  __syncwarp();
  const Parts expert(experts, row, bank.width), mixture(mixed, row, bank.width);
  switch (common_kind(expert, expert, mixture)) {
    case QUAD_F32: combine<QUAD_F32>(bank, own, expert, mixture); break;
    case QUAD_BF16: combine<QUAD_BF16>(bank, own, expert, mixture); break;
    default: combine<ANY_QUAD>(bank, own, expert, mixture);
  }
}

// Reads the columns `col .. col + 4` of the gates from `first` on; 0 for gates that there are not.
template <QuadKind KIND>
DEVICE void load_gates(u32 gates, const Parts& d_mixed, u32 first, u32 col, float (&gradients)[GATES][4]) {
  QuadBits bits[GATES] = {};
#pragma unroll
  for (u32 gate = 0; gate < GATES; gate++) {
    const unsigned char* const from = d_mixed.at(col) + (u64)(first + gate) * d_mixed.part_bytes;
    if (first + gate < gates) d_mixed.load<KIND>(from, col, bits[gate]);
  }
#pragma unroll
  for (u32 gate = 0; gate < GATES; gate++) d_mixed.values<KIND>(bits[gate], gradients[gate]);
}

// Gradients at the experts, before the activation that they end in, and at `weights`, which are added to `dots` in
// shared memory.
template <QuadKind KIND>
DEVICE void combine_dx(const Bank& bank, const float* weights, const Parts& experts, const Parts& d_mixed,
                       u32 accumulate, const Activation& activation, const Parts& d_experts, float* dots) {
  const u32 lane = threadIdx.x % 32;
  for (u32 start = 0; start < bank.width; start += COLUMNS) {
    const u32 col = start + lane * 4;
    const unsigned char* from = experts.at(col);
    unsigned char* to = d_experts.at(col);
    QuadBits next;
    experts.load<KIND>(from, col, next);
    float gradients[GATES][4];
    load_gates<KIND>(bank.gates, d_mixed, 0, col, gradients);
#pragma unroll 1
    for (u32 e = 0; e < bank.experts; e++) {
      float values[4], sum[4] = {};
      experts.values<KIND>(next, values);
      // The next expert is on its way while this one's sums go from lane to lane.
      from += experts.part_bytes;
      if (e + 1 < bank.experts) experts.load<KIND>(from, col, next);
      if (accumulate) {
        QuadBits before;
        d_experts.load<KIND>(to, col, before);
        d_experts.values<KIND>(before, sum);
      }
#pragma unroll 1
      for (u32 first = 0; first < bank.gates; first += GATES) {
        if (bank.gates > GATES) load_gates<KIND>(bank.gates, d_mixed, first, col, gradients);
        float products[GATES] = {};
#pragma unroll
        for (u32 gate = 0; gate < GATES; gate++) {
          const float weight = first + gate < bank.gates ? weights[(first + gate) * bank.experts + e] : 0.0f;
#pragma unroll
          for (u32 i = 0; i < 4; i++) {
            products[gate] = fmaf(gradients[gate][i], values[i], products[gate]);
            sum[i] = fmaf(weight, gradients[gate][i], sum[i]);
          }
        }
        const float dot = four_sums(products);
        const u32 gate = first + lane / 8;
        if (lane % 8 == 0 && gate < bank.gates) dots[gate * bank.experts + e] += dot;
      }
      if (activation.kind != IDENTITY) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) sum[i] *= slope_from_output(activation, values[i]);
      }
      d_experts.store<KIND>(to, col, sum);
      to += d_experts.part_bytes;
    }
  }
}

// With dw[t, e] = d_mixed_t . expert_e: d_logits[t, e] = w (dw[t, e] - sum_e w dw), d_expert_e = sum_t w[t, e]
// d_mixed_t. Each of the two is added to what is there, or written; then that of an expert is multiplied by the
// derivative of `activation`, whose output the expert is.
KERNEL_SHARING(256, 3)
gate_combine_dx(u32 gates, u32 segment, Mat weights, Mat experts, Mat d_mixed, u32 accumulate_logits, Mat d_logits,
                u32 accumulate_experts, Activation activation, Mat d_experts) {
  DYNAMIC_SHARED(shared);
  const Bank bank = {gates, weights.cols / gates, d_mixed.cols / gates};
  const u32 row = row_of_warp(), lane = threadIdx.x % 32;
  if (row >= rows_of(experts)) return;
  float* const own = (float*)shared + threadIdx.x / 32 * 2 * weights.cols;
  float* const dots = own + weights.cols;
  for (u32 i = lane; i < weights.cols; i += 32) {
    own[i] = load_value(weights, row, i);
    dots[i] = 0.0f;
  }
  __syncwarp();
  const Parts expert(experts, row, bank.width), d_mixture(d_mixed, row, bank.width);
  const Parts d_expert(d_experts, row, bank.width);
  switch (common_kind(expert, d_mixture, d_expert)) {
    case QUAD_F32:
      combine_dx<QUAD_F32>(bank, own, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
      break;
    case QUAD_BF16:
      combine_dx<QUAD_BF16>(bank, own, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
      break;
    default: combine_dx<ANY_QUAD>(bank, own, expert, d_mixture, accumulate_experts, activation, d_expert, dots);
  }
  __syncwarp();
  for (u32 gate = 0; gate < gates; gate += 32 / segment) {
    const Logits mine(bank, gate, segment);
    float mean = 0.0f;
    for (u32 i = mine.begin; i < mine.end; i += segment) mean = fmaf(own[i], dots[i], mean);
    mean = segment_sum(mean, segment);
    for (u32 i = mine.begin; i < mine.end; i += segment) {
      const float before = accumulate_logits ? load_value(d_logits, row, i) : 0.0f;
      store_value(d_logits, row, i, fmaf(own[i], dots[i] - mean, before));
    }
  }
}
