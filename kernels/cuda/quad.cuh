// Four adjacent columns of a row of a matrix: one access of 16 bytes of f32, or of 8 of bf16, where they lie so.
#pragma once

#include "common.cuh"

DEVICE u32 element_bytes(const Mat& mat) { return mat.element == ELEMENT_F32 ? 4 : 2; }

// Columns `from .. from + count`.
DEVICE Mat columns_of(const Mat& mat, u32 from, u32 count) {
  Mat part = mat;
  part.data = (unsigned char*)mat.data + (u64)from * element_bytes(mat);
  part.cols = count;
  return part;
}

// Rows `from .. from + count`.
DEVICE Mat rows_from(const Mat& mat, u32 from, u32 count) {
  Mat part = mat;
  part.data = (unsigned char*)mat.data + (u64)from * mat.stride * element_bytes(mat);
  part.rows = count;
  return part;
}

// Whether every four columns that begin at a multiple of four lie as one access needs it.
DEVICE bool has_quads(const Mat& mat) {
  const u32 bytes = element_bytes(mat);
  return (((u64)mat.data | (u64)mat.stride * bytes) & (4 * bytes - 1)) == 0;
}

// Reads four values; of those from `count` on 0 instead. `whole`: one access will do.
DEVICE void load_four(const void* from, u32 element, bool whole, u32 count, float (&values)[4]) {
  if (element == ELEMENT_F32) {
    if (whole) {
      const float4 packed = *(const float4*)from;
      values[0] = packed.x, values[1] = packed.y, values[2] = packed.z, values[3] = packed.w;
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] = i < count ? ((const float*)from)[i] : 0.0f;
    }
  } else {
    if (whole) {
      const uint2 packed = *(const uint2*)from;
      values[0] = __uint_as_float(packed.x << 16), values[1] = __uint_as_float(packed.x & 0xffff0000u);
      values[2] = __uint_as_float(packed.y << 16), values[3] = __uint_as_float(packed.y & 0xffff0000u);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] = i < count ? to_f32(((const bf16*)from)[i]) : 0.0f;
    }
  }
}

// Writes four values, or the first `count`.
DEVICE void store_four(void* to, u32 element, bool whole, u32 count, const float (&values)[4]) {
  if (element == ELEMENT_F32) {
    if (whole) {
      *(float4*)to = make_float4(values[0], values[1], values[2], values[3]);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (i < count) ((float*)to)[i] = values[i];
      }
    }
  } else {
    if (whole) {
      *(uint2*)to = make_uint2(to_bf16(values[0]).bits | (u32)to_bf16(values[1]).bits << 16,
                               to_bf16(values[2]).bits | (u32)to_bf16(values[3]).bits << 16);
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (i < count) ((bf16*)to)[i] = to_bf16(values[i]);
      }
    }
  }
}

DEVICE void* address_of(const Mat& mat, u32 row, u32 col) {
  return (unsigned char*)mat.data + ((u64)row * mat.stride + col) * element_bytes(mat);
}

// Reads the columns `col .. col + 4` of which there are; others are 0. `quads` is what `has_quads` says.
DEVICE void load_quad(const Mat& mat, bool quads, u32 row, u32 col, float (&values)[4]) {
  const u32 count = col < mat.cols ? mat.cols - col : 0;
  load_four(address_of(mat, row, col), mat.element, quads && count >= 4, count, values);
}

// Writes the columns `col .. col + 4` of which there are.
DEVICE void store_quad(const Mat& mat, bool quads, u32 row, u32 col, const float (&values)[4]) {
  const u32 count = col < mat.cols ? mat.cols - col : 0;
  store_four(address_of(mat, row, col), mat.element, quads && count >= 4, count, values);
}
