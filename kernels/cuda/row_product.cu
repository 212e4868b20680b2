// Products of vectors with matrices of their samples, and the gradients of both.
//
// Floor: the bytes of the matrices, read once by a product and written once by their gradient; 65,536 samples with 64 x 64
// values in f32: 1.07 GB, 250 us on an H200 (4.3 TB/s), half of it in bf16. A product takes two operations for four bytes.
//
// A warp takes a sample. Its lanes lie over a tile of the matrix, four rows and four columns each, `across` of them side by
// side, a power of two; up to four vectors of the sample are multiplied by what was read. Further vectors find the matrix in
// caches, where it fits them.
#include "activation.cuh"
#include "quad.cuh"

#define THREADS 256

// Vectors of a sample that are taken at once.
constexpr u32 VECTORS = 4;

// As an argument of a kernel: `groups` vectors lie side by side in a row, and the rows of sample s are those from
// `offsets[s]` to below `offsets[s + 1]`, or row s where there are no offsets.
struct Vectors {
  const u32* offsets;
  u32 groups;
};

// The sample of a warp, and its vectors.
struct Sample {
  u32 index, first_row, count, groups;

  DEVICE explicit Sample(const Vectors& of) : index((blockIdx.x * THREADS + threadIdx.x) / 32), groups(of.groups) {}

  // Looks where the vectors are: only for samples that are there.
  DEVICE void find(const Vectors& of) {
    first_row = of.offsets ? of.offsets[index] : index;
    count = groups * (of.offsets ? of.offsets[index + 1] - first_row : 1);
  }

  // Values `col .. col + 4` of a vector of `width` values, of which there may be fewer.
  DEVICE void load(const Mat& mat, u32 width, bool whole, u32 vector, u32 col, QuadBits& bits) const {
    load_bits(place(mat, width, vector, col), mat.element, whole, width - col, bits);
  }

  DEVICE void* place(const Mat& mat, u32 width, u32 vector, u32 col) const {
    return address_of(mat, first_row + vector / groups, vector % groups * width + col);
  }
};

// Whether all vectors of `width` values that lie side by side in a row can be read four at a time.
DEVICE bool is_whole(const Mat& mat, u32 width) { return width % 4 == 0 && has_quads(mat); }

// The matrix of a sample, [rows, cols] row-major in a row of `mat`, and where this lane is in a tile of it: four rows from
// `row` on, four columns from `col` on; tiles have `tile_rows` and `tile_cols`.
struct Tiled {
  Mat mat;
  u32 sample, rows, cols, row, col, tile_rows, tile_cols;
  bool whole;

  DEVICE Tiled(const Mat& mat, u32 sample, u32 rows, u32 cols, u32 across)
      : mat(mat), sample(sample), rows(rows), cols(cols), row(threadIdx.x % 32 / across * 4),
        col(threadIdx.x % across * 4), tile_rows(128 / across), tile_cols(4 * across), whole(is_whole(mat, cols)) {}

  DEVICE void* place(u32 r, u32 c) const { return address_of(mat, sample, r * cols + c); }

  // Four columns of row `r`; 0 where there are none.
  DEVICE void load(u32 r, u32 c, QuadBits& bits) const {
    if (r < rows) {
      load_bits(place(r, c), mat.element, whole, cols - c, bits);
    } else {
      bits = {};
    }
  }

  DEVICE void store(u32 r, u32 c, const float (&values)[4]) const {
    if (r < rows) store_four(place(r, c), mat.element, whole, cols - c, values);
  }
};

// Sums of up to four vectors, four places each: what a lane has of a product.
typedef float Sums[VECTORS][4];

// Adds the products of a lane's four rows and columns and the vectors from `first` on: with those of the columns, or,
// TRANSPOSED, of the rows.
template <bool TRANSPOSED>
DEVICE void multiply(const Sample& of, const Tiled& tiled, u32 r, u32 c, const Mat& x, bool whole_x, u32 first,
                     Sums& sums) {
  const u32 width = TRANSPOSED ? tiled.rows : tiled.cols, at = TRANSPOSED ? r : c;
  QuadBits of_rows[4], of_vectors[VECTORS];
#pragma unroll
  for (u32 i = 0; i < 4; i++) tiled.load(r + i, c, of_rows[i]);
#pragma unroll
  for (u32 v = 0; v < VECTORS; v++) {
    if (first + v < of.count) of.load(x, width, whole_x, first + v, at, of_vectors[v]);
  }
  float weights[4][4];
#pragma unroll
  for (u32 i = 0; i < 4; i++) values_of(of_rows[i], tiled.mat.element, weights[i]);
#pragma unroll
  for (u32 v = 0; v < VECTORS; v++) {
    if (first + v >= of.count) continue;
    float values[4];
    values_of(of_vectors[v], x.element, values);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        float& sum = sums[v][TRANSPOSED ? j : i];
        sum = fmaf(weights[i][j], values[TRANSPOSED ? i : j], sum);
      }
    }
  }
}

// What a product begins with.
enum StartKind : u32 { START_ZERO = 0, START_BIAS = 1, START_OUTPUT = 2 };

struct Ending {
  u32 start;
  Mat bias;
  Activation activation;
  Mat y;

  // Writes four places from `at` on, of `out`, of the vectors from `first` on.
  DEVICE void put(const Sample& of, u32 out, u32 at, u32 first, const Sums& sums) const {
    const bool whole = is_whole(y, out);
    float begun[4] = {};
    if (start == START_BIAS) load_quad(bias, has_quads(bias), of.index, at, begun);
#pragma unroll
    for (u32 v = 0; v < VECTORS; v++) {
      if (first + v >= of.count) continue;
      void* const to = of.place(y, out, first + v, at);
      if (start == START_OUTPUT) load_four(to, y.element, whole, out - at, begun);
      float values[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] = activated(activation, begun[i] + sums[v][i]);
      store_four(to, y.element, whole, out - at, values);
    }
  }
};

