// Gates over experts: softmax and mixture, and their gradients; more gates than are served at once, odd widths, bf16.
#include "testing.h"

namespace {
#include "../gate.cu"
}

using namespace testing;

struct Shape {
  u32 rows, live, gates, experts, width;
};

u32 segment_bits(u32 experts) {
  u32 bits = 0;
  while (1u << bits < experts && bits < 5) bits++;
  return bits;
}

void test(const Shape& shape, u64 seed) {
  const auto [rows, live, gates, experts, width] = shape;
  const u32 weights_cols = gates * experts, bank = experts * width, mixed_cols = gates * width;
  // Warps have up to three rows each.
  const u32 blocks = 1, bits = segment_bits(experts);
  const u32 row_bytes = 4 * ((2 * weights_cols + 3) / 4 * 4 + (gates + 3) / 4 * 4 * ((experts + 3) / 4 * 4));
  Random random(seed);
  std::vector<float> logits = random.numbers(rows * weights_cols), values = random.numbers(rows * bank);
  std::vector<float> weights(rows * weights_cols, NOT_WRITTEN), mixed(rows * mixed_cols, NOT_WRITTEN);
  std::vector<bf16> stored;
  for (float& value : values) {
    stored.push_back(to_bf16(value));
    value = to_f32(stored.back());
  }
  const Mat expert = matrix(stored, rows, bank, bank, &live);
  const Mat weight = matrix(weights, rows, weights_cols, weights_cols);
  emulation::launch(blocks, 256, 8 * row_bytes, seed, [&] {
    gate_combine(gates, bits, row_bytes, matrix(logits, rows, weights_cols, weights_cols), expert, weight,
                 matrix(mixed, rows, mixed_cols, mixed_cols));
  });

  std::vector<float> d_mixed = random.numbers(rows * mixed_cols), d_values(rows * bank, NOT_WRITTEN);
  std::vector<float> d_logits = random.numbers(rows * weights_cols);
  std::vector<double> weights_wanted, mixed_wanted(live * mixed_cols), d_values_wanted(live * bank), d_logits_wanted;
  for (u32 row = 0; row < live; row++) {
    for (u32 gate = 0; gate < gates; gate++) {
      double sum = 0.0, mean = 0.0;
      std::vector<double> own(experts), dots(experts);
      const u32 first = row * weights_cols + gate * experts;
      for (u32 e = 0; e < experts; e++) sum += own[e] = exp((double)logits[first + e]);
      for (u32 e = 0; e < experts; e++) {
        own[e] /= sum;
        for (u32 col = 0; col < width; col++) {
          const double d = d_mixed[row * mixed_cols + gate * width + col], value = values[row * bank + e * width + col];
          mixed_wanted[row * mixed_cols + gate * width + col] += own[e] * value;
          d_values_wanted[row * bank + e * width + col] += own[e] * d;
          dots[e] += d * value;
        }
        mean += own[e] * dots[e];
      }
      for (u32 e = 0; e < experts; e++) {
        weights_wanted.push_back(own[e]);
        d_logits_wanted.push_back(d_logits[first + e] + own[e] * (dots[e] - mean));
      }
    }
  }
  emulation::launch(blocks, 256, 8 * row_bytes, seed, [&] {
    gate_combine_dx(gates, bits, row_bytes, weight, expert, matrix(d_mixed, rows, mixed_cols, mixed_cols), true,
                    matrix(d_logits, rows, weights_cols, weights_cols), false, {IDENTITY, 0.0f},
                    matrix(d_values, rows, bank, bank));
  });
  const auto of_live_rows = [&](std::vector<float> all) {
    all.resize(all.size() / rows * live);
    return all;
  };
  check_close("weights", of_live_rows(weights), weights_wanted, 1e-6);
  check_close("mixtures", of_live_rows(mixed), mixed_wanted, 2e-6);
  check_close("gradients of logits", of_live_rows(d_logits), d_logits_wanted, 2e-6);
  check_close("gradients of experts", of_live_rows(d_values), d_values_wanted, 2e-6);
  check("rows that are not there", live == rows || std::isnan(mixed[live * mixed_cols]));
}

int main() {
  for (u64 seed : SEEDS) {
    for (const Shape& shape : {Shape{20, 19, 3, 8, 128}, Shape{9, 9, 5, 3, 37}, Shape{3, 2, 1, 40, 132}}) {
      test(shape, seed);
    }
  }
  return finish();
}
