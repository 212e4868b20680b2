//! Embedding tables: look-ups, pooled look-ups, and gradients that touch only the rows that were looked up.
//!
//! A table is a block of rows of `stride` values: the `dim` weights, then the optimiser's state of that row, so that
//! an update touches one place in memory. The backward of a look-up never forms a dense gradient:
//!
//! 1. each look-up gives a key `id << 32 | position`, where the position names a gradient row
//!    ([`GradientSources`]);
//! 2. [`sort_lookups`] groups the keys of one id, in order of position;
//! 3. [`update_rows`] sums each group and applies the [`RowOptimizer`] ([`coalesce`] writes the sums out instead).
//!
//! Sums run in order of position, so their bits do not depend on how ids are dealt to threads.

mod bag;
mod coalesce;
mod gather;
mod row_optimizer;
mod sort;
mod update;

pub use bag::{Pooling, gather_bag, scale_bag_gradient};
pub use coalesce::{GradientSources, coalesce};
pub use gather::gather;
pub use row_optimizer::RowOptimizer;
pub use sort::{run_start, sort_lookups};
pub use update::{MAX_DIM, TableMut, update_rows};

/// Look-ups between asking for a row and using it: enough to cover a trip to memory, few enough to fit the queue of
/// outstanding reads.
const AHEAD: usize = 16;

/// The weights of a table: `rows` rows of `dim` values, `stride` values apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    rows: usize,
    dim: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// A table over `data`.
    ///
    /// # Panics
    /// When `dim > stride` or `data` is shorter than `rows * stride`.
    pub fn new(data: &'a [f32], rows: usize, dim: usize, stride: usize) -> Self {
        check_table(data.len(), rows, dim, stride);
        Self { data, rows, dim, stride }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Weights in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The weights of row `id`.
    ///
    /// # Panics
    /// When the table has no such row.
    #[inline(always)]
    pub fn row(&self, id: u32) -> &'a [f32] {
        assert!((id as usize) < self.rows, "id {id} of a table with {} rows", self.rows);
        &self.data[id as usize * self.stride..][..self.dim]
    }

    /// Asks for the weights of row `id`, if there is one.
    #[inline(always)]
    fn prefetch(&self, id: u32) {
        prefetch(self.data.as_ptr().wrapping_add(id as usize * self.stride), self.dim);
    }
}

fn check_table(len: usize, rows: usize, dim: usize, stride: usize) {
    assert!(dim <= stride, "table: {dim} weights do not fit a stride of {stride}");
    let needed = rows.checked_mul(stride).expect("table: its size overflows");
    assert!(needed <= len, "table: {rows} rows of {stride} values need {needed}, there are {len}");
}

/// Checks that every id names one of `rows` rows.
///
/// # Errors
/// The position of the first id that does not.
pub fn check_ids(ids: &[u32], rows: usize) -> Result<(), usize> {
    // The largest id is found without a branch an id; where the offender is matters only when there is one.
    let largest = ids.iter().fold(0, |largest, &id| id.max(largest));
    if ids.is_empty() || (largest as usize) < rows {
        return Ok(());
    }
    match ids.iter().position(|&id| id as usize >= rows) {
        Some(position) => Err(position),
        None => Ok(()),
    }
}

/// Asks for the cache lines of `len` values at `from`. Any address will do: nothing is read.
#[inline(always)]
fn prefetch(from: *const f32, len: usize) {
    const LINE: usize = 16;
    let mut offset = 0;
    while offset < len {
        prefetch_line(from.wrapping_add(offset));
        offset += LINE;
    }
    // Rows need not start at a line: the last value may lie in one more.
    if len > 0 {
        prefetch_line(from.wrapping_add(len - 1));
    }
}

#[inline(always)]
fn prefetch_line(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it neither reads nor faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
