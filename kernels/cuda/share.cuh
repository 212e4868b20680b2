// What a thread of an element-wise kernel takes of a matrix: twice four columns of a row. Neighbours take neighbouring
// columns, so that a warp reads and writes whole lines; two reads a thread are enough bytes in flight.
#pragma once

#include "common.cuh"

// Four columns of a row; the last of a row may be fewer, and there are none beyond the rows that are there.
struct Columns {
  u32 row, first, count;
};

struct Share {
  Columns of[2];
};

// The share of this thread in the rows that are there.
DEVICE Share share_of_thread(const Mat& mat) {
  const u32 in_row = (mat.cols + 3) / 4, rows = rows_of(mat);
  Share share;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 index = (2 * blockIdx.x + i) * blockDim.x + threadIdx.x;
    const u32 row = index / in_row, first = 4 * (index % in_row);
    share.of[i] = {row, first, row < rows ? min(4u, mat.cols - first) : 0};
  }
  return share;
}

// Whether nothing is left for this thread.
DEVICE bool is_empty(const Share& share) { return share.of[0].count == 0; }

// Reads four columns; what is not there is 0.
DEVICE void load_columns(const Mat& mat, const Columns& at, float* values) {
  if (mat.element == ELEMENT_F32) {
    const float* from = row_f32(mat, at.row) + at.first;
    if (at.count == 4 && (u64)from % 16 == 0) {
      const float4 all = *(const float4*)from;
      values[0] = all.x, values[1] = all.y, values[2] = all.z, values[3] = all.w;
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] = i < at.count ? from[i] : 0.0f;
    }
  } else {
    const bf16* from = row_bf16(mat, at.row) + at.first;
    if (at.count == 4 && (u64)from % 8 == 0) {
      const uint2 all = *(const uint2*)from;
      values[0] = __uint_as_float(all.x << 16), values[1] = __uint_as_float(all.x & 0xffff0000u);
      values[2] = __uint_as_float(all.y << 16), values[3] = __uint_as_float(all.y & 0xffff0000u);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] = i < at.count ? to_f32(from[i]) : 0.0f;
    }
  }
}

DEVICE u32 packed(float low, float high) { return to_bf16(low).bits | (u32)to_bf16(high).bits << 16; }

// Writes four columns.
DEVICE void store_columns(const Mat& mat, const Columns& at, const float* values) {
  if (mat.element == ELEMENT_F32) {
    float* to = row_f32(mat, at.row) + at.first;
    if (at.count == 4 && (u64)to % 16 == 0) {
      *(float4*)to = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (i < at.count) to[i] = values[i];
      }
    }
  } else {
    bf16* to = row_bf16(mat, at.row) + at.first;
    if (at.count == 4 && (u64)to % 8 == 0) {
      *(uint2*)to = make_uint2(packed(values[0], values[1]), packed(values[2], values[3]));
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (i < at.count) to[i] = to_bf16(values[i]);
      }
    }
  }
}

// Reads a share; what is not there is 0.
DEVICE void load_share(const Mat& mat, const Share& share, float (&values)[8]) {
  load_columns(mat, share.of[0], values);
  load_columns(mat, share.of[1], values + 4);
}

// Writes a share.
DEVICE void store_share(const Mat& mat, const Share& share, const float (&values)[8]) {
  store_columns(mat, share.of[0], values);
  store_columns(mat, share.of[1], values + 4);
}

// Writes `values`, or adds them to what is there.
DEVICE void put_share(const Mat& mat, const Share& share, u32 accumulate, float (&values)[8]) {
  if (accumulate) {
    float before[8];
    load_share(mat, share, before);
#pragma unroll
    for (u32 i = 0; i < 8; i++) values[i] = __fadd_rn(before[i], values[i]);
  }
  store_share(mat, share, values);
}
