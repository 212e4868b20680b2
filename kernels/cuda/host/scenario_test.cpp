// What rows have by their scenario: values scaled and shifted, sums over the rows of each, experts fused and attended
// to.
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
    finish_scenario_sums(of_dy, chunks, partials.data(), Gradient{db.data(), 1}, Gradient{dm.data(), 0});
  });
  check_close("scaled and shifted", y, y_wanted, 1e-6);
  check_close("gradients of rows", dx, dx_wanted, 1e-6);
  check_close("sums of products", dm, dm_wanted, 1e-6);
  check_close("sums", db, db_wanted, 1e-6);
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Three domains and two tasks: an expert's weight, and how that goes with alpha and beta.
void test_fusion(u32 rows, u32 width, u64 seed) {
  const u32 domains = 3, tasks = 2, bank = domains * width, states = tasks * width;
  Random random(seed);
  std::vector<float> shared = random.numbers(rows * states), of_domains = random.numbers(rows * bank);
  std::vector<float> of_tasks = random.numbers(rows * states), dy = random.numbers(rows * states);
  std::vector<float> numbers = {0.5f, -1.0f, 2.0f, -0.25f}, d_numbers(4, NOT_WRITTEN);
  std::vector<float> y(rows * states, NOT_WRITTEN), d_domains = of_domains, d_tasks(rows * states, NOT_WRITTEN);
  const double alpha_d = sigmoid(0.5), alpha_t = sigmoid(-1.0), beta_d = sigmoid(2.0), beta_t = sigmoid(-0.25);
  std::vector<double> y_wanted(y.size()), d_domains_wanted(d_domains.begin(), d_domains.end()), slopes(4);
  std::vector<double> d_tasks_wanted(d_tasks.size());
  std::vector<u32> scenario;
  for (u32 row = 0; row < rows; row++) {
    scenario.push_back(random.below(domains));
    for (u32 t = 0; t < tasks; t++) {
      for (u32 c = 0; c < width; c++) {
        const u32 at = row * states + t * width + c, other = row * states + (1 - t) * width + c;
        double own = 0.0, others = 0.0;
        for (u32 d = 0; d < domains; d++) {
          const u32 place = row * bank + d * width + c;
          const bool is_own = d == scenario[row];
          (is_own ? own : others) += of_domains[place] / (is_own ? 1.0 : 2.0);
          d_domains_wanted[place] += alpha_d * (is_own ? beta_d : (1.0 - beta_d) / 2.0) * dy[at];
        }
        const double of_domain = beta_d * own + (1.0 - beta_d) * others;
        const double of_task = beta_t * of_tasks[at] + (1.0 - beta_t) * of_tasks[other];
        y_wanted[at] = shared[at] + alpha_d * of_domain + alpha_t * of_task;
        d_tasks_wanted[at] = alpha_t * (beta_t * dy[at] + (1.0 - beta_t) * dy[other]);
        slopes[0] += dy[at] * of_domain * alpha_d * (1.0 - alpha_d);
        slopes[1] += dy[at] * of_task * alpha_t * (1.0 - alpha_t);
        slopes[2] += dy[at] * alpha_d * (own - others) * beta_d * (1.0 - beta_d);
        slopes[3] += dy[at] * alpha_t * (of_tasks[at] - of_tasks[other]) * beta_t * (1.0 - beta_t);
      }
    }
  }
  const Fusion fusion = {scenario.data(), numbers.data(), domains, tasks};
  const Mat domain_mat = matrix(of_domains, rows, bank, bank), task_mat = matrix(of_tasks, rows, states, states);
  const Mat of_dy = matrix(dy, rows, states, states);
  const u32 by_parts = blocks(rows * blocks(width, 4), THREADS), few = 2;
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    level_fusion(fusion, matrix(shared, rows, states, states), domain_mat, task_mat, matrix(y, rows, states, states));
  });
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    level_fusion_backward(fusion, of_dy, RowGradient{}, RowGradient{matrix(d_domains, rows, bank, bank), 1},
                          RowGradient{matrix(d_tasks, rows, states, states), 0});
  });
  std::vector<double> partials(4 * few, NOT_WRITTEN);
  emulation::launch(few, THREADS, 0, seed,
                    [&] { level_fusion_products(fusion, domain_mat, task_mat, of_dy, partials.data()); });
  emulation::launch(1, THREADS, 0, seed,
                    [&] { finish_level_fusion(fusion, partials.data(), few, Gradient{d_numbers.data(), 0}); });
  check_close("fused", y, y_wanted, 1e-6);
  check_close("gradients of the domains' experts", d_domains, d_domains_wanted, 1e-6);
  check_close("gradients of the tasks' experts", d_tasks, d_tasks_wanted, 1e-6);
  check_close("gradients of the numbers", d_numbers, slopes, 1e-5);
}

