// Rows by themselves: probabilities, rows of length 1, cross-entropies, and their gradients; narrow and wide rows.
#include "testing.h"

namespace {
#include "../row.cu"
}

using namespace testing;

void test(u32 rows, u32 live, u32 cols, u64 seed) {
  u32 segment = 1;
  while (segment < 32 && 4 * segment < cols) segment *= 2;
  const u32 blocks = (rows * segment + THREADS - 1) / THREADS;
  const float floor = 1e-12f, scale = 0.25f;
  Random random(seed);
  std::vector<float> z = random.numbers(rows * cols), dy = random.numbers(rows * cols), q(rows * cols, NOT_WRITTEN);
  std::vector<float> dz = dy, y = q, dx = q, entropies = q;
  std::vector<double> q_wanted, dz_wanted, y_wanted, dx_wanted, entropies_wanted, partials(blocks, NOT_WRITTEN);
  std::vector<u32> ids;
  double sum_wanted = 1.0, sum = 1.0;
  for (u32 row = 0; row < rows; row++) ids.push_back(random.below(cols));
  for (u32 row = 0; row < live; row++) {
    const float* const of_z = &z[row * cols];
    const float* const of_dy = &dy[row * cols];
    double total = 0.0, mean = 0.0, length = 0.0, along = 0.0;
    for (u32 col = 0; col < cols; col++) {
      total += exp((double)of_z[col]), length += (double)of_z[col] * of_z[col];
      mean += exp((double)of_z[col]) * of_dy[col], along += (double)of_z[col] * of_dy[col];
    }
    length = sqrt(length), mean /= total, along /= length;
    for (u32 col = 0; col < cols; col++) {
      const double p = exp((double)of_z[col]) / total, unit = of_z[col] / length;
      q_wanted.push_back(p), y_wanted.push_back(unit);
      dz_wanted.push_back(of_dy[col] + p * (of_dy[col] - mean));
      dx_wanted.push_back((of_dy[col] - unit * along) / length);
      entropies_wanted.push_back(scale * (p - (col == ids[row])));
    }
    sum_wanted += log(total) - of_z[ids[row]];
  }
  const auto mat = [&](std::vector<float>& values) { return matrix(values, rows, cols, cols, &live); };
  const Mat of_z = mat(z), of_dy = mat(dy), of_q = mat(q), of_y = mat(y);
  emulation::launch(blocks, THREADS, 0, seed, [&] { softmax(segment, of_z, of_q); });
  emulation::launch(blocks, THREADS, 0, seed, [&] { softmax_dz(segment, of_q, of_dy, true, mat(dz)); });
  emulation::launch(blocks, THREADS, 0, seed, [&] { row_normalise(segment, floor, of_z, of_y); });
  emulation::launch(blocks, THREADS, 0, seed,
                    [&] { row_normalise_dx(segment, floor, of_z, of_y, of_dy, false, mat(dx)); });
  emulation::launch(blocks, THREADS, 0, seed, [&] {
    cross_entropy(segment, of_z, ids.data(), &scale, false, mat(entropies), partials.data());
  });
  for (const double partial : partials) sum += partial;
  const auto of_live_rows = [&](std::vector<float> all) {
    all.resize(live * cols);
    return all;
  };
  check_close("probabilities", of_live_rows(q), q_wanted, 1e-6);
  check_close("gradients of logits", of_live_rows(dz), dz_wanted, 2e-6);
  check_close("rows of length 1", of_live_rows(y), y_wanted, 1e-6);
  check_close("gradients of rows", of_live_rows(dx), dx_wanted, 2e-6);
  check_close("gradients of cross-entropies", of_live_rows(entropies), entropies_wanted, 2e-6);
  check_close("cross-entropies", std::vector<double>{sum}, std::vector<double>{sum_wanted}, 2e-6);
  check("rows that are not there", live == rows || std::isnan(q[live * cols]));
}

int main() {
  for (u64 seed : SEEDS) {
    test(70, 69, 5, seed);
    test(3, 3, 1, seed);
    test(9, 7, 131, seed);
  }
  return finish();
}