// Adds up what the lanes have that are `from`, `2 from` .. below `to` apart, powers of two.
DEVICE void add_lanes(u32 from, u32 to, u32 vectors, Sums& sums) {
  for (u32 offset = from; offset < to; offset *= 2) {
#pragma unroll
    for (u32 v = 0; v < VECTORS; v++) {
      if (v >= vectors) continue;
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[v][i] += __shfl_xor_sync(FULL_WARP, sums[v][i], offset);
    }
  }
}

// M x for the vectors from `first` on.
DEVICE void by_rows(const Sample& of, const Tiled& tiled, const Mat& x, u32 first, const Ending& ending) {
  const bool whole_x = is_whole(x, tiled.cols);
  for (u32 top = 0; top < tiled.rows; top += tiled.tile_rows) {
    const u32 r = top + tiled.row;
    Sums sums = {};
    for (u32 c = tiled.col; c < tiled.cols; c += tiled.tile_cols) {
      multiply<false>(of, tiled, r, c, x, whole_x, first, sums);
    }
    add_lanes(1, tiled.tile_cols / 4, of.count - first, sums);
    if (tiled.col == 0 && r < tiled.rows) ending.put(of, tiled.rows, r, first, sums);
  }
}

// The transposed matrix times x.
DEVICE void by_columns(const Sample& of, const Tiled& tiled, const Mat& x, u32 first, const Ending& ending) {
  const bool whole_x = is_whole(x, tiled.rows);
  for (u32 left = 0; left < tiled.cols; left += tiled.tile_cols) {
    const u32 c = left + tiled.col;
    Sums sums = {};
    for (u32 r = tiled.row; c < tiled.cols && r < tiled.rows; r += tiled.tile_rows) {
      multiply<true>(of, tiled, r, c, x, whole_x, first, sums);
    }
    add_lanes(tiled.tile_cols / 4, 32, of.count - first, sums);
    if (tiled.row == 0 && c < tiled.cols) ending.put(of, tiled.cols, c, first, sums);
  }
}

// y = act(start + M x) for every vector of x and the matrix of its sample, a row of `weight`: [out, in], or, `transposed`,
// [in, out], of which the product is that of the transposed one.
KERNEL(THREADS)
row_product(Mat x, Mat weight, Vectors vectors, u32 transposed, u32 across, u32 start, Mat bias, Activation activation,
            Mat y) {
  Sample of(vectors);
  if (of.index >= rows_of(weight)) return;
  of.find(vectors);
  const u32 inner = x.cols / of.groups, out = y.cols / of.groups;
  const Tiled tiled(weight, of.index, transposed ? inner : out, transposed ? out : inner, across);
  const Ending ending = {start, bias, activation, y};
  for (u32 first = 0; first < of.count; first += VECTORS) {
    if (transposed) {
      by_columns(of, tiled, x, first, ending);
    } else {
      by_rows(of, tiled, x, first, ending);
    }
  }
}

// The gradient of matrices [n, m]: the sum of the outer products of the vectors of a sample in a, n values each, and in b,
// m each; written, or added to what is there.
KERNEL_SHARING(THREADS, 3) row_outer(Mat a, Mat b, Vectors vectors, u32 across, u32 accumulate, Mat to) {
  Sample of(vectors);
  if (of.index >= rows_of(to)) return;
  of.find(vectors);
  const Tiled tiled(to, of.index, a.cols / of.groups, b.cols / of.groups, across);
  const bool whole_a = is_whole(a, tiled.rows), whole_b = is_whole(b, tiled.cols);
  for (u32 r = tiled.row; r < tiled.rows; r += tiled.tile_rows) {
    for (u32 c = tiled.col; c < tiled.cols; c += tiled.tile_cols) {
      float sums[4][4] = {};
      for (u32 v = 0; v < of.count; v++) {
        QuadBits of_a, of_b;
        of.load(a, tiled.rows, whole_a, v, r, of_a);
        of.load(b, tiled.cols, whole_b, v, c, of_b);
        float factors[4], values[4];
        values_of(of_a, a.element, factors);
        values_of(of_b, b.element, values);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
          for (u32 j = 0; j < 4; j++) sums[i][j] = fmaf(factors[i], values[j], sums[i][j]);
        }
      }
      QuadBits before[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        if (accumulate) tiled.load(r + i, c, before[i]);
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++) {
        float was[4] = {};
        if (accumulate) values_of(before[i], to.element, was);
#pragma unroll
        for (u32 j = 0; j < 4; j++) sums[i][j] += was[j];
        tiled.store(r + i, c, sums[i]);
      }
    }
  }
}

// The gradient of biases: the sum of the vectors of a sample, written, or added to what is there.
KERNEL(THREADS) row_sums(Mat x, Vectors vectors, u32 accumulate, Mat to) {
  Sample of(vectors);
  if (of.index >= rows_of(to)) return;
  of.find(vectors);
  const bool whole = is_whole(x, to.cols), quads = has_quads(to);
  for (u32 col = threadIdx.x % 32 * 4; col < to.cols; col += 128) {
    float sums[4] = {};
    if (accumulate) load_quad(to, quads, of.index, col, sums);
    for (u32 v = 0; v < of.count; v++) {
      QuadBits bits;
      of.load(x, to.cols, whole, v, col, bits);
      float values[4];
      values_of(bits, x.element, values);
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[i] += values[i];
    }
    store_quad(to, quads, of.index, col, sums);
  }
}