void test_attention(u32 rows, u32 scenarios, u32 width, u32 drops, u64 seed) {
  const u32 bank = scenarios * width, segment = width > 16 ? 8 : 4;
  Random random(seed);
  std::vector<float> logits = random.numbers(scenarios * scenarios), groups = random.numbers(rows * bank);
  std::vector<float> dy = random.numbers(rows * 2 * width), y(rows * 2 * width, NOT_WRITTEN), dgroups = groups;
  std::vector<float> weights(rows * scenarios, NOT_WRITTEN), slopes(rows * scenarios, NOT_WRITTEN);
  std::vector<double> y_wanted(y.size()), slopes_wanted(slopes.size()), dgroups_wanted(groups.begin(), groups.end());
  std::vector<u32> scenario;
  for (u32 row = 0; row < rows; row++) {
    const u32 own = random.below(scenarios);
    scenario.push_back(own);
    double sum = 0.0, mean = 0.0;
    std::vector<double> weight(scenarios), slope(scenarios);
    for (u32 m = 0; m < scenarios; m++) {
      weight[m] = drops || m != own ? std::exp((double)logits[own * scenarios + m]) : 0.0;
      sum += weight[m];
    }
    for (u32 m = 0; m < scenarios; m++) {
      weight[m] /= sum;
      for (u32 c = 0; c < width; c++) {
        const u32 place = row * bank + m * width + c, at = row * 2 * width + c;
        y_wanted[m == own ? at : at + width] += m == own ? groups[place] : weight[m] * groups[place];
        dgroups_wanted[place] += m == own ? dy[at] : weight[m] * dy[at + width];
        if (m != own) slope[m] += (double)groups[place] * dy[at + width];
      }
      mean += weight[m] * slope[m];
    }
    for (u32 m = 0; m < scenarios; m++) slopes_wanted[row * scenarios + m] = weight[m] * (slope[m] - mean);
  }
  const Mat of_groups = matrix(groups, rows, bank, bank), of_dy = matrix(dy, rows, 2 * width, 2 * width);
  const Mat of_weights = matrix(weights, rows, scenarios, scenarios);
  const u32 by_parts = blocks(rows * blocks(width, 4), THREADS);
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    scenario_attention(scenario.data(), drops, matrix(logits, scenarios, scenarios, scenarios), of_groups, of_weights,
                       matrix(y, rows, 2 * width, 2 * width));
  });
  emulation::launch(blocks(rows * segment, THREADS), THREADS, 0, seed, [&] {
    scenario_attention_slopes(segment, scenario.data(), of_groups, of_weights, of_dy,
                              matrix(slopes, rows, scenarios, scenarios));
  });
  emulation::launch(by_parts, THREADS, 0, seed, [&] {
    scenario_attention_dgroups(scenario.data(), of_weights, of_dy, true, matrix(dgroups, rows, bank, bank));
  });
  check_close("own values and others", y, y_wanted, 1e-6);
  check_close("gradients of logits", slopes, slopes_wanted, 2e-6);
  check_close("gradients of values", dgroups, dgroups_wanted, 1e-6);
}

int main() {
  for (u64 seed : SEEDS) {
    test_fusion(40, 9, seed);
    test_fusion(3, 140, seed);
    test_attention(40, 5, 9, false, seed);
    test_attention(5, 3, 140, true, seed);
    test_affine(300, 3, 9, seed);
    test_affine(40, 5, 140, seed);
  }
  return finish();
}
