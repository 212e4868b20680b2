use crate::testing::{close, values, widen};
use manygate_kernels::activation::Activation;
use manygate_kernels::isa::Isa;
use manygate_kernels::norm::*;
use manygate_kernels::view::{Mat, MatMut};
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
