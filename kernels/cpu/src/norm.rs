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
