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

// Four values as they lie in memory: of f32 a word each, of bf16 two in a word.
struct QuadBits {
  u32 words[4];
};

// Reads four values; of those from `count` on 0 instead. `whole`: one access will do. Nothing looks at what is read, so
// that other reads can follow at once.
DEVICE void load_bits(const void* from, u32 element, bool whole, u32 count, QuadBits& bits) {
  u32(&words)[4] = bits.words;
  if (element == ELEMENT_F32) {
    if (whole) {
      const uint4 packed = *(const uint4*)from;
      words[0] = packed.x, words[1] = packed.y, words[2] = packed.z, words[3] = packed.w;
    } else {
#pragma unroll
      for (u32 i = 0; i < 4; i++) words[i] = i < count ? ((const u32*)from)[i] : 0;
    }
  } else {
    if (whole) {
      const uint2 packed = *(const uint2*)from;
      words[0] = packed.x, words[1] = packed.y;
    } else {
      const bf16* const halves = (const bf16*)from;
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        const u32 low = 2 * i < count ? halves[2 * i].bits : 0, high = 2 * i + 1 < count ? halves[2 * i + 1].bits : 0;
        words[i] = low | high << 16;
      }
    }
  }
}

// The values.
DEVICE void values_of(const QuadBits& bits, u32 element, float (&values)[4]) {
  const bool halves = element != ELEMENT_F32;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 half = i % 2 ? bits.words[i / 2] & 0xffff0000u : bits.words[i / 2] << 16;
    values[i] = __uint_as_float(halves ? half : bits.words[i]);
  }
}

// Reads four values; of those from `count` on 0 instead. `whole`: one access will do.
DEVICE void load_four(const void* from, u32 element, bool whole, u32 count, float (&values)[4]) {
  QuadBits bits;
  load_bits(from, element, whole, count, bits);
  values_of(bits, element, values);
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
      *(uint2*)to = make_uint2(to_bf16_pair(values[0], values[1]), to_bf16_pair(values[2], values[3]));
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

// A single value.
DEVICE float load_value(const Mat& mat, u32 row, u32 col) {
  return mat.element == ELEMENT_F32 ? row_f32(mat, row)[col] : to_f32(row_bf16(mat, row)[col]);
}

DEVICE void store_value(const Mat& mat, u32 row, u32 col, float value) {
  if (mat.element == ELEMENT_F32) {
    row_f32(mat, row)[col] = value;
  } else {
    row_bf16(mat, row)[col] = to_bf16(value);
  }
}

// Reads the columns `col .. col + 4` of which there are; others are 0. `quads` is what `has_quads` says.
DEVICE void load_quad(const Mat& mat, bool quads, u32 row, u32 col, float (&values)[4]) {
  const u32 count = col < mat.cols ? mat.cols - col : 0;
  load_four(address_of(mat, row, col), mat.element, quads && count >= 4, count, values);
}

// The same, as they lie in memory.
DEVICE void load_quad(const Mat& mat, bool quads, u32 row, u32 col, QuadBits& bits) {
  const u32 count = col < mat.cols ? mat.cols - col : 0;
  load_bits(address_of(mat, row, col), mat.element, quads && count >= 4, count, bits);
}

// Writes the columns `col .. col + 4` of which there are.
DEVICE void store_quad(const Mat& mat, bool quads, u32 row, u32 col, const float (&values)[4]) {
  const u32 count = col < mat.cols ? mat.cols - col : 0;
  store_four(address_of(mat, row, col), mat.element, quads && count >= 4, count, values);
}

// How four columns of a matrix are read and written.
enum QuadKind : u32 {
  // Checked each time for what they hold and how they lie.
  ANY_QUAD,
  // All there, in one access of 16 bytes, or of 8.
  QUAD_F32,
  QUAD_BF16,
};

// The columns `col .. col + 4` of all rows of a matrix.
struct QuadColumn {
  unsigned char* first;
  u32 row_bytes;
  QuadKind kind;

  DEVICE QuadColumn() {}

  DEVICE QuadColumn(const Mat& mat, bool quads, u32 col)
      : first((unsigned char*)address_of(mat, 0, col)), row_bytes(mat.stride * element_bytes(mat)),
        kind(!quads || col + 4 > mat.cols ? ANY_QUAD : mat.element == ELEMENT_F32 ? QUAD_F32 : QUAD_BF16) {}

  DEVICE unsigned char* at(u32 row) const { return first + (u64)row * row_bytes; }
};

DEVICE u32 element_of(QuadKind kind) { return kind == QUAD_F32 ? ELEMENT_F32 : ELEMENT_BF16; }

// Reads four columns that are no `ANY_QUAD`, as they lie in memory.
template <QuadKind KIND>
DEVICE void load_quad(const QuadColumn& column, u32 row, QuadBits& bits) {
  if (KIND == QUAD_F32) {
    const uint4 packed = *(const uint4*)column.at(row);
    bits.words[0] = packed.x, bits.words[1] = packed.y, bits.words[2] = packed.z, bits.words[3] = packed.w;
  } else {
    const uint2 packed = *(const uint2*)column.at(row);
    bits.words[0] = packed.x, bits.words[1] = packed.y;
  }
}

// Writes them.
template <QuadKind KIND>
DEVICE void store_quad(const QuadColumn& column, u32 row, const float (&values)[4]) {
  store_four(column.at(row), element_of(KIND), true, 4, values);
}
