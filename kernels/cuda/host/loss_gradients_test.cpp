// Gradients of three losses: products and weighted sums of a vector in two groups, and of rows of two tables, one of
// which has rows that are not whole fours.
#include "testing.h"

namespace {
#include "../loss_gradients.cu"
}

using namespace testing;

namespace {
constexpr u32 LOSSES = 3, PAIRS = 6;
const std::vector<double> weights = {0.5, 1.0, -2.0, 1.5, -0.25, 3.0};

// Of the values for which `counts` says so.
template <class Counts>
std::vector<double> products(const std::vector<float>& values, u64 stride, const Counts& counts) {
  std::vector<double> wanted;
  for (u32 a = 0; a < LOSSES; a++) {
    for (u32 b = 0; b <= a; b++) {
      double sum = 0.0;
      for (u64 i = 0; i < stride; i++) {
        if (counts(i)) sum += (double)values[a * stride + i] * (double)values[b * stride + i];
      }
      wanted.push_back(sum);
    }
  }
  return wanted;
}

double weighted(const std::vector<float>& values, u64 stride, u64 i, u32 group) {
  double sum = 0.0;
  for (u32 loss = 0; loss < LOSSES; loss++) sum += weights[group * LOSSES + loss] * values[loss * stride + i];
  return sum;
}
}  // namespace

int main() {
  for (u64 seed : SEEDS) {
    Random random(seed);
    const u32 count = 2500, border = 1027, parts = 4;
    const Piece pieces[] = {
        {0, SPAN, 0}, {SPAN, border - SPAN, 0}, {border, 2 * SPAN - border, 1}, {2 * SPAN, count - 2 * SPAN, 1}};
    std::vector<float> flat = random.numbers(LOSSES * count), to(count, NOT_WRITTEN);
    std::vector<double> partials(PAIRS * parts), found(PAIRS);
    emulation::launch({parts, PAIRS, 1}, THREADS, 0, seed,
                      [&] { gradient_products(pieces, flat.data(), count, parts, partials.data()); });
    emulation::launch(PAIRS, THREADS, 0, seed, [&] { sum_products(partials.data(), parts, found.data()); });
    check_close("products", found, products(flat, count, [](u64) { return true; }), 1e-12);
    emulation::launch(parts, THREADS, 0, seed,
                      [&] { combine_gradients(pieces, weights.data(), LOSSES, flat.data(), count, to.data()); });
    std::vector<double> wanted(count);
    for (u32 i = 0; i < count; i++) wanted[i] = weighted(flat, count, i, i >= border);
    check_close("weighted sums", to, wanted, 1e-6);

    // The unknown row of the first table is among the rows, and does not count.
    const u32 rows = 300, first_rows = 120, width = 8, dims[] = {8, 6};
    const TableRows tables[] = {{nullptr, 0, dims[0], dims[0], 1}, {nullptr, 1000, dims[1], dims[1], 0}};
    std::vector<u32> keys(rows);
    for (u32 row = 0; row < rows; row++) keys[row] = row < first_rows ? 2 * row : 1001 + row;
    const auto learns = [&](u64 i) { return i / width > 0 && i % width < dims[i / width >= first_rows]; };
    const u32 second_alone[] = {0, 1}, go_on = 1, stop = 0;
    const u64 stride = rows * width;
    std::vector<float> sums = random.numbers(LOSSES * stride), combined(stride, NOT_WRITTEN);
    const LossRows all = {keys.data(), &rows, tables, second_alone, sums.data(), stride, 2, width, 1};
    emulation::launch({2, PAIRS, 1}, THREADS, 0, seed, [&] { row_products(all, 2, partials.data()); });
    emulation::launch(PAIRS, THREADS, 0, seed, [&] { sum_products(partials.data(), 2, found.data()); });
    const auto counts = [&](u64 i) { return i / width >= first_rows && learns(i); };
    check_close("products of rows", found, products(sums, stride, counts), 1e-12);
    emulation::launch(2, THREADS, 0, seed,
                      [&] { combine_rows(all, weights.data(), LOSSES, combined.data()); });
    std::vector<float> learnt;
    wanted.clear();
    for (u64 i = 0; i < stride; i++) {
      if (!learns(i)) continue;
      learnt.push_back(combined[i]);
      wanted.push_back(weighted(sums, stride, i, i / width >= first_rows));
    }
    check_close("weighted sums of rows", learnt, wanted, 1e-6);

    const float factor = 0.5f, limit = 0.25f;
    u32 moving = 7;
    std::vector<double> clipped_wanted(sums.begin(), sums.end());
    for (u64 i = 0; i < stride; i++) {
      if (counts(i)) clipped_wanted[i] = fmax(-limit, fmin(limit, factor * sums[i]));
    }
    emulation::launch(2, THREADS, 0, seed, [&] { clip_rows(&go_on, all, &factor, limit, &moving); });
    check_close("clipped rows", sums, clipped_wanted, 1e-6);
    check("all rows move", moving == rows);
    emulation::launch(2, THREADS, 0, seed, [&] { clip_rows(&stop, all, nullptr, limit, &moving); });
    check("none moves", moving == 0);
  }
  return finish();
}
