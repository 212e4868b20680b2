//! Adam and AdamW.

use super::gradient::lane_sum;
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::Mat;

/// The constants of one [`adam`] step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Keeps the quotient finite.
    pub epsilon: f32,
    /// `1 - beta1^t` of the step `t`, counted from 1.
    pub correction1: f32,
    /// `1 - beta2^t`.
    pub correction2: f32,
    /// Weight decay through the gradient: `g += l2 w`.
    pub l2: f32,
    /// Decoupled weight decay: `w -= rate * weight_decay * w` before the step.
    pub weight_decay: f32,
}

dispatch! {
    /// One step of Adam (D. P. Kingma, J. Ba, ICLR 2015), or with `weight_decay` of AdamW (I. Loshchilov, F. Hutter,
    /// ICLR 2019), in the arithmetic of `torch.optim.Adam`.
    ///
    /// `gradients` is `[lanes, len]`; the gradient is the sum of its rows, in order. With it: `m = beta1 m +
    /// (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`, `w -= rate / correction1 * m / (sqrt(v) / sqrt(correction2) +
    /// epsilon)`. Each element depends on its own column only: columns may be dealt to threads.
    ///
    /// # Panics
    /// When the lengths of `weights`, `first` (`m`), `second` (`v`) and the width of `gradients` differ.
    pub fn adam(weights: &mut [f32], gradients: Mat<'_>, first: &mut [f32], second: &mut [f32], step: &AdamStep)
        = adam_body;
}

#[inline(always)]
fn adam_body<S: Simd>(
    s: S,
    weights: &mut [f32],
    gradients: Mat<'_>,
    first: &mut [f32],
    second: &mut [f32],
    step: &AdamStep,
) {
    let len = weights.len();
    assert!(
        gradients.cols() == len && first.len() == len && second.len() == len,
        "adam: {len} weights, gradients of {}, moments of {} and {}",
        gradients.cols(),
        first.len(),
        second.len()
    );
    let kept = s.splat(1.0 - step.rate * step.weight_decay);
    let rate = s.splat(step.rate / step.correction1);
    let root2 = s.splat(step.correction2.sqrt());
    let epsilon = s.splat(step.epsilon);
    let (beta1, rest1) = (s.splat(step.beta1), s.splat(1.0 - step.beta1));
    let (beta2, rest2) = (s.splat(step.beta2), s.splat(1.0 - step.beta2));
    let l2 = s.splat(step.l2);
    for span in spans(s, len) {
        let old = load_span(s, weights, span);
        let g = s.mul_add(l2, old, lane_sum(s, gradients, span));
        let mean = s.mul_add(beta1, load_span(s, first, span), s.mul(rest1, g));
        let square = s.mul_add(beta2, load_span(s, second, span), s.mul(rest2, s.mul(g, g)));
        let quotient = s.div(mean, s.add(s.div(s.sqrt(square), root2), epsilon));
        store_span(s, first, span, mean);
        store_span(s, second, span, square);
        store_span(s, weights, span, s.sub(s.mul(old, kept), s.mul(rate, quotient)));
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
}
