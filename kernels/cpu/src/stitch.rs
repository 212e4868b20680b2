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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mixing_and_its_gradients_agree_with_f64(
            tasks in 1usize..5, units in 1usize..40, rows in 0usize..5, per_unit: bool, transposed: bool,
            accumulate: bool, seed: u64,
        ) {
            let (cols, each) = (tasks * units, if per_unit { units } else { 1 });
            let (x, dy) = (values(seed, rows * cols, 1.0), values(seed ^ 1, rows * cols, 1.0));
            let weights = values(seed ^ 2, tasks * tasks * each, 1.0);
            let a = |t: usize, j: usize, c: usize| {
                f64::from(weights[(t * tasks + j) * each + if per_unit { c } else { 0 }])
            };
            let before = if accumulate { 0.5 } else { 0.0 };
            for isa in Isa::available() {
                let mut y = vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols];
                let (x_view, dy_view) = (Mat::new(&x, rows, cols), Mat::new(&dy, rows, cols));
                stitch(isa, tasks, &weights, transposed, x_view, accumulate, MatMut::new(&mut y, rows, cols));
                for (at, &y) in y.iter().enumerate() {
                    let (r, t, c) = (at / cols, at % cols / units, at % units);
                    let term = |j: usize| {
                        let weight = if transposed { a(j, t, c) } else { a(t, j, c) };
                        weight * f64::from(x[r * cols + j * units + c])
                    };
                    prop_assert!(close(y, before + (0..tasks).map(term).sum::<f64>(), 2e-6), "{isa}");
                }
                let mut d = vec![0.25; weights.len()];
                stitch_dweights(isa, tasks, x_view, dy_view, &mut d);
                for (at, &d) in d.iter().enumerate() {
                    let (t, j, unit) = (at / each / tasks, at / each % tasks, at % each);
                    let product = |r: usize, c: usize| {
                        f64::from(x[r * cols + j * units + c]) * f64::from(dy[r * cols + t * units + c])
                    };
                    let of_row = |r: usize| -> f64 {
                        if per_unit { product(r, unit) } else { (0..units).map(|c| product(r, c)).sum() }
                    };
                    prop_assert!(close(d, 0.25 + (0..rows).map(of_row).sum::<f64>(), 5e-6), "{isa}");
                }
            }
        }
    }
}
