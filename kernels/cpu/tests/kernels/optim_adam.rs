use crate::testing::{close, values, widen};
use manygate_kernels::isa::Isa;
use manygate_kernels::optim::*;
use manygate_kernels::view::Mat;
use proptest::prelude::*;

proptest! {
    #[test]
    fn steps_agree_with_f64(
        len in 0usize..70, lanes in 0usize..5, pad in 0usize..3, seed: u64, l2 in 0.0f32..0.1, decay in 0.0f32..0.1,
    ) {
        let stride = len + pad;
        let gradients = values(seed, lanes * stride, 1.0);
        let start = values(seed ^ 1, len, 1.0);
        let (mut w, mut m, mut v) = (widen(&start), vec![0.0; len], vec![0.0; len]);
        let mut found: Vec<_> =
            Isa::available().iter().map(|&isa| (isa, start.clone(), vec![0.0; len], vec![0.0; len])).collect();
        for t in 1..4 {
            let (beta1, beta2) = (0.9f32, 0.999f32);
            let correction = |beta: f32| 1.0 - f64::from(beta).powi(t);
            let step = AdamStep {
                rate: 0.01, beta1, beta2, epsilon: 1e-8, l2, weight_decay: decay,
                correction1: correction(beta1) as f32, correction2: correction(beta2) as f32,
            };
            for i in 0..len {
                let sum: f64 = (0..lanes).map(|lane| f64::from(gradients[lane * stride + i])).sum();
                let g = sum + f64::from(l2) * w[i];
                m[i] = f64::from(beta1) * m[i] + (1.0 - f64::from(beta1)) * g;
                v[i] = f64::from(beta2) * v[i] + (1.0 - f64::from(beta2)) * g * g;
                let root = (v[i] / correction(beta2)).sqrt() + 1e-8;
                w[i] -= 0.01 * f64::from(decay) * w[i] + 0.01 / correction(beta1) * m[i] / root;
            }
            for (isa, w, m, v) in &mut found {
                adam(*isa, w, Mat::strided(&gradients, lanes, len, stride), m, v, &step);
            }
        }
        for (isa, found_w, found_m, found_v) in found {
            for i in 0..len {
                prop_assert!(close(found_m[i], m[i], 1e-6) && close(found_v[i], v[i], 1e-6), "{isa} moments");
                // The direction m / sqrt(v) of a gradient near 0 is all rounding.
                prop_assert!(v[i] < 1e-8 || close(found_w[i], w[i], 5e-6), "{isa}: {} {}", found_w[i], w[i]);
            }
        }
    }
}

#[test]
#[should_panic(expected = "adam: 3 weights")]
fn lengths_that_differ_are_refused() {
    let step = AdamStep {
        rate: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        correction1: 0.1,
        correction2: 0.01,
        l2: 0.0,
        weight_decay: 0.0,
    };
    adam(Isa::best(), &mut [0.0; 3], Mat::new(&[0.0; 2], 1, 2), &mut [0.0; 3], &mut [0.0; 3], &step);
}
