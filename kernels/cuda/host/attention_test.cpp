// Attention of one query a sample and of ids to each other, and its gradients.
#include "testing.h"

namespace {
#include "../attention.cu"
}

using namespace testing;

// Gradients of queries, keys and values, and the result, by plain loops: `queries` of a sample attend to its ids, all
// rows of matrices without gaps.
struct Wanted {
  std::vector<double> out, dq, dk, dv;
};

void attend_plainly(const Heads& of, const std::vector<u32>& queries, u32 from, u32 to, const std::vector<float>& q,
                    const std::vector<float>& k, const std::vector<float>& v, const std::vector<float>& dout,
                    Wanted& wanted) {
  const u32 cols = of.heads * of.width;
  for (u32 query : queries) {
    for (u32 head = 0; head < of.heads; head++) {
      const u32 at = query * cols + head * of.width;
      const auto dot = [&](const std::vector<float>& a, u32 place, const std::vector<float>& b, u32 other) {
        double sum = 0.0;
        for (u32 c = 0; c < of.width; c++) sum += (double)a[place + c] * b[other + c];
        return sum;
      };
      std::vector<double> weights;
      double total = 0.0, mean = 0.0;
      for (u32 id = from; id < to; id++) {
        weights.push_back(std::exp(of.scale * dot(q, at, k, id * cols + head * of.width)));
        total += weights.back();
      }
      for (u32 id = from; id < to; id++) {
        weights[id - from] /= total, mean += weights[id - from] * dot(dout, at, v, id * cols + head * of.width);
      }
      for (u32 id = from; id < to; id++) {
        const u32 key = id * cols + head * of.width;
        const double weight = weights[id - from], ds = of.scale * weight * (dot(dout, at, v, key) - mean);
        for (u32 c = 0; c < of.width; c++) {
          wanted.out[at + c] += weight * v[key + c], wanted.dq[at + c] += ds * k[key + c];
          wanted.dk[key + c] += ds * q[at + c], wanted.dv[key + c] += weight * dout[at + c];
        }
      }
    }
  }
}

void test_attention(u32 samples, u32 heads, u32 width, bool among_each_other, u64 seed) {
  Random random(seed);
  std::vector<u32> offsets{0};
  for (u32 r = 0; r < samples; r++) offsets.push_back(offsets.back() + (random.below(4) ? random.below(9) : 0));
  u32 segment = 1;
  while (segment < 32 && 4 * segment < width) segment *= 2;
  const u32 ids = offsets.back(), cols = heads * width, queries = among_each_other ? ids : samples;
  const Heads of = {offsets.data(), &samples, 1, heads, width, 0.6f, among_each_other, segment};
  std::vector<float> q = random.numbers(queries * cols), k = random.numbers(ids * cols), v = random.numbers(ids * cols);
  std::vector<float> dout = random.numbers(q.size()), out(q.size(), NOT_WRITTEN), dq = out;
  std::vector<float> dk(k.size(), NOT_WRITTEN), dv = dk, log_sums(queries * heads, NOT_WRITTEN);
  Wanted wanted = {std::vector<double>(q.size()), std::vector<double>(q.size()), std::vector<double>(k.size()),
                   std::vector<double>(k.size())};
  for (u32 r = 0; r < samples; r++) {
    std::vector<u32> own{r};
    if (among_each_other) own.clear();
    for (u32 id = offsets[r]; among_each_other && id < offsets[r + 1]; id++) own.push_back(id);
    attend_plainly(of, own, offsets[r], offsets[r + 1], q, k, v, dout, wanted);
  }
  const auto by_query = [&](std::vector<float>& values) { return matrix(values, queries, cols, cols); };
  const auto by_id = [&](std::vector<float>& values) { return matrix(values, ids, cols, cols); };
  const Mat of_q = by_query(q), of_k = by_id(k), of_v = by_id(v), of_out = by_query(out), of_dout = by_query(dout);
  const u32 blocks = (queries * heads * segment + THREADS - 1) / THREADS;
  if (among_each_other) {
    std::vector<Sums> sums(queries * heads);
    emulation::launch(blocks, THREADS, 0, seed, [&] { self_attention(of, of_q, of_k, of_v, of_out); });
    emulation::launch(blocks, THREADS, 0, seed,
                      [&] { self_attention_dq(of, of_q, of_k, of_v, of_dout, 0, by_query(dq), sums.data()); });
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      self_attention_dkv(of, of_q, of_k, of_v, of_dout, sums.data(), 0, by_id(dk), by_id(dv));
    });
  } else {
    const Mat of_sums = matrix(log_sums, samples, heads, heads);
    emulation::launch(blocks, THREADS, 0, seed, [&] { attend(of, of_q, of_k, of_v, of_out, of_sums); });
    emulation::launch(blocks, THREADS, 0, seed, [&] {
      attend_backward(of, of_q, of_k, of_v, of_out, of_sums, of_dout, 0, by_query(dq), by_id(dk), by_id(dv));
    });
  }
  check_close("attention", out, wanted.out, 1e-5);
  check_close("gradients of queries", dq, wanted.dq, 1e-5);
  check_close("gradients of keys", dk, wanted.dk, 1e-5);
  check_close("gradients of values", dv, wanted.dv, 1e-5);
}

int main() {
  for (u64 seed : SEEDS) {
    for (bool among_each_other : {false, true}) {
      test_attention(40, 2, 7, among_each_other, seed);
      test_attention(5, 1, 140, among_each_other, seed);
    }
  }
  return finish();
}
