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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use proptest::prelude::*;

    fn exact(z: f64, y: f64) -> f64 {
        z.max(0.0) - z * y + (-z.abs()).exp().ln_1p()
    }

    proptest! {
        #[test]
        fn losses_and_gradients_agree_with_f64(
            rows in 0usize..70, stride in 1usize..4, some: bool, soft: bool, seed: u64, scale in 0.1f32..3.0,
        ) {
            let logits = values(seed, rows * stride, 12.0);
            let labels: Vec<f32> = values(seed ^ 1, rows, 1.0)
                .iter().map(|&x| if soft { x.abs() } else { f32::from(x > 0.0) }).collect();
            let counted: Vec<f32> = values(seed ^ 2, rows, 1.0).iter().map(|&x| f32::from(x > -0.5)).collect();
            let counts = |r: usize| !some || counted[r] == 1.0;
            let z = |r: usize| f64::from(logits[r * stride]);
            let y = |r: usize| f64::from(labels[r]);
            let expected: f64 = (0..rows).filter(|&r| counts(r)).map(|r| exact(z(r), y(r))).sum();
            for isa in Isa::available() {
                let mut d = vec![7.0; rows * stride];
                let view = Mat::strided(&logits, rows, 1, stride);
                let counted = some.then_some(&counted[..]);
                let sum = bce_with_logits(isa, view, &labels, counted, scale,
                    Some(MatMut::strided(&mut d, rows, 1, stride)));
                prop_assert!((sum - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{isa}: {sum}, {expected}");
                prop_assert_eq!(sum, bce_with_logits(isa, view, &labels, counted, scale, None));
                for i in 0..rows * stride {
                    if i % stride != 0 {
                        prop_assert_eq!(d[i], 7.0, "padding was written");
                        continue;
                    }
                    let r = i / stride;
                    let h = 1e-5;
                    let slope = (exact(z(r) + h, y(r)) - exact(z(r) - h, y(r))) / (2.0 * h) * f64::from(scale);
                    prop_assert!(close(d[i], if counts(r) { slope } else { 0.0 }, 2e-6), "{isa} row {r}: {}", d[i]);
                }
            }
        }

        #[test]
        fn probabilities_agree_with_f64(rows in 0usize..5, cols in 0usize..40, seed: u64) {
            let logits = values(seed, rows * cols, 20.0);
            for isa in Isa::available() {
                let mut p = vec![7.0; rows * cols];
                sigmoid(isa, Mat::new(&logits, rows, cols), MatMut::new(&mut p, rows, cols));
                for (&z, &p) in logits.iter().zip(&p) {
                    prop_assert!(close(p, 1.0 / (1.0 + f64::from(-z).exp()), 3e-7));
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_shows_in_the_sum_and_only_where_it_counts() {
        let large = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for isa in Isa::available() {
            for (z, y) in large.into_iter().flat_map(|z| [(z, 0.0), (z, 1.0)]) {
                let logits = [0.5, z, -0.5];
                let labels = [1.0, y, 0.0];
                let mut d = [7.0; 3];
                let mut sum = |counted: Option<&[f32]>| {
                    let d = MatMut::new(&mut d, 3, 1);
                    bce_with_logits(isa, Mat::new(&logits, 3, 1), &labels, counted, 1.0, Some(d))
                };
                assert!(!sum(None).is_finite(), "{isa}: logit {z}, label {y}");
                assert!(sum(Some(&[1.0, 0.0, 1.0])).is_finite());
                assert_eq!(d[1], 0.0);
            }
            let sum = bce_with_logits(isa, Mat::new(&[1e4, -1e4], 2, 1), &[0.0, 1.0], None, 1.0, None);
            assert_eq!(sum, 2e4);
        }
    }
}
