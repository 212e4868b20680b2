// Adam over two groups whose border lies inside four values, with the gradients scaled and clipped.
#include "testing.h"

namespace {
#include "../optim.cu"
}

using namespace testing;

int main() {
  const u32 count = 2500, border = 1027;
  const Group plain = {ADAM, 0, 0.01f, 0.0f, 1e-8f, 1.0f, 0.9f, 0.1f, 0.999f, 0.001f, 0.5f, 0.0f};
  const Group decaying = {ADAM, 0, 0.02f, 0.1f, 1e-8f, 0.99f, 0.9f, 0.1f, 0.999f, 0.001f, 0.5f, 0.0f};
  const Group groups[] = {plain, decaying};
  const Piece pieces[] = {
      {0, SPAN, 0}, {SPAN, border - SPAN, 0}, {border, 2 * SPAN - border, 1}, {2 * SPAN, count - 2 * SPAN, 1}};
  const float factor = 2.0f, limit = 1.5f;
  const u32 go_on = 1, stop = 0;

  for (u64 seed : SEEDS) {
    Random random(seed);
    std::vector<float> weights = random.numbers(count), gradients = random.numbers(count);
    std::vector<float> first = random.numbers(count), second = random.numbers(count);
    for (float& square : second) square = fabsf(square);
    std::vector<double> weights_wanted(count), first_wanted(count), second_wanted(count);
    for (u32 i = 0; i < count; i++) {
      const Group& group = i < border ? plain : decaying;
      const double clipped = fmax(-limit, fmin(limit, factor * gradients[i])), g = clipped + group.l2 * weights[i];
      first_wanted[i] = group.beta1 * first[i] + group.rest1 * g;
      second_wanted[i] = group.beta2 * second[i] + group.rest2 * g * g;
      const double step = first_wanted[i] / (sqrt(second_wanted[i]) / group.root2 + group.epsilon);
      weights_wanted[i] = weights[i] * group.kept - group.rate * step;
    }
    const Values values = {weights.data(), gradients.data(), first.data(), second.data()};
    const std::vector<float> before = weights;
    emulation::launch(4, THREADS, 0, seed, [&] { optimise(&stop, pieces, groups, &factor, limit, values); });
    check("adam that must not go on", weights == before);
    emulation::launch(4, THREADS, 0, seed, [&] { optimise(&go_on, pieces, groups, &factor, limit, values); });
    check_close("adam: weights", weights, weights_wanted, 1e-6);
    check_close("adam: means", first, first_wanted, 1e-6);
    check_close("adam: squares", second, second_wanted, 1e-6);
  }
  return finish();
}
