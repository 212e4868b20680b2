// Activation functions as kernels of their own.
//
// Floor: the bytes, read once and written once; the arithmetic of a value, some 40 instructions at most (tanh), hides
// behind them.
#include "activation.cuh"
#include "share.cuh"

// y = act(x). `x` may be `y`.
KERNEL(256) activate(Activation act, Mat x, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_share(x, share, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = activated(act, values[i]);
  store_share(y, share, values);
}

// dx = dy * act' or, accumulating, dx += dy * act', with the derivative at the output `y`. `dy` may be `dx`.
KERNEL(256) activation_dx(Activation act, Mat y, Mat dy, u32 accumulate, Mat dx) {
  const Share share = share_of_thread(dx);
  if (is_empty(share)) return;
  ShareBits of_y, of_dy;
  load_share(y, share, of_y);
  load_share(dy, share, of_dy);
  float outputs[8], values[8];
  values_of(of_y, y, outputs);
  values_of(of_dy, dy, values);
#pragma unroll
  for (u32 i = 0; i < 8; i++) values[i] = __fmul_rn(values[i], slope_from_output(act, outputs[i]));
  put_share(dx, share, accumulate, values);
}
