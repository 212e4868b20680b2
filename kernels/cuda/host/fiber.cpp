#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__

// Saves what a called function must keep and the stack pointer, and takes over another's.
asm(R"(
.text
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");
extern "C" void emulation_switch(void** saved, void* next);

struct Context {
  void* stack_pointer = nullptr;

  void begin(char* stack, size_t bytes, void (*entry)()) {
    // As if `entry` had been called: the stack is 8 bytes off a multiple of 16.
    void** top = (void**)(stack + bytes) - 1;
    *--top = (void*)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    stack_pointer = top;
  }
  void switch_to(Context& next) { emulation_switch(&stack_pointer, next.stack_pointer); }
};

#else

#include <ucontext.h>

struct Context {
  ucontext_t context;

  void begin(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    makecontext(&context, entry, 0);
  }
  void switch_to(Context& next) { swapcontext(&context, &next.context); }
};

#endif

namespace emulation {

struct Fiber::State {
  Context context;
  // Below it lies a page that nobody may touch.
  char* stack;
  void (*function)();
  void* fake_stack;
};

namespace {

constexpr size_t STACK_BYTES = 128 << 10;
const size_t PAGE_BYTES = sysconf(_SC_PAGESIZE);

Context resumer;
const void* resumer_stack;
size_t resumer_bytes;

// AddressSanitizer has to be told of each switch of stacks: before, of the one that comes, and after.
#ifdef __SANITIZE_ADDRESS__
void before_switch(void** fake_stack, const void* stack, size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
void after_switch(void* fake_stack, const void** stack, size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
}
#else
void before_switch(void**, const void*, size_t) {}
void after_switch(void*, const void**, size_t*) {}
#endif

}  // namespace

// The fiber that runs.
static Fiber::State* running;

Fiber::Fiber() : state(new State()) {
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void* const memory = mmap(nullptr, PAGE_BYTES + STACK_BYTES, protection, flags, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, PAGE_BYTES, PROT_NONE) != 0) {
    perror("a stack for a thread");
    abort();
  }
  state->stack = (char*)memory + PAGE_BYTES;
}

Fiber::~Fiber() {
  munmap(state->stack - PAGE_BYTES, PAGE_BYTES + STACK_BYTES);
  delete state;
}

static void entry() {
  after_switch(nullptr, &resumer_stack, &resumer_bytes);
  running->function();
  before_switch(nullptr, resumer_stack, resumer_bytes);
  running->context.switch_to(resumer);
  abort();
}

void Fiber::begin(void (*function)()) {
#ifdef __SANITIZE_ADDRESS__
  // The frame of an earlier `entry` was never left.
  __asan_unpoison_memory_region(state->stack, STACK_BYTES);
#endif
  state->function = function;
  state->context.begin(state->stack, STACK_BYTES, entry);
}

void Fiber::resume() {
  running = state;
  void* fake_stack = nullptr;
  before_switch(&fake_stack, state->stack, STACK_BYTES);
  resumer.switch_to(state->context);
  after_switch(fake_stack, nullptr, nullptr);
}

void Fiber::suspend() {
  State* const self = running;
  before_switch(&self->fake_stack, resumer_stack, resumer_bytes);
  self->context.switch_to(resumer);
  after_switch(self->fake_stack, &resumer_stack, &resumer_bytes);
}

}  // namespace emulation
