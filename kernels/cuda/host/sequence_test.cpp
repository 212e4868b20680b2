// What samples have of the ids of their lists, and sums over places.
#include "testing.h"

namespace {
#include "../sequence.cu"
}

using namespace testing;

// Lists of few ids, some of none.
struct Sampled {
  std::vector<u32> offsets{0};
  u32 samples;

  Sampled(u32 samples, Random& random) : samples(samples) {
    for (u32 r = 0; r < samples; r++) offsets.push_back(offsets.back() + (random.below(4) ? random.below(9) : 0));
  }

  u32 ids() const { return offsets.back(); }
  Lists lists() const { return {offsets.data(), &samples}; }
};

u32 by_quads(u32 samples, u32 cols) { return (samples * ((cols + 3) / 4) + THREADS - 1) / THREADS; }

void test_pools(u32 samples, u32 cols, u64 seed) {
  Random random(seed);
  const Sampled of(samples, random), beside(samples, random);
  const Lists lists = of.lists();
  std::vector<float> x = random.numbers(of.ids() * cols), w = random.numbers(of.ids());
  std::vector<float> u = random.numbers(beside.ids()), dy = random.numbers(samples * cols);
  std::vector<float> mean(samples * cols, NOT_WRITTEN), y = mean, p(x.size(), NOT_WRITTEN), dw(w.size(), NOT_WRITTEN);
  std::vector<float> du(u.size(), NOT_WRITTEN), dx(x.size(), NOT_WRITTEN);
  std::vector<double> mean_wanted(mean.size()), y_wanted(y.size()), p_wanted(p.size()), dw_wanted(dw.size());
  std::vector<double> du_wanted(du.size()), dx_wanted(dx.size());
  for (u32 r = 0; r < samples; r++) {
    const u32 from = of.offsets[r], to = of.offsets[r + 1], end = beside.offsets[r + 1];
    const u32 pairs = min(to - from, end - beside.offsets[r]);
    for (u32 c = 0; c < cols; c++) {
      double sum = 0.0;
      for (u32 id = from; id < to; id++) {
        mean_wanted[r * cols + c] += (double)x[id * cols + c] / (to - from);
        sum += std::exp((double)x[id * cols + c]);
      }
      for (u32 id = from; id < to; id++) p_wanted[id * cols + c] = std::exp((double)x[id * cols + c]) / sum;
      for (u32 back = 1; back <= pairs; back++) {
        const double value = x[(to - back) * cols + c], gradient = dy[r * cols + c];
        y_wanted[r * cols + c] += (double)w[to - back] * u[end - back] * value;
        dx_wanted[(to - back) * cols + c] = (double)w[to - back] * u[end - back] * gradient;
        dw_wanted[to - back] += u[end - back] * value * gradient;
        du_wanted[end - back] += w[to - back] * value * gradient;
      }
    }
  }
  const auto by_id = [&](std::vector<float>& values) { return matrix(values, of.ids(), cols, cols); };
  const auto by_sample = [&](std::vector<float>& values) { return matrix(values, samples, cols, cols); };
  const Weights weights = {matrix(w, of.ids(), 1, 1), matrix(u, beside.ids(), 1, 1), beside.offsets.data()};
  const u32 blocks = by_quads(samples, cols);
  emulation::launch(blocks, THREADS, 0, seed, [&] { sequence_pool(lists, true, by_id(x), by_sample(mean)); });
  emulation::launch(blocks, THREADS, 0, seed, [&] { sequence_softmax(lists, by_id(x), by_id(p)); });
  emulation::launch(blocks, THREADS, 0, seed, [&] { weighted_pool(lists, weights, by_id(x), by_sample(y)); });
  emulation::launch(blocks, THREADS, 0, seed,
                    [&] { weighted_pool_dx(lists, weights, by_sample(dy), false, by_id(dx)); });
  emulation::launch((samples + 7) / 8, THREADS, 0, seed, [&] {
    weighted_pool_dw(lists, weights, by_id(x), by_sample(dy), 0, matrix(dw, of.ids(), 1, 1),
                     matrix(du, beside.ids(), 1, 1));
  });
  check_close("means", mean, mean_wanted, 2e-6);
  check_close("probabilities", p, p_wanted, 2e-6);
  check_close("weighted sums", y, y_wanted, 2e-6);
  check_close("gradients of what is weighed", dx, dx_wanted, 2e-6);
  check_close("gradients of weights", dw, dw_wanted, 2e-6);
  check_close("gradients of weights beside", du, du_wanted, 2e-6);
}

void test_places(u32 samples, u32 cols, u64 seed) {
  constexpr u32 PLACES = 9;
  Random random(seed);
  const Sampled of(samples, random);
  u32 across = 1;
  while (4 * across < cols && across < 32) across *= 2;
  const u32 chunks = 2, tiles = (cols + 4 * across - 1) / (4 * across);
  std::vector<float> dy = random.numbers(of.ids() * cols), dp = random.numbers(PLACES * cols);
  std::vector<double> wanted(dp.begin(), dp.end()), partials(2 * PLACES * chunks * cols, NOT_WRITTEN);
  for (u32 r = 0; r < samples; r++) {
    for (u32 i = of.offsets[r] * cols; i < of.offsets[r + 1] * cols; i++) wanted[i - of.offsets[r] * cols] += dy[i];
  }
  const dim3 grid(chunks, tiles, PLACES), finishing((cols + COLUMNS - 1) / COLUMNS, 1, PLACES);
  emulation::launch(grid, THREADS, 0, seed, [&] {
    position_sums(of.lists(), across, matrix(dy, of.ids(), cols, cols), partials.data());
  });
  emulation::launch(finishing, THREADS, 0, seed, [&] {
    finish_position_sums(of.lists(), across, chunks, cols, partials.data(), Gradient{dp.data(), true});
  });
  check_close("gradients of places", dp, wanted, 2e-6);
}

int main() {
  for (u64 seed : SEEDS) {
    test_pools(40, 7, seed);
    test_pools(3, 140, seed);
    test_places(90, 7, seed);
    test_places(5, 140, seed);
  }
  return finish();
}
