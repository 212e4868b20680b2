// Binary cross-entropy: sums over blocks, gradients, rows that are not there or do not count; and with weights by row.
#include "testing.h"

namespace {
#include "../loss.cu"
}

using namespace testing;

int main() {
  const u32 rows = 600, live = 555, blocks = 3;
  const float scale = 0.25f;
  for (u64 seed : SEEDS) {
    Random random(seed);
    std::vector<float> logits = random.numbers(rows), labels(rows), counted(rows);
    std::vector<float> gradients(rows, NOT_WRITTEN);
    std::vector<double> partials(blocks, NOT_WRITTEN), gradients_wanted(live);
    double sum = 100.0, wanted = 100.0;
    for (u32 i = 0; i < rows; i++) {
      logits[i] *= 20.0f, labels[i] = (float)random.below(2), counted[i] = random.number();
      if (i >= live) continue;
      const double z = logits[i], probability = 1.0 / (1.0 + exp(-z));
      const bool counts = counted[i] > 0.0f;
      wanted += counts ? fmax(z, 0.0) - z * labels[i] + log1p(exp(-fabs(z))) : 0.0;
      gradients_wanted[i] = counts ? scale * (probability - labels[i]) : 0.0;
    }
    const Mat x = matrix(logits, rows, 1, 1, &live), dx = matrix(gradients, rows, 1, 1, &live);
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      bce_with_logits(x, labels.data(), counted.data(), {&scale, nullptr}, false, dx, partials.data());
    });
    emulation::launch(1, THREADS, 0, seed, [&] { add_partials(partials.data(), blocks, nullptr, &sum); });
    check_close("bce: the sum", std::vector<double>{sum}, std::vector<double>{wanted}, 1e-6);
    check("bce: rows that are not there", std::isnan(gradients[live]));
    gradients.resize(live);
    check_close("bce: gradients", gradients, gradients_wanted, 1e-6);

    std::vector<float> weights = random.numbers(rows), weighted = gradients;
    std::vector<double> weighted_wanted(live);
    for (u32 i = 0; i < live; i++) weighted_wanted[i] = gradients[i] + weights[i] * gradients_wanted[i];
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      weighted_loss(PROBABILITY, x, labels.data(), counted.data(), matrix(weights, rows, 1, 1), {&scale, nullptr},
                    true, matrix(weighted, live, 1, 1), nullptr);
    });
    check_close("weighted bce: gradients", weighted, weighted_wanted, 1e-6);

    const u32 experts = 3;
    std::vector<float> gate = random.numbers(rows * experts), outputs = random.numbers(rows * experts);
    std::vector<float> dz(rows * experts, NOT_WRITTEN), d_o = dz;
    const Mat z = matrix(gate, rows, experts, experts, &live), o = matrix(outputs, rows, experts, experts, &live);
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      mixture_likelihood(z, o, labels.data(), nullptr, {&scale, nullptr}, false, matrix(dz, rows, experts, experts), false,
                         matrix(d_o, rows, experts, experts), nullptr);
    });
    std::vector<double> dz_wanted, d_o_wanted;
    for (u32 i = 0; i < live; i++) {
      double weights[experts], shares[experts], total = 0.0, all = 0.0;
      for (u32 e = 0; e < experts; e++) {
        const double distance = labels[i] - outputs[i * experts + e];
        total += weights[e] = exp(gate[i * experts + e]), all += shares[e] = weights[e] * exp(-distance * distance / 2);
      }
      for (u32 e = 0; e < experts; e++) {
        dz_wanted.push_back(scale * (weights[e] / total - shares[e] / all));
        d_o_wanted.push_back(scale * shares[e] / all * (outputs[i * experts + e] - labels[i]));
      }
    }
    check("mixture: rows that are not there", std::isnan(dz[live * experts]) && std::isnan(d_o[live * experts]));
    dz.resize(live * experts), d_o.resize(live * experts);
    check_close("mixture: gradients of logits", dz, dz_wanted, 1e-6);
    check_close("mixture: gradients of outputs", d_o, d_o_wanted, 1e-6);
  }
  return finish();
}
