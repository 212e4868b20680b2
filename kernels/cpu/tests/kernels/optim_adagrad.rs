use crate::testing::{close, values, widen};
use manygate_kernels::isa::Isa;
use manygate_kernels::optim::*;
use manygate_kernels::view::Mat;
use proptest::prelude::*;

proptest! {
    #[test]
    fn steps_agree_with_f64(
        len in 0usize..70, lanes in 0usize..5, pad in 0usize..3, seed: u64, l2 in 0.0f32..0.1,
    ) {
        let stride = len + pad;
        let gradients = values(seed, lanes * stride, 1.0);
        let start = values(seed ^ 1, len, 1.0);
        let step = AdagradStep { rate: 0.1, epsilon: 1e-8, l2 };
        // Not from 0: the quotient would magnify the rounding of a sum near 0 to the size of the rate.
        let (mut w, mut a) = (widen(&start), vec![0.1; len]);
        let mut found: Vec<_> =
            Isa::available().iter().map(|&isa| (isa, start.clone(), vec![0.1f32; len])).collect();
        for _ in 0..3 {
            for i in 0..len {
                let sum: f64 = (0..lanes).map(|lane| f64::from(gradients[lane * stride + i])).sum();
                let g = sum + f64::from(l2) * w[i];
                a[i] += g * g;
                w[i] -= f64::from(step.rate) * g / (a[i].sqrt() + f64::from(step.epsilon));
            }
            for (isa, w, a) in &mut found {
                adagrad(*isa, w, Mat::strided(&gradients, lanes, len, stride), a, &step);
            }
        }
        let bits = found[0].1.clone();
        for (isa, found_w, found_a) in found {
            for i in 0..len {
                prop_assert!(close(found_w[i], w[i], 5e-6), "{isa}: {} {}", found_w[i], w[i]);
                prop_assert!(close(found_a[i], a[i], 5e-6), "{isa}: {} {}", found_a[i], a[i]);
            }
            if isa.is_fused() {
                prop_assert_eq!(&bits, &found_w, "{} has other bits", isa);
            }
        }
    }
}

#[test]
fn the_first_step_has_the_size_of_the_rate() {
    let step = AdagradStep { rate: 0.25, epsilon: 1e-8, l2: 0.0 };
    let (mut w, mut a) = ([1.0, 1.0, 1.0], [0.0; 3]);
    adagrad(Isa::best(), &mut w, Mat::new(&[3.0, -1e-3, 0.0], 1, 3), &mut a, &step);
    assert!(w.iter().zip([0.75, 1.25, 1.0]).all(|(w, expected)| (w - expected).abs() < 1e-4), "{w:?}");
}

#[test]
#[should_panic(expected = "adagrad: 3 weights, gradients of 2, squares of 3")]
fn lengths_that_differ_are_refused() {
    let step = AdagradStep { rate: 0.1, epsilon: 1e-8, l2: 0.0 };
    adagrad(Isa::best(), &mut [0.0; 3], Mat::new(&[0.0; 2], 1, 2), &mut [0.0; 3], &step);
}
