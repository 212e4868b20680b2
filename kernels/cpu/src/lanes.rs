//! Reading and writing slices a vector at a time, the last one in part.
//!
//! A kernel walks a row by its [`spans`], so that its body is written once and the end of the row is not a second copy
//! of it. Everything here is inlined without fail. Iterator adapters and closures are not, in a large kernel: the
//! compiler leaves them as calls, compiled without the kernel's instruction set, which cost more than the arithmetic.

use crate::simd::Simd;
use std::marker::PhantomData;

/// The widest vector of any instruction set, for buffers on the stack.
pub(crate) const MAX_LANES: usize = 16;

/// A vector's worth of consecutive values, or what is left of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The first value.
    pub(crate) from: usize,
    /// How many there are, 1 ..= `LANES`.
    pub(crate) lanes: usize,
}

impl Span {
    /// The span that lies `by` values further on.
    #[inline(always)]
    pub(crate) fn shifted(self, by: usize) -> Self {
        Self { from: self.from + by, lanes: self.lanes }
    }
}

/// The spans of a row; see [`spans`].
#[derive(Debug)]
pub(crate) struct Spans<S> {
    from: usize,
    len: usize,
    simd: PhantomData<S>,
}

/// Cuts `len` values into vectors, in order; only the last may be shorter than `LANES`.
#[inline(always)]
pub(crate) fn spans<S: Simd>(_: S, len: usize) -> Spans<S> {
    Spans { from: 0, len, simd: PhantomData }
}

impl<S: Simd> Iterator for Spans<S> {
    type Item = Span;

    #[inline(always)]
    fn next(&mut self) -> Option<Span> {
        if self.from >= self.len {
            return None;
        }
        let rest = self.len - self.from;
        let span = Span { from: self.from, lanes: if rest < S::LANES { rest } else { S::LANES } };
        self.from += span.lanes;
        Some(span)
    }
}

/// Reads a span of `values`; the lanes behind it are 0.
#[inline(always)]
pub(crate) fn load_span<S: Simd>(s: S, values: &[f32], span: Span) -> S::V {
    load_chunk(s, &values[span.from..span.from + span.lanes])
}

/// Writes a span of `values`.
#[inline(always)]
pub(crate) fn store_span<S: Simd>(s: S, values: &mut [f32], span: Span, v: S::V) {
    store_chunk(s, &mut values[span.from..span.from + span.lanes], v);
}

/// Reads the first `LANES` values of `from`, or all of them where there are fewer; the other lanes are 0.
#[inline(always)]
pub(crate) fn load_chunk<S: Simd>(s: S, from: &[f32]) -> S::V {
    if from.len() >= S::LANES { s.load(from) } else { s.load_part(from) }
}

/// Writes the first `LANES` values of `to`, or all of them where there are fewer.
#[inline(always)]
pub(crate) fn store_chunk<S: Simd>(s: S, to: &mut [f32], v: S::V) {
    if to.len() >= S::LANES { s.store(to, v) } else { s.store_part(to, v) }
}

/// Reads all of `from`, `V` vectors, of which the last may be partial unless they are `WHOLE`.
#[inline(always)]
pub(crate) fn load_row<S: Simd, const V: usize, const WHOLE: bool>(s: S, from: &[f32]) -> [S::V; V] {
    let mut row = [s.splat(0.0); V];
    for (v, to) in row.iter_mut().enumerate() {
        let from = &from[v * S::LANES..];
        *to = if WHOLE || v + 1 < V { s.load(from) } else { s.load_part(from) };
    }
    row
}

/// Writes all of `to`, as [`load_row`] reads it.
#[inline(always)]
pub(crate) fn store_row<S: Simd, const V: usize, const WHOLE: bool>(s: S, to: &mut [f32], row: [S::V; V]) {
    for (v, row) in row.into_iter().enumerate() {
        let to = &mut to[v * S::LANES..];
        if WHOLE || v + 1 < V { s.store(to, row) } else { s.store_part(to, row) }
    }
}
