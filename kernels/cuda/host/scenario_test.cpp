// What rows have by their scenario: values scaled and shifted, and sums over the rows of each.
#include "testing.h"

namespace {
#include "../scenario.cu"
}

using namespace testing;

u32 blocks(u32 items, u32 per_block) { return (items + per_block - 1) / per_block; }

void test_affine(u32 rows, u32 scenarios, u32 cols, u64 seed) {
  Random random(seed);
  std::vector<float> x = random.numbers(rows * cols), dy = random.numbers(rows * cols);
  std::vector<float> m = random.numbers(scenarios * cols), b = random.numbers(scenarios * cols);
  std::vector<float> y(rows * cols, NOT_WRITTEN), dx = x, dm(scenarios * cols, NOT_WRITTEN), db = b;
  std::vector<double> y_wanted(y.size()), dx_wanted(dx.begin(), dx.end()), dm_wanted(dm.size());
  std::vector<double> db_wanted(b.begin(), b.end());
  std::vector<u32> scenario;
  for (u32 row = 0; row < rows; row++) {
    scenario.push_back(random.below(scenarios));
    for (u32 col = 0; col < cols; col++) {
      const u32 at = row * cols + col, own = scenario[row] * cols + col;
      y_wanted[at] = (double)m[own] * x[at] + b[own];
      dx_wanted[at] += (double)m[own] * dy[at];
      dm_wanted[own] += (double)dy[at] * x[at];
      db_wanted[own] += dy[at];
    }
  }
  const Mat of_x = matrix(x, rows, cols, cols), of_dy = matrix(dy, rows, cols, cols);
  const Mat of_m = matrix(m, scenarios, cols, cols), of_b = matrix(b, scenarios, cols, cols);
  const u32 by_shares = blocks(rows * blocks(cols, 4), 2 * THREADS);
  emulation::launch(by_shares, THREADS, 0, seed, [&] {
    scenario_affine(scenario.data(), of_x, of_m, of_b, matrix(y, rows, cols, cols));
  });
  emulation::launch(by_shares, THREADS, 0, seed, [&] {
    scenario_affine_dx(scenario.data(), of_m, of_dy, true, matrix(dx, rows, cols, cols));
  });
  u32 across = 1;
  while (across < 32 && 4 * across < cols) across *= 2;
  const u32 chunks = 3, tiles = blocks(cols, 4 * across);
  std::vector<double> partials(2 * chunks * scenarios * cols, NOT_WRITTEN);
  emulation::launch(dim3(chunks, tiles, scenarios), THREADS, 0, seed,
                    [&] { scenario_sums(scenario.data(), of_x, of_dy, across, partials.data()); });
  emulation::launch(dim3(blocks(cols, COLUMNS), 1, scenarios), THREADS, 0, seed, [&] {
    finish_scenario_sums(of_dy, across, chunks, partials.data(), Gradient{db.data(), 1}, Gradient{dm.data(), 0});
  });
  check_close("scaled and shifted", y, y_wanted, 1e-6);
  check_close("gradients of rows", dx, dx_wanted, 1e-6);
  check_close("sums of products", dm, dm_wanted, 1e-6);
  check_close("sums", db, db_wanted, 1e-6);
}

int main() {
  for (u64 seed : SEEDS) {
    test_affine(300, 3, 9, seed);
    test_affine(40, 5, 140, seed);
  }
  return finish();
}
