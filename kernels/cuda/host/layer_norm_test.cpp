// Layer normalisation of parts of rows, and its gradients.
#include "testing.h"

namespace {
#include "../layer_norm.cu"
}

using namespace testing;

u32 blocks(u32 items, u32 per_block) { return (items + per_block - 1) / per_block; }

void test_parts(u32 rows, u32 groups, u32 width, u64 seed) {
  const u32 cols = groups * width, segment = width > 64 ? 32 : width > 4 ? 4 : 1;
  const float epsilon = 1e-2f;
  Random random(seed);
  std::vector<float> x = random.numbers(rows * cols), dy = random.numbers(rows * cols);
  std::vector<float> gamma = random.numbers(cols), beta = random.numbers(cols);
  std::vector<float> y(rows * cols, NOT_WRITTEN), dx = x, d_gamma(cols, NOT_WRITTEN), d_beta = beta;
  std::vector<double> y_wanted(y.size()), dx_wanted(dx.begin(), dx.end()), d_gamma_wanted(cols);
  std::vector<double> d_beta_wanted(beta.begin(), beta.end());
  for (u32 part = 0; part < rows * groups; part++) {
    const u32 from = part * width, group = part % groups;
    double mean = 0.0, variance = 0.0, sum = 0.0, along = 0.0;
    for (u32 i = 0; i < width; i++) mean += (double)x[from + i] / width;
    for (u32 i = 0; i < width; i++) variance += (x[from + i] - mean) * (x[from + i] - mean) / width;
    const double deviation = std::sqrt(variance + epsilon);
    for (u32 i = 0; i < width; i++) {
      const double weighed = (double)dy[from + i] * gamma[group * width + i];
      sum += weighed / width, along += weighed * (x[from + i] - mean) / deviation / width;
    }
    for (u32 i = 0; i < width; i++) {
      const u32 at = from + i, col = group * width + i;
      const double normal = (x[at] - mean) / deviation;
      y_wanted[at] = gamma[col] * normal + beta[col];
      dx_wanted[at] += ((double)dy[at] * gamma[col] - sum - normal * along) / deviation;
      d_gamma_wanted[col] += dy[at] * normal;
      d_beta_wanted[col] += dy[at];
    }
  }
  const Mat of_x = matrix(x, rows, cols, cols), of_dy = matrix(dy, rows, cols, cols);
  const u32 by_parts = blocks(rows * groups * segment, THREADS);
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    layer_norm(segment, groups, epsilon, of_x, gamma.data(), beta.data(), matrix(y, rows, cols, cols));
  });
  std::vector<float2> moments(rows * groups);
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    layer_norm_dx(segment, groups, epsilon, of_x, gamma.data(), of_dy, true, matrix(dx, rows, cols, cols),
                  moments.data());
  });
  u32 across = 1;
  while (across < 32 && 4 * across < cols) across *= 2;
  const u32 chunks = 3;
  std::vector<double> partials(2 * chunks * cols, NOT_WRITTEN);
  emulation::launch(dim3(chunks, blocks(cols, 4 * across), 1), THREADS, 0, seed,
                    [&] { layer_norm_sums(groups, of_x, moments.data(), of_dy, across, partials.data()); });
  emulation::launch(blocks(cols, COLUMNS), THREADS, 0, seed, [&] {
    finish_layer_norm_sums(of_x, across, chunks, partials.data(), Gradient{d_gamma.data(), 0},
                           Gradient{d_beta.data(), 1});
  });
  check_close("normalised", y, y_wanted, 2e-6);
  check_close("gradients of rows", dx, dx_wanted, 4e-6);
  check_close("gradients of gamma", d_gamma, d_gamma_wanted, 2e-6);
  check_close("gradients of beta", d_beta, d_beta_wanted, 2e-6);
}

int main() {
  for (u64 seed : SEEDS) {
    test_parts(300, 2, 7, seed);
    test_parts(40, 3, 3, seed);
    test_parts(7, 1, 140, seed);
  }
  return finish();
}
