use crate::testing::{close, values, widen};
use manygate_kernels::cross::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

/// Values of a view, padding left out.
fn dense(x: &[f32], rows: usize, cols: usize, stride: usize) -> Vec<f64> {
    (0..rows).flat_map(|r| widen(&x[r * stride..][..cols])).collect()
}

proptest! {
    #[test]
    fn crosses_agree_with_f64(rows in 0usize..6, cols in 0usize..40, pad in 0usize..3, same: bool,
        accumulate: bool, seed: u64)
    {
        let stride = cols + pad;
        let [x0, map, x, dy] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
        let x = if same { x0.clone() } else { x };
        let view = |v| Mat::strided(v, rows, cols, stride);
        let [wide0, wide_map, wide_x, wide_dy] = [&x0, &map, &x, &dy].map(|v| dense(v, rows, cols, stride));
        let start = if accumulate { 0.5 } else { 0.0 };
        for isa in Isa::available() {
            let mut y = vec![7.0; rows * stride];
            cross(isa, view(&x0), view(&map), view(&x), MatMut::strided(&mut y, rows, cols, stride));
            let mut gradients = [(); 3].map(|()| vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols]);
            let [g0, g1, g2] = &mut gradients;
            let targets = [g0, g1, g2].map(|g| Target { to: MatMut::new(g, rows, cols), accumulate });
            let [dx0, dmap, dx] = targets.map(Some);
            cross_dx(isa, view(&x0), view(&map), view(&dy), same, dx0, dmap, if same { None } else { dx });
            for (i, v) in dense(&y, rows, cols, stride).into_iter().enumerate() {
                prop_assert!(close(v as f32, wide0[i] * wide_map[i] + wide_x[i], 1e-6), "{isa}");
                let own = if same { wide_dy[i] } else { 0.0 };
                prop_assert!(close(gradients[0][i], start + wide_dy[i] * wide_map[i] + own, 1e-6), "{isa}");
                prop_assert!(close(gradients[1][i], start + wide_dy[i] * wide0[i], 1e-6), "{isa}");
                prop_assert!(same || close(gradients[2][i], start + wide_dy[i], 1e-6), "{isa}");
            }
        }
    }

    #[test]
    fn vector_crosses_agree_with_f64(rows in 0usize..6, cols in 1usize..40, pad in 0usize..3,
        accumulate: bool, seed: u64)
    {
        let stride = cols + pad;
        let [x0, x, residual, dy] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
        let [w, bias] = [4, 5].map(|i| values(seed ^ i, cols, 1.0));
        let view = |v| Mat::strided(v, rows, cols, stride);
        let [wide0, wide_x, wide_residual, wide_dy] =
            [&x0, &x, &residual, &dy].map(|v| dense(v, rows, cols, stride));
        let inner = |a: &[f64], r: usize, b: &dyn Fn(usize) -> f64| -> f64 {
            (0..cols).map(|c| a[r * cols + c] * b(c)).sum()
        };
        let start = if accumulate { 0.5 } else { 0.0 };
        for isa in Isa::available() {
            let (mut y, mut dots) = (vec![7.0; rows * stride], vec![7.0; rows]);
            cross_vector(isa, view(&x0), view(&x), view(&residual), &w, &bias, MatMut::new(&mut dots, rows, 1),
                MatMut::strided(&mut y, rows, cols, stride));
            let [mut dw, mut db] = [vec![1.0; cols], vec![2.0; cols]];
            let mut of_all = vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols];
            let mut of_factor = of_all.clone();
            let sums = VectorGradients { weight: Some(&mut dw), bias: Some(&mut db) };
            let all = Roles { factor: true, inner: true, residual: true };
            let mut gradients = [
                (all, Some(Target { to: MatMut::new(&mut of_all, rows, cols), accumulate })),
                (Roles { inner: true, ..Roles::default() }, None),
                (Roles { factor: true, ..Roles::default() },
                    Some(Target { to: MatMut::new(&mut of_factor, rows, cols), accumulate })),
            ];
            cross_vector_dx(isa, view(&x0), view(&x), &w, Mat::new(&dots, rows, 1), view(&dy), sums,
                &mut gradients);
            let wide_y = dense(&y, rows, cols, stride);
            let (mut sum_w, mut sum_b) = (vec![1.0; cols], vec![2.0; cols]);
            for r in 0..rows {
                let number = inner(&wide_x, r, &|c| f64::from(w[c]));
                let q = inner(&wide_dy, r, &|c| wide0[r * cols + c]);
                for c in 0..cols {
                    let (i, w) = (r * cols + c, f64::from(w[c]));
                    let sum = wide0[i] * number + f64::from(bias[c]) + wide_residual[i];
                    prop_assert!(close(wide_y[i] as f32, sum, 1e-4), "{isa}");
                    let factor = start + wide_dy[i] * number;
                    prop_assert!(close(of_factor[i], factor, 1e-4), "{isa}");
                    prop_assert!(close(of_all[i], factor + q * w + wide_dy[i], 1e-4), "{isa}");
                    sum_w[c] += q * wide_x[i];
                    sum_b[c] += wide_dy[i];
                }
            }
            for c in 0..cols {
                prop_assert!(close(dw[c], sum_w[c], 1e-4) && close(db[c], sum_b[c], 1e-4), "{isa}");
            }
        }
    }
}
