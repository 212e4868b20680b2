// Kernels whose PTX the tests of the interpreter run, as the CUDA compiler writes it:
//
//   nvrtc 12.0, --gpu-architecture=compute_80 --std=c++17, kernels.cu -> kernels.ptx
//
// They are small, and use what the kernels of the project use, with the faults that are left in where a name says so.

typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

// A matrix of which the first `*live_rows` rows count.
struct Matrix {
  float* values;
  const u32* live_rows;
  u32 rows, columns, stride;
};

static __device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// c = a b, 16 x 16 results a block. Without `synchronised`, the barrier that keeps a tile until all have read it is missing.
template <bool synchronised>
static __device__ void product(const float* a, const float* b, float* c, int m, int n, int k) {
  __shared__ float tile_a[16][16], tile_b[16][17];
  const int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 16 + y, column = blockIdx.x * 16 + x;
  float sum = 0;
  for (int start = 0; start < k; start += 16) {
    tile_a[y][x] = row < m && start + x < k ? a[(u64)row * k + start + x] : 0;
    tile_b[y][x] = column < n && start + y < k ? b[(u64)(start + y) * n + column] : 0;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) sum = fmaf(tile_a[y][i], tile_b[i][x], sum);
    if (synchronised) __syncthreads();
  }
  if (row < m && column < n) c[(u64)row * n + column] = sum;
}

KERNEL(256) product_f32(const float* a, const float* b, float* c, int m, int n, int k) {
  product<true>(a, b, c, m, n, k);
}

KERNEL(256) product_f32_with_a_race(const float* a, const float* b, float* c, int m, int n, int k) {
  product<false>(a, b, c, m, n, k);
}

static __device__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

static __device__ void copy_16(void* shared, const void* global, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes));
}

// c = a b^T of bfloat16, 16 x 8 results a warp, with k a multiple of 16; groups of copies run `waits` ahead.
template <int waits>
static __device__ void product_bf16(const u16* a, const u16* b, float* c, int m, int n, int k) {
  __shared__ __align__(16) u16 tile_a[2][16][16], tile_b[2][8][16];
  const int lane = threadIdx.x, row = blockIdx.y * 16, column = blockIdx.x * 8;
  auto copy = [&](int start, int stage) {
    const int line = lane / 2, half = lane % 2 * 8;
    const bool a_there = row + line < m, b_there = column + line < n;
    copy_16(&tile_a[stage][line][half], a + (a_there ? (u64)(row + line) * k + start + half : 0), a_there);
    if (line < 8) copy_16(&tile_b[stage][line][half], b + (b_there ? (u64)(column + line) * k + start + half : 0), b_there);
  };
  float d[4] = {0, 0, 0, 0};
  copy(0, 0);
  asm volatile("cp.async.commit_group;");
  for (int start = 0; start < k; start += 16) {
    const int stage = start / 16 % 2;
    if (start + 16 < k) copy(start + 16, 1 - stage);
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group %0;" ::"n"(waits));
    __syncwarp();
    u32 fa[4], fb[2];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                 : "r"(shared_address(&tile_a[stage][lane % 16][lane / 16 * 8])));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fb[0]), "=r"(fb[1])
                 : "r"(shared_address(&tile_b[stage][lane % 8][lane / 8 % 2 * 8])));
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    __syncwarp();
  }
  for (int i = 0; i < 4; i++) {
    const int r = row + lane / 4 + i / 2 * 8, s = column + lane % 4 * 2 + i % 2;
    if (r < m && s < n) c[(u64)r * n + s] = d[i];
  }
}

KERNEL(32) product_bf16(const u16* a, const u16* b, float* c, int m, int n, int k) { product_bf16<1>(a, b, c, m, n, k); }

KERNEL(32) product_bf16_that_waits_too_little(const u16* a, const u16* b, float* c, int m, int n, int k) {
  product_bf16<2>(a, b, c, m, n, k);
}

// The softmax of each row, a warp a row.
KERNEL(128) softmax(Matrix x, Matrix y) {
  const u32 row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 rows = x.live_rows ? *x.live_rows : x.rows;
  if (row >= rows) return;
  const float* from = x.values + (u64)row * x.stride;
  float most = -__int_as_float(0x7f800000);
  for (u32 i = lane; i < x.columns; i += 32) most = fmaxf(most, from[i]);
  for (int offset = 16; offset > 0; offset /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, offset));
  float sum = 0;
  for (u32 i = lane; i < x.columns; i += 32) sum += expf(from[i] - most);
  sum = warp_sum(sum);
  for (u32 i = lane; i < x.columns; i += 32) y.values[(u64)row * y.stride + i] = expf(from[i] - most) / sum;
}

