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
