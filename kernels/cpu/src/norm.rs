//! Pieces of batch normalisation. A batch is normalised over several tiles of rows: column sums are taken tile by
//! tile, in f64, and joined by the caller; the two elementwise passes follow.

use crate::activation::Activation;
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Rows whose terms are added before the running sums in memory are touched.
const ROWS: usize = 4;

dispatch! {
    /// Adds the sum of each column of `x` to `sums` and the sum of its squares to `squares`.
    ///
    /// # Panics
    /// When the lengths are not the number of columns.
    pub fn column_moments(x: Mat<'_>, sums: &mut [f64], squares: &mut [f64]) = column_moments_body;
}

#[inline(always)]
fn column_moments_body<S: Simd>(_: S, x: Mat<'_>, sums: &mut [f64], squares: &mut [f64]) {
    assert!(sums.len() == x.cols() && squares.len() == x.cols(), "column_moments: the widths differ");
    for block in 0..x.rows() / ROWS {
        add_moments::<ROWS>(x, block * ROWS, sums, squares);
    }
    for r in x.rows() / ROWS * ROWS..x.rows() {
        add_moments::<1>(x, r, sums, squares);
    }
}

/// Moments of `R` rows; the plain loop becomes vectors of f64 in the instruction set it is inlined into.
#[inline(always)]
fn add_moments<const R: usize>(x: Mat<'_>, from: usize, sums: &mut [f64], squares: &mut [f64]) {
    let cols = sums.len();
    let mut rows: [&[f32]; R] = [&[]; R];
    for r in 0..R {
        rows[r] = &x.row(from + r)[..cols];
    }
    let squares = &mut squares[..cols];
    for c in 0..cols {
        let (mut sum, mut square) = (0.0, 0.0);
        for r in 0..R {
            let x = f64::from(rows[r][c]);
            sum += x;
            square += x * x;
        }
        sums[c] += sum;
        squares[c] += square;
    }
}

dispatch! {
    /// Normalises, scales and activates: `y = act(gamma * (x - mean) * inverse_std + beta)`, all four by column.
    ///
    /// # Panics
    /// When shapes or lengths differ.
    pub fn normalise(
        x: Mat<'_>, mean: &[f32], inverse_std: &[f32], gamma: &[f32], beta: &[f32], act: Activation, y: MatMut<'_>,
    ) = normalise_body;
}

#[inline(always)]
fn normalise_body<S: Simd>(
    s: S,
    x: Mat<'_>,
    mean: &[f32],
    inverse_std: &[f32],
    gamma: &[f32],
    beta: &[f32],
    act: Activation,
    mut y: MatMut<'_>,
) {
    let cols = x.cols();
    assert_eq!((x.rows(), cols), (y.rows(), y.cols()), "normalise: x and y differ in shape");
    let lengths = [mean.len(), inverse_std.len(), gamma.len(), beta.len()];
    assert_eq!(lengths, [cols; 4], "normalise: not one value a column");
    for r in 0..x.rows() {
        let (x, y) = (x.row(r), y.row_mut(r));
        for span in spans(s, cols) {
            let centred = s.sub(load_span(s, x, span), load_span(s, mean, span));
            let normal = s.mul(centred, load_span(s, inverse_std, span));
            let v = s.mul_add(load_span(s, gamma, span), normal, load_span(s, beta, span));
            store_span(s, y, span, act.apply(s, v));
        }
    }
}

dispatch! {
    /// Adds by column the sums of `dz` to `sum_dz` and those of `dz * xhat` to `sum_dz_xhat`.
    ///
    /// `dz` is the gradient at the output of the scale and shift, already through the activation, and `xhat = (x -
    /// mean) * inverse_std`. The two sums are the gradients of beta and gamma.
    ///
    /// # Panics
    /// When shapes or lengths differ.
    pub fn norm_gradient_sums(
        dz: Mat<'_>, x: Mat<'_>, mean: &[f32], inverse_std: &[f32], sum_dz: &mut [f64], sum_dz_xhat: &mut [f64],
    ) = norm_gradient_sums_body;
}

#[inline(always)]
fn norm_gradient_sums_body<S: Simd>(
    _: S,
    dz: Mat<'_>,
    x: Mat<'_>,
    mean: &[f32],
    inverse_std: &[f32],
    sum_dz: &mut [f64],
    sum_dz_xhat: &mut [f64],
) {
    assert_eq!((dz.rows(), dz.cols()), (x.rows(), x.cols()), "norm_gradient_sums: dz and x differ in shape");
    let lengths = [mean.len(), inverse_std.len(), sum_dz.len(), sum_dz_xhat.len()];
    assert_eq!(lengths, [x.cols(); 4], "norm_gradient_sums: not one value a column");
    for block in 0..x.rows() / ROWS {
        add_gradient_sums::<ROWS>(dz, x, block * ROWS, mean, inverse_std, sum_dz, sum_dz_xhat);
    }
    for r in x.rows() / ROWS * ROWS..x.rows() {
        add_gradient_sums::<1>(dz, x, r, mean, inverse_std, sum_dz, sum_dz_xhat);
    }
}

/// Sums over `R` rows, like [`add_moments`].
#[inline(always)]
fn add_gradient_sums<const R: usize>(
    dz: Mat<'_>,
    x: Mat<'_>,
    from: usize,
    mean: &[f32],
    inverse_std: &[f32],
    sum_dz: &mut [f64],
    sum_dz_xhat: &mut [f64],
) {
    let cols = sum_dz.len();
    let (mut dz_rows, mut x_rows): ([&[f32]; R], [&[f32]; R]) = ([&[]; R], [&[]; R]);
    for r in 0..R {
        dz_rows[r] = &dz.row(from + r)[..cols];
        x_rows[r] = &x.row(from + r)[..cols];
    }
    let (mean, inverse_std, sum_dz_xhat) = (&mean[..cols], &inverse_std[..cols], &mut sum_dz_xhat[..cols]);
    for c in 0..cols {
        let (mut sum, mut product) = (0.0, 0.0);
        for r in 0..R {
            let d = f64::from(dz_rows[r][c]);
            sum += d;
            product += d * f64::from((x_rows[r][c] - mean[c]) * inverse_std[c]);
        }
        sum_dz[c] += sum;
        sum_dz_xhat[c] += product;
    }
}

dispatch! {
    /// Gradient at the input of a batch normalisation: `gamma * inverse_std * (dz - mean_dz - xhat * mean_dz_xhat)`,
    /// written to `dx`, or added with `accumulate`.
    ///
    /// `mean_dz` and `mean_dz_xhat` are the sums of [`norm_gradient_sums`] over the whole batch, divided by its rows;
    /// zeros where the statistics are constants (running ones).
    ///
    /// # Panics
    /// When shapes or lengths differ.
    pub fn norm_dx(
        dz: Mat<'_>, x: Mat<'_>, mean: &[f32], inverse_std: &[f32], gamma: &[f32], mean_dz: &[f32],
        mean_dz_xhat: &[f32], accumulate: bool, dx: MatMut<'_>,
    ) = norm_dx_body;
}

#[inline(always)]
fn norm_dx_body<S: Simd>(
    s: S,
    dz: Mat<'_>,
    x: Mat<'_>,
    mean: &[f32],
    inverse_std: &[f32],
    gamma: &[f32],
    mean_dz: &[f32],
    mean_dz_xhat: &[f32],
    accumulate: bool,
    mut dx: MatMut<'_>,
) {
    let shape = (x.rows(), x.cols());
    assert!((dz.rows(), dz.cols()) == shape && (dx.rows(), dx.cols()) == shape, "norm_dx: the shapes differ");
    let lengths = [mean.len(), inverse_std.len(), gamma.len(), mean_dz.len(), mean_dz_xhat.len()];
    assert_eq!(lengths, [x.cols(); 5], "norm_dx: not one value a column");
    for r in 0..x.rows() {
        let (dz, x, dx) = (dz.row(r), x.row(r), dx.row_mut(r));
        for span in spans(s, x.len()) {
            let scale = load_span(s, inverse_std, span);
            let xhat = s.mul(s.sub(load_span(s, x, span), load_span(s, mean, span)), scale);
            let centred = s.sub(load_span(s, dz, span), load_span(s, mean_dz, span));
            let d = s.sub(centred, s.mul(xhat, load_span(s, mean_dz_xhat, span)));
            let base = if accumulate { load_span(s, dx, span) } else { s.splat(0.0) };
            store_span(s, dx, span, s.mul_add(s.mul(load_span(s, gamma, span), scale), d, base));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values, widen};
    use proptest::prelude::*;

    const EPSILON: f64 = 1e-3;

    /// Mean and inverse standard deviation of each column of `[rows, cols]`.
    fn statistics(x: &[f64], rows: usize, cols: usize) -> (Vec<f64>, Vec<f64>) {
        let column = |c: usize| (0..rows).map(move |r| x[r * cols + c]);
        let mean: Vec<f64> = (0..cols).map(|c| column(c).sum::<f64>() / rows.max(1) as f64).collect();
        let variance = |c: usize| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / rows.max(1) as f64;
        let inverse = (0..cols).map(|c| 1.0 / (variance(c) + EPSILON).sqrt()).collect();
        (mean, inverse)
    }

    fn narrow(x: &[f64]) -> Vec<f32> {
        x.iter().map(|&v| v as f32).collect()
    }

    proptest! {
        #[test]
        fn moments_and_values_agree_with_f64(
            rows in 0usize..12, cols in 0usize..40, pad in 0usize..3, seed: u64, tanh: bool,
        ) {
            let stride = cols + pad;
            let wide = values(seed, rows * stride, 3.0);
            let x = Mat::strided(&wide, rows, cols, stride);
            let dense: Vec<f64> = (0..rows).flat_map(|r| widen(x.row(r))).collect();
            let (mean, inverse) = statistics(&dense, rows, cols);
            let (gamma, beta) = (values(seed ^ 1, cols, 2.0), values(seed ^ 2, cols, 2.0));
            let act = if tanh { Activation::Tanh } else { Activation::Relu };
            for isa in Isa::available() {
                let (mut sums, mut squares) = (vec![1.0; cols], vec![2.0; cols]);
                column_moments(isa, x, &mut sums, &mut squares);
                let mut y = vec![7.0; rows * cols];
                normalise(isa, x, &narrow(&mean), &narrow(&inverse), &gamma, &beta, act,
                    MatMut::new(&mut y, rows, cols));
                for c in 0..cols {
                    let column = || (0..rows).map(|r| dense[r * cols + c]);
                    prop_assert!((sums[c] - 1.0 - column().sum::<f64>()).abs() < 1e-10);
                    prop_assert!((squares[c] - 2.0 - column().map(|x| x * x).sum::<f64>()).abs() < 1e-10);
                    for r in 0..rows {
                        let normal = (dense[r * cols + c] - mean[c]) * inverse[c];
                        let v = f64::from(gamma[c]) * normal + f64::from(beta[c]);
                        let expected = if tanh { v.tanh() } else { v.max(0.0) };
                        prop_assert!(close(y[r * cols + c], expected, 2e-5), "{isa}");
                    }
                }
            }
        }

        #[test]
        fn gradients_agree_with_finite_differences(
            rows in 1usize..9, cols in 1usize..36, accumulate: bool, seed: u64,
        ) {
            let x = values(seed, rows * cols, 2.0);
            let gamma = values(seed ^ 1, cols, 2.0);
            let dz = values(seed ^ 2, rows * cols, 1.0);
            // The loss sum(dz * gamma * xhat) has dz as its gradient at the norm's output.
            let loss = |x: &[f64]| -> f64 {
                let (mean, inverse) = statistics(x, rows, cols);
                let term = |i: usize| {
                    let c = i % cols;
                    f64::from(dz[i]) * f64::from(gamma[c]) * (x[i] - mean[c]) * inverse[c]
                };
                (0..rows * cols).map(term).sum()
            };
            let (mean, inverse) = statistics(&widen(&x), rows, cols);
            let (mean32, inverse32) = (narrow(&mean), narrow(&inverse));
            let (x_view, dz_view) = (Mat::new(&x, rows, cols), Mat::new(&dz, rows, cols));
            for isa in Isa::available() {
                let (mut sum_dz, mut sum_dz_xhat) = (vec![0.0; cols], vec![0.0; cols]);
                norm_gradient_sums(isa, dz_view, x_view, &mean32, &inverse32, &mut sum_dz, &mut sum_dz_xhat);
                for c in 0..cols {
                    let xhat = |r: usize| (f64::from(x[r * cols + c]) - mean[c]) * inverse[c];
                    let exact: f64 = (0..rows).map(|r| f64::from(dz[r * cols + c]) * xhat(r)).sum();
                    prop_assert!((sum_dz_xhat[c] - exact).abs() < 1e-5 * (1.0 + inverse[c]));
                }
                let by_rows = |sums: &[f64]| -> Vec<f32> { sums.iter().map(|s| (s / rows as f64) as f32).collect() };
                let mut dx = vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols];
                norm_dx(isa, dz_view, x_view, &mean32, &inverse32, &gamma, &by_rows(&sum_dz),
                    &by_rows(&sum_dz_xhat), accumulate, MatMut::new(&mut dx, rows, cols));
                for i in (0..rows * cols).step_by(5) {
                    let at = |h: f64| {
                        let mut x = widen(&x);
                        x[i] += h;
                        loss(&x)
                    };
                    let h = 1e-5;
                    let slope = (at(h) - at(-h)) / (2.0 * h) + if accumulate { 0.5 } else { 0.0 };
                    let scale = 1.0 + inverse[i % cols];
                    prop_assert!((f64::from(dx[i]) - slope).abs() < 1e-5 * scale, "{isa} [{i}]: {} {slope}", dx[i]);
                }
            }
        }
    }
}
