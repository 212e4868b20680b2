//! Sums of the gradient rows of each id.

use super::{AHEAD, prefetch};
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Keys taken at a time: a run of one id may be much longer than what can be asked for ahead.
const PIECE: usize = 32;

/// Where gradient rows lie: the position in the lower half of a key is `source << row_bits | row`.
///
/// Several look-ups may name one row: all ids of a bag share the gradient at their pooled row.
#[derive(Clone, Copy, Debug)]
pub struct GradientSources<'a> {
    sources: &'a [Mat<'a>],
    row_bits: u32,
}

impl<'a> GradientSources<'a> {
    /// Gradient rows in `sources`, each `[rows, dim]`, with `row_bits` bits of the position for the row.
    ///
    /// # Panics
    /// When `row_bits > 32`.
    pub fn new(sources: &'a [Mat<'a>], row_bits: u32) -> Self {
        assert!(row_bits <= 32, "a position has 32 bits, not {row_bits} for the row alone");
        Self { sources, row_bits }
    }

    /// The gradient row that a key names.
    ///
    /// # Panics
    /// When there is no such source or row.
    #[inline(always)]
    pub(super) fn row(&self, key: u64) -> &'a [f32] {
        let position = u64::from(key as u32);
        let row = position & ((1 << self.row_bits) - 1);
        self.sources[(position >> self.row_bits) as usize].row(row as usize)
    }

    fn check(&self, dim: usize) {
        assert!(
            self.sources.iter().all(|source| source.cols() == dim),
            "a gradient source is not {dim} wide"
        );
    }
}

/// Walks the runs of equal ids in sorted keys, summing the gradient rows of each.
pub(super) struct Runs<'a> {
    keys: &'a [u64],
    sources: GradientSources<'a>,
    targets: Targets,
    next: usize,
}

/// The rows that sums go to: `len` values are asked for ahead, none where `len` is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Targets {
    pub(super) first: *const f32,
    pub(super) stride: usize,
    pub(super) len: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(keys: &'a [u64], sources: GradientSources<'a>, dim: usize, targets: Targets) -> Self {
        sources.check(dim);
        Self { keys, sources, targets, next: 0 }
    }

    /// The id of the next run, without moving to it.
    #[inline(always)]
    pub(super) fn id(&self) -> Option<u32> {
        self.keys.get(self.next).map(|key| (key >> 32) as u32)
    }

    /// Sums the next run to `sum`, in order of position, and moves behind it.
    #[inline(always)]
    pub(super) fn sum<S: Simd>(&mut self, s: S, sum: &mut [f32]) {
        let id = self.keys[self.next] >> 32;
        let mut fresh = true;
        loop {
            let start = self.next;
            while self.next < self.keys.len() && self.next < start + PIECE && self.keys[self.next] >> 32 == id
            {
                if let Some(&coming) = self.keys.get(self.next + AHEAD) {
                    let row = self.sources.row(coming);
                    prefetch(row.as_ptr(), row.len());
                    let id = (coming >> 32) as usize;
                    prefetch(self.targets.first.wrapping_add(id * self.targets.stride), self.targets.len);
                }
                self.next += 1;
            }
            if start == self.next {
                return;
            }
            add_rows(s, &self.keys[start..self.next], self.sources, fresh, sum);
            fresh = false;
        }
    }
}

/// Adds the gradient rows of `keys` to `sum`, or writes their sum where it is `fresh`.
#[inline(always)]
fn add_rows<S: Simd>(s: S, keys: &[u64], sources: GradientSources<'_>, fresh: bool, sum: &mut [f32]) {
    for span in spans(s, sum.len()) {
        let mut total = if fresh { s.splat(0.0) } else { load_span(s, sum, span) };
        for &key in keys {
            total = s.add(total, load_span(s, sources.row(key), span));
        }
        store_span(s, sum, span, total);
    }
}

dispatch! {
    /// Sums the gradient rows of each id. Returns the number of distinct ids, `count`.
    ///
    /// `keys` are sorted by id ([`sort_lookups`](super::sort_lookups)). `ids_out[..count]` become the distinct ids in
    /// ascending order, row `i` of `grads_out` `[>= count, dim]` the sum over the keys of `ids_out[i]`, added in the
    /// order of the keys.
    ///
    /// # Panics
    /// When a source is not `dim` wide, a position names no row, or an output is too small.
    pub fn coalesce(
        keys: &[u64], sources: GradientSources<'_>, dim: usize, ids_out: &mut [u32], grads_out: MatMut<'_>,
    ) -> usize = coalesce_body;
}

#[inline(always)]
fn coalesce_body<S: Simd>(
    s: S,
    keys: &[u64],
    sources: GradientSources<'_>,
    dim: usize,
    ids_out: &mut [u32],
    mut grads_out: MatMut<'_>,
) -> usize {
    assert_eq!(grads_out.cols(), dim, "coalesce: the output is not {dim} wide");
    // Sums are written one behind the other: nothing to ask for.
    let targets = Targets { first: std::ptr::null(), stride: 0, len: 0 };
    let mut runs = Runs::new(keys, sources, dim, targets);
    let mut count = 0;
    while let Some(id) = runs.id() {
        ids_out[count] = id;
        runs.sum(s, grads_out.row_mut(count));
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_agree_with_f64_and_their_bits_on_every_instruction_set(
            dim in 0usize..40, rows in 1usize..20, ids in prop::collection::vec(0u32..5, 0..150), seed: u64,
        ) {
            let data: Vec<Vec<f32>> = (0..3).map(|i| values(seed ^ i, rows * dim, 1.0)).collect();
            let sources: Vec<Mat<'_>> = data.iter().map(|d| Mat::new(d, rows, dim)).collect();
            let sources = GradientSources::new(&sources, 5);
            let keys = reference::keys(&ids, 3, rows, 5);
            let expected = reference::summed(&keys, sources, dim);
            let mut scalar_bits = None;
            for isa in Isa::available() {
                let mut ids_out = vec![0; expected.len()];
                let mut grads = vec![7.0; expected.len() * dim];
                let count = coalesce(isa, &keys, sources, dim, &mut ids_out,
                    MatMut::new(&mut grads, expected.len(), dim));
                prop_assert_eq!(count, expected.len());
                for (i, (id, sum)) in expected.iter().enumerate() {
                    prop_assert_eq!(ids_out[i], *id);
                    for c in 0..dim {
                        prop_assert!(close(grads[i * dim + c], sum[c], 1e-5), "{isa}");
                    }
                }
                prop_assert_eq!(scalar_bits.get_or_insert(grads.clone()), &grads);
            }
        }
    }

    #[test]
    #[should_panic]
    fn a_position_without_a_row_is_refused() {
        let data = [0.0; 4];
        let sources = [Mat::new(&data, 2, 2)];
        coalesce(
            Isa::best(),
            &[2],
            GradientSources::new(&sources, 4),
            2,
            &mut [0],
            MatMut::new(&mut [0.0; 2], 1, 2),
        );
    }
}
