// What a thread of an element-wise kernel takes of a matrix: twice four columns of a row. Neighbours take neighbouring
// columns, so that a warp reads and writes whole lines; two reads a thread are enough bytes in flight.
#pragma once

#include "quad.cuh"

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

// Whether four columns of a row can be read or written at once.
DEVICE bool is_whole(const Mat& mat, const Columns& at) {
  return at.count == 4 && (u64)address_of(mat, at.row, at.first) % (4 * element_bytes(mat)) == 0;
}

// Reads four columns, as they lie in memory; what is not there is 0.
DEVICE void load_columns(const Mat& mat, const Columns& at, QuadBits& bits) {
  load_bits(address_of(mat, at.row, at.first), mat.element, is_whole(mat, at), at.count, bits);
}

DEVICE void load_columns(const Mat& mat, const Columns& at, float (&values)[4]) {
  QuadBits bits;
  load_columns(mat, at, bits);
  values_of(bits, mat.element, values);
}

// Writes four columns.
DEVICE void store_columns(const Mat& mat, const Columns& at, const float (&values)[4]) {
  store_four(address_of(mat, at.row, at.first), mat.element, is_whole(mat, at), at.count, values);
}

// A share as it lies in memory: nothing looks at it before what else is needed is on its way.
struct ShareBits {
  QuadBits of[2];
};

// Reads a share; what is not there is 0.
DEVICE void load_share(const Mat& mat, const Share& share, ShareBits& bits) {
  load_columns(mat, share.of[0], bits.of[0]);
  load_columns(mat, share.of[1], bits.of[1]);
}

// The values of a share of `mat`.
DEVICE void values_of(const ShareBits& bits, const Mat& mat, float (&values)[8]) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    float quad[4];
    values_of(bits.of[i], mat.element, quad);
#pragma unroll
    for (u32 j = 0; j < 4; j++) values[4 * i + j] = quad[j];
  }
}

DEVICE void load_share(const Mat& mat, const Share& share, float (&values)[8]) {
  ShareBits bits;
  load_share(mat, share, bits);
  values_of(bits, mat, values);
}

// Writes a share.
DEVICE void store_share(const Mat& mat, const Share& share, const float (&values)[8]) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const float quad[4] = {values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    store_columns(mat, share.of[i], quad);
  }
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
