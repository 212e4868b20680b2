// Rows by cluster, where a cluster is computed: the choice of each row, the order of rows by it, rows moved to that
// order and back, and centres that follow the rows.
//
// Floor: the bytes of rows that are moved, once read and once written; 65,536 rows of 512 values in f32: 268 MB, 62 us
// on an H200 (4.3 TB/s). Scores and choices are a few bytes a row, centres a few thousand values: starting the kernels
// takes longer.
//
// The order is that of a counting sort, in two launches: chunks of rows count their clusters, then each takes its
// places from the counts of all chunks. Rows of one cluster keep their order, so the same batch gives the same bits.
#include "block_scan.cuh"
#include "block_sum.cuh"
#include "share.cuh"

// Also the most clusters: a thread knows all about one.
constexpr u32 THREADS = 256;
constexpr u32 WARPS = THREADS / 32;
// Rows of a chunk, THREADS at a time.
constexpr u32 ITEMS = 4;
constexpr u32 CHUNK = ITEMS * THREADS;

// y = the column of the largest value of each row of z, of equal ones the first.
KERNEL(THREADS) route(Mat z, Mat y) {
  const u32 row = blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows_of(z)) return;
  float largest = load_value(z, row, 0);
  u32 best = 0;
  for (u32 k = 1; k < z.cols; k++) {
    const float value = load_value(z, row, k);
    if (value > largest) largest = value, best = k;
  }
  store_value(y, row, 0, (float)best);
}

// The cluster of a row, of so many.
DEVICE u32 cluster_of(const Mat& route, u32 clusters, u32 row) {
  return (u32)fminf(fmaxf(load_value(route, row, 0), 0.0f), (float)(clusters - 1));
}

// How many rows of each cluster every chunk has: `counts` [chunks, clusters].
KERNEL(THREADS) count_clusters(Mat route, u32 clusters, u32* counts) {
  SHARED u32 of_chunk[THREADS];
  const u32 rows = rows_of(route), from = blockIdx.x * CHUNK;
  if (from >= rows) return;
  of_chunk[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    const u32 row = from + i * THREADS + threadIdx.x;
    if (row < rows) atomicAdd(&of_chunk[cluster_of(route, clusters, row)], 1);
  }
  __syncthreads();
  if (threadIdx.x < clusters) counts[blockIdx.x * clusters + threadIdx.x] = of_chunk[threadIdx.x];
}

// The lanes that have the same number, below 2 * THREADS: a vote for each bit.
DEVICE u32 equal_lanes(u32 number) {
  u32 equal = FULL_WARP;
#pragma unroll
  for (u32 bit = 1; bit <= THREADS; bit *= 2) {
    const bool own = number & bit;
    const u32 lanes = __ballot_sync(FULL_WARP, own);
    equal &= own ? lanes : ~lanes;
  }
  return equal;
}

// `order`: the rows of the first cluster, then those of the next. `starts`: the first place of each and the one behind
// the last, then how many tiles of `tile` rows those before it make, and all.
KERNEL(THREADS) order_rows(Mat route, u32 clusters, const u32* counts, u32 tile, u32* starts, u32* order) {
  // Where the next row of a cluster goes that a warp has.
  SHARED u32 places[WARPS][THREADS];
  SHARED ScanSpace space;
  const u32 rows = rows_of(route), from = blockIdx.x * CHUNK, chunks = (rows + CHUNK - 1) / CHUNK;
  const u32 own = threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 before = 0, all = 0, total;
  if (own < clusters) {
#pragma unroll 8
    for (u32 chunk = 0; chunk < chunks; chunk++) {
      const u32 count = counts[chunk * clusters + own];
      before += chunk < blockIdx.x ? count : 0;
      all += count;
    }
  }
  const u32 first = sum_before(all, total, space);
  if (blockIdx.x == 0) {
    u32 tiles;
    const u32 first_tile = sum_before((all + tile - 1) / tile, tiles, space);
    u32* const tile_starts = starts + clusters + 1;
    if (own < clusters) starts[own] = first, tile_starts[own] = first_tile;
    if (own == 0) starts[clusters] = total, tile_starts[clusters] = tiles;
  }
  if (from >= rows) return;
  u32 next = first + before;
#pragma unroll
  for (u32 i = 0; i < ITEMS; i++) {
    for (u32 w = 0; w < WARPS; w++) places[w][own] = 0;
    __syncthreads();
    const u32 row = from + i * THREADS + threadIdx.x;
    const u32 cluster = row < rows ? cluster_of(route, clusters, row) : THREADS;
    const u32 equal = equal_lanes(cluster), rank = __popc(equal & ((1u << lane) - 1));
    if (row < rows && rank == 0) places[warp][cluster] = __popc(equal);
    __syncthreads();
    for (u32 w = 0; w < WARPS; w++) {
      const u32 count = places[w][own];
      places[w][own] = next;
      next += count;
    }
    __syncthreads();
    if (row < rows) order[places[warp][cluster] + rank] = row;
    __syncthreads();
  }
}

