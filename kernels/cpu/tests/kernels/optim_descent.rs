use crate::testing::{close, values, widen};
use manygate_kernels::isa::Isa;
use manygate_kernels::optim::*;
use manygate_kernels::view::Mat;
use proptest::prelude::*;

proptest! {
    #[test]
    fn descent_agrees_with_f64(
        len in 0usize..70, lanes in 0usize..5, pad in 0usize..3, seed: u64, l2 in 0.0f32..0.1,
    ) {
        let stride = len + pad;
        let gradients = values(seed, lanes * stride, 1.0);
        let start = values(seed ^ 1, len, 1.0);
        let step = SgdStep { rate: 0.1, l2 };
        let [rate, l2] = [step.rate, l2].map(f64::from);
        let mut first: Option<Vec<f32>> = None;
        for isa in Isa::available() {
            let mut w = start.clone();
            sgd(isa, &mut w, Mat::strided(&gradients, lanes, len, stride), &step);
            for (i, &before) in start.iter().enumerate() {
                let before = f64::from(before);
                let sum: f64 = (0..lanes).map(|lane| f64::from(gradients[lane * stride + i])).sum();
                let expected = before - rate * (sum + l2 * before);
                prop_assert!(close(w[i], expected, 1e-6), "{isa}: {} {expected}", w[i]);
            }
            if isa.is_fused() {
                prop_assert_eq!(first.get_or_insert_with(|| w.clone()), &w, "{} has other bits", isa);
            }
        }
    }

    #[test]
    fn momentum_agrees_with_f64(
        len in 0usize..70, lanes in 0usize..5, pad in 0usize..3, seed: u64,
        l2 in 0.0f32..0.1, weight_decay in 0.0f32..0.1, nesterov: bool,
    ) {
        let stride = len + pad;
        let gradients = values(seed, lanes * stride, 1.0);
        let start = values(seed ^ 1, len, 1.0);
        let step = MomentumStep { rate: 0.1, momentum: 0.9, nesterov, l2, weight_decay };
        let [rate, mu, l2, decay] = [step.rate, step.momentum, l2, weight_decay].map(f64::from);
        let (mut w, mut v) = (widen(&start), vec![0.0; len]);
        let mut found: Vec<_> =
            Isa::available().iter().map(|&isa| (isa, start.clone(), vec![0.0; len])).collect();
        for _ in 0..3 {
            for i in 0..len {
                let sum: f64 = (0..lanes).map(|lane| f64::from(gradients[lane * stride + i])).sum();
                let g = sum + l2 * w[i];
                v[i] = mu * v[i] + g;
                let direction = if nesterov { g + mu * v[i] } else { v[i] };
                w[i] -= rate * decay * w[i] + rate * direction;
            }
            for (isa, w, v) in &mut found {
                momentum(*isa, w, Mat::strided(&gradients, lanes, len, stride), v, &step);
            }
        }
        let bits = found[0].1.clone();
        for (isa, found_w, found_v) in found {
            for i in 0..len {
                prop_assert!(close(found_w[i], w[i], 5e-6), "{isa}: {} {}", found_w[i], w[i]);
                prop_assert!(close(found_v[i], v[i], 5e-6), "{isa}: {} {}", found_v[i], v[i]);
            }
            if isa.is_fused() {
                prop_assert_eq!(&bits, &found_w, "{} has other bits", isa);
            }
        }
    }
}

#[test]
#[should_panic(expected = "sgd: the widths")]
fn gradients_of_another_width_are_refused() {
    sgd(Isa::best(), &mut [0.0; 3], Mat::new(&[0.0; 2], 1, 2), &SgdStep { rate: 0.1, l2: 0.0 });
}

#[test]
#[should_panic(expected = "momentum: 3 weights, gradients of 3, velocities of 2")]
fn velocities_of_another_length_are_refused() {
    let step = MomentumStep { rate: 0.1, momentum: 0.9, nesterov: false, l2: 0.0, weight_decay: 0.0 };
    momentum(Isa::best(), &mut [0.0; 3], Mat::new(&[0.0; 3], 1, 3), &mut [0.0; 2], &step);
}
