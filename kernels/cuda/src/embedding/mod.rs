//! Embedding tables: look-ups, pooled look-ups, and gradients that touch only the rows that were looked up.
//!
//! A table lies as on the CPU: rows of `stride` values, the `dim` weights and then the optimiser's state of that row. What
//! a launch needs to know of many tables is written to device memory once, as the bytes that [`Pieces`] and
//! [`SparseGradients`] give; ids, offsets and numbers of rows are read from there at each launch.
//!
//! Forward, [`lookup`] reads every piece of a trunk in one launch. Backward, for all tables together:
//!
//! 1. [`number_lookups`] and [`make_keys`] give a pair (key, position) for each look-up, where the key is the number of a
//!    row among those of all tables, and the position names a gradient row;
//! 2. [`sort_lookups`] groups the pairs of one row, in the order of their sources and rows;
//! 3. [`update_rows`] sums each group and moves the row. [`coalesce`] writes the sums out instead; [`update_rows_by_sums`] moves
//!    the rows by them, or by what was made of them.
//!
//! Ids come from the host, which checks them ([`check_ids`](manygate_kernels::embedding::check_ids)). An id that a table
//! does not have is taken for 0, the unknown row: no launch reads or writes beyond a table.

mod gradients;
mod lookup;
mod scratch;
mod sort;
mod update;

pub use gradients::{DeviceTable, Ids, Source, SparseGradients, SparseMemory, make_keys, number_lookups};
pub use lookup::{Piece, Pieces, gather, lookup, scale_bag_gradient};
pub use sort::{Pairs, sort_lookups, sort_scratch};
pub use update::{RowSums, coalesce, step_to_bytes, update_rows, update_rows_by_sums};

/// Threads of a block, where nothing else is said.
const THREADS: u32 = 256;

/// Lanes that take a row of `dim` values together, as a power of two: one for each value, or for each four.
fn lane_bits(dim: u32, quads: bool) -> u32 {
    let steps = if quads { dim.div_ceil(4) } else { dim };
    steps.max(1).next_power_of_two().trailing_zeros().min(5)
}
