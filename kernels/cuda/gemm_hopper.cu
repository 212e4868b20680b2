// Products of linear layers in bf16 for Hopper, see gemm.cu: kernels of the same names, grids and arguments, by the
// instructions of that architecture alone.
#include "copied_sums.cuh"
#include "gemm.cuh"
#include "prefetch.cuh"
#include "product_hopper.cuh"

KERNEL_SHARING(THREADS, 2) linear_bf16(Mat x, Mat weight, Heads heads, Mat y) {
  DYNAMIC_SHARED(shared);
  linear<ProductHopper<true, true>>(x, weight, heads, y, shared);
}

// Has what a matrix has where the tile of this block is brought to the second-level cache: two threads a row.
DEVICE void ask_for_tile(const Mat& mat, const Part& part, u32 rows) {
  const u32 row = part.row + threadIdx.x / 2, line = CACHE_LINE / element_bytes(mat);
  if (row >= rows) return;
  for (u32 col = part.col + threadIdx.x % 2 * line; col < min(mat.cols, part.col + TILE); col += 2 * line) {
    prefetch(address_of(mat, row, col));
  }
}

KERNEL_SHARING(THREADS, 2)
linear_dx_bf16(Mat dy, Mat weight, u32 accumulate, Activation activation, Mat masked, Mat dx) {
  DYNAMIC_SHARED(shared);
  // Where the inner index is short, what sums end in takes longer to come than they take to be made.
  const u32 in = weight.cols, first = blockIdx.z * in, rows = rows_of(dy);
  const Part part = part_of_block<ProductHopper<true, false>>(in, 0);
  if (activation.kind != IDENTITY) ask_for_tile(columns_of(masked, first, in), part, rows);
  if (accumulate) ask_for_tile(columns_of(dx, first, in), part, rows);
  linear_dx<ProductHopper<true, false>>(dy, weight, accumulate, activation, masked, dx, shared);
}

// The same for the gradient of a weight, and of the bias beside it: where `sums` has data, the sums of columns of dy, of
// the columns of all groups, in as many rows as there are chunks, tiles of columns of x, and warps.
KERNEL_SHARING(THREADS, 2) linear_dw_bf16(Mat dy, Mat x, u32 accumulate, Mat dw, Mat sums) {
  DYNAMIC_SHARED(shared);
  const WeightPart<ProductHopper<false, false>> own(dy, x, dw);
  const u32 turn = own.part.col / TILE, turns = tiles_of(own.b.run, TILE), warps = THREADS / 32;
  CopiedSums columns(sums.data ? turn : NEVER, turns);
  if (own.is_there()) {
    ProductHopper<false, false> product;
    sum_tile(product, own.a, own.b, own.part, shared, columns);
    Gradient end(own.to, accumulate, Activation{IDENTITY, 0.0f}, own.to);
    finish_tile(product, own.part, own.out, end, shared);
  }
  if (sums.data) {
    const u32 row = (own.chunk * turns + turn) * warps + threadIdx.x / 32, first = own.group * own.out;
    columns.store(sums, row, first + own.part.row, first + own.out);
  }
}
