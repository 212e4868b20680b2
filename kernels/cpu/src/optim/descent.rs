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
