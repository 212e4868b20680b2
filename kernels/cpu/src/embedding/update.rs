//! Row optimisers: the gradient rows of an id are summed and applied to its row of the table in one pass.

use super::check_table;
use super::coalesce::{GradientSources, Runs, Targets};
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use std::marker::PhantomData;

/// The widest row that [`update_rows`] takes: the sum of a row's gradients lies on the stack.
pub const MAX_DIM: usize = 1024;

/// How a row of an embedding table moves. Only rows that were looked up move, weights and state alike.
///
/// Below `g` is the summed gradient of the row plus `l2` times its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowOptimizer {
    /// Adam without the rows that were not looked up. Row: `[w dim | m dim | v dim]`.
    ///
    /// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
    /// `w -= rate correction m / (sqrt(v) + epsilon)`.
    LazyAdam {
        /// Step size.
        rate: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Keeps the quotient finite.
        epsilon: f32,
        /// [`RowOptimizer::adam_correction`] of the step.
        correction: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
    /// Adagrad with one accumulator a row. Row: `[w dim | a]`.
    ///
    /// `a += mean(g^2)`, `w -= rate g / (sqrt(a) + epsilon)`.
    RowwiseAdagrad {
        /// Step size.
        rate: f32,
        /// Keeps the quotient finite.
        epsilon: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
    /// Plain descent, `w -= rate g`. Row: `[w dim]`.
    Sgd {
        /// Step size.
        rate: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
}

impl RowOptimizer {
    /// Values of state beside the `dim` weights of a row.
    pub fn state_width(&self, dim: usize) -> usize {
        match self {
            RowOptimizer::LazyAdam { .. } => 2 * dim,
            RowOptimizer::RowwiseAdagrad { .. } => 1,
            RowOptimizer::Sgd { .. } => 0,
        }
    }

    /// The bias correction `sqrt(1 - beta2^step) / (1 - beta1^step)` of lazy Adam; `step` counts the steps of the
    /// training from 1, not those that touched a row.
    pub fn adam_correction(beta1: f32, beta2: f32, step: u64) -> f32 {
        let power = |beta: f32| f64::from(beta).powf(step as f64);
        ((1.0 - power(beta2)).sqrt() / (1.0 - power(beta1))) as f32
    }
}

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
        apply(s, optimizer, gradient, &mut table.row_mut(id)[..used]);
    }
}

/// Moves one row by its summed gradient.
#[inline(always)]
fn apply<S: Simd>(s: S, optimizer: &RowOptimizer, gradient: &mut [f32], row: &mut [f32]) {
    let (weights, state) = row.split_at_mut(gradient.len());
    match *optimizer {
        RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 } => {
            let (first, second) = state.split_at_mut(weights.len());
            let l2 = s.splat(l2);
            let (rate, epsilon) = (s.splat(rate * correction), s.splat(epsilon));
            let (rest1, rest2) = (s.splat(1.0 - beta1), s.splat(1.0 - beta2));
            let (beta1, beta2) = (s.splat(beta1), s.splat(beta2));
            for span in spans(s, weights.len()) {
                let w = load_span(s, weights, span);
                let g = s.mul_add(l2, w, load_span(s, gradient, span));
                let m = s.mul_add(beta1, load_span(s, first, span), s.mul(rest1, g));
                let v = s.mul_add(beta2, load_span(s, second, span), s.mul(rest2, s.mul(g, g)));
                let moved = s.div(s.mul(rate, m), s.add(s.sqrt(v), epsilon));
                store_span(s, first, span, m);
                store_span(s, second, span, v);
                store_span(s, weights, span, s.sub(w, moved));
            }
        }
        RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 } => {
            let squares = add_l2(s, l2, gradient, weights);
            if !weights.is_empty() {
                state[0] += squares / weights.len() as f32;
            }
            descend(s, rate / (state[0].sqrt() + epsilon), gradient, weights);
        }
        RowOptimizer::Sgd { rate, l2 } => {
            add_l2(s, l2, gradient, weights);
            descend(s, rate, gradient, weights);
        }
    }
}

/// `g += l2 w`; returns the sum of the squares of `g`.
#[inline(always)]
fn add_l2<S: Simd>(s: S, l2: f32, g: &mut [f32], w: &[f32]) -> f32 {
    let mut squares = s.splat(0.0);
    for span in spans(s, w.len()) {
        let sum = s.mul_add(s.splat(l2), load_span(s, w, span), load_span(s, g, span));
        squares = s.mul_add(sum, sum, squares);
        store_span(s, g, span, sum);
    }
    s.sum(squares)
}

/// `w -= rate g`.
#[inline(always)]
fn descend<S: Simd>(s: S, rate: f32, g: &[f32], w: &mut [f32]) {
    for span in spans(s, w.len()) {
        let moved = s.mul_add(s.splat(-rate), load_span(s, g, span), load_span(s, w, span));
        store_span(s, w, span, moved);
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

    fn optimizers() -> [RowOptimizer; 3] {
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
            RowOptimizer::RowwiseAdagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
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
        let (dim, stride, rows) = (16, 48, 500);
        let data = values(3, 4000 * dim, 1.0);
        let sources = [Mat::new(&data, 4000, dim)];
        let sources = GradientSources::new(&sources, 12);
        let ids: Vec<u32> = (0..4000u32).map(|i| i.wrapping_mul(2_654_435_761) % rows as u32).collect();
        let keys = reference::keys(&ids, 1, 4000, 12);
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
        let (low, high) = keys.split_at(run_start(&keys, 2000));
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
