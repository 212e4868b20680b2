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

#[cfg(test)]
mod tests {
    use super::super::{reference, run_start};
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use crate::view::Mat;
    use proptest::prelude::*;

    fn optimizers() -> [RowOptimizer; 5] {
        let correction = RowOptimizer::adam_correction(0.9, 0.999, 3);
        [
            RowOptimizer::LazyAdam {
                rate: 0.01,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                correction,
                l2: 0.01,
            },
            RowOptimizer::Adagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
            RowOptimizer::RowwiseAdagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
            RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1: 0.3, l2: 0.02 },
            RowOptimizer::Sgd { rate: 0.1, l2: 0.03 },
        ]
    }

    proptest! {
        #[test]
        fn rows_move_as_in_f64_and_alike_when_cut(
            dim in 0usize..40, pad in 0usize..3, rows in 1usize..20, skip: bool, seed: u64,
            ids in prop::collection::vec(0u32..7, 0..120), cut in 0usize..120,
        ) {
            let data: Vec<Vec<f32>> = (0..2).map(|i| values(seed ^ i, rows * dim, 1.0)).collect();
            let sources: Vec<Mat<'_>> = data.iter().map(|d| Mat::new(d, rows, dim)).collect();
            let sources = GradientSources::new(&sources, 6);
            let keys = reference::keys(&ids, 2, rows, 6);
            let cut = run_start(&keys, cut.min(keys.len()));
            for optimizer in optimizers() {
                let stride = dim + optimizer.state_width(dim) + pad;
                let mut before = values(seed ^ 9, 7 * stride, 1.0);
                // Second moments are positive, and not so small that the quotient magnifies the rounding of a sum.
                for row in before.chunks_mut(stride.max(1)) {
                    row.iter_mut().skip(dim).for_each(|x| *x = 0.1 + x.abs());
                }
                let expected = reference::updated(&keys, sources, &before, dim, stride, &optimizer, skip);
                for isa in Isa::available() {
                    let mut table = before.clone();
                    update_rows(isa, &keys, sources, TableMut::new(&mut table, 7, dim, stride), &optimizer, skip);
                    for (i, &x) in table.iter().enumerate() {
                        prop_assert!(close(x, expected[i], 1e-5), "{isa} {optimizer:?} [{i}]: {x}, {}", expected[i]);
                    }
                    let mut in_parts = before.clone();
                    for keys in [&keys[cut..], &keys[..cut]] {
                        update_rows(isa, keys, sources, TableMut::new(&mut in_parts, 7, dim, stride), &optimizer, skip);
                    }
                    prop_assert_eq!(&in_parts, &table);
                }
            }
        }
    }

    #[test]
    fn two_threads_with_disjoint_ids_give_the_same_bits() {
        let (dim, stride, rows, lookups) = (16, 48, 500, if cfg!(miri) { 60 } else { 4000 });
        let data = values(3, lookups * dim, 1.0);
        let sources = [Mat::new(&data, lookups, dim)];
        let sources = GradientSources::new(&sources, 12);
        let ids: Vec<u32> =
            (0..lookups as u32).map(|i| i.wrapping_mul(2_654_435_761) % rows as u32).collect();
        let keys = reference::keys(&ids, 1, lookups, 12);
        let optimizer = optimizers()[0];
        let mut one = vec![0.25; rows * stride];
        let mut two = one.clone();
        update_rows(
            Isa::best(),
            &keys,
            sources,
            TableMut::new(&mut one, rows, dim, stride),
            &optimizer,
            true,
        );
        let (low, high) = keys.split_at(run_start(&keys, lookups / 2));
        let ptr = two.as_mut_ptr();
        // SAFETY: `two` has `rows * stride` values and outlives the threads; the ids of `low` and `high` are disjoint.
        let tables = unsafe { [low, high].map(|keys| (keys, TableMut::from_raw(ptr, rows, dim, stride))) };
        std::thread::scope(|scope| {
            for (keys, table) in tables {
                scope.spawn(move || update_rows(Isa::best(), keys, sources, table, &optimizer, true));
            }
        });
        assert_eq!(one, two);
    }

    #[test]
    #[should_panic(expected = "weights and state")]
    fn a_stride_without_room_for_the_state_is_refused() {
        let data = [0.0; 4];
        let sources = [Mat::new(&data, 2, 2)];
        let table = &mut [0.0; 8];
        let table = TableMut::new(table, 2, 2, 4);
        update_rows(Isa::best(), &[0], GradientSources::new(&sources, 4), table, &optimizers()[0], false);
    }
}
