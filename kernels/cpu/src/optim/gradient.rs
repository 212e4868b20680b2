//! The gradient itself: summed over lanes, measured, and made shorter.

use crate::dispatch;
use crate::lanes::{Span, load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::Mat;

/// Sums that run side by side in [`sum_squares`].
const ACCUMULATORS: usize = 16;

/// Sum over the rows of one span of columns.
#[inline(always)]
pub(super) fn lane_sum<S: Simd>(s: S, gradients: Mat<'_>, span: Span) -> S::V {
    let mut sum = s.splat(0.0);
    for lane in 0..gradients.rows() {
        sum = s.add(sum, load_span(s, gradients.row(lane), span));
    }
    sum
}

dispatch! {
    /// Sums the rows of `gradients` `[lanes, out.len()]` to `out`, in lane order. No lanes give zeros.
    ///
    /// # Panics
    /// When the widths differ.
    pub fn sum_lanes(gradients: Mat<'_>, out: &mut [f32]) = sum_lanes_body;
}

#[inline(always)]
fn sum_lanes_body<S: Simd>(s: S, gradients: Mat<'_>, out: &mut [f32]) {
    assert_eq!(gradients.cols(), out.len(), "sum_lanes: the widths differ");
    for span in spans(s, out.len()) {
        store_span(s, out, span, lane_sum(s, gradients, span));
    }
}

dispatch! {
    /// The sum of the squares of `values`, in f64: never infinite for finite values, and of the same bits on every
    /// instruction set.
    pub fn sum_squares(values: &[f32]) -> f64 = sum_squares_body;
}

/// Plain loops: a square of an f32 is exact in f64, and the order of the sums is written out here.
#[inline(always)]
fn sum_squares_body<S: Simd>(_: S, values: &[f32]) -> f64 {
    let mut sums = [0.0f64; ACCUMULATORS];
    let (whole, rest) = values.as_chunks::<ACCUMULATORS>();
    for chunk in whole {
        for i in 0..ACCUMULATORS {
            sums[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
        }
    }
    for i in 0..rest.len() {
        sums[i] += f64::from(rest[i]) * f64::from(rest[i]);
    }
    let mut total = 0.0;
    for sum in sums {
        total += sum;
    }
    total
}

dispatch! {
    /// `values *= factor`.
    pub fn scale(values: &mut [f32], factor: f32) = scale_body;
}

#[inline(always)]
fn scale_body<S: Simd>(s: S, values: &mut [f32], factor: f32) {
    for span in spans(s, values.len()) {
        let scaled = s.mul(load_span(s, values, span), s.splat(factor));
        store_span(s, values, span, scaled);
    }
}

dispatch! {
    /// Moves each of `values` into `-limit ..= limit`. What is not a number becomes `limit`: look before, with
    /// [`sum_squares`].
    pub fn clamp(values: &mut [f32], limit: f32) = clamp_body;
}

#[inline(always)]
fn clamp_body<S: Simd>(s: S, values: &mut [f32], limit: f32) {
    let (low, high) = (s.splat(-limit), s.splat(limit));
    for span in spans(s, values.len()) {
        let clamped = s.max(s.min(load_span(s, values, span), high), low);
        store_span(s, values, span, clamped);
    }
}
