// Pairs of single ids, bags and sequences, and their stable sort by two digits.
#include "testing.h"

namespace {
#include "../embedding_sort.cu"
}

using namespace testing;

struct Pair {
  u32 key, position;
};

int main() {
  const u32 batch = 600, tables[] = {1000, 40, 7}, sources = 3, row_bits = 14;
  for (u64 seed : SEEDS) {
    Random random(seed);
    std::vector<u32> ids[sources], offsets[sources];
    std::vector<Source> descriptions;
    std::vector<Pair> wanted;
    // The second source is of a part of the rows, as a scenario's is.
    const u32 rows[sources][2] = {{0, batch}, {300, 590}, {0, batch}};
    u32 first_key = 0;
    for (u32 s = 0; s < sources; s++) {
      const bool is_list = s > 0, by_position = s == 2;
      offsets[s] = {0};
      for (u32 row = 0; row < batch; row++) {
        const u32 begin = (u32)ids[s].size();
        for (u32 i = is_list ? random.below(16) : 1; i; i--) ids[s].push_back(random.below(tables[s] + 1));
        offsets[s].push_back((u32)ids[s].size());
        if (row < rows[s][0] || row >= rows[s][1]) continue;
        for (u32 i = begin; i < ids[s].size(); i++) {
          const u32 id = ids[s][i] < tables[s] ? ids[s][i] : 0;
          wanted.push_back({first_key + id, s << row_bits | (by_position ? i : row)});
        }
      }
      descriptions.push_back({ids[s].data(), is_list ? offsets[s].data() : nullptr, rows[s], nullptr, 0, ELEMENT_F32,
                              first_key, tables[s], by_position, s * ((batch + THREADS - 1) / THREADS)});
      first_key += tables[s];
    }
    const u32 count = (u32)wanted.size(), tiles = (count + TILE - 1) / TILE + 1;
    std::vector<u32> starts(sources + 1), keys(count), positions(count), spare_keys(count), spare_positions(count);
    emulation::launch(1, THREADS, 0, seed,
                      [&] { number_lookups(nullptr, descriptions.data(), sources, starts.data()); });
    check("number of look-ups", starts[sources] == count);
    const u32 blocks = sources * ((batch + THREADS - 1) / THREADS);
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      make_keys(descriptions.data(), sources, starts.data(), row_bits, keys.data(), positions.data());
    });
    const auto same = [&](const std::vector<u32>& keys, const std::vector<u32>& positions) {
      for (u32 i = 0; i < count; i++) {
        if (keys[i] != wanted[i].key || positions[i] != wanted[i].position) return false;
      }
      return true;
    };
    check("pairs", same(keys, positions));

    std::vector<u32> counts(DIGITS * tiles), totals(DIGITS);
    const auto sort_by = [&](Digit digit, Pairs from, Pairs to) {
      const u32* all = &starts[sources];
      emulation::launch(tiles, THREADS, 0, seed, [&] { count_digits(from.keys, all, digit, counts.data()); });
      emulation::launch(1u << digit.bits, SCAN_THREADS, 0, seed,
                        [&] { scan_digits(all, tiles, counts.data(), totals.data()); });
      emulation::launch(tiles, THREADS, 0, seed,
                        [&] { scatter(from, all, digit, counts.data(), totals.data(), to); });
    };
    const Pairs pairs = {keys.data(), positions.data()}, spare = {spare_keys.data(), spare_positions.data()};
    sort_by({0, 6}, pairs, spare);
    sort_by({6, 5}, spare, pairs);
    std::stable_sort(wanted.begin(), wanted.end(), [](const Pair& a, const Pair& b) { return a.key < b.key; });
    check("sorted pairs", same(keys, positions));
  }
  return finish();
}
