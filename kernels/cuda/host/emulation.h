// CUDA as host C++: what kernel files use of the language and its built-in functions, on the threads of scheduler.h.
//
// For looking at kernels with a debugger, printf, AddressSanitizer and UndefinedBehaviorSanitizer. It runs the source;
// the PTX that ships is run by the interpreter of the tests.
#pragma once

#include <math.h>

#include <algorithm>
#include <type_traits>

#include "scheduler.h"

#define DEVICE inline
#define KERNEL(THREADS) extern "C" void
// In a section of its own, so that all of it can be poisoned before each block.
#define SHARED static __attribute__((section("emulated_shared")))
#define DYNAMIC_SHARED(name) unsigned char* const name = emulation::dynamic_shared()

#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__ __restrict

// Vectors

template <class T, int BYTES>
struct alignas(BYTES) emulated_vector2 {
  T x, y;
};
template <class T, int BYTES>
struct alignas(BYTES) emulated_vector4 {
  T x, y, z, w;
};
typedef emulated_vector2<float, 8> float2;
typedef emulated_vector2<int, 8> int2;
typedef emulated_vector2<u32, 8> uint2;
typedef emulated_vector2<double, 16> double2;
typedef emulated_vector2<u64, 16> ulonglong2;
typedef emulated_vector4<float, 16> float4;
typedef emulated_vector4<int, 16> int4;
typedef emulated_vector4<u32, 16> uint4;

static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// Bits

template <class To, class From>
static inline To emulated_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}
static inline float __uint_as_float(u32 v) { return emulated_bits<float>(v); }
static inline float __int_as_float(int v) { return emulated_bits<float>(v); }
static inline u32 __float_as_uint(float v) { return emulated_bits<u32>(v); }
static inline int __float_as_int(float v) { return emulated_bits<int>(v); }
static inline double __longlong_as_double(long long v) { return emulated_bits<double>(v); }
static inline long long __double_as_longlong(double v) { return emulated_bits<long long>(v); }

static inline int __popc(u32 v) { return __builtin_popcount(v); }
static inline int __popcll(u64 v) { return __builtin_popcountll(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v ? __builtin_clz((u32)v) : 32; }
static inline int __clzll(long long v) { return v ? __builtin_clzll((u64)v) : 64; }
static inline u32 __umulhi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
static inline u64 __umul64hi(u64 a, u64 b) { return (u64)((unsigned __int128)a * b >> 64); }
static inline u32 __funnelshift_l(u32 low, u32 high, u32 by) {
  return (u32)((((u64)high << 32 | low) << (by & 31)) >> 32);
}
static inline u32 __funnelshift_r(u32 low, u32 high, u32 by) { return (u32)(((u64)high << 32 | low) >> (by & 31)); }
// Byte i is byte `(selector >> 4 i) & 7` of `high:low`.
static inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
  const u64 both = (u64)high << 32 | low;
  u32 result = 0;
  for (u32 i = 0; i < 4; i++) result |= (u32)(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return result;
}

// The nearest bf16, of two the even one; a NaN becomes the canonical one.
static inline unsigned short emulated_to_bf16(float value) {
  const u32 bits = __float_as_uint(value);
  if (value != value) return 0x7fff;
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Numbers. Products and sums are compiled without contraction, so each is rounded.

template <class A, class B>
static inline std::common_type_t<A, B> min(A a, B b) {
  typedef std::common_type_t<A, B> T;
  if constexpr (std::is_floating_point_v<T>) return (T)fmin(a, b);
  return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B>
static inline std::common_type_t<A, B> max(A a, B b) {
  typedef std::common_type_t<A, B> T;
  if constexpr (std::is_floating_point_v<T>) return (T)fmax(a, b);
  return (T)a > (T)b ? (T)a : (T)b;
}
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
// Functions of these names are the C library's own.
#define __expf expf
#define __logf logf
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float v) { return 1.0f / v; }
static inline float __fsqrt_rn(float v) { return sqrtf(v); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __uint2float_rn(u32 v) { return (float)v; }
static inline float __int2float_rn(int v) { return (float)v; }

// Memory

template <class T>
static inline T __ldg(const T* from) { return *from; }
template <class T>
static inline T __ldcs(const T* from) { return *from; }
template <class T>
static inline T __ldcg(const T* from) { return *from; }
template <class T>
static inline void __stcs(T* to, T value) { *to = value; }
template <class T>
static inline void __stcg(T* to, T value) { *to = value; }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Lets another thread be first, does it, and gives what was there.
template <class T, class New>
static inline T emulated_atomic(T* at, const New& new_value) {
  emulation::let_others_run();
  const T old = *at;
  *at = new_value(old);
  return old;
}
template <class T>
static inline T atomicAdd(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return (T)(old + v); });
}
template <class T>
static inline T atomicMax(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return max(old, v); });
}
template <class T>
static inline T atomicMin(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return min(old, v); });
}
template <class T>
static inline T atomicAnd(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return old & v; });
}
template <class T>
static inline T atomicOr(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return old | v; });
}
template <class T>
static inline T atomicExch(T* at, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T) { return v; });
}
template <class T>
static inline T atomicCAS(T* at, std::common_type_t<T> expected, std::common_type_t<T> v) {
  return emulated_atomic(at, [=](T old) { return old == expected ? v : old; });
}

