// Linear layers over any way of making a tile of a product: forward, gradients of inputs and of weights, and what sums
// end in.
#pragma once

#include "activation.cuh"
#include "product.cuh"

constexpr u32 MOST_HEADS = 8;

// Adjacent columns of a layer's output from `start` on, and what they end in.
struct Head {
  u32 start;
  Activation activation;
};

// The columns of a layer's output, `Heads` of gemm.rs. The first `biased` have a bias.
struct Heads {
  const float* bias;
  u32 biased;
  Head heads[MOST_HEADS];
};

// The end of a forward pass: y = act(sum + b).
struct Forward {
  // Lines whose sums are worked on at once.
  static constexpr u32 AHEAD = 2;
  // What is in memory already.
  struct Before {};

  Mat y;
  const Heads& heads;
  u32 group;
  bool quads;
  u32 col;
  QuadColumn to;
  float bias[4];
  Activation activation[4];
  // Where there is nothing else than ReLU and identity, they are maxima: with 0, or with minus infinity.
  float least[4];
  QuadKind kind;

  DEVICE Forward(const Mat& y, const Heads& heads, u32 group)
      : y(y), heads(heads), group(group), quads(has_quads(y)) {}

  DEVICE void begin(u32 first) {
    col = first;
    to = QuadColumn(y, quads, col);
    kind = to.kind;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 at = col + i;
      bias[i] = at < heads.biased ? heads.bias[(u64)group * heads.biased + at] : 0.0f;
      activation[i] = heads.heads[0].activation;
#pragma unroll
      for (u32 head = 1; head < MOST_HEADS; head++) {
        if (at >= heads.heads[head].start) activation[i] = heads.heads[head].activation;
      }
      if (activation[i].kind > RELU) kind = ANY_QUAD;
      least[i] = activation[i].kind == RELU ? 0.0f : MINUS_INFINITY;
    }
  }

  template <QuadKind KIND>
  DEVICE void fetch(u32, Before&) const {}

  template <QuadKind KIND>
  DEVICE void finish(u32 row, const Before&, float (&values)[4]) const {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      values[i] += bias[i];
      values[i] = KIND == ANY_QUAD ? activated(activation[i], values[i]) : math::maximum(values[i], least[i]);
    }
    if (KIND == ANY_QUAD) {
      if (col < y.cols) store_quad(y, quads, row, col, values);
    } else {
      store_quad<KIND>(to, row, values);
    }
  }
};

// The end of a backward pass: to = sum, or to + sum, times the derivative of the activation whose output is `masked`.
struct Gradient {
  static constexpr u32 AHEAD = 8;
  struct Before {
    QuadBits to, masked;
  };

  Mat to;
  u32 accumulate;
  Activation activation;
  Mat masked;
  bool quads, masked_quads;
  u32 col;
  QuadColumn to_column, masked_column;
  QuadKind kind;

  DEVICE Gradient(const Mat& to, u32 accumulate, const Activation& activation, const Mat& masked)
      : to(to), accumulate(accumulate), activation(activation), masked(masked), quads(has_quads(to)),
        masked_quads(has_quads(masked)) {}

  DEVICE void begin(u32 first) {
    col = first;
    to_column = QuadColumn(to, quads, col);
    masked_column = QuadColumn(masked, masked_quads, col);
    kind = activation.kind <= RELU && masked_column.kind == to_column.kind ? to_column.kind : ANY_QUAD;
  }

  template <QuadKind KIND>
  DEVICE void fetch(u32 row, Before& before) const {
    if (KIND == ANY_QUAD) {
      if (col >= to.cols) return;
      if (accumulate) load_quad(to, quads, row, col, before.to);
      if (activation.kind != IDENTITY) load_quad(masked, masked_quads, row, col, before.masked);
    } else {
      if (accumulate) load_quad<KIND>(to_column, row, before.to);
      if (activation.kind != IDENTITY) load_quad<KIND>(masked_column, row, before.masked);
    }
  }

