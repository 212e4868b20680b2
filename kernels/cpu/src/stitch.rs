//! Activations of several networks side by side, mixed by a small matrix (cross-stitch units).

use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Units of each network, and how many weights a pair of networks has: one, or one a unit.
fn sizes(tasks: usize, cols: usize, weights: usize) -> (usize, usize) {
    assert!(
        tasks > 0 && cols.is_multiple_of(tasks),
        "stitch: {cols} values are not those of {tasks} networks"
    );
    let units = cols / tasks;
    let each = weights / (tasks * tasks);
    assert!(
        weights == tasks * tasks * each && (each == 1 || each == units),
        "stitch: {weights} weights for {tasks} networks of {units} units"
    );
    (units, each)
}

dispatch! {
    /// `y_t = sum_j a[t, j] x_j`, of networks `[rows, units]` that stand side by side in `x` and `y`; `transposed`, with
    /// `a[j, t]`: the gradient of `x` from that of `y`.
    ///
    /// `weights` are `[tasks, tasks]`, or `[tasks, tasks, units]` with one for each unit. `y` is added to or overwritten.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn stitch(
        tasks: usize, weights: &[f32], transposed: bool, x: Mat<'_>, accumulate: bool, y: MatMut<'_>,
    ) = stitch_body;
}

#[inline(always)]
fn stitch_body<S: Simd>(
    s: S,
    tasks: usize,
    weights: &[f32],
    transposed: bool,
    x: Mat<'_>,
    accumulate: bool,
    mut y: MatMut<'_>,
) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "stitch: the shapes differ");
    let (units, each) = sizes(tasks, x.cols(), weights.len());
    let (by_target, by_source) = if transposed { (each, tasks * each) } else { (tasks * each, each) };
    for r in 0..x.rows() {
        let (x, y) = (x.row(r), y.row_mut(r));
        for t in 0..tasks {
            for span in spans(s, units) {
                let to = span.shifted(t * units);
                let mut sum = if accumulate { load_span(s, y, to) } else { s.splat(0.0) };
                for j in 0..tasks {
                    let at = t * by_target + j * by_source;
                    let a = if each == 1 {
                        s.splat(weights[at])
                    } else {
                        load_span(s, weights, span.shifted(at))
                    };
                    sum = s.mul_add(a, load_span(s, x, span.shifted(j * units)), sum);
                }
                store_span(s, y, to, sum);
            }
        }
    }
}

dispatch! {
    /// Adds the gradient of the weights of [`stitch`] to `d_weights`: `<dy_t, x_j>` over rows and, where a pair has one
    /// weight, over units.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn stitch_dweights(tasks: usize, x: Mat<'_>, dy: Mat<'_>, d_weights: &mut [f32]) = stitch_dweights_body;
}

#[inline(always)]
fn stitch_dweights_body<S: Simd>(s: S, tasks: usize, x: Mat<'_>, dy: Mat<'_>, d_weights: &mut [f32]) {
    assert_eq!((x.rows(), x.cols()), (dy.rows(), dy.cols()), "stitch: the shapes differ");
    let (units, each) = sizes(tasks, x.cols(), d_weights.len());
    for t in 0..tasks {
        for j in 0..tasks {
            let to = &mut d_weights[(t * tasks + j) * each..][..each];
            for r in 0..x.rows() {
                let (x, dy) = (&x.row(r)[j * units..][..units], &dy.row(r)[t * units..][..units]);
                if each == 1 {
                    let mut sum = s.splat(0.0);
                    for span in spans(s, units) {
                        sum = s.mul_add(load_span(s, x, span), load_span(s, dy, span), sum);
                    }
                    to[0] += s.sum(sum);
                    continue;
                }
                for span in spans(s, units) {
                    let before = load_span(s, to, span);
                    let sum = s.mul_add(load_span(s, x, span), load_span(s, dy, span), before);
                    store_span(s, to, span, sum);
                }
            }
        }
    }
}
