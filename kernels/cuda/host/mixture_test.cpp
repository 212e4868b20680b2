// Groups of columns times their gates, and the hard tangent.
#include "testing.h"

namespace {
#include "../mixture.cu"
}

using namespace testing;

void test(u32 rows, u32 groups, u32 width, u64 seed) {
  const u32 cols = groups * width, wide = cols + 1;
  u32 segment = 1;
  while (segment < 32 && segment < width) segment *= 2;
  Random random(seed);
  std::vector<float> z = random.numbers(rows * cols), gates = random.numbers(rows * groups);
  std::vector<float> dy = random.numbers(rows * wide), y(rows * wide, NOT_WRITTEN), dz(rows * cols, NOT_WRITTEN);
  std::vector<float> dg = gates;
  std::vector<float> near = z, limited(z.size(), NOT_WRITTEN), dx = limited;
  for (float& value : near) value *= 2.0f;
  std::vector<double> y_wanted(y.size()), dz_wanted(dz.size()), dg_wanted(gates.begin(), gates.end());
  std::vector<double> limited_wanted, dx_wanted;
  for (u32 row = 0; row < rows; row++) {
    for (u32 k = 0; k < groups; k++) {
      const double gate = gates[row * groups + k];
      y_wanted[row * wide + cols] += gate, dg_wanted[row * groups + k] += dy[row * wide + cols];
      for (u32 col = k * width; col < (k + 1) * width; col++) {
        y_wanted[row * wide + col] = gate * z[row * cols + col];
        dz_wanted[row * cols + col] = gate * dy[row * wide + col];
        dg_wanted[row * groups + k] += (double)z[row * cols + col] * dy[row * wide + col];
      }
    }
  }
  for (size_t i = 0; i < z.size(); i++) {
    limited_wanted.push_back(std::fmin(std::fmax(near[i], -1.0), 1.0));
    dx_wanted.push_back(std::fabs(near[i]) < 1.0 ? z[i] : 0.0);
  }
  const Mat of_z = matrix(z, rows, cols, cols), of_gates = matrix(gates, rows, groups, groups);
  const Mat of_dy = matrix(dy, rows, wide, wide), of_limited = matrix(limited, rows, cols, cols);
  const auto blocks = [&](u32 columns) { return (rows * ((columns + 3) / 4) + THREADS - 1) / THREADS; };
  emulation::launch(blocks(wide), THREADS, 0, seed,
                    [&] { gate_groups(groups, of_z, of_gates, matrix(y, rows, wide, wide)); });
  emulation::launch(blocks(cols), THREADS, 0, seed,
                    [&] { gate_groups_dz(groups, of_gates, of_dy, 0, matrix(dz, rows, cols, cols)); });
  emulation::launch((rows * segment + THREADS - 1) / THREADS, THREADS, 0, seed,
                    [&] { gate_groups_dg(segment, of_z, of_dy, 1, matrix(dg, rows, groups, groups)); });
  emulation::launch(blocks(cols), THREADS, 0, seed, [&] { hard_tanh(matrix(near, rows, cols, cols), of_limited); });
  emulation::launch(blocks(cols), THREADS, 0, seed,
                    [&] { hard_tanh_dx(of_limited, of_z, 0, matrix(dx, rows, cols, cols)); });
  check_close("gated groups", y, y_wanted, 2e-6);
  check_close("gradients of groups", dz, dz_wanted, 2e-6);
  check_close("gradients of gates", dg, dg_wanted, 2e-6);
  check_close("hard tangents", limited, limited_wanted, 0.0);
  check_close("gradients of hard tangents", dx, dx_wanted, 0.0);
}

int main() {
  for (u64 seed : SEEDS) {
    test(70, 3, 5, seed);
    test(4, 2, 67, seed);
  }
  return finish();
}