  template <QuadKind KIND>
  DEVICE void finish(u32 row, const Before& before, float (&values)[4]) const {
    if (KIND == ANY_QUAD && col >= to.cols) return;
    float other[4];
    if (accumulate) {
      values_of(before.to, KIND == ANY_QUAD ? to.element : element_of(KIND), other);
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] += other[i];
    }
    if (activation.kind != IDENTITY) {
      values_of(before.masked, KIND == ANY_QUAD ? masked.element : element_of(KIND), other);
      const Activation known = {KIND == ANY_QUAD ? activation.kind : RELU, activation.slope};
#pragma unroll
      for (u32 i = 0; i < 4; i++) values[i] *= slope_from_output(known, other[i]);
    }
    if (KIND == ANY_QUAD) {
      store_quad(to, quads, row, col, values);
    } else {
      store_quad<KIND>(to_column, row, values);
    }
  }
};

DEVICE u32 tiles_of(u32 count, u32 tile) { return (count + tile - 1) / tile; }

// The tile of this block, of an output with `cols` columns, and all of the inner index.
template <class Product>
DEVICE Part part_of_block(u32 cols, u32 inner) {
  const u32 across = tiles_of(cols, TILE);
  return {blockIdx.x / across * TILE, blockIdx.x % across * TILE, 0, 1, tiles_of(inner, Product::DEPTH)};
}

// y = act(x W^T + b), for a group of each: columns of x and y, rows of W.
template <class Product>
DEVICE void linear(const Mat& x, const Mat& weight, const Heads& heads, const Mat& y, unsigned char* shared) {
  const u32 group = blockIdx.z, groups = gridDim.z;
  const u32 inner = weight.cols, out = y.cols / groups, rows = rows_of(x);
  const Part part = part_of_block<Product>(out, inner);
  if (part.row >= rows) return;
  const Operand a = operand(columns_of(x, group * inner, inner), rows);
  const Operand b = operand(rows_from(weight, group * out, out), out);
  Product product;
  sum_tile(product, a, b, part, shared);
  Forward end(columns_of(y, group * out, out), heads, group);
  finish_tile(product, part, rows, end, shared);
}

// dx = dy W, see `Gradient`, for a group of each: columns of dy, dx and the mask, rows of W.
template <class Product>
DEVICE void linear_dx(const Mat& dy, const Mat& weight, u32 accumulate, const Activation& activation,
                      const Mat& masked, const Mat& dx, unsigned char* shared) {
  const u32 group = blockIdx.z, groups = gridDim.z;
  const u32 inner = dy.cols / groups, in = weight.cols, rows = rows_of(dy);
  const Part part = part_of_block<Product>(in, inner);
  if (part.row >= rows) return;
  const Operand a = operand(columns_of(dy, group * inner, inner), rows);
  const Operand b = operand(rows_from(weight, group * inner, inner), inner);
  Product product;
  sum_tile(product, a, b, part, shared);
  Gradient end(columns_of(dx, group * in, in), accumulate, activation, columns_of(masked, group * in, in));
  finish_tile(product, part, rows, end, shared);
}

// What a block makes of dw = dy^T x, for a group of each: columns of dy and x, rows of dw. It takes every `gridDim.y`-th
// piece of the rows. Of several such sums each has a matrix of its own in `dw`, one below the other, with rows of whole
// quads.
template <class Product>
struct WeightPart {
  u32 group, chunk, out, rows;
  Part part;
  Operand a, b;
  Mat to;

  DEVICE WeightPart(const Mat& dy, const Mat& x, const Mat& dw)
      : group(blockIdx.z), chunk(blockIdx.y), out(dy.cols / gridDim.z), rows(rows_of(dy)) {
    const u32 groups = gridDim.z, in = x.cols / groups;
    part = part_of_block<Product>(in, rows);
    part.first = chunk, part.step = gridDim.y;
    a = operand(columns_of(dy, group * out, out), rows);
    b = operand(columns_of(x, group * in, in), rows);
    to = rows_from(dw, (chunk * groups + group) * out, out);
  }

  // Nobody reads the sums of a chunk without rows, but for the first.
  DEVICE bool is_there() const { return chunk == 0 || chunk * Product::PIECE < rows; }
};

// dw = dy^T x, see `WeightPart`.
template <class Product>
DEVICE void linear_dw(const Mat& dy, const Mat& x, u32 accumulate, const Mat& dw, unsigned char* shared) {
  const WeightPart<Product> own(dy, x, dw);
  if (!own.is_there()) return;
  Product product;
  sum_tile(product, own.a, own.b, own.part, shared);
  Gradient end(own.to, accumulate, Activation{IDENTITY, 0.0f}, own.to);
  finish_tile(product, own.part, own.out, end, shared);
}
