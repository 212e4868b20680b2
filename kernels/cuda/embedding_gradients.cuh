// Where look-ups come from, and where the gradients of their rows lie.
#pragma once

#include "embedding.cuh"

// Look-ups of one table by one field, bag or sequence: `Source` of gradients.rs.
//
// A look-up is a pair: its key, the number of its row among the rows of all tables that have gradients, and its
// position, `source << row_bits | row`, which names its gradient row.
struct Source {
  const u32* ids;
  // `rows + 1` numbers for bags and sequences, null for single ids.
  const u32* offsets;
  // The first row and the one behind the last: those of a batch or of a scenario.
  const u32* rows;
  // First column of the gradient of row 0: f32 or bf16.
  const void* gradient;
  // Values from one gradient row to the next.
  u32 stride;
  u32 element;
  // The key of row 0 of the table, and its number of rows.
  u32 first_key, table_rows;
  // 1 where each id of a list has a gradient row of its own, 0 where those of a bag share one.
  u32 by_position;
  // First block of `make_keys` that works on the source.
  u32 first_block;
};

// A table with gradients: `TableRows` of gradients.rs.
struct TableRows {
  float* data;
  // The key of row 0.
  u32 first_key;
  u32 dim;
  // Values from one row to the next: weights, then the state of the optimiser.
  u32 stride;
  // 1 where all rows and gradient rows can be read as float4 (or four bf16).
  u32 quads;
};
