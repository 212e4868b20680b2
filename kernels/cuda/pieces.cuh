// Pieces of the flat parameters and of what is laid out like them, which a block takes, and how a gradient is clipped.
#pragma once

#include "common.cuh"

#define THREADS 256
// Parameters of a block, from a multiple of as many on.
#define SPAN (4 * THREADS)

// Parameters of one group inside one span: `Piece` of optim.rs.
struct alignas(16) Piece {
  u64 offset;
  u32 length, group;
};

// Four values whose address is a multiple of 16: those from `begin` to below `end` belong to the piece.
struct Quad {
  u64 offset;
  u32 begin, end;
};

// The quad of this thread in `piece`, which lies in one span.
DEVICE Quad quad_of_thread(const Piece& piece) {
  const u32 from = piece.offset % SPAN, to = from + piece.length, here = 4 * threadIdx.x;
  const u32 begin = max(from, here), end = min(to, here + 4);
  return {piece.offset - from + here, begin - here, end > begin ? end - here : 0};
}

DEVICE void load_quad(const float* values, const Quad& at, float (&quad)[4]) {
  const float* from = values + at.offset;
  if (at.begin == 0 && at.end == 4) {
    const float4 all = *(const float4*)from;
    quad[0] = all.x, quad[1] = all.y, quad[2] = all.z, quad[3] = all.w;
  } else {
#pragma unroll
    for (u32 i = 0; i < 4; i++) quad[i] = i >= at.begin && i < at.end ? from[i] : 0.0f;
  }
}

DEVICE void store_quad(float* values, const Quad& at, const float (&quad)[4]) {
  float* to = values + at.offset;
  if (at.begin == 0 && at.end == 4) {
    *(float4*)to = make_float4(quad[0], quad[1], quad[2], quad[3]);
  } else {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      if (i >= at.begin && i < at.end) to[i] = quad[i];
    }
  }
}

// `gradient` times the factor, inside the limit. NaN stays NaN.
DEVICE float clipped(float gradient, float factor, float limit) {
  const float scaled = __fmul_rn(gradient, factor);
  return scaled > limit ? limit : scaled < -limit ? -limit : scaled;
}