// Waiting for the block and for the warp. The place is that of the caller.

#define EMULATED_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(EMULATED_CALLER) { emulation::wait_for_block({file, line}); }
static inline void __syncwarp(u32 mask = 0xffffffff, EMULATED_CALLER) {
  emulation::together("__syncwarp", mask, {file, line}, 0, [](const emulation::Deposits&) { return 0; });
}

template <class T>
static inline T emulated_shuffle(const char* what, u32 mask, T value, u32 from, emulation::Place place) {
  return emulation::together(what, mask, place, value,
                             [=](const emulation::Deposits& all) { return all.get<T>(from); });
}
// The lane that another one reads from, if both are in the same part of `width` lanes, else itself.
static inline u32 emulated_lane(u32 from, u32 width) {
  const u32 own = emulation::lane();
  return own / width == from / width ? from : own;
}
template <class T>
static inline T __shfl_sync(u32 mask, T value, u32 from, u32 width = 32, EMULATED_CALLER) {
  const u32 first = emulation::lane() / width * width;
  return emulated_shuffle("__shfl_sync", mask, value, first + from % width, {file, line});
}
template <class T>
static inline T __shfl_xor_sync(u32 mask, T value, u32 with, u32 width = 32, EMULATED_CALLER) {
  return emulated_shuffle("__shfl_xor_sync", mask, value, emulated_lane(emulation::lane() ^ with, width), {file, line});
}
template <class T>
static inline T __shfl_up_sync(u32 mask, T value, u32 by, u32 width = 32, EMULATED_CALLER) {
  return emulated_shuffle("__shfl_up_sync", mask, value, emulated_lane(emulation::lane() - by, width), {file, line});
}
template <class T>
static inline T __shfl_down_sync(u32 mask, T value, u32 by, u32 width = 32, EMULATED_CALLER) {
  return emulated_shuffle("__shfl_down_sync", mask, value, emulated_lane(emulation::lane() + by, width), {file, line});
}

// The lanes of `mask` whose value is as `agrees` wants it.
template <class T, class Agrees>
static inline u32 emulated_vote(const char* what, u32 mask, T value, emulation::Place place, const Agrees& agrees) {
  return emulation::together(what, mask, place, value, [=](const emulation::Deposits& all) {
    u32 lanes = 0;
    for (u32 i = 0; i < emulation::WARP; i++) {
      // A lane that has returned has no vote.
      if (all.is_there(i) && agrees(all.get<T>(i))) lanes |= 1u << i;
    }
    return lanes;
  });
}
static inline u32 __ballot_sync(u32 mask, bool value, EMULATED_CALLER) {
  return emulated_vote("__ballot_sync", mask, value, {file, line}, [](bool v) { return v; });
}
static inline int __any_sync(u32 mask, bool value, EMULATED_CALLER) {
  return emulated_vote("__any_sync", mask, value, {file, line}, [](bool v) { return v; }) != 0;
}
static inline int __all_sync(u32 mask, bool value, EMULATED_CALLER) {
  return emulated_vote("__all_sync", mask, value, {file, line}, [](bool v) { return !v; }) == 0;
}
template <class T>
static inline u32 __match_any_sync(u32 mask, T value, EMULATED_CALLER) {
  return emulated_vote("__match_any_sync", mask, value, {file, line}, [=](T v) { return v == value; });
}

// The value of all lanes of `mask`, put together by `join`.
template <class T, class Join>
static inline T emulated_reduction(const char* what, u32 mask, T value, emulation::Place place, const Join& join) {
  return emulation::together(what, mask, place, value, [=](const emulation::Deposits& all) {
    T joined = value;
    for (u32 i = 0; i < emulation::WARP; i++) {
      if (i != emulation::lane() && all.is_there(i)) joined = join(joined, all.get<T>(i));
    }
    return joined;
  });
}
template <class T>
static inline T __reduce_add_sync(u32 mask, T value, EMULATED_CALLER) {
  return emulated_reduction("__reduce_add_sync", mask, value, {file, line}, [](T a, T b) { return a + b; });
}
template <class T>
static inline T __reduce_max_sync(u32 mask, T value, EMULATED_CALLER) {
  return emulated_reduction("__reduce_max_sync", mask, value, {file, line}, [](T a, T b) { return max(a, b); });
}
template <class T>
static inline T __reduce_min_sync(u32 mask, T value, EMULATED_CALLER) {
  return emulated_reduction("__reduce_min_sync", mask, value, {file, line}, [](T a, T b) { return min(a, b); });
}

#include "tensor_core.h"
