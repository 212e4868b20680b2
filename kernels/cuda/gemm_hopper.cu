// Products of linear layers in bf16 for Hopper, see gemm.cu: kernels of the same names, grids and arguments, by the
// instructions of that architecture alone.
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

KERNEL_SHARING(THREADS, 2) linear_dw_bf16(Mat dy, Mat x, u32 accumulate, Mat dw) {
  DYNAMIC_SHARED(shared);
  linear_dw<ProductHopper<false, false>>(dy, x, accumulate, dw, shared);
}
