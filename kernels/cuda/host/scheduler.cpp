#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "fiber.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Where static shared memory lies, as the linker knows it; nowhere if a program has none.
extern "C" {
extern unsigned char __start_emulated_shared[] __attribute__((weak));
extern unsigned char __stop_emulated_shared[] __attribute__((weak));
}

namespace emulation {
namespace {

// Something that the lanes of `mask` do together.
struct Meeting {
  const char* what;
  Place place;
  u32 mask, arrived, left;
  Deposits deposits;
};

struct Warp {
  // Lanes that have not returned.
  u32 alive;
  std::vector<std::unique_ptr<Meeting>> meetings;
};

struct Copy {
  void* to;
  const void* from;
  u32 bytes, zeros;
};

enum class Status { RUNNABLE, IN_MEETING, AT_BARRIER, RETURNED };

struct Thread {
  Fiber fiber;
  dim3 index;
  u32 number;
  Status status;
  // Where it waits, and for whom.
  Place place;
  Meeting* meeting;
  // Copies under way: groups that are committed, oldest first, and those of no group.
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> copies;

  u32 lane() const { return number % WARP; }
  u32 bit() const { return 1u << lane(); }
};

// What of a block changes while it runs. Threads are kept from block to block, with their stacks.
std::deque<Thread> threads;
std::vector<Warp> warps;
std::deque<Thread*> runnable;
u32 size, alive, at_barrier;
unsigned char* dynamic_memory;
const std::function<void()>* body;

Thread* current;
u64 random_state;

Warp& warp_of(const Thread& thread) { return warps[thread.number / WARP]; }

[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char* format, ...) {
  fprintf(stderr, "block (%u, %u, %u), thread %u: ", blockIdx.x, blockIdx.y, blockIdx.z, current->number);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  abort();
}

void make_runnable(Thread& thread) {
  thread.status = Status::RUNNABLE;
  runnable.push_back(&thread);
}

void open_barrier_if_all_came() {
  if (at_barrier == 0 || at_barrier < alive) return;
  at_barrier = 0;
  for (u32 i = 0; i < size; i++) {
    if (threads[i].status == Status::AT_BARRIER) make_runnable(threads[i]);
  }
}

bool all_came(const Warp& warp, const Meeting& meeting) { return !(meeting.mask & warp.alive & ~meeting.arrived); }

void wake_if_all_came(Warp& warp, const Meeting& meeting) {
  if (!all_came(warp, meeting)) return;
  const u32 first = (u32)(&warp - &warps[0]) * WARP;
  for (u32 i = first; i < first + WARP && i < size; i++) {
    if (threads[i].status == Status::IN_MEETING && threads[i].meeting == &meeting) make_runnable(threads[i]);
  }
}

void return_from_kernel() {
  Warp& warp = warp_of(*current);
  current->status = Status::RETURNED;
  alive--;
  warp.alive &= ~current->bit();
  for (const auto& meeting : warp.meetings) wake_if_all_came(warp, *meeting);
  open_barrier_if_all_came();
}

// Prints where the lanes of each warp wait.
[[noreturn]] void die_of_deadlock() {
  fprintf(stderr, "block (%u, %u, %u) is stuck: no thread can go on\n", blockIdx.x, blockIdx.y, blockIdx.z);
  for (u32 first = 0; first < size; first += WARP) {
    u32 told = 0;
    for (u32 i = first; i < first + WARP && i < size; i++) {
      const Thread& thread = threads[i];
      if (told & thread.bit()) continue;
      u32 alike = 0;
      for (u32 j = i; j < first + WARP && j < size; j++) {
        const Thread& other = threads[j];
        const bool same = other.status == thread.status && other.meeting == thread.meeting &&
                          (thread.status == Status::RETURNED || other.place.line == thread.place.line);
        if (same) alike |= other.bit();
      }
      told |= alike;
      fprintf(stderr, "  warp %u, lanes %08x: ", first / WARP, alike);
      if (thread.status == Status::RETURNED) {
        fprintf(stderr, "have returned\n");
      } else if (thread.status == Status::AT_BARRIER) {
        fprintf(stderr, "at a barrier, %s:%d\n", thread.place.file, thread.place.line);
      } else {
        const Meeting& meeting = *thread.meeting;
        fprintf(stderr, "at %s of %08x, %s:%d\n", meeting.what, meeting.mask, meeting.place.file, meeting.place.line);
      }
    }
  }
  abort();
}

// Byte by byte, as AddressSanitizer guards what lies between the variables.
__attribute__((no_sanitize("address"))) void poison_static_shared() {
  volatile unsigned char* const end = __stop_emulated_shared;
  for (volatile unsigned char* byte = __start_emulated_shared; byte != end; byte++) *byte = POISON;
}

Thread& next_runnable() {
  if (random_state) {
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    std::swap(runnable.front(), runnable[(random_state >> 33) % runnable.size()]);
  }
  Thread& next = *runnable.front();
  runnable.pop_front();
  return next;
}

void run_block() {
  alive = size;
  at_barrier = 0;
  for (Warp& warp : warps) {
    warp.alive = 0;
    warp.meetings.clear();
  }
  for (u32 i = 0; i < size; i++) {
    Thread& thread = threads[i];
    thread.number = i;
    thread.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    thread.meeting = nullptr;
    thread.groups.clear();
    thread.copies.clear();
    thread.fiber.begin([] {
      (*body)();
      return_from_kernel();
    });
    warp_of(thread).alive |= thread.bit();
    make_runnable(thread);
  }
  while (alive) {
    if (runnable.empty()) die_of_deadlock();
    current = &next_runnable();
    threadIdx = current->index;
    current->fiber.resume();
  }
}

}  // namespace

void launch(dim3 grid, dim3 block, size_t shared_bytes, u64 seed, const std::function<void()>& thread) {
  gridDim = grid;
  blockDim = block;
  body = &thread;
  random_state = seed;
  size = block.x * block.y * block.z;
  while (threads.size() < size) threads.emplace_back();
  warps.resize((size + WARP - 1) / WARP);
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, shared_bytes) != 0) abort();
  dynamic_memory = (unsigned char*)memory;
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
        poison_static_shared();
        memset(memory, POISON, shared_bytes);
        run_block();
      }
    }
  }
  free(memory);
}

