// Rows put in the order of their clusters, there and back, and centres that move.
#include "testing.h"

#include <algorithm>
#include <numeric>

namespace {
#include "../cluster.cu"
}

using namespace testing;

u32 blocks(u32 items, u32 per_block) { return (items + per_block - 1) / per_block; }

void test_order(u32 rows, u32 clusters, u32 cols, u64 seed) {
  const u32 tile = 128, chunks = blocks(rows, CHUNK);
  Random random(seed);
  std::vector<float> scores = random.numbers(rows * clusters), route_of(rows, NOT_WRITTEN);
  std::vector<float> x = random.numbers(rows * cols), gathered(rows * cols, NOT_WRITTEN), back = x;
  const Mat of_route = matrix(route_of, rows, 1, 1), of_x = matrix(x, rows, cols, cols);
  emulation::launch(blocks(rows, THREADS), THREADS, 0, seed,
                    [&] { route(matrix(scores, rows, clusters, clusters), of_route); });
  bool chosen = true;
  for (u32 row = 0; row < rows; row++) {
    const auto own = scores.begin() + row * clusters;
    chosen &= route_of[row] == (float)(std::max_element(own, own + clusters) - own);
  }
  check("choices", chosen);

  std::vector<u32> counts(chunks * clusters), starts(2 * (clusters + 1)), order(rows), wanted(rows);
  emulation::launch(chunks, THREADS, 0, seed, [&] { count_clusters(of_route, clusters, counts.data()); });
  emulation::launch(chunks, THREADS, 0, seed,
                    [&] { order_rows(of_route, clusters, counts.data(), tile, starts.data(), order.data()); });
  std::iota(wanted.begin(), wanted.end(), 0);
  std::stable_sort(wanted.begin(), wanted.end(), [&](u32 a, u32 b) { return route_of[a] < route_of[b]; });
  check("order of rows", order == wanted);
  bool begins = starts[0] == 0 && starts[clusters] == rows && starts[clusters + 1] == 0;
  for (u32 k = 0; k < clusters; k++) {
    const u32 count = (u32)std::count(route_of.begin(), route_of.end(), (float)k);
    begins &= starts[k + 1] - starts[k] == count;
    begins &= starts[clusters + 2 + k] - starts[clusters + 1 + k] == blocks(count, tile);
  }
  check("starts of clusters and tiles", begins);

  const u32 by_shares = blocks(rows * blocks(cols, 4), 2 * THREADS);
  const Mat of_gathered = matrix(gathered, rows, cols, cols);
  emulation::launch(by_shares, THREADS, 0, seed, [&] { gather_rows(order.data(), of_x, of_gathered); });
  emulation::launch(by_shares, THREADS, 0, seed,
                    [&] { scatter_rows(order.data(), of_gathered, true, matrix(back, rows, cols, cols)); });
  bool moved = true;
  for (u32 i = 0; i < rows * cols; i++) moved &= gathered[i] == x[order[i / cols] * cols + i % cols];
  check("rows in order", moved);
  for (float& value : x) value *= 2.0f;
  check("rows back and added", back == x);
}

void test_centers(u32 clusters, u32 n, u64 seed) {
  const float beta = 0.75f, shortest = 1e-12f;
  Random random(seed);
  std::vector<float> old = random.numbers(clusters * n), pull = random.numbers(clusters * n);
  std::vector<float> dy = random.numbers(clusters * n), unit(clusters * n, NOT_WRITTEN), d_old = old;
  std::vector<double> unit_wanted(unit.size()), d_old_wanted(old.begin(), old.end());
  for (u32 k = 0; k < clusters; k++) {
    double square = 0.0, along = 0.0;
    for (u32 i = k * n; i < (k + 1) * n; i++) {
      unit_wanted[i] = (double)beta * old[i] + (1.0 - beta) * pull[i];
      square += unit_wanted[i] * unit_wanted[i];
    }
    for (u32 i = k * n; i < (k + 1) * n; i++) unit_wanted[i] /= std::sqrt(square), along += unit_wanted[i] * dy[i];
    for (u32 i = k * n; i < (k + 1) * n; i++) {
      d_old_wanted[i] += beta * (dy[i] - unit_wanted[i] * along) / std::sqrt(square);
    }
  }
  const Mat of_old = matrix(old, clusters, n, n), of_pull = matrix(pull, clusters, n, n);
  const Mat of_unit = matrix(unit, clusters, n, n);
  emulation::launch(clusters, THREADS, 0, seed, [&] { move_centers(beta, shortest, of_old, of_pull, of_unit); });
  emulation::launch(clusters, THREADS, 0, seed, [&] {
    move_centers_backward(beta, shortest, of_old, of_pull, of_unit, matrix(dy, clusters, n, n), true,
                          matrix(d_old, clusters, n, n), false, Mat{});
  });
  check_close("moved centres", unit, unit_wanted, 1e-6);
  check_close("gradients of centres", d_old, d_old_wanted, 2e-6);
  const u32 stays = 0, moves = 1;
  std::vector<float> state = old;
  emulation::launch(blocks(clusters * n, THREADS), THREADS, 0, seed,
                    [&] { keep_centers(&stays, unit.data(), clusters * n, state.data()); });
  check("a state that stays", state == old);
  emulation::launch(blocks(clusters * n, THREADS), THREADS, 0, seed,
                    [&] { keep_centers(&moves, unit.data(), clusters * n, state.data()); });
  check("a state that moves", state == unit);
}

int main() {
  for (u64 seed : SEEDS) {
    test_order(2300, 5, 6, seed);
    test_order(70, 200, 9, seed);
    test_centers(3, 300, seed);
  }
  return finish();
}
