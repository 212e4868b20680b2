// Products: forward with bias and activation, gradients of inputs and weights; in groups, over odd sizes, with rows
// that are not there and values between the rows.
#include "testing.h"

namespace {
#include "../gemm.cu"
}

using namespace testing;

// Kernels of a precision, and what it makes of operands.
struct Variant {
  const char* name;
  void (*linear)(Mat, Mat, Heads, Mat);
  void (*linear_dx)(Mat, Mat, u32, Activation, Mat, Mat);
  void (*linear_dw)(Mat, Mat, u32, Mat);
  bool is_bf16;
  double tolerance;
};
const Variant VARIANTS[] = {{"f32", linear_f32, linear_dx_f32, linear_dw_f32, false, 1e-5},
                            {"tf32", linear_tf32, linear_dx_tf32, linear_dw_tf32, false, 1e-3},
                            {"bf16", linear_bf16, linear_dx_bf16, linear_dw_bf16, true, 1e-5}};

// A matrix that is an operand, and its values as they are multiplied.
struct Matrix {
  u32 rows, cols, stride;
  std::vector<float> values;
  std::vector<bf16> rounded;

  Matrix(Random& random, u32 rows, u32 cols, u32 stride, bool is_bf16)
      : rows(rows), cols(cols), stride(stride), values(random.numbers(rows * stride)) {
    if (!is_bf16) return;
    for (float& value : values) {
      rounded.push_back(to_bf16(value));
      value = to_f32(rounded.back());
    }
  }
  double at(u32 row, u32 col) const { return values[row * stride + col]; }
  Mat mat(const u32* live = nullptr) {
    return rounded.empty() ? matrix(values, rows, cols, stride, live) : matrix(rounded, rows, cols, stride, live);
  }
};

struct Shape {
  u32 rows, live, groups, in, out, padding;
};

// The values of the columns of a matrix, without what lies between rows and behind the live ones.
std::vector<float> packed(const std::vector<float>& values, u32 rows, u32 cols, u32 stride) {
  std::vector<float> out;
  for (u32 row = 0; row < rows; row++) out.insert(out.end(), &values[row * stride], &values[row * stride] + cols);
  return out;
}

void test(const Variant& variant, const Shape& shape, u64 seed) {
  const auto [rows, live, groups, in, out, padding] = shape;
  const std::string name = std::string(variant.name) + " [" + std::to_string(rows) + ", " + std::to_string(groups) +
                           " x " + std::to_string(in) + "] to " + std::to_string(out) + ": ";
  Random random(seed);
  const u32 x_cols = groups * in, y_cols = groups * out, x_stride = x_cols + padding, y_stride = y_cols + padding;
  Matrix x(random, rows, x_cols, x_stride, variant.is_bf16), weight(random, y_cols, in, in, variant.is_bf16);
  Matrix dy(random, rows, y_cols, y_stride, variant.is_bf16), masked(random, rows, x_cols, x_stride, false);
  const std::vector<float> bias = random.numbers(y_cols);
  const u32 down = tiles_of(rows, TILE), in_tiles = tiles_of(in, TILE), out_tiles = tiles_of(out, TILE);

  // The second half of the columns is linear.
  Heads heads = {bias.data(), out, {}};
  for (Head& head : heads.heads) head = {0xffffffff, {IDENTITY, 0.0f}};
  heads.heads[0] = {0, {LEAKY_RELU, 0.125f}};
  heads.heads[1] = {out / 2, {IDENTITY, 0.0f}};
  std::vector<float> y(rows * y_stride, NOT_WRITTEN);
  emulation::launch(dim3(out_tiles * down, 1, groups), THREADS, 0, seed, [&] {
    variant.linear(x.mat(&live), weight.mat(), heads, matrix(y, rows, y_cols, y_stride, &live));
  });
  std::vector<double> wanted;
  for (u32 row = 0; row < live; row++) {
    for (u32 col = 0; col < y_cols; col++) {
      double sum = bias[col];
      for (u32 k = 0; k < in; k++) sum += x.at(row, col / out * in + k) * weight.at(col, k);
      wanted.push_back(col % out < out / 2 && sum < 0 ? 0.125 * sum : sum);
    }
  }
  check_close(name + "y", packed(y, live, y_cols, y_stride), wanted, variant.tolerance);
  check(name + "rows that are not there", live == rows || std::isnan(y[live * y_stride]));

  std::vector<float> dx = random.numbers(rows * x_stride);
  wanted.clear();
  for (u32 row = 0; row < live; row++) {
    for (u32 col = 0; col < x_cols; col++) {
      double sum = dx[row * x_stride + col];
      for (u32 k = 0; k < out; k++) {
        const u32 at = col / in * out + k;
        sum += dy.at(row, at) * weight.at(at, col % in);
      }
      wanted.push_back(masked.at(row, col) > 0 ? sum : 0.0);
    }
  }
  emulation::launch(dim3(in_tiles * down, 1, groups), THREADS, 0, seed, [&] {
    variant.linear_dx(dy.mat(&live), weight.mat(), true, {RELU, 0.0f}, masked.mat(&live),
                      matrix(dx, rows, x_cols, x_stride, &live));
  });
  check_close(name + "dx", packed(dx, live, x_cols, x_stride), wanted, variant.tolerance);

  // In one piece, then the same in two, whose sums lie one below the other.
  wanted.clear();
  for (u32 row = 0; row < y_cols; row++) {
    for (u32 col = 0; col < in; col++) {
      double sum = 0.0;
      for (u32 k = 0; k < live; k++) sum += dy.at(k, row) * x.at(k, row / out * in + col);
      wanted.push_back(sum);
    }
  }
  for (const u32 chunks : {1u, 2u}) {
    std::vector<float> dw(chunks * y_cols * in, 0.0f);
    emulation::launch(dim3(in_tiles * out_tiles, chunks, groups), THREADS, 0, seed, [&] {
      variant.linear_dw(dy.mat(&live), x.mat(&live), false, matrix(dw, chunks * y_cols, in, in));
    });
    for (u32 i = 0; chunks == 2 && i < y_cols * in; i++) dw[i] += dw[y_cols * in + i];
    dw.resize(y_cols * in);
    check_close(name + "dw", dw, wanted, variant.tolerance);
  }
}

int main() {
  const Shape shapes[] = {{70, 70, 1, 16, 24, 0}, {130, 129, 2, 37, 19, 3}, {65, 40, 3, 8, 136, 4}, {1, 1, 1, 1, 1, 0}};
  for (const Variant& variant : VARIANTS) {
    for (const Shape& shape : shapes) test(variant, shape, shape.in);
  }
  return finish();
}
