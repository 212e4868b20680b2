// Dropout: the known numbers of Philox, shares, rows by name and by count, strides. Experts: the best, and all for none.
#include "testing.h"

namespace {
#include "../random.cu"
}

using namespace testing;

int main() {
  // What the authors' package gives for a counter and a key of zeros.
  const u32 known[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const Numbers first = philox({{0, 0, 0, 0}}, 0, 0);
  check("known numbers of Philox", std::equal(known, known + 4, first.at));

  const u32 rows = 500, cols = 13, stride = 16, live = 490;
  const u32 blocks = (rows * 2 + 255) / 256, threshold = 0x40000000, key[] = {7, 9};
  const float factor = 4.0f / 3.0f;
  for (u64 seed : SEEDS) {
    std::vector<float> x = Random(seed).numbers(rows * stride), y(rows * stride, NOT_WRITTEN);
    for (float& value : x) value += 2.0f;
    std::vector<float> again = x;
    std::vector<u32> names(rows);
    for (u32 row = 0; row < rows; row++) names[row] = 1000 + row;
    const Mat from = matrix(x, rows, cols, stride, &live), to = matrix(y, rows, cols, stride, &live);
    const Mat in_place = matrix(again, rows, cols, stride, &live);
    emulation::launch(blocks, 256, 0, seed, [&] { dropout(key, 1000, nullptr, threshold, factor, false, from, to); });
    emulation::launch(blocks, 256, 0, seed,
                      [&] { dropout(key, 0, names.data(), threshold, factor, false, in_place, in_place); });
    u32 zeros = 0, wrong = 0, beyond = 0;
    for (u32 i = 0; i < rows * stride; i++) {
      if (i / stride >= live || i % stride >= cols) {
        beyond += y[i] == y[i];
        continue;
      }
      zeros += y[i] == 0.0f;
      wrong += y[i] != 0.0f && y[i] != x[i] * factor;
      wrong += y[i] != again[i];
    }
    check("kept values are scaled, and rows the same by name", wrong == 0);
    check("nothing beyond rows and columns", beyond == 0);
    check("a quarter is dropped", std::fabs((double)zeros / (live * cols) - 0.25) < 0.02);

    const u32 experts = 5, gates = 2, cells = gates * experts;
    std::vector<float> logits = Random(seed).numbers(rows * cells), selected(rows * cells, NOT_WRITTEN);
    emulation::launch((rows * gates + 255) / 256, 256, 0, seed, [&] {
      select_experts(key, nullptr, 0x80000000, experts, 3, matrix(logits, rows, cells, cells, &live),
                     matrix(selected, rows, cells, cells, &live));
    });
    u32 empty = 0, too_many = 0, moved = 0, kept = 0;
    for (u32 gate = 0; gate < live * gates; gate++) {
      u32 stay = 0;
      for (u32 e = gate * experts; e < (gate + 1) * experts; e++) {
        if (selected[e] == MINUS_INFINITY) continue;
        stay++, moved += selected[e] != logits[e];
      }
      empty += stay == 0, too_many += stay > 3, kept += stay;
    }
    check("a gate keeps one expert to three, as they are", empty + too_many + moved == 0);
    // Half of three, and all three where none is left.
    check("half are dropped", std::fabs(kept / (float)(live * gates) - 1.875) < 0.1);
    check("nothing beyond rows", std::isnan(selected[live * cells]));
  }
  return finish();
}
