// Blocks of threads on one thread of the processor: each CUDA thread is a fiber that runs until it waits for others.
//
// Which of the threads that can go on goes on is drawn by a seed, so a missing barrier gives other results for other
// seeds. When none can, the kernel is stuck, and where each warp waits is printed before the program aborts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

typedef unsigned int u32;
typedef unsigned long long u64;

struct dim3 {
  u32 x, y, z;
  constexpr dim3(u32 x = 1, u32 y = 1, u32 z = 1) : x(x), y(y), z(z) {}
};

// Of the thread that runs.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr u32 WARP = 32;

// What memory holds that nobody has written: NaN as a number, and far outside of everything as an index.
constexpr unsigned char POISON = 0xff;

// A line of a kernel.
struct Place {
  const char* file;
  int line;
};

// What the lanes of a warp gave to something that they do together.
class Deposits {
 public:
  static constexpr size_t MOST_BYTES = 32;

  template <class T>
  void put(u32 lane, const T& value) {
    static_assert(sizeof(T) <= MOST_BYTES, "more than a lane can give");
    memcpy(bytes[lane], &value, sizeof(T));
    given |= 1u << lane;
  }
  // Whether a lane has given something.
  bool is_there(u32 lane) const { return given >> lane & 1; }
  // Poison, of a lane that takes no part.
  template <class T>
  T get(u32 lane) const {
    T value;
    memcpy(&value, bytes[lane % WARP], sizeof(T));
    return value;
  }
  void clear() {
    memset(bytes, POISON, sizeof bytes);
    given = 0;
  }

 private:
  u32 given;
  alignas(16) unsigned char bytes[WARP][MOST_BYTES];
};

// Runs a kernel: `thread` is what each thread does. Shared memory is poisoned before each block; blocks run one after
// the other. Seed 0 lets threads run in their order.
void launch(dim3 grid, dim3 block, size_t dynamic_shared, u64 seed, const std::function<void()>& thread);

// Waits for all threads of the block that have not returned.
void wait_for_block(Place place);

// Lets others go on first.
void let_others_run();

// Lane of the thread that runs.
u32 lane();

// Begins what the lanes of `mask` do together, `what`, and waits until all have come that have not returned; then calls
// `read` with what they gave.
Deposits& arrive(const char* what, u32 mask, Place place);
void wait_for_warp();
void leave();

template <class T, class Read>
auto together(const char* what, u32 mask, Place place, const T& value, const Read& read) {
  Deposits& deposits = arrive(what, mask, place);
  deposits.put(lane(), value);
  wait_for_warp();
  const auto result = read((const Deposits&)deposits);
  leave();
  return result;
}

// Dynamic shared memory of the block.
unsigned char* dynamic_shared();

// A copy to shared memory that is under way (cp.async): the target is poison until it is waited for.
void copy_later(void* to, const void* from, u32 bytes, u32 zeros);
void commit_copies();
// Waits until at most `groups` groups of copies are under way.
void wait_for_copies(u32 groups);

}  // namespace emulation
