use crate::testing::{close, values, widen};
use manygate_kernels::isa::Isa;
use manygate_kernels::sequence::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

fn agree(isa: Isa, got: &[f32], expected: &[f64]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), expected.len());
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        prop_assert!(close(got, expected, 3e-5), "{isa} [{i}]: {got}, not {expected}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn comparisons_and_their_gradients_agree_with_f64(
        rows in 0usize..7, n in 1usize..40, accumulate: bool, seed: u64,
    ) {
        let (q, k) = (values(seed, n, 2.0), values(seed ^ 1, rows * n, 2.0));
        let dz = values(seed ^ 2, rows * 4 * n, 1.0);
        let (wide_q, wide_k, d) = (widen(&q), widen(&k), widen(&dz));
        let start = if accumulate { 0.5 } else { 0.0 };
        let (mut z, mut dk, mut dq) = (vec![0.0; rows * 4 * n], vec![start; rows * n], vec![start; n]);
        for (i, c) in (0..rows).flat_map(|i| (0..n).map(move |c| (i, c))) {
            let (q, k, at) = (wide_q[c], wide_k[i * n + c], i * 4 * n + c);
            [q, k, q - k, q * k].into_iter().enumerate().for_each(|(part, v)| z[at + part * n] = v);
            dk[i * n + c] += d[at + n] - d[at + 2 * n] + q * d[at + 3 * n];
            dq[c] += d[at] + d[at + 2 * n] + k * d[at + 3 * n];
        }
        let (k, dz) = (Mat::new(&k, rows, n), Mat::new(&dz, rows, 4 * n));
        let begun = |len| vec![if accumulate { 0.5 } else { f32::NAN }; len];
        for isa in Isa::available() {
            let mut got = vec![f32::NAN; rows * 4 * n];
            compare(isa, &q, k, MatMut::new(&mut got, rows, 4 * n));
            agree(isa, &got, &z)?;
            let mut got = begun(rows * n);
            compare_dk(isa, &q, dz, accumulate, MatMut::new(&mut got, rows, n));
            agree(isa, &got, &dk)?;
            let mut got = begun(n);
            compare_dq(isa, k, dz, accumulate, &mut got);
            agree(isa, &got, &dq)?;
        }
    }

    #[test]
    fn weighted_sums_and_their_parts_agree_with_f64(
        rows in 0usize..7, n in 1usize..40, accumulate: bool, seed: u64,
    ) {
        let (w, x, v) = (values(seed, rows, 2.0), values(seed ^ 1, rows * n, 2.0), values(seed ^ 2, n, 1.0));
        let (wide_w, wide_x, wide_v) = (widen(&w), widen(&x), widen(&v));
        let start = if accumulate { 0.5 } else { 0.0 };
        let sum: Vec<f64> =
            (0..n).map(|c| (0..rows).map(|i| wide_w[i] * wide_x[i * n + c]).sum()).collect();
        let product: Vec<f64> =
            wide_w.iter().flat_map(|w| wide_v.iter().map(move |v| start + w * v)).collect();
        let row = |i: usize| (0..n).map(|c| wide_x[i * n + c] * wide_v[c]).sum();
        let inner: Vec<f64> = (0..rows).map(row).collect();
        for isa in Isa::available() {
            let mut got = vec![f32::NAN; n];
            weighted_sum(isa, &w, Mat::new(&x, rows, n), &mut got);
            agree(isa, &got, &sum)?;
            let mut got = vec![if accumulate { 0.5 } else { f32::NAN }; rows * n];
            outer(isa, &w, &v, accumulate, MatMut::new(&mut got, rows, n));
            agree(isa, &got, &product)?;
            let mut got = vec![f32::NAN; rows];
            dots(isa, Mat::new(&x, rows, n), &v, &mut got);
            agree(isa, &got, &inner)?;
        }
    }

    #[test]
    fn attention_agrees_with_f64_and_its_gradients_with_finite_differences(
        rows in 0usize..7, n in 1usize..20, m in 1usize..20, accumulate: bool, seed: u64,
    ) {
        let scale = 0.7;
        let parts = [(0, n), (1, rows * n), (2, rows * m), (3, m)];
        let [q, k, v, dout] = parts.map(|(salt, len)| values(seed ^ salt, len, 1.5));
        let reference = |x: &[Vec<f64>; 3]| -> Vec<f64> {
            let [q, k, v] = x;
            let score = |i: usize| (0..n).map(|c| q[c] * k[i * n + c]).sum::<f64>() * f64::from(scale);
            let weights: Vec<f64> = (0..rows).map(|i| score(i).exp()).collect();
            let sum: f64 = weights.iter().sum();
            (0..m).map(|c| (0..rows).map(|i| weights[i] / sum * v[i * m + c]).sum()).collect()
        };
        let loss = |x: &[Vec<f64>; 3]| -> f64 {
            reference(x).iter().zip(&dout).map(|(o, &d)| o * f64::from(d)).sum()
        };
        let mut wide = [&q, &k, &v].map(|x| widen(x));
        let expected = reference(&wide);
        let (step, start) = (1e-5, if accumulate { 0.5 } else { 0.0 });
        let mut slopes = [Vec::new(), Vec::new(), Vec::new()];
        for part in 0..3 {
            for i in 0..wide[part].len() {
                let here = wide[part][i];
                let [up, down] = [step, -step].map(|step| {
                    wide[part][i] = here + step;
                    loss(&wide)
                });
                wide[part][i] = here;
                slopes[part].push(start + (up - down) / (2.0 * step));
            }
        }
        let (k, v) = (Mat::new(&k, rows, n), Mat::new(&v, rows, m));
        let begun = |len| vec![if accumulate { 0.5 } else { f32::NAN }; len];
        for isa in Isa::available() {
            let (mut out, mut log_sum) = (vec![f32::NAN; m], f32::NAN);
            attend(isa, scale, &q, k, v, &mut out, &mut log_sum);
            agree(isa, &out, &expected)?;
            let at = Attended { scale, q: &q, k, v, out: &out, log_sum, dout: &dout };
            let [mut dq, mut dk, mut dv] = [begun(n), begun(rows * n), begun(rows * m)];
            let to_k = Sink { to: MatMut::new(&mut dk, rows, n), accumulate };
            let to_v = Sink { to: MatMut::new(&mut dv, rows, m), accumulate };
            attend_backward(isa, &at, Some(Sink { to: &mut dq, accumulate }), Some(to_k), Some(to_v));
            for (got, slopes) in [dq, dk, dv].iter().zip(&slopes) {
                agree(isa, got, slopes)?;
            }
        }
    }
}
