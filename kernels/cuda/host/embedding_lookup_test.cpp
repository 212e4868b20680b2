// Look-ups: single ids, bags, numbers as they are; rows that lie as float4 and others.
#include "testing.h"

namespace {
#include "../embedding_lookup.cu"
}

using namespace testing;

// A table and the ids of a batch.
struct Field {
  u32 rows, dim, stride;
  bool is_bag, is_mean;
  std::vector<float> table;
  std::vector<u32> offsets, ids;

  Field(Random& random, u32 rows, u32 dim, u32 stride, bool is_bag, bool is_mean, u32 batch)
      : rows(rows), dim(dim), stride(stride), is_bag(is_bag), is_mean(is_mean), table(random.numbers(rows * stride)) {
    offsets = {0};
    // Some ids are beyond the table.
    for (u32 row = 0; row < batch; row++) {
      for (u32 i = is_bag ? random.below(11) : 1; i; i--) ids.push_back(random.below(rows + 2));
      offsets.push_back((u32)ids.size());
    }
  }

  double wanted(u32 row, u32 column) const {
    double sum = 0.0;
    for (u32 i = offsets[row]; i < offsets[row + 1]; i++) {
      sum += table[(ids[i] < rows ? ids[i] : 0) * stride + column];
    }
    return is_mean && offsets[row] < offsets[row + 1] ? sum / (offsets[row + 1] - offsets[row]) : sum;
  }

  Piece piece(u32 column, u32 quads, u32 lane_bits, u32 first_block) const {
    return {table.data(), is_bag ? offsets.data() : nullptr, ids.data(), rows, dim, stride, column, is_mean, quads,
            lane_bits, first_block};
  }
};

int main() {
  const u32 batch = 70, live = 67, width = 8 + 5 + 12 + 36, stride = 64;
  for (u64 seed : SEEDS) {
    Random random(seed);
    const Field fields[] = {{random, 20, 8, 12, false, false, batch}, {random, 9, 5, 5, true, true, batch},
                            {random, 30, 12, 16, true, false, batch}, {random, 40, 36, 36, true, true, batch}};
    const u32 lane_bits[] = {1, 3, 2, 3}, quads[] = {1, 0, 1, 1};
    std::vector<Piece> pieces;
    u32 column = 0, blocks = 0;
    std::vector<double> wanted(live * width);
    for (u32 f = 0; f < 4; f++) {
      // Columns behind the second piece do not begin at a multiple of four.
      const u32 can_have_quads = quads[f] && column % 4 == 0;
      const u32 bits = can_have_quads ? lane_bits[f] : std::min(5u, lane_bits[f] + 2);
      pieces.push_back(fields[f].piece(column, can_have_quads, bits, blocks));
      for (u32 row = 0; row < live; row++) {
        for (u32 c = 0; c < fields[f].dim; c++) wanted[row * width + column + c] = fields[f].wanted(row, c);
      }
      const u32 rows_a_block = (THREADS >> bits) * ROWS;
      blocks += (batch + rows_a_block - 1) / rows_a_block;
      column += fields[f].dim;
    }
    std::vector<float> out(batch * stride, NOT_WRITTEN), got;
    const Mat to = matrix(out, batch, width, stride, &live);
    emulation::launch(blocks, THREADS, 0, seed, [&] { lookup(pieces.data(), 4, nullptr, to); });
    for (u32 row = 0; row < live; row++) got.insert(got.end(), &out[row * stride], &out[row * stride] + width);
    check_close("look-ups", got, wanted, 1e-6);
    u32 beyond = 0;
    for (u32 i = live * stride; i < batch * stride; i++) beyond += out[i] == out[i];
    check("rows that are not there", beyond == 0);
  }
  return finish();
}
