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
    pub fn row(&self, key: u64) -> &'a [f32] {
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
