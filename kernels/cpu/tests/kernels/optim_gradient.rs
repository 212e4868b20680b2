use crate::testing::{values, widen};
use manygate_kernels::isa::Isa;
use manygate_kernels::optim::*;
use manygate_kernels::view::Mat;
use proptest::prelude::*;

proptest! {
    #[test]
    fn lanes_are_summed_in_order(len in 0usize..70, lanes in 0usize..6, pad in 0usize..3, seed: u64) {
        let stride = len + pad;
        let gradients = values(seed, lanes * stride, 1.0);
        for isa in Isa::available() {
            let mut out = vec![7.0; len];
            sum_lanes(isa, Mat::strided(&gradients, lanes, len, stride), &mut out);
            for i in 0..len {
                let expected = (0..lanes).fold(0.0f32, |sum, lane| sum + gradients[lane * stride + i]);
                prop_assert_eq!(out[i], expected);
            }
        }
    }

    #[test]
    fn squares_are_summed_alike_everywhere(len in 0usize..200, seed: u64, scale in prop_oneof![Just(1.0f32), Just(1e30)]) {
        let x = values(seed, len, scale);
        let expected: f64 = widen(&x).iter().map(|x| x * x).sum();
        let bits = sum_squares(Isa::Scalar, &x).to_bits();
        for isa in Isa::available() {
            let found = sum_squares(isa, &x);
            prop_assert!((found - expected).abs() <= 1e-13 * expected, "{isa}: {found} {expected}");
            prop_assert_eq!(found.to_bits(), bits, "{} has other bits", isa);
        }
    }

    #[test]
    fn values_are_scaled_and_clamped(len in 0usize..70, seed: u64, by in 0.0f32..2.0) {
        let before = values(seed, len, 1.0);
        for isa in Isa::available() {
            let (mut scaled, mut clamped) = (before.clone(), before.clone());
            scale(isa, &mut scaled, by);
            clamp(isa, &mut clamped, by);
            for i in 0..len {
                prop_assert_eq!(scaled[i], before[i] * by);
                prop_assert_eq!(clamped[i], before[i].clamp(-by, by));
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_seen() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 37];
        x[33] = bad;
        assert!(!sum_squares(Isa::best(), &x).is_finite());
    }
}
