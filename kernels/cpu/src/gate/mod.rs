//! Gates over a bank of experts: softmax weights and weighted sums, forward and backward.
//!
//! A row of the bank holds its experts side by side, `[E * d]`. All gates over one bank are served together, so that
//! the bank, by far the largest operand, is read once a row: in groups of up to four gates, whose sums stay in
//! registers. Banks with more gates are read again from the first-level cache.

mod self_scored;
mod subset;

pub use self_scored::{MAX_SOURCES, self_scored, self_scored_dx};
pub use subset::{BankGradient, Seen, gate_combine_seen, gate_combine_seen_dx};

use crate::dispatch;
use crate::lanes::{Span, load_span, spans, store_span};
use crate::math;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Gates served by one walk over a row of the bank.
const GROUP: usize = 4;

/// Experts in the bank and the width of each, of a gate product whose operands fit together.
fn bank_shape(gates: usize, logit_cols: usize, expert_cols: usize, mixed_cols: usize) -> (usize, usize) {
    assert!(gates >= 1, "gate: no gates");
    assert!(
        logit_cols.is_multiple_of(gates) && mixed_cols.is_multiple_of(gates),
        "gate: {logit_cols} logits and {mixed_cols} mixed values are not a multiple of {gates} gates"
    );
    let (experts, width) = (logit_cols / gates, mixed_cols / gates);
    assert_eq!(expert_cols, experts * width, "gate: the bank is not {experts} experts of width {width}");
    (experts, width)
}

dispatch! {
    /// Weighs and mixes the experts of a bank, for every gate over it.
    ///
    /// With `T = gates` and `E` experts of width `d`: `weights` `[rows, T * E]` becomes the softmax over each gate's
    /// `E` values of `logits` `[rows, T * E]`, and `mixed` `[rows, T * d]` the sums `sum_e weights[t, e] * expert_e`
    /// of the bank `experts` `[rows, E * d]`.
    ///
    /// # Panics
    /// When `gates` is 0 or the shapes do not fit together.
    pub fn gate_combine(
        gates: usize, logits: Mat<'_>, experts: Mat<'_>, weights: MatMut<'_>, mixed: MatMut<'_>,
    ) = gate_combine_body;
}

#[inline(always)]
fn gate_combine_body<S: Simd>(
    s: S,
    gates: usize,
    logits: Mat<'_>,
    experts: Mat<'_>,
    mut weights: MatMut<'_>,
    mut mixed: MatMut<'_>,
) {
    let rows = logits.rows();
    assert!(experts.rows() == rows && weights.rows() == rows && mixed.rows() == rows, "gate: rows differ");
    assert_eq!(weights.cols(), logits.cols(), "gate: weights and logits differ in width");
    let (count, width) = bank_shape(gates, logits.cols(), experts.cols(), mixed.cols());
    if count == 0 {
        return mixed.fill(0.0);
    }
    for r in 0..rows {
        softmax(s, logits.row(r), weights.row_mut(r), count);
        if width == 0 {
            continue;
        }
        let (bank, weights) = (experts.row(r), weights.row(r));
        let mixed = mixed.row_mut(r);
        for gate in (0..gates).step_by(GROUP) {
            let group = GROUP.min(gates - gate);
            let weights = &weights[gate * count..(gate + group) * count];
            let mixed = &mut mixed[gate * width..(gate + group) * width];
            match group {
                1 => combine::<S, 1, 4>(s, weights, bank, mixed),
                2 => combine::<S, 2, 4>(s, weights, bank, mixed),
                3 => combine::<S, 3, 2>(s, weights, bank, mixed),
                _ => combine::<S, GROUP, 2>(s, weights, bank, mixed),
            }
        }
    }
}

