//! A mixture of a few vectors of a row, each of which scores itself.

use super::{dot, softmax};
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Most vectors of a row.
pub const MAX_SOURCES: usize = 8;

/// Width of a vector: keys, queries and values of `sources` vectors stand in `cols` columns.
fn width(sources: usize, cols: usize, weights: usize) -> usize {
    let fits = weights == sources && (1..=MAX_SOURCES).contains(&sources);
    assert!(fits, "self_scored: {weights} weights of {sources} vectors");
    assert!(
        cols.is_multiple_of(3 * sources),
        "self_scored: {cols} values are not those of {sources} vectors"
    );
    cols / (3 * sources)
}

/// `to = factor · from`, or added to it.
#[inline(always)]
fn scaled<S: Simd>(s: S, factor: f32, from: &[f32], accumulate: bool, to: &mut [f32]) {
    for span in spans(s, from.len()) {
        let before = if accumulate { load_span(s, to, span) } else { s.splat(0.0) };
        store_span(s, to, span, s.mul_add(s.splat(factor), load_span(s, from, span), before));
    }
}

dispatch! {
    /// `y = sum_u w_u v_u` with `w = softmax(scale <k_u, q_u>)` over the vectors of a row.
    ///
    /// `kqv` `[rows, sources * 3 * width]` holds `k_u`, `q_u` and `v_u` of one vector after the other, `weights`
    /// `[rows, sources]` becomes w, `y` is `[rows, width]`.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn self_scored(
        sources: usize, scale: f32, kqv: Mat<'_>, weights: MatMut<'_>, y: MatMut<'_>,
    ) = self_scored_body;
}

#[inline(always)]
fn self_scored_body<S: Simd>(
    s: S,
    sources: usize,
    scale: f32,
    kqv: Mat<'_>,
    mut weights: MatMut<'_>,
    mut y: MatMut<'_>,
) {
    let width = width(sources, kqv.cols(), weights.cols());
    assert_eq!((y.rows(), y.cols()), (kqv.rows(), width), "self_scored: the output has another shape");
    let mut scores = [0.0; MAX_SOURCES];
    for r in 0..kqv.rows() {
        let (row, weights, y) = (kqv.row(r), weights.row_mut(r), y.row_mut(r));
        for u in 0..sources {
            let at = 3 * u * width;
            scores[u] = scale * dot(s, &row[at..at + width], &row[at + width..at + 2 * width]);
        }
        softmax(s, &scores[..sources], weights, sources);
        for u in 0..sources {
            scaled(s, weights[u], &row[(3 * u + 2) * width..][..width], u > 0, y);
        }
    }
}

dispatch! {
    /// The gradient of [`self_scored`]: `dv_u = w_u dy`, `ds_u = w_u (<dy, v_u> - sum_u w <dy, v>)`,
    /// `dk_u = scale ds_u q_u`, `dq_u = scale ds_u k_u`; added to `d_kqv` or written there.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn self_scored_dx(
        sources: usize, scale: f32, kqv: Mat<'_>, weights: Mat<'_>, dy: Mat<'_>, accumulate: bool, d_kqv: MatMut<'_>,
    ) = self_scored_dx_body;
}

#[inline(always)]
fn self_scored_dx_body<S: Simd>(
    s: S,
    sources: usize,
    scale: f32,
    kqv: Mat<'_>,
    weights: Mat<'_>,
    dy: Mat<'_>,
    accumulate: bool,
    mut d_kqv: MatMut<'_>,
) {
    let width = width(sources, kqv.cols(), weights.cols());
    assert_eq!((dy.rows(), dy.cols()), (kqv.rows(), width), "self_scored: the gradient has another shape");
    let mut dw = [0.0; MAX_SOURCES];
    for r in 0..kqv.rows() {
        let (row, weights, dy, d_row) = (kqv.row(r), weights.row(r), dy.row(r), d_kqv.row_mut(r));
        let mut mean = 0.0;
        for u in 0..sources {
            dw[u] = dot(s, dy, &row[(3 * u + 2) * width..][..width]);
            mean += weights[u] * dw[u];
        }
        for u in 0..sources {
            let at = 3 * u * width;
            let (k, q) = (&row[at..at + width], &row[at + width..at + 2 * width]);
            let factor = scale * weights[u] * (dw[u] - mean);
            scaled(s, factor, q, accumulate, &mut d_row[at..at + width]);
            scaled(s, factor, k, accumulate, &mut d_row[at + width..at + 2 * width]);
            scaled(s, weights[u], dy, accumulate, &mut d_row[at + 2 * width..at + 3 * width]);
        }
    }
}
