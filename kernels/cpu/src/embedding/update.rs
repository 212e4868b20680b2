//! The update of a table: the gradient rows of an id are summed and applied to its row in one pass.

use super::coalesce::{GradientSources, Runs, Targets};
use super::{RowOptimizer, check_table};
use crate::dispatch;
use crate::simd::Simd;
use std::marker::PhantomData;

/// The widest row that [`update_rows`] takes: the sum of a row's gradients lies on the stack.
pub const MAX_DIM: usize = 1024;

/// A table for writing: rows of `stride` values, of which the first `dim` are weights.
#[derive(Debug)]
pub struct TableMut<'a> {
    ptr: *mut f32,
    rows: usize,
    dim: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `TableMut` reaches f32 values, which are Send; that no other thread uses the same rows is the contract of
// its constructors.
unsafe impl Send for TableMut<'_> {}

impl<'a> TableMut<'a> {
    /// A table over `data`.
    ///
    /// # Panics
    /// When `dim > stride`, `dim >` [`MAX_DIM`], or `data` is shorter than `rows * stride`.
    pub fn new(data: &'a mut [f32], rows: usize, dim: usize, stride: usize) -> Self {
        check_table(data.len(), rows, dim, stride);
        // SAFETY: the length was checked, and `data` is borrowed exclusively for `'a`.
        unsafe { Self::from_raw(data.as_mut_ptr(), rows, dim, stride) }
    }

    /// A table over raw memory, for updates of one table by several threads.
    ///
    /// # Panics
    /// When `dim > stride` or `dim >` [`MAX_DIM`].
    ///
    /// # Safety
    /// For `'a`, `rows * stride` values at `ptr` are initialised and inside one allocation, and no row whose id this
    /// table is used with ([`update_rows`] uses the ids of its keys) is reached in any other way. Tables over the
    /// same memory may be used at once as long as their ids are disjoint: sorted keys cut with
    /// [`run_start`](super::run_start) have that property.
    pub unsafe fn from_raw(ptr: *mut f32, rows: usize, dim: usize, stride: usize) -> Self {
        assert!(dim <= stride, "table: {dim} weights do not fit a stride of {stride}");
        assert!(dim <= MAX_DIM, "table: rows of {dim} weights, at most {MAX_DIM} are supported");
        Self { ptr, rows, dim, stride, life: PhantomData }
    }

    /// All values of row `id`: weights and state.
    #[inline(always)]
    fn row_mut(&mut self, id: u32) -> &mut [f32] {
        assert!((id as usize) < self.rows, "id {id} of a table with {} rows", self.rows);
        // SAFETY: the row is inside the table by the check, and this table's alone by the contract of `from_raw`.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(id as usize * self.stride), self.stride) }
    }
}

dispatch! {
    /// Sums the gradient rows of each id of `keys` and applies `optimizer` to its row of `table`.
    ///
    /// `keys` are sorted by id ([`sort_lookups`](super::sort_lookups)); an id must not be spread over two calls of
    /// one step. With `skip_id_zero` row 0, the unknown one, keeps its values.
    ///
    /// # Panics
    /// When a source is not as wide as the table's weights, a position names no gradient row, an id no row of the
    /// table, or the table's stride has no room for the optimiser's state.
    pub fn update_rows(
        keys: &[u64], sources: GradientSources<'_>, table: TableMut<'_>, optimizer: &RowOptimizer, skip_id_zero: bool,
    ) = update_rows_body;
}

#[inline(always)]
fn update_rows_body<S: Simd>(
    s: S,
    keys: &[u64],
    sources: GradientSources<'_>,
    mut table: TableMut<'_>,
    optimizer: &RowOptimizer,
    skip_id_zero: bool,
) {
    let dim = table.dim;
    let used = dim + optimizer.state_width(dim);
    assert!(
        used <= table.stride,
        "update_rows: {used} values of weights and state, a stride of {}",
        table.stride
    );
    let targets = Targets { first: table.ptr, stride: table.stride, len: used };
    let unknown = if skip_id_zero { keys.partition_point(|key| key >> 32 == 0) } else { 0 };
    let mut runs = Runs::new(&keys[unknown..], sources, dim, targets);
    let mut buffer = [0.0; MAX_DIM];
    let gradient = &mut buffer[..dim];
    while let Some(id) = runs.id() {
        runs.sum(s, gradient);
        optimizer.apply(s, gradient, &mut table.row_mut(id)[..used]);
    }
}
