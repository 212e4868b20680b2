// The emulation itself: what threads do together, and what it says of kernels that are wrong.
#include <sys/wait.h>
#include <unistd.h>

#include "testing.h"

using namespace testing;

namespace {

constexpr u32 ALL = FULL_WARP;

// Each lane's results, one after the other.
KERNEL(64) warp_functions(u32* results) {
  const u32 lane = threadIdx.x % 32;
  u32* out = results + 10 * threadIdx.x;
  out[0] = __shfl_sync(ALL, lane * 3, 5);
  out[1] = __shfl_xor_sync(ALL, lane * 3, 1);
  out[2] = __shfl_up_sync(ALL, lane * 3, 2);
  out[3] = __shfl_down_sync(ALL, lane * 3, 2, 16);
  out[4] = __ballot_sync(ALL, lane % 3 == 0);
  out[5] = __match_any_sync(ALL, lane / 10);
  out[6] = __all_sync(ALL, lane < 32) + 2 * __any_sync(ALL, lane == 40);
  out[7] = __reduce_add_sync(ALL, lane);
  // A part of the warp alone.
  if (lane < 8) out[8] = __ballot_sync(0xff, lane & 1);
  __syncwarp();
  out[9] = atomicAdd(&results[640], 2u);
}

// The sums over pairs of blocks' threads that only a barrier makes right.
template <bool HAS_BARRIER>
DEVICE void reverse(const float* from, float* to) {
  SHARED float values[64];
  values[threadIdx.x] = from[threadIdx.x];
  if (HAS_BARRIER) __syncthreads();
  to[threadIdx.x] = values[63 - threadIdx.x];
}
KERNEL(64) reverse_with_barrier(const float* from, float* to) { reverse<true>(from, to); }
KERNEL(64) reverse_without_barrier(const float* from, float* to) { reverse<false>(from, to); }

// Shared memory as a block finds it, which the block before has written.
KERNEL(32) read_unwritten(float* to) {
  SHARED float in_static[32];
  DYNAMIC_SHARED(bytes);
  float* const in_dynamic = (float*)bytes;
  to[threadIdx.x] = in_static[threadIdx.x];
  to[threadIdx.x + 32] = in_dynamic[threadIdx.x];
  in_static[threadIdx.x] = in_dynamic[threadIdx.x] = 1.0f;
}

KERNEL(32) diverge_at_shuffle(float* to) {
  if (threadIdx.x < 30) to[0] = __shfl_sync(ALL, 1.0f, 0);
  else __syncthreads();
}
KERNEL(64) diverge_at_barrier() {
  if (threadIdx.x < 32) __syncthreads();
  else
    __syncthreads();
}
KERNEL(32) leave_dynamic_shared() {
  DYNAMIC_SHARED(bytes);
  bytes[4 * threadIdx.x] = 0;
}
KERNEL(32) leave_static_shared(u32 beyond) {
  SHARED float values[32];
  float* const at = values;
  at[threadIdx.x + beyond] = 0.0f;
}

}  // namespace

// What a process prints that runs `kernel` and does not survive it; nothing of one that does.
template <class Kernel>
std::string last_words(u32 threads, size_t shared, const Kernel& kernel) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    emulation::launch(1, threads, shared, 0, kernel);
    _exit(0);
  }
  close(ends[1]);
  std::string words;
  char buffer[4096];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;) words.append(buffer, (size_t)count);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0 ? "" : words;
}

void check_said(const std::string& what, const std::string& words, const std::string& wanted) {
  check(what, words.find(wanted) != std::string::npos);
  if (words.find(wanted) == std::string::npos) fprintf(stderr, "  said: %s\n", words.substr(0, 500).c_str());
}

int main() {
  for (u64 seed : SEEDS) {
    std::vector<u32> results(641);
    emulation::launch(1, 64, 0, seed, [&] { warp_functions(results.data()); });
    u32 wrong = 0;
    for (u32 thread = 0; thread < 64; thread++) {
      const u32 lane = thread % 32, tens = lane / 10;
      const u32 wanted[] = {15, (lane ^ 1) * 3, (lane < 2 ? lane : lane - 2) * 3,
                            (lane % 16 < 14 ? lane + 2 : lane) * 3, 0x49249249,
                            tens == 3 ? 0xc0000000 : 0x3ffu << 10 * tens, 1, 496, lane < 8 ? 0xaau : 0};
      for (u32 i = 0; i < 9; i++) wrong += results[10 * thread + i] != wanted[i];
    }
    check("functions of warps", wrong == 0);
    check("atomics", results[640] == 128);

    std::vector<float> from = Random(seed).numbers(64), to(64), right(from.rbegin(), from.rend());
    emulation::launch(1, 64, 0, seed, [&] { reverse_with_barrier(from.data(), to.data()); });
    check("with a barrier", to == right);
    emulation::launch(1, 64, 0, seed, [&] { reverse_without_barrier(from.data(), to.data()); });
    check("without a barrier", to != right);

    emulation::launch(2, 32, 128, seed, [&] { read_unwritten(to.data()); });
    u32 numbers = 0;
    for (float value : to) numbers += value == value;
    check("shared memory that nobody has written", numbers == 0);
  }

  std::vector<float> to(1);
  check_said("a shuffle that lanes do not reach", last_words(32, 0, [&] { diverge_at_shuffle(to.data()); }),
             "warp 0, lanes 3fffffff: at __shfl_sync of ffffffff, emulation_test.cpp:");
  check_said("two barriers", last_words(64, 0, [] { diverge_at_barrier(); }), "while thread 0 waits at that of");
#ifdef __SANITIZE_ADDRESS__
  check_said("out of dynamic shared memory", last_words(32, 124, [] { leave_dynamic_shared(); }),
             "heap-buffer-overflow");
  check_said("out of static shared memory", last_words(32, 0, [] { leave_static_shared(1); }), "emulation_test.cpp:");
#endif
  return finish();
}