/// Softmax of each `count` values of `logits`. Minus infinity weighs 0; infinity or NaN make the whole gate NaN.
#[inline(always)]
fn softmax<S: Simd>(s: S, logits: &[f32], weights: &mut [f32], count: usize) {
    let gates = logits.len() / count;
    for gate in 0..gates {
        let mut largest = f32::NEG_INFINITY;
        for i in gate * count..(gate + 1) * count {
            largest = if logits[i] > largest { logits[i] } else { largest };
        }
        for i in gate * count..(gate + 1) * count {
            weights[i] = logits[i] - largest;
        }
    }
    // The exponentials run over all gates together: one gate alone seldom fills a vector.
    for span in spans(s, weights.len()) {
        let e = math::exp(s, load_span(s, weights, span));
        store_span(s, weights, span, e);
    }
    for gate in 0..gates {
        let mut sum = 0.0;
        for i in gate * count..(gate + 1) * count {
            sum += weights[i];
        }
        let scale = 1.0 / sum;
        for i in gate * count..(gate + 1) * count {
            weights[i] *= scale;
        }
    }
}

/// Mixed outputs of `G` gates over one row of the bank, `N` vectors of columns at a time.
#[inline(always)]
fn combine<S: Simd, const G: usize, const N: usize>(s: S, weights: &[f32], bank: &[f32], mixed: &mut [f32]) {
    let width = mixed.len() / G;
    let whole = width / (N * S::LANES) * (N * S::LANES);
    for from in (0..whole).step_by(N * S::LANES) {
        combine_columns::<S, G, N>(s, weights, bank, mixed, Span { from, lanes: S::LANES });
    }
    for span in spans(s, width - whole) {
        combine_columns::<S, G, 1>(s, weights, bank, mixed, span.shifted(whole));
    }
}

/// The `N` vectors of columns of [`combine`] that begin with `columns` (in part only where `N` is 1).
#[inline(always)]
fn combine_columns<S: Simd, const G: usize, const N: usize>(
    s: S,
    weights: &[f32],
    bank: &[f32],
    mixed: &mut [f32],
    columns: Span,
) {
    let (count, width) = (weights.len() / G, mixed.len() / G);
    let mut sums = [[s.splat(0.0); N]; G];
    for e in 0..count {
        let expert = &bank[e * width..(e + 1) * width];
        let mut v = [s.splat(0.0); N];
        for n in 0..N {
            v[n] = load_span(s, expert, columns.shifted(n * S::LANES));
        }
        for g in 0..G {
            let w = s.splat(weights[g * count + e]);
            for n in 0..N {
                sums[g][n] = s.mul_add(w, v[n], sums[g][n]);
            }
        }
    }
    for g in 0..G {
        for n in 0..N {
            store_span(s, mixed, columns.shifted(g * width + n * S::LANES), sums[g][n]);
        }
    }
}

dispatch! {
    /// Gradients of [`gate_combine`] with respect to the logits and the experts.
    ///
    /// `weights` are its output and `d_mixed` `[rows, T * d]` the gradient at `mixed`. With `dw[t, e] = d_mixed_t .
    /// expert_e`: `d_logits[t, e] = w (dw[t, e] - sum_e w dw)` and `d_expert_e = sum_t w[t, e] d_mixed_t`. Each of
    /// the two is added to what is there where its flag says so, else written.
    ///
    /// # Panics
    /// When `gates` is 0 or the shapes do not fit together.
    pub fn gate_combine_dx(
        gates: usize, weights: Mat<'_>, experts: Mat<'_>, d_mixed: Mat<'_>,
        accumulate_logits: bool, d_logits: MatMut<'_>, accumulate_experts: bool, d_experts: MatMut<'_>,
    ) = gate_combine_dx_body;
}

