// Row-wise Adagrad by sorted look-ups: short runs, runs over the border of a tile, and one over several tiles.
#include "testing.h"

namespace {
#include "../embedding_update.cu"
}

using namespace testing;

int main() {
  const u32 table_rows = 300, batch = 700;
  const RowStep step = {ROWWISE_ADAGRAD, 0.1f, 0.01f, 1e-8f, 0, 0, 0, 0, 0, 0};
  for (u64 seed : SEEDS) {
    for (const u32 dim : {8u, 6u}) {
      Random random(seed);
      const u32 stride = dim + 4, quads = dim % 4 == 0;
      std::vector<float> table = random.numbers(table_rows * stride), gradient = random.numbers(batch * dim);
      for (u32 row = 0; row < table_rows; row++) table[row * stride + dim] = fabsf(table[row * stride + dim]);
      // Most look-ups are of one row, a few of the unknown one, which is not trained.
      std::vector<u32> keys(batch), positions(batch);
      for (u32 i = 0; i < batch; i++) {
        keys[i] = i < 10 ? 0 : i < 560 ? 77 : random.below(table_rows);
        positions[i] = i;
      }
      std::stable_sort(positions.begin(), positions.end(), [&](u32 a, u32 b) { return keys[a] < keys[b]; });
      std::sort(keys.begin(), keys.end());

      std::vector<double> wanted(table.begin(), table.end());
      for (u32 row = 1; row < table_rows; row++) {
        std::vector<double> sum(dim);
        u32 count = 0;
        for (u32 i = 0; i < batch; i++) {
          if (keys[i] != row) continue;
          count++;
          for (u32 c = 0; c < dim; c++) sum[c] += gradient[positions[i] * dim + c];
        }
        if (count == 0) continue;
        double squares = 0.0;
        double* const weights = &wanted[row * stride];
        for (u32 c = 0; c < dim; c++) sum[c] += step.l2 * weights[c], squares += sum[c] * sum[c];
        weights[dim] += squares / dim;
        for (u32 c = 0; c < dim; c++) weights[c] -= step.rate * sum[c] / (sqrt(weights[dim]) + step.epsilon);
      }

      const Source source = {nullptr, nullptr, nullptr, gradient.data(), dim, ELEMENT_F32, 0, table_rows, 0, 0};
      const TableRows rows = {table.data(), 0, dim, stride, quads};
      const u32 tiles = (batch + TILE - 1) / TILE + 1, part_stride = 8;
      std::vector<float> parts(2 * tiles * part_stride, NOT_WRITTEN);
      std::vector<u32> long_runs(tiles, 0xffffffff);
      const Lookups lookups = {keys.data(), positions.data(), &batch, &source, &rows, 1, 10,
                               parts.data(), part_stride, long_runs.data()};
      emulation::launch(tiles, TILE, 0, seed, [&] { update_rows(lookups, &step); });
      emulation::launch(2, TILE, 0, seed, [&] { update_long_rows(lookups, &step); });
      check_close("row-wise Adagrad", table, wanted, 3e-6);
    }
  }
  return finish();
}
