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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values, widen};
    use proptest::prelude::*;

    fn reference(sources: usize, scale: f64, width: usize, row: &[f64]) -> Vec<f64> {
        let part = |u: usize, part: usize| &row[(3 * u + part) * width..][..width];
        let score = |u| scale * part(u, 0).iter().zip(part(u, 1)).map(|(k, q)| k * q).sum::<f64>();
        let terms: Vec<f64> = (0..sources).map(|u| score(u).exp()).collect();
        let total: f64 = terms.iter().sum();
        (0..width).map(|c| (0..sources).map(|u| terms[u] / total * part(u, 2)[c]).sum()).collect()
    }

    proptest! {
        #[test]
        fn mixtures_and_gradients_agree_with_f64(
            sources in 1usize..4, width in 1usize..40, rows in 1usize..4, accumulate: bool, seed: u64,
        ) {
            let cols = 3 * sources * width;
            let (kqv, dy) = (values(seed, rows * cols, 1.0), values(seed ^ 1, rows * width, 1.0));
            let scale = 1.0 / (width as f32).sqrt();
            let of = |row: &[f64]| reference(sources, f64::from(scale), width, row);
            for isa in Isa::available() {
                let (mut weights, mut y) = (vec![7.0; rows * sources], vec![7.0; rows * width]);
                let view = Mat::new(&kqv, rows, cols);
                self_scored(isa, sources, scale, view, MatMut::new(&mut weights, rows, sources),
                    MatMut::new(&mut y, rows, width));
                let mut d = vec![if accumulate { 0.5 } else { f32::NAN }; kqv.len()];
                self_scored_dx(isa, sources, scale, view, Mat::new(&weights, rows, sources),
                    Mat::new(&dy, rows, width), accumulate, MatMut::new(&mut d, rows, cols));
                let before = if accumulate { 0.5 } else { 0.0 };
                for r in 0..rows {
                    let row = widen(&kqv[r * cols..][..cols]);
                    for (c, expected) in of(&row).into_iter().enumerate() {
                        prop_assert!(close(y[r * width + c], expected, 2e-6), "{isa} y");
                    }
                    for at in 0..cols {
                        let side = |h: f64| -> f64 {
                            let mut row = row.clone();
                            row[at] += h;
                            of(&row).iter().zip(&dy[r * width..]).map(|(y, &d)| y * f64::from(d)).sum()
                        };
                        let slope = (side(1e-4) - side(-1e-4)) / 2e-4;
                        prop_assert!(close(d[r * cols + at], before + slope, 1e-5), "{isa} d {at}");
                    }
                }
            }
        }
    }
}