// As it should not be: lanes beyond the columns leave the loop before the others shuffle in it.
KERNEL(32) divergent_sums(const float* x, float* sums, u32 columns) {
  for (u32 i = threadIdx.x; i < columns; i += 32) {
    const float sum = warp_sum(x[i]);
    if (threadIdx.x == 0) sums[i / 32] = sum;
  }
}

// The sum of n numbers in f64: each block leaves a part, and the last one adds the parts in their order.
KERNEL(64) sum_f64(const double* x, u32 n, volatile double* parts, double* result, u32* counter) {
  __shared__ double all[64];
  __shared__ bool last;
  double sum = 0;
  for (u32 i = blockIdx.x * 64 + threadIdx.x; i < n; i += gridDim.x * 64) sum += x[i];
  all[threadIdx.x] = sum;
  __syncthreads();
  for (u32 half = 32; half > 0; half /= 2) {
    if (threadIdx.x < half) all[threadIdx.x] += all[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = all[0];
    __threadfence();
    last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
    if (last) {
      double total = 0;
      for (u32 i = 0; i < gridDim.x; i++) total += parts[i];
      *result = total;
    }
  }
}

// How often each of 64 keys is there, counted a warp at a time: one atomic for equal keys.
KERNEL(128) histogram(const u32* keys, u32 n, u32* counts) {
  __shared__ u32 local[64];
  if (threadIdx.x < 64) local[threadIdx.x] = 0;
  __syncthreads();
  const u32 i = blockIdx.x * 128 + threadIdx.x, key = i < n ? keys[i] : 64;
  const u32 same = __match_any_sync(~0u, key);
  if (i < n && (same & ((1u << threadIdx.x % 32) - 1)) == 0) atomicAdd(&local[key], __popc(same));
  if (__syncthreads_or(i < n) && threadIdx.x < 64) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

static __device__ __noinline__ float horner(float x, int degree) {
  float value = 0;
  for (int i = degree; i >= 0; i--) value = value * x + 1.f / (i + 1);
  return value;
}

// Functions of the compiler's library, a table of branches, calls, and arrays that live in memory of the thread.
KERNEL(64) functions(const float* x, float* y, int n) {
  const int i = blockIdx.x * 64 + threadIdx.x;
  if (i >= n) return;
  const float v = x[i];
  float value;
  switch (i % 12) {
    case 0: value = expf(v); break;
    case 1: value = logf(fabsf(v)); break;
    case 2: value = sinf(v); break;
    case 3: value = cosf(v * 1e6f); break;
    case 4: value = tanhf(v); break;
    case 5: value = log1pf(fabsf(v)); break;
    case 6: value = powf(fabsf(v), 1.7f); break;
    case 7: value = erff(v); break;
    case 8: value = rsqrtf(fabsf(v)) + sqrtf(fabsf(v)); break;
    case 9: value = expm1f(v); break;
    case 10: value = horner(v, i % 5); break;
    default: value = fmodf(v, 0.3f) + roundf(v) + truncf(v); break;
  }
  y[i] = value;
}

static __constant__ int primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
static __device__ u32 launches = 0;

KERNEL(32) integers(const u64* a, const u64* b, u64* c, u32* launched) {
  const int i = threadIdx.x;
  int own[8];
#pragma unroll 1
  for (int k = 0; k < 8; k++) own[(k * 3 + i) % 8] = primes[k] * i;
  u64 value = a[i] / b[i] ^ a[i] % b[i] ^ __umul64hi(a[i], b[i]) ^ (u64)own[(i * 5) & 7];
  value += (u64)__popcll(a[i]) << 32 | (u32)__clzll((long long)(a[i] >> (i & 31)));
  value ^= (u64)((long long)a[i] / (long long)(b[i] | 1)) ^ __brevll(b[i]);
  value += __funnelshift_l((u32)a[i], (u32)b[i], i) + __byte_perm((u32)a[i], (u32)b[i], 0x4170);
  c[i] = value ^ (u64)((long long)a[i] >> (i & 63));
  if (i == 0) *launched = ++launches;
}
