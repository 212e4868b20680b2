//! Packed right operands.
//!
//! A packed matrix is a row of panels: panel `j` holds columns `16 j .. 16 j + 16` for the whole inner index, row after
//! row, with zeros behind the last column, so that one row of a panel is one cache line. The layout does not depend on
//! the instruction set: a tile of 64 columns reads four panels side by side, one of 16 columns reads one.

use crate::dispatch;
use crate::lanes::{load_chunk, store_chunk};
use crate::simd::Simd;
use crate::view::Mat;

/// Columns of a panel.
pub(super) const PANEL: usize = 16;

/// Columns that [`pack`] takes at a time.
const STRIP: usize = 4 * PANEL;

/// Values that a packed `[inner, cols]` takes.
pub const fn packed_len(inner: usize, cols: usize) -> usize {
    cols.div_ceil(PANEL) * PANEL * inner
}

/// Values that `groups` packed `[inner, cols]`, one after the other, take.
pub const fn grouped_packed_len(groups: usize, inner: usize, cols: usize) -> usize {
    groups * packed_len(inner, cols)
}

/// A packed right operand `[inner, cols]`. Products are fastest where the data starts on a cache line.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    data: &'a [f32],
    inner: usize,
    cols: usize,
}

impl<'a> Packed<'a> {
    /// `data` as [`pack`] or [`pack_transposed`] wrote it.
    ///
    /// # Panics
    /// When `data` has another length than [`packed_len`].
    pub fn new(data: &'a [f32], inner: usize, cols: usize) -> Self {
        assert_eq!(data.len(), packed_len(inner, cols), "a packed [{inner}, {cols}]");
        Self { data, inner, cols }
    }

    /// Length of the inner index.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Columns, those that the padding adds not counted.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Pointer to the element `k`, `col`. Its row of the panel lies around it; the next row is [`PANEL`] values on, the
    /// same place of the next panel `PANEL * inner` values on.
    #[inline(always)]
    pub(super) fn at(&self, k: usize, col: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add((col / PANEL * self.inner + k) * PANEL + col % PANEL)
    }
}

/// The packed right operands `[inner, cols]` of `groups` products.
#[derive(Clone, Copy, Debug)]
pub struct GroupedPacked<'a> {
    data: &'a [f32],
    groups: usize,
    inner: usize,
    cols: usize,
}

impl<'a> GroupedPacked<'a> {
    /// `data` as [`grouped_pack`] or [`grouped_pack_transposed`] wrote it.
    ///
    /// # Panics
    /// When `data` has another length than [`grouped_packed_len`].
    pub fn new(data: &'a [f32], groups: usize, inner: usize, cols: usize) -> Self {
        assert_eq!(data.len(), grouped_packed_len(groups, inner, cols), "{groups} packed [{inner}, {cols}]");
        Self { data, groups, inner, cols }
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Length of the inner index of one group.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Columns of one group.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The right operand of group `g`.
    ///
    /// # Panics
    /// When `g` is out of range.
    pub fn group(&self, g: usize) -> Packed<'a> {
        assert!(g < self.groups, "group {g} of {}", self.groups);
        let len = packed_len(self.inner, self.cols);
        Packed::new(&self.data[g * len..][..len], self.inner, self.cols)
    }
}

