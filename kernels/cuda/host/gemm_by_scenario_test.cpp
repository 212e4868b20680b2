// Products by scenario: forward, gradients of inputs and weights, and sums of columns, with scenarios of no rows, of one tile
// and of more, in groups that have a weight each or share one.
#include "testing.h"

namespace {
#include "../gemm_by_scenario.cu"
}

using namespace testing;

struct Shape {
  std::vector<u32> counts;
  u32 groups, shared, in, out;
};

// The first row of each scenario and the one behind the last, and their first tiles.
std::vector<u32> starts_of(const std::vector<u32>& counts) {
  std::vector<u32> rows = {0}, tiles = {0};
  for (u32 count : counts) {
    rows.push_back(rows.back() + count);
    tiles.push_back(tiles.back() + tiles_of(count, TILE));
  }
  rows.insert(rows.end(), tiles.begin(), tiles.end());
  return rows;
}

void test(const Shape& shape, u64 seed) {
  const auto& [counts, groups, shared, in, out] = shape;
  const u32 scenarios = counts.size(), copies = shared ? groups : 1, weights = scenarios * groups / copies;
  const std::vector<u32> starts = starts_of(counts);
  const u32 rows = starts[scenarios], tiles = starts.back(), x_cols = groups * in, y_cols = groups * out;
  const Layers layers = {starts.data(), scenarios, shared};
  const std::string name = std::to_string(rows) + " rows, " + std::to_string(groups) + " x " + std::to_string(in) +
                           " to " + std::to_string(out) + (shared ? ", shared: " : ": ");
  const auto weight_of = [&](u32 row, u32 group) {
    u32 scenario = 0;
    while (row >= starts[scenario + 1]) scenario++;
    return layers.weight_of(scenario, group, groups);
  };
  Random random(seed);
  std::vector<float> x = random.numbers(rows * x_cols), dy = random.numbers(rows * y_cols);
  std::vector<float> weight = random.numbers(weights * out * in), bias = random.numbers(weights * out);

  Heads heads = {bias.data(), out, {}};
  for (Head& head : heads.heads) head = {0xffffffff, {IDENTITY, 0.0f}};
  heads.heads[0] = {0, {RELU, 0.0f}};
  std::vector<float> y(rows * y_cols, NOT_WRITTEN), dx(rows * x_cols, NOT_WRITTEN);
  // One tile more than there are: it has no rows.
  emulation::launch(dim3(tiles_of(out, TILE) * (tiles + 1), 1, groups), THREADS, 0, seed, [&] {
    linear_by_scenario_f32(matrix(x, rows, x_cols, x_cols), matrix(weight, weights * out, in, in), heads, layers,
                           matrix(y, rows, y_cols, y_cols));
  });
  emulation::launch(dim3(tiles_of(in, TILE) * (tiles + 1), 1, groups), THREADS, 0, seed, [&] {
    const Mat to = matrix(dx, rows, x_cols, x_cols);
    linear_dx_by_scenario_f32(matrix(dy, rows, y_cols, y_cols), matrix(weight, weights * out, in, in), layers, 0,
                              {IDENTITY, 0.0f}, to, to);
  });
  // Of two chunks each.
  constexpr u32 CHUNKS = 2;
  const u32 parts = CHUNKS * copies, stride = (in + 3) / 4 * 4, sums_stride = (out + 3) / 4 * 4;
  std::vector<float> partials(parts * weights * out * stride, NOT_WRITTEN), dw(weights * out * in, NOT_WRITTEN);
  std::vector<float> sums(parts * weights * sums_stride, NOT_WRITTEN), db(weights * out, NOT_WRITTEN);
  emulation::launch(dim3(tiles_of(in, TILE) * tiles_of(out, TILE), CHUNKS, groups * scenarios), THREADS, 0, seed, [&] {
    linear_dw_by_scenario_f32(matrix(dy, rows, y_cols, y_cols), matrix(x, rows, x_cols, x_cols), layers, groups, 0,
                              matrix(partials, parts * weights * out, stride, stride));
  });
  emulation::launch(dim3(tiles_of(weights * out * ((in + 3) / 4), THREADS), 1, 1), THREADS, 0, seed, [&] {
    sum_partials_by_scenario(partials.data(), stride, CHUNKS, copies, ProductF32<false, false>::DEPTH, layers, 0,
                             matrix(dw, weights * out, in, in));
  });
  emulation::launch(dim3(tiles_of(out, TILE), CHUNKS, groups * scenarios), THREADS, 0, seed, [&] {
    column_sums_by_scenario(matrix(dy, rows, y_cols, y_cols), layers, groups, 0,
                            matrix(sums, parts * weights, sums_stride, sums_stride));
  });
  emulation::launch(dim3(tiles_of(weights * ((out + 3) / 4), THREADS), 1, 1), THREADS, 0, seed, [&] {
    sum_partials_by_scenario(sums.data(), sums_stride, CHUNKS, copies, SUM_DEPTH, layers, 0,
                             matrix(db, weights, out, out));
  });

  std::vector<double> wanted_y(y.size()), wanted_dx(dx.size()), wanted_dw(dw.size()), wanted_db(db.size());
  for (u32 row = 0; row < rows; row++) {
    for (u32 col = 0; col < y_cols; col++) {
      const u32 group = col / out, unit = weight_of(row, group) * out + col % out;
      const double d = dy[row * y_cols + col];
      double sum = bias[unit];
      for (u32 k = 0; k < in; k++) {
        const u32 from = row * x_cols + group * in + k;
        sum += (double)x[from] * weight[unit * in + k];
        wanted_dx[from] += d * weight[unit * in + k];
        wanted_dw[unit * in + k] += d * x[from];
      }
      wanted_y[row * y_cols + col] = sum > 0 ? sum : 0;
      wanted_db[unit] += d;
    }
  }
  check_close(name + "y", y, wanted_y, 1e-5);
  check_close(name + "dx", dx, wanted_dx, 1e-5);
  check_close(name + "dw", dw, wanted_dw, 1e-5);
  check_close(name + "db", db, wanted_db, 1e-5);
}

int main() {
  u64 seed = 1;
  for (const Shape& shape : {Shape{{5, 0, 140}, 1, 1, 9, 6}, Shape{{1, 130}, 2, 0, 5, 7}, Shape{{0, 33, 2}, 3, 1, 6, 3},
                             Shape{{40}, 2, 1, 130, 3}}) {
    test(shape, seed++);
  }
  return finish();
}