// The columns of a share in the rows that stand at its places.
DEVICE Share of_ordered(const Share& share, const u32* order) {
  Share rows = share;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    if (share.of[i].count > 0) rows.of[i].row = order[share.of[i].row];
  }
  return rows;
}

// Rows of `from` in their order.
KERNEL(THREADS) gather_rows(const u32* order, Mat from, Mat to) {
  const Share share = share_of_thread(to);
  if (is_empty(share)) return;
  float values[8];
  load_share(from, of_ordered(share, order), values);
  store_share(to, share, values);
}

// Rows that stand in the order back where they were, written or added.
KERNEL(THREADS) scatter_rows(const u32* order, Mat from, u32 accumulate, Mat to) {
  const Share share = share_of_thread(from);
  if (is_empty(share)) return;
  float values[8];
  load_share(from, share, values);
  put_share(to, of_ordered(share, order), accumulate, values);
}

// A centre, a row of each matrix, and the length of what the old one and its pull make together.
struct Moved {
  float beta;
  const float *old, *pull;
  float length;

  DEVICE float at(u32 col) const { return __fadd_rn(__fmul_rn(beta, old[col]), __fmul_rn(1.0f - beta, pull[col])); }

  DEVICE Moved(float beta, float shortest, const Mat& centers, const Mat& pulls, double (&sums)[THREADS])
      : beta(beta), old(row_f32(centers, blockIdx.x)), pull(row_f32(pulls, blockIdx.x)) {
    double squares = 0.0;
    for (u32 col = threadIdx.x; col < centers.cols; col += THREADS) {
      const double value = at(col);
      squares = fma(value, value, squares);
    }
    block_sum(squares, sums);
    __syncthreads();
    length = fmaxf((float)sqrt(sums[0]), shortest);
    __syncthreads();
  }
};

// to = v / |v|, row by row, v = beta * old + (1 - beta) * pull; a length below `shortest` is that. A block takes a row.
KERNEL(THREADS) move_centers(float beta, float shortest, Mat old, Mat pull, Mat to) {
  SHARED double sums[THREADS];
  const Moved moved(beta, shortest, old, pull, sums);
  const float scale = 1.0f / moved.length;
  for (u32 col = threadIdx.x; col < to.cols; col += THREADS) {
    row_f32(to, blockIdx.x)[col] = __fmul_rn(scale, moved.at(col));
  }
}

// The gradients of `move_centers`, of those at its output `unit`: dv = (dy - unit (unit . dy)) / |v|, times beta to
// d_old and times 1 - beta to d_pull, written or added, unless they have no data.
KERNEL(THREADS)
move_centers_backward(float beta, float shortest, Mat old, Mat pull, Mat unit, Mat dy, u32 add_old, Mat d_old,
                      u32 add_pull, Mat d_pull) {
  SHARED double sums[THREADS];
  const Moved moved(beta, shortest, old, pull, sums);
  const float* const of_unit = row_f32(unit, blockIdx.x);
  const float* const of_dy = row_f32(dy, blockIdx.x);
  double product = 0.0;
  for (u32 col = threadIdx.x; col < unit.cols; col += THREADS) {
    product = fma((double)of_unit[col], (double)of_dy[col], product);
  }
  block_sum(product, sums);
  __syncthreads();
  const float along = (float)sums[0];
  const auto put = [&](const Mat& to, u32 accumulate, float share) {
    if (!to.data) return;
    float* const row = row_f32(to, blockIdx.x);
    const float scale = share / moved.length;
    for (u32 col = threadIdx.x; col < to.cols; col += THREADS) {
      row[col] = fmaf(scale, fmaf(-of_unit[col], along, of_dy[col]), accumulate ? row[col] : 0.0f);
    }
  };
  put(d_old, add_old, beta);
  put(d_pull, add_pull, 1.0f - beta);
}

// Centres as the state of the next step, unless `*go_on` is 0.
KERNEL(THREADS) keep_centers(const u32* go_on, const float* centers, u32 count, float* state) {
  const u32 i = blockIdx.x * THREADS + threadIdx.x;
  if (*go_on != 0 && i < count) state[i] = centers[i];
}