#[inline(always)]
fn gate_combine_dx_body<S: Simd>(
    s: S,
    gates: usize,
    weights: Mat<'_>,
    experts: Mat<'_>,
    d_mixed: Mat<'_>,
    accumulate_logits: bool,
    mut d_logits: MatMut<'_>,
    accumulate_experts: bool,
    mut d_experts: MatMut<'_>,
) {
    let rows = weights.rows();
    assert!(experts.rows() == rows && d_mixed.rows() == rows, "gate: rows differ");
    assert_eq!(
        (d_logits.rows(), d_logits.cols()),
        (rows, weights.cols()),
        "gate: d_logits and weights differ"
    );
    assert_eq!(
        (d_experts.rows(), d_experts.cols()),
        (rows, experts.cols()),
        "gate: d_experts and experts differ"
    );
    let (count, width) = bank_shape(gates, weights.cols(), experts.cols(), d_mixed.cols());
    if !accumulate_logits {
        d_logits.fill(0.0);
    }
    if count == 0 || width == 0 {
        return;
    }
    for r in 0..rows {
        let (bank, d_bank) = (experts.row(r), d_experts.row_mut(r));
        for gate in (0..gates).step_by(GROUP) {
            let group = GROUP.min(gates - gate);
            let logits = gate * count..(gate + group) * count;
            let (weights, d_logits) = (&weights.row(r)[logits.clone()], &mut d_logits.row_mut(r)[logits]);
            let d_mixed = &d_mixed.row(r)[gate * width..(gate + group) * width];
            let add = accumulate_experts || gate > 0;
            match group {
                1 => combine_dx::<S, 1>(s, weights, bank, d_mixed, d_logits, add, d_bank),
                2 => combine_dx::<S, 2>(s, weights, bank, d_mixed, d_logits, add, d_bank),
                3 => combine_dx::<S, 3>(s, weights, bank, d_mixed, d_logits, add, d_bank),
                _ => combine_dx::<S, GROUP>(s, weights, bank, d_mixed, d_logits, add, d_bank),
            }
        }
    }
}

/// Backward of `G` gates over one row of the bank; adds to `d_logits`.
#[inline(always)]
fn combine_dx<S: Simd, const G: usize>(
    s: S,
    weights: &[f32],
    bank: &[f32],
    d_mixed: &[f32],
    d_logits: &mut [f32],
    accumulate_experts: bool,
    d_bank: &mut [f32],
) {
    let (count, width) = (weights.len() / G, d_mixed.len() / G);
    let mut means = [0.0f32; G];
    for e in 0..count {
        let mut w = [0.0; G];
        for g in 0..G {
            w[g] = weights[g * count + e];
        }
        let (expert, d_expert) = (&bank[e * width..][..width], &mut d_bank[e * width..][..width]);
        let dw = expert_dx::<S, G>(s, w, expert, d_mixed, accumulate_experts, d_expert);
        for g in 0..G {
            d_logits[g * count + e] += w[g] * dw[g];
            means[g] += w[g] * dw[g];
        }
    }
    for g in 0..G {
        for e in 0..count {
            d_logits[g * count + e] -= weights[g * count + e] * means[g];
        }
    }
}

/// Gradient of one expert, and of its weight in each of `G` gates.
#[inline(always)]
fn expert_dx<S: Simd, const G: usize>(
    s: S,
    w: [f32; G],
    expert: &[f32],
    d_mixed: &[f32],
    accumulate: bool,
    d_expert: &mut [f32],
) -> [f32; G] {
    let width = expert.len();
    let mut dots = [s.splat(0.0); G];
    for span in spans(s, width) {
        let x = load_span(s, expert, span);
        let mut sum = if accumulate { load_span(s, d_expert, span) } else { s.splat(0.0) };
        for g in 0..G {
            let d = load_span(s, d_mixed, span.shifted(g * width));
            dots[g] = s.mul_add(d, x, dots[g]);
            sum = s.mul_add(s.splat(w[g]), d, sum);
        }
        store_span(s, d_expert, span, sum);
    }
    let mut dw = [0.0; G];
    for g in 0..G {
        dw[g] = s.sum(dots[g]);
    }
    dw
}

/// `<a, b>`.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for span in spans(s, a.len()) {
        sum = s.mul_add(load_span(s, a, span), load_span(s, b, span), sum);
    }
    s.sum(sum)
}
