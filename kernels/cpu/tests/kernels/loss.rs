use crate::testing::{close, values};
use manygate_kernels::isa::Isa;
use manygate_kernels::loss::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

fn exact(z: f64, y: f64) -> f64 {
    z.max(0.0) - z * y + (-z.abs()).exp().ln_1p()
}

proptest! {
    #[test]
    fn losses_and_gradients_agree_with_f64(
        rows in 0usize..70, stride in 1usize..4, some: bool, soft: bool, seed: u64, scale in 0.1f32..3.0,
    ) {
        let logits = values(seed, rows * stride, 12.0);
        let labels: Vec<f32> = values(seed ^ 1, rows, 1.0)
            .iter().map(|&x| if soft { x.abs() } else { f32::from(x > 0.0) }).collect();
        let counted: Vec<f32> = values(seed ^ 2, rows, 1.0).iter().map(|&x| f32::from(x > -0.5)).collect();
        let counts = |r: usize| !some || counted[r] == 1.0;
        let z = |r: usize| f64::from(logits[r * stride]);
        let y = |r: usize| f64::from(labels[r]);
        let expected: f64 = (0..rows).filter(|&r| counts(r)).map(|r| exact(z(r), y(r))).sum();
        for isa in Isa::available() {
            let mut d = vec![7.0; rows * stride];
            let view = Mat::strided(&logits, rows, 1, stride);
            let counted = some.then_some(&counted[..]);
            let sum = bce_with_logits(isa, view, &labels, counted, scale,
                Some(MatMut::strided(&mut d, rows, 1, stride)));
            prop_assert!((sum - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{isa}: {sum}, {expected}");
            prop_assert_eq!(sum, bce_with_logits(isa, view, &labels, counted, scale, None));
            for i in 0..rows * stride {
                if i % stride != 0 {
                    prop_assert_eq!(d[i], 7.0, "padding was written");
                    continue;
                }
                let r = i / stride;
                let h = 1e-5;
                let slope = (exact(z(r) + h, y(r)) - exact(z(r) - h, y(r))) / (2.0 * h) * f64::from(scale);
                prop_assert!(close(d[i], if counts(r) { slope } else { 0.0 }, 2e-6), "{isa} row {r}: {}", d[i]);
            }
        }
    }

    #[test]
    fn probabilities_agree_with_f64(rows in 0usize..5, cols in 0usize..40, seed: u64) {
        let logits = values(seed, rows * cols, 20.0);
        for isa in Isa::available() {
            let mut p = vec![7.0; rows * cols];
            sigmoid(isa, Mat::new(&logits, rows, cols), MatMut::new(&mut p, rows, cols));
            for (&z, &p) in logits.iter().zip(&p) {
                prop_assert!(close(p, 1.0 / (1.0 + f64::from(-z).exp()), 3e-7));
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_sum_and_only_where_it_counts() {
    let large = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    for isa in Isa::available() {
        for (z, y) in large.into_iter().flat_map(|z| [(z, 0.0), (z, 1.0)]) {
            let logits = [0.5, z, -0.5];
            let labels = [1.0, y, 0.0];
            let mut d = [7.0; 3];
            let mut sum = |counted: Option<&[f32]>| {
                let d = MatMut::new(&mut d, 3, 1);
                bce_with_logits(isa, Mat::new(&logits, 3, 1), &labels, counted, 1.0, Some(d))
            };
            assert!(!sum(None).is_finite(), "{isa}: logit {z}, label {y}");
            assert!(sum(Some(&[1.0, 0.0, 1.0])).is_finite());
            assert_eq!(d[1], 0.0);
        }
        let sum = bce_with_logits(isa, Mat::new(&[1e4, -1e4], 2, 1), &[0.0, 1.0], None, 1.0, None);
        assert_eq!(sum, 2e4);
    }
}
