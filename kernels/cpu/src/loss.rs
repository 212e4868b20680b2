//! Binary cross-entropy from logits, and the probabilities themselves.

use crate::dispatch;
use crate::lanes::{MAX_LANES, Span, load_span, spans, store_span};
use crate::math;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

dispatch! {
    /// Sum of the binary cross-entropies of `logits` `[rows, 1]` against `labels`, and its gradient.
    ///
    /// A row's loss is `max(z, 0) - z y + ln(1 + e^-|z|)`; the returned sum is not scaled. `d_logits` `[rows, 1]`
    /// becomes `scale * (sigmoid(z) - y)`. With `counted`, only rows whose value there is above 0 (1 by convention)
    /// count; the others add no loss and have the gradient 0. A logit that counts and is not finite makes the sum
    /// not finite.
    ///
    /// # Panics
    /// When lengths differ or `logits` or `d_logits` is not one column.
    pub fn bce_with_logits(
        logits: Mat<'_>, labels: &[f32], counted: Option<&[f32]>, scale: f32, d_logits: Option<MatMut<'_>>,
    ) -> f64 = bce_body;
}

#[inline(always)]
fn bce_body<S: Simd>(
    s: S,
    logits: Mat<'_>,
    labels: &[f32],
    counted: Option<&[f32]>,
    scale: f32,
    mut d_logits: Option<MatMut<'_>>,
) -> f64 {
    let rows = logits.rows();
    assert_eq!(logits.cols(), 1, "bce: the logits are not one column");
    assert_eq!(labels.len(), rows, "bce: not one label a row");
    assert!(counted.is_none_or(|counted| counted.len() == rows), "bce: not one count a row");
    let one_column = |d: &MatMut<'_>| (d.rows(), d.cols()) == (rows, 1);
    assert!(d_logits.as_ref().is_none_or(one_column), "bce: the gradient has another shape");
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let mut total = 0.0;
    for span in spans(s, rows) {
        let here = Span { from: 0, ..span };
        // The logits are a column of a wider buffer as a rule.
        let mut column = [0.0f32; MAX_LANES];
        for i in 0..span.lanes {
            column[i] = logits.row(span.from + i)[0];
        }
        let z = load_span(s, &column, here);
        let y = load_span(s, labels, span);
        let counts = match counted {
            Some(counted) => s.greater(load_span(s, counted, span), zero),
            None => s.greater(one, zero),
        };
        let e = math::exp(s, s.sub(zero, s.abs(z)));
        // In this order `max` hands a NaN through.
        let loss = s.add(s.sub(s.max(zero, z), s.mul(z, y)), math::log1p_of_unit(s, e));
        store_span(s, &mut column, here, s.select(counts, loss, zero));
        // In row order, so that the sum does not depend on the vector's length.
        for i in 0..span.lanes {
            total += f64::from(column[i]);
        }
        if let Some(d_logits) = &mut d_logits {
            let probability = s.div(s.select(s.greater(z, zero), one, e), s.add(one, e));
            let d = s.mul(s.splat(scale), s.sub(probability, y));
            store_span(s, &mut column, here, s.select(counts, d, zero));
            for i in 0..span.lanes {
                d_logits.row_mut(span.from + i)[0] = column[i];
            }
        }
    }
    total
}

dispatch! {
    /// Writes `1 / (1 + e^-z)` of every logit to `out`.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn sigmoid(logits: Mat<'_>, out: MatMut<'_>) = sigmoid_body;
}

#[inline(always)]
fn sigmoid_body<S: Simd>(s: S, logits: Mat<'_>, mut out: MatMut<'_>) {
    assert_eq!((logits.rows(), logits.cols()), (out.rows(), out.cols()), "sigmoid: the shapes differ");
    for r in 0..logits.rows() {
        let (logits, out) = (logits.row(r), out.row_mut(r));
        for span in spans(s, logits.len()) {
            store_span(s, out, span, math::sigmoid(s, load_span(s, logits, span)));
        }
    }
}
