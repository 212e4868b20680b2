//! Pooled look-ups: a list of ids a row, summed or averaged.

use super::{AHEAD, Rows};
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::MatMut;

/// How the rows of a bag become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their sum.
    Sum,
    /// Their sum divided by their number.
    Mean,
}

impl Pooling {
    /// The factor on the sum of `count >= 1` rows.
    #[inline(always)]
    fn scale(self, count: usize) -> f32 {
        match self {
            Pooling::Sum => 1.0,
            Pooling::Mean => 1.0 / count as f32,
        }
    }
}

dispatch! {
    /// Pools the table's rows `ids[offsets[i] .. offsets[i + 1]]` to row `i` of `out` `[offsets.len() - 1, dim]`.
    ///
    /// Rows are added in the order of the list. An empty list gives zeros.
    ///
    /// # Panics
    /// When `out` has another shape, the offsets decrease or exceed `ids`, or an id is not below the number of rows.
    pub fn gather_bag(table: Rows<'_>, offsets: &[u32], ids: &[u32], pooling: Pooling, out: MatMut<'_>)
        = gather_bag_body;
}

#[inline(always)]
fn gather_bag_body<S: Simd>(
    s: S,
    table: Rows<'_>,
    offsets: &[u32],
    ids: &[u32],
    pooling: Pooling,
    mut out: MatMut<'_>,
) {
    assert_eq!(
        (out.rows() + 1, out.cols()),
        (offsets.len(), table.dim()),
        "gather_bag: the output has another shape"
    );
    for i in 0..out.rows() {
        let from = offsets[i] as usize;
        let bag = &ids[from..offsets[i + 1] as usize];
        let scale = s.splat(pooling.scale(bag.len().max(1)));
        let pooled = out.row_mut(i);
        for span in spans(s, pooled.len()) {
            let mut sum = s.splat(0.0);
            for k in 0..bag.len() {
                if let (0, Some(&coming)) = (span.from, ids.get(from + k + AHEAD)) {
                    table.prefetch(coming);
                }
                sum = s.add(sum, load_span(s, table.row(bag[k]), span));
            }
            store_span(s, pooled, span, s.mul(sum, scale));
        }
    }
}

dispatch! {
    /// Turns the gradient at pooled rows into the gradient of each row of their bags, in place: row `i` of `d` is
    /// divided by the length of bag `i` for [`Pooling::Mean`], and left as it is for [`Pooling::Sum`].
    ///
    /// # Panics
    /// When `d` has not one row a bag, or the offsets decrease.
    pub fn scale_bag_gradient(offsets: &[u32], pooling: Pooling, d: MatMut<'_>) = scale_bag_gradient_body;
}

#[inline(always)]
fn scale_bag_gradient_body<S: Simd>(s: S, offsets: &[u32], pooling: Pooling, mut d: MatMut<'_>) {
    assert_eq!(d.rows() + 1, offsets.len(), "scale_bag_gradient: not one row a bag");
    if pooling == Pooling::Sum {
        return;
    }
    for i in 0..d.rows() {
        assert!(offsets[i] <= offsets[i + 1], "scale_bag_gradient: offsets decrease at bag {i}");
        let count = (offsets[i + 1] - offsets[i]) as usize;
        if count > 1 {
            let scale = s.splat(pooling.scale(count));
            let d = d.row_mut(i);
            for span in spans(s, d.len()) {
                let scaled = s.mul(load_span(s, d, span), scale);
                store_span(s, d, span, scaled);
            }
        }
    }
}
