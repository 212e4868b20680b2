// Products of linear layers in bf16 for Hopper, see gemm.cu: kernels of the same names, grids and arguments, by the
// instructions of that architecture alone.
#include "copied_sums.cuh"
#include "gemm.cuh"
#include "product_hopper.cuh"

KERNEL_SHARING(THREADS, 2) linear_bf16(Mat x, Mat weight, Heads heads, Mat y) {
  DYNAMIC_SHARED(shared);
  linear<ProductHopper<true, true>>(x, weight, heads, y, shared);
}

KERNEL_SHARING(THREADS, 2)
linear_dx_bf16(Mat dy, Mat weight, u32 accumulate, Activation activation, Mat masked, Mat dx) {
  DYNAMIC_SHARED(shared);
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
