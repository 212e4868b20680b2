// What the tests of this folder share.
//
// A test includes this file first and then, inside `namespace { }`, the kernels: templates that declare shared memory
// must be the file's own for the compiler to put it where the emulation wants it.
#pragma once

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "../common.cuh"

namespace testing {

// Orders of threads to try: their own, and two that are drawn.
constexpr u64 SEEDS[] = {0, 1, 2};

constexpr float NOT_WRITTEN = std::numeric_limits<float>::quiet_NaN();

inline int checks, failures;

// Numbers in -1 .. 1 and below limits, always the same ones.
class Random {
 public:
  explicit Random(u64 seed) : state(seed) { below(1); }

  u32 below(u32 limit) {
    state = state * 6364136223846793005 + 1442695040888963407;
    return (u32)((state >> 33) % limit);
  }
  float number() { return (float)below(1 << 20) / (1 << 19) - 1.0f; }
  std::vector<float> numbers(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = number();
    return values;
  }

 private:
  u64 state;
};

inline void check(const std::string& what, bool holds) {
  checks++;
  if (holds) return;
  failures++;
  fprintf(stderr, "FAILED %s\n", what.c_str());
}

// Whether all values are within `tolerance` of those wanted, as a part of the largest one wanted.
template <class Got, class Wanted>
void check_close(const std::string& what, const std::vector<Got>& got, const std::vector<Wanted>& wanted,
                 double tolerance) {
  double largest = 0.0;
  for (const Wanted& value : wanted) largest = std::fmax(largest, std::fabs((double)value));
  size_t worst = 0;
  double error = 0.0;
  for (size_t i = 0; i < wanted.size(); i++) {
    const double difference = std::fabs((double)got[i] - (double)wanted[i]);
    // NaN counts as the largest of all.
    if (!(difference <= error)) worst = i, error = difference;
    if (difference != difference) break;
  }
  const bool holds = got.size() == wanted.size() && error <= tolerance * std::fmax(largest, 1e-30);
  check(what, holds);
  if (!holds && worst < got.size()) {
    fprintf(stderr, "  at %zu: %.9g, wanted %.9g\n", worst, (double)got[worst], (double)wanted[worst]);
  }
}

// What `main` returns.
inline int finish() {
  printf("%d passed, %d failed\n", checks - failures, failures);
  return failures != 0;
}

// A matrix on the host; `live_rows` null for all rows.
inline Mat matrix(std::vector<float>& values, u32 rows, u32 cols, u32 stride, const u32* live_rows = nullptr) {
  return {values.data(), live_rows, rows, cols, stride, ELEMENT_F32};
}
inline Mat matrix(std::vector<bf16>& values, u32 rows, u32 cols, u32 stride, const u32* live_rows = nullptr) {
  return {values.data(), live_rows, rows, cols, stride, ELEMENT_BF16};
}

}  // namespace testing