dispatch! {
    /// Packs `weight` `[out, in]` as it stands (inner index `out`, columns `in`): the right operand of
    /// [`linear_dx`](super::linear_dx).
    ///
    /// # Panics
    /// When `packed` has another length than [`packed_len`]`(out, in)`.
    pub fn pack(weight: Mat<'_>, packed: &mut [f32]) = pack_body;
}

#[inline(always)]
fn pack_body<S: Simd>(s: S, weight: Mat<'_>, packed: &mut [f32]) {
    let (inner, cols) = (weight.rows(), weight.cols());
    assert_eq!(packed.len(), packed_len(inner, cols), "pack [{inner}, {cols}]");
    // A few panels at a time, so that few places are written and each row is still read in pieces worth fetching.
    for strip in (0..cols).step_by(STRIP) {
        for k in 0..inner {
            let row = &weight.row(k)[strip..cols.min(strip + STRIP)];
            let (whole, rest) = row.as_chunks::<PANEL>();
            let first = (strip * inner) + k * PANEL;
            for (j, from) in whole.iter().enumerate() {
                let to = &mut packed[first + j * PANEL * inner..][..PANEL];
                for c in (0..PANEL).step_by(S::LANES) {
                    s.store(&mut to[c..], s.load(&from[c..]));
                }
            }
            if !rest.is_empty() {
                let to = &mut packed[first + whole.len() * PANEL * inner..][..PANEL];
                to.fill(0.0);
                to[..rest.len()].copy_from_slice(rest);
            }
        }
    }
}

dispatch! {
    /// Packs the transpose of `weight` `[out, in]` (inner index `in`, columns `out`): the right operand of
    /// [`linear`](super::linear).
    ///
    /// # Panics
    /// When `packed` has another length than [`packed_len`]`(in, out)`.
    pub fn pack_transposed(weight: Mat<'_>, packed: &mut [f32]) = pack_transposed_body;
}

#[inline(always)]
fn pack_transposed_body<S: Simd>(s: S, weight: Mat<'_>, packed: &mut [f32]) {
    let (inner, cols) = (weight.cols(), weight.rows());
    assert_eq!(packed.len(), packed_len(inner, cols), "pack_transposed [{cols}, {inner}]");
    if inner == 0 {
        return;
    }
    for (j, panel) in packed.chunks_exact_mut(PANEL * inner).enumerate() {
        let width = PANEL.min(cols - j * PANEL);
        for k0 in (0..inner).step_by(PANEL) {
            let depth = PANEL.min(inner - k0);
            // A square at a time: its rows are read whole, then its columns are written whole.
            let mut square = [[0.0; PANEL]; PANEL];
            for (c, row) in square.iter_mut().enumerate().take(width) {
                let from = &weight.row(j * PANEL + c)[k0..k0 + depth];
                for (from, to) in from.chunks(S::LANES).zip(row.chunks_exact_mut(S::LANES)) {
                    store_chunk(s, to, load_chunk(s, from));
                }
            }
            for (k, to) in panel[k0 * PANEL..].chunks_exact_mut(PANEL).take(depth).enumerate() {
                for (to, row) in to.iter_mut().zip(&square) {
                    *to = row[k];
                }
            }
        }
    }
}

/// [`pack`] for each of `groups` weights stacked in rows: `weight` is `[groups * out, in]`.
///
/// # Panics
/// When the rows do not divide into groups or `packed` has another length than [`grouped_packed_len`]`(groups, out, in)`.
pub fn grouped_pack(isa: crate::Isa, groups: usize, weight: Mat<'_>, packed: &mut [f32]) {
    each_group(groups, weight, packed, |weight, packed| pack(isa, weight, packed));
}

/// [`pack_transposed`] for each of `groups` weights stacked in rows: `weight` is `[groups * out, in]`.
///
/// # Panics
/// When the rows do not divide into groups or `packed` has another length than [`grouped_packed_len`]`(groups, in, out)`.
pub fn grouped_pack_transposed(isa: crate::Isa, groups: usize, weight: Mat<'_>, packed: &mut [f32]) {
    each_group(groups, weight, packed, |weight, packed| pack_transposed(isa, weight, packed));
}

fn each_group(groups: usize, weight: Mat<'_>, packed: &mut [f32], pack: impl Fn(Mat<'_>, &mut [f32])) {
    let (out, len) = (split(groups, weight.rows()), split(groups, packed.len()));
    for g in 0..groups {
        pack(weight.row_range(g * out, out), &mut packed[g * len..][..len]);
    }
}

/// The `groups`-th part of `whole`.
pub(super) fn split(groups: usize, whole: usize) -> usize {
    assert!(groups > 0 && whole.is_multiple_of(groups), "{whole} does not divide into {groups} groups");
    whole / groups
}
