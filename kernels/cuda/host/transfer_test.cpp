// Mixtures of experts of scenarios and their gradients, and the conflict of two gradients.
#include "testing.h"

namespace {
#include "../transfer.cu"
}

using namespace testing;

void test_mixture(u32 rows, u32 scenarios, u32 width, u64 seed) {
  u32 segment = 1;
  while (segment < 32 && 4 * segment < width) segment *= 2;
  const u32 bank = scenarios * width;
  Random random(seed);
  std::vector<float> q = random.numbers(rows * scenarios), own = random.numbers(rows * bank);
  std::vector<float> others = random.numbers(rows * bank), dy = random.numbers(rows * width);
  std::vector<float> y(rows * width, NOT_WRITTEN), dq = q, d_own(rows * bank, NOT_WRITTEN);
  std::vector<double> y_wanted(y.size()), dq_wanted(q.begin(), q.end()), d_own_wanted(d_own.size());
  std::vector<u32> scenario;
  for (u32 row = 0; row < rows; row++) {
    scenario.push_back(random.below(scenarios));
    for (u32 p = 0; p < scenarios; p++) {
      const double weight = q[row * scenarios + p];
      for (u32 col = 0; col < width; col++) {
        const u32 place = row * bank + p * width + col, at = row * width + col;
        const double value = p == scenario[row] ? own[place] : others[place];
        y_wanted[at] += weight * value;
        dq_wanted[row * scenarios + p] += value * dy[at];
        if (p == scenario[row]) d_own_wanted[place] = weight * dy[at];
      }
    }
  }
  const Mat of_q = matrix(q, rows, scenarios, scenarios), of_dy = matrix(dy, rows, width, width);
  const Experts experts = {matrix(own, rows, bank, bank), matrix(others, rows, bank, bank), scenario.data(), scenarios};
  const u32 by_quads = (rows * ((width + 3) / 4) + THREADS - 1) / THREADS;
  emulation::launch(by_quads, THREADS, 0, seed,
                    [&] { transfer_mixture(of_q, experts, matrix(y, rows, width, width)); });
  emulation::launch((rows * segment + THREADS - 1) / THREADS, THREADS, 0, seed, [&] {
    transfer_mixture_dq(segment, experts, of_dy, true, matrix(dq, rows, scenarios, scenarios));
  });
  emulation::launch(by_quads, THREADS, 0, seed, [&] {
    transfer_mixture_dexperts(scenario.data(), scenarios, true, of_q, of_dy, false, matrix(d_own, rows, bank, bank));
  });
  check_close("mixtures", y, y_wanted, 2e-6);
  check_close("gradients of weights", dq, dq_wanted, 2e-6);
  check_close("gradients of own experts", d_own, d_own_wanted, 2e-6);
}

// Of three scenarios the second has no rows; of two vectors what is taken off is the projection of one on the other.
void test_conflict(u32 width, u64 seed) {
  Random random(seed);
  std::vector<float> g = random.numbers(3 * width), dg(3 * width, 0.0f), work(9 * width, NOT_WRITTEN);
  std::vector<u32> scenario = {0, 2, 0, 1}, present(3, 7);
  const u32 rows = 3;
  const float scale = 2.0f;
  double loss = 0.0, inner = 0.0, square = 0.0;
  for (u32 i = 0; i < width; i++) inner += (double)g[i] * g[2 * width + i], square += (double)g[i] * g[i];
  // loss = inner^2 / (2 square)
  std::vector<double> dg_wanted(3 * width);
  for (u32 i = 0; i < width; i++) {
    dg_wanted[i] = scale * (inner / square * g[2 * width + i] - inner * inner / square / square * g[i]);
    dg_wanted[2 * width + i] = scale * inner / square * g[i];
  }
  emulation::launch(1, THREADS, 0, seed, [&] {
    gradient_conflict(g.data(), 3, width, scenario.data(), &rows, false, &scale, &loss, dg.data(), work.data(),
                      present.data());
  });
  check_close("conflict", std::vector<double>{loss}, std::vector<double>{inner * inner / square / 2.0}, 1e-5);
  check_close("gradients of the conflict", dg, dg_wanted, 1e-5);
}

int main() {
  for (u64 seed : SEEDS) {
    test_mixture(40, 3, 21, seed);
    test_mixture(3, 5, 140, seed);
    test_conflict(300, seed);
  }
  return finish();
}
