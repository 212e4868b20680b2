// Products with matrices of samples both ways round, and their gradients: lists, groups, odd shapes.
#include "testing.h"

namespace {
#include "../row_product.cu"
}

using namespace testing;

struct Shape {
  u32 samples, groups, out, inner;
};

u32 across_of(u32 cols) {
  u32 across = 1;
  while (across < 32 && 4 * across < cols) across *= 2;
  return across;
}

void test(const Shape& shape, u64 seed) {
  const auto [samples, groups, out, inner] = shape;
  Random random(seed);
  std::vector<u32> offsets(1, 0);
  for (u32 s = 0; s < samples; s++) offsets.push_back(offsets.back() + random.below(4));
  const u32 rows = offsets.back(), blocks = (samples + 7) / 8;
  std::vector<float> x = random.numbers(rows * groups * inner), weight = random.numbers(samples * out * inner);
  std::vector<float> bias = random.numbers(samples * out), y(rows * groups * out, NOT_WRITTEN);
  std::vector<float> dy = random.numbers(y.size()), dx(x.size(), NOT_WRITTEN), dw(weight.size(), NOT_WRITTEN);
  std::vector<float> db = bias;
  std::vector<double> y_wanted(y.size()), dx_wanted(x.size()), dw_wanted(dw.size()), db_wanted(bias.begin(), bias.end());
  for (u32 s = 0; s < samples; s++) {
    for (u32 v = offsets[s] * groups; v < offsets[s + 1] * groups; v++) {
      for (u32 o = 0; o < out; o++) {
        y_wanted[v * out + o] = bias[s * out + o];
        db_wanted[s * out + o] += dy[v * out + o];
        for (u32 i = 0; i < inner; i++) {
          const u32 place = (s * out + o) * inner + i;
          y_wanted[v * out + o] += (double)weight[place] * x[v * inner + i];
          dx_wanted[v * inner + i] += (double)weight[place] * dy[v * out + o];
          dw_wanted[place] += (double)dy[v * out + o] * x[v * inner + i];
        }
      }
    }
  }
  const Vectors of = {offsets.data(), groups};
  const Activation none = {IDENTITY, 0.0f};
  const Mat of_x = matrix(x, rows, groups * inner, groups * inner), of_dy = matrix(dy, rows, groups * out, groups * out);
  const Mat of_weight = matrix(weight, samples, out * inner, out * inner), of_bias = matrix(bias, samples, out, out);
  const u32 across = across_of(inner);
  emulation::launch(blocks, THREADS, 0, seed, [&] {
    row_product(of_x, of_weight, of, false, across, START_BIAS, of_bias, none,
                matrix(y, rows, groups * out, groups * out));
  });
  emulation::launch(blocks, THREADS, 0, seed, [&] {
    row_product(of_dy, of_weight, of, true, across, START_ZERO, of_bias, none,
                matrix(dx, rows, groups * inner, groups * inner));
  });
  emulation::launch(blocks, THREADS, 0, seed, [&] {
    row_outer(of_dy, of_x, of, across, false, matrix(dw, samples, out * inner, out * inner));
  });
  emulation::launch(blocks, THREADS, 0, seed, [&] { row_sums(of_dy, of, true, matrix(db, samples, out, out)); });
  check_close("products", y, y_wanted, 2e-6);
  check_close("gradients of vectors", dx, dx_wanted, 2e-6);
  check_close("gradients of matrices", dw, dw_wanted, 2e-6);
  check_close("gradients of biases", db, db_wanted, 2e-6);
}

int main() {
  for (u64 seed : SEEDS) {
    for (const Shape& shape : {Shape{9, 3, 5, 8}, Shape{3, 6, 33, 21}, Shape{2, 1, 1, 140}, Shape{1, 2, 140, 3}}) {
      test(shape, seed);
    }
  }
  return finish();
}
