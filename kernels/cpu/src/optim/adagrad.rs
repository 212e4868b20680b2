//! Adagrad with an accumulator for each value.

use super::gradient::lane_sum;
use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::Mat;

/// The constants of one [`adagrad`] step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradStep {
    /// Learning rate.
    pub rate: f32,
    /// Keeps the quotient finite.
    pub epsilon: f32,
    /// Weight decay through the gradient: `g += l2 w`.
    pub l2: f32,
}

dispatch! {
    /// One step of Adagrad with a diagonal matrix (J. Duchi, E. Hazan, Y. Singer, JMLR 12, 2011), in the arithmetic of
    /// `torch.optim.Adagrad`.
    ///
    /// `gradients` is `[lanes, len]`; the gradient `g` is the sum of its rows, in order, plus `l2 w`. With it
    /// `a += g^2`, `w -= rate g / (sqrt(a) + epsilon)`. Each element depends on its own column only: columns may be
    /// dealt to threads.
    ///
    /// # Panics
    /// When the lengths of `weights`, `squares` (`a`) and the width of `gradients` differ.
    pub fn adagrad(weights: &mut [f32], gradients: Mat<'_>, squares: &mut [f32], step: &AdagradStep)
        = adagrad_body;
}

#[inline(always)]
fn adagrad_body<S: Simd>(
    s: S,
    weights: &mut [f32],
    gradients: Mat<'_>,
    squares: &mut [f32],
    step: &AdagradStep,
) {
    let len = weights.len();
    assert!(
        gradients.cols() == len && squares.len() == len,
        "adagrad: {len} weights, gradients of {}, squares of {}",
        gradients.cols(),
        squares.len()
    );
    let (rate, epsilon, l2) = (s.splat(step.rate), s.splat(step.epsilon), s.splat(step.l2));
    for span in spans(s, len) {
        let old = load_span(s, weights, span);
        let g = s.mul_add(l2, old, lane_sum(s, gradients, span));
        let a = s.mul_add(g, g, load_span(s, squares, span));
        let moved = s.div(s.mul(rate, g), s.add(s.sqrt(a), epsilon));
        store_span(s, squares, span, a);
        store_span(s, weights, span, s.sub(old, moved));
    }
}
