//! Gradient descent, plain and with momentum.

use super::gradient::lane_sum;
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::Mat;

/// The constants of one [`sgd`] step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f32,
    /// Weight decay through the gradient: `g += l2 w`.
    pub l2: f32,
}

dispatch! {
    /// One step of plain gradient descent, which has no state.
    ///
    /// `gradients` is `[lanes, len]`; the gradient `g` is the sum of its rows, in order, plus `l2 w`. Then
    /// `w -= rate g`. The product is rounded by itself, so the bits are those of a plain loop. Each element depends on
    /// its own column only: columns may be dealt to threads.
    ///
    /// # Panics
    /// When the length of `weights` and the width of `gradients` differ.
    pub fn sgd(weights: &mut [f32], gradients: Mat<'_>, step: &SgdStep) = sgd_body;
}

#[inline(always)]
fn sgd_body<S: Simd>(s: S, weights: &mut [f32], gradients: Mat<'_>, step: &SgdStep) {
    let len = weights.len();
    assert_eq!(gradients.cols(), len, "sgd: the widths of gradients and weights differ");
    let (rate, l2) = (s.splat(step.rate), s.splat(step.l2));
    for span in spans(s, len) {
        let old = load_span(s, weights, span);
        let g = s.mul_add(l2, old, lane_sum(s, gradients, span));
        store_span(s, weights, span, s.sub(old, s.mul(rate, g)));
    }
}

/// The constants of one [`momentum`] step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentumStep {
    /// Learning rate.
    pub rate: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Whether the gradient counts as if it were taken one step ahead.
    pub nesterov: bool,
    /// Weight decay through the gradient: `g += l2 w`.
    pub l2: f32,
    /// Decoupled weight decay: `w -= rate * weight_decay * w` before the step.
    pub weight_decay: f32,
}

dispatch! {
    /// One step of the heavy ball (B. T. Polyak, 1964), or of Nesterov's accelerated gradient in the form of
    /// I. Sutskever, J. Martens, G. Dahl, G. Hinton, ICML 2013; the arithmetic is that of `torch.optim.SGD`.
    ///
    /// `gradients` is `[lanes, len]`; the gradient `g` is the sum of its rows, in order, plus `l2 w`. With it
    /// `v = momentum v + g`, then `w = (1 - rate weight_decay) w - rate v`, or with `nesterov`
    /// `w = (1 - rate weight_decay) w - rate (g + momentum v)`. Each element depends on its own column only: columns
    /// may be dealt to threads.
    ///
    /// # Panics
    /// When the lengths of `weights`, `velocity` (`v`) and the width of `gradients` differ.
    pub fn momentum(weights: &mut [f32], gradients: Mat<'_>, velocity: &mut [f32], step: &MomentumStep)
        = momentum_body;
}

#[inline(always)]
fn momentum_body<S: Simd>(
    s: S,
    weights: &mut [f32],
    gradients: Mat<'_>,
    velocity: &mut [f32],
    step: &MomentumStep,
) {
    let len = weights.len();
    assert!(
        gradients.cols() == len && velocity.len() == len,
        "momentum: {len} weights, gradients of {}, velocities of {}",
        gradients.cols(),
        velocity.len()
    );
    let kept = s.splat(1.0 - step.rate * step.weight_decay);
    let (rate, l2, momentum) = (s.splat(step.rate), s.splat(step.l2), s.splat(step.momentum));
    for span in spans(s, len) {
        let old = load_span(s, weights, span);
        let g = s.mul_add(l2, old, lane_sum(s, gradients, span));
        let v = s.mul_add(momentum, load_span(s, velocity, span), g);
        let direction = if step.nesterov { s.mul_add(momentum, v, g) } else { v };
        store_span(s, velocity, span, v);
        store_span(s, weights, span, s.sub(s.mul(old, kept), s.mul(rate, direction)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values, widen};
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
}