u32 lane() { return current->lane(); }

unsigned char* dynamic_shared() { return dynamic_memory; }

void let_others_run() {
  runnable.push_back(current);
  Fiber::suspend();
}

void wait_for_block(Place place) {
  for (u32 i = 0; i < size && at_barrier; i++) {
    const Thread& other = threads[i];
    if (other.status != Status::AT_BARRIER) continue;
    if (other.place.line == place.line && strcmp(other.place.file, place.file) == 0) break;
    die("at the barrier of %s:%d while thread %u waits at that of %s:%d", place.file, place.line, other.number,
        other.place.file, other.place.line);
  }
  current->place = place;
  current->status = Status::AT_BARRIER;
  at_barrier++;
  open_barrier_if_all_came();
  Fiber::suspend();
}

Deposits& arrive(const char* what, u32 mask, Place place) {
  Warp& warp = warp_of(*current);
  if (!(mask & current->bit())) die("not in the mask %08x of its own %s, %s:%d", mask, what, place.file, place.line);
  Meeting* meeting = nullptr;
  for (const auto& other : warp.meetings) {
    if (other->mask == mask && !all_came(warp, *other)) meeting = other.get();
  }
  if (!meeting) {
    warp.meetings.push_back(std::make_unique<Meeting>());
    meeting = warp.meetings.back().get();
    *meeting = {what, place, mask, 0, 0, {}};
    meeting->deposits.clear();
  }
  if (strcmp(meeting->what, what) != 0 || meeting->place.line != place.line) {
    die("at %s, %s:%d, while others of its warp are at %s, %s:%d", what, place.file, place.line, meeting->what,
        meeting->place.file, meeting->place.line);
  }
  meeting->arrived |= current->bit();
  current->place = place;
  current->meeting = meeting;
  return meeting->deposits;
}

void wait_for_warp() {
  current->status = Status::IN_MEETING;
  wake_if_all_came(warp_of(*current), *current->meeting);
  Fiber::suspend();
}

void leave() {
  Warp& warp = warp_of(*current);
  Meeting* const meeting = current->meeting;
  current->meeting = nullptr;
  meeting->left |= current->bit();
  if (meeting->left != meeting->arrived) return;
  for (auto& other : warp.meetings) {
    if (other.get() != meeting) continue;
    std::swap(other, warp.meetings.back());
    warp.meetings.pop_back();
    return;
  }
}

void copy_later(void* to, const void* from, u32 bytes, u32 zeros) {
  memset(to, POISON, bytes + zeros);
  current->copies.push_back({to, from, bytes, zeros});
}

void commit_copies() {
  current->groups.push_back(std::move(current->copies));
  current->copies.clear();
}

void wait_for_copies(u32 groups) {
  while (current->groups.size() > groups) {
    for (const Copy& copy : current->groups.front()) {
      memcpy(copy.to, copy.from, copy.bytes);
      memset((char*)copy.to + copy.bytes, 0, copy.zeros);
    }
    current->groups.pop_front();
  }
}

}  // namespace emulation
