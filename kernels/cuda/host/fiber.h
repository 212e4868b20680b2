// Functions with a stack of their own that take turns on one thread of the processor.
#pragma once

#include <cstddef>

namespace emulation {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next `resume` begin `function`, which may return once.
  void begin(void (*function)());
  // Runs this fiber until it suspends itself or its function returns.
  void resume();
  // Goes back to whoever resumed the fiber that is running.
  static void suspend();

  struct State;

 private:
  State* const state;
};

}  // namespace emulation
