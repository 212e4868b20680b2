//! How a row of an embedding table moves by its summed gradient, with its state beside it.

use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;

/// How a row of an embedding table moves. Only rows that were looked up move, weights and state alike: an `l2` term is
/// that of those rows.
///
/// Below `g` is the summed gradient of the row, plus `l2` times its weights in all methods but FTRL. Squares, roots and
/// quotients are by value unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowOptimizer {
    /// Adam (D. P. Kingma, J. Ba, ICLR 2015) without the rows that were not looked up. Row: `[w dim | m dim | v dim]`.
    ///
    /// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
    /// `w -= rate correction m / (sqrt(v) + epsilon)`.
    LazyAdam {
        /// Step size.
        rate: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Keeps the quotient finite.
        epsilon: f32,
        /// [`RowOptimizer::adam_correction`] of the step.
        correction: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
    /// Adagrad with an accumulator a value (J. Duchi, E. Hazan, Y. Singer, JMLR 12, 2011). Row: `[w dim | a dim]`.
    ///
    /// `a += g^2`, `w -= rate g / (sqrt(a) + epsilon)`.
    Adagrad {
        /// Step size.
        rate: f32,
        /// Keeps the quotient finite.
        epsilon: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
    /// Adagrad with one accumulator a row, as in FBGEMM's `EXACT_ROWWISE_ADAGRAD`. Row: `[w dim | a]`.
    ///
    /// `a += mean(g^2)` over the row, `w -= rate g / (sqrt(a) + epsilon)`.
    RowwiseAdagrad {
        /// Step size.
        rate: f32,
        /// Keeps the quotient finite.
        epsilon: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
    /// FTRL-Proximal (H. B. McMahan et al., *Ad Click Prediction: a View from the Trenches*, KDD 2013, algorithm 1).
    /// Row: `[w dim | z dim | n dim]`.
    ///
    /// `z += g - (sqrt(n + g^2) - sqrt(n)) / alpha w`, `n += g^2`; then `w` is 0 where `|z| <= l1`, elsewhere
    /// `-(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)`.
    ///
    /// The paper begins at `w = 0`. A value without a gradient so far (`n = 0`) begins here at the `z` that its weight
    /// follows from, `-((beta / alpha + l2) w + sign(w) l1)`: rows keep their initial values, and those that an earlier
    /// stage of training has learnt. For `w = 0` that is the paper's `z = 0`.
    Ftrl {
        /// The paper's α, above 0.
        alpha: f32,
        /// The paper's β, above 0.
        beta: f32,
        /// The paper's λ₁: weight of the sum of absolute values; weights become exactly 0.
        l1: f32,
        /// The paper's λ₂: weight of the squared norm, times 2.
        l2: f32,
    },
    /// Plain descent, `w -= rate g`. Row: `[w dim]`.
    Sgd {
        /// Step size.
        rate: f32,
        /// Weight of the squared norm in the loss, times 2.
        l2: f32,
    },
}

impl RowOptimizer {
    /// Values of state beside the `dim` weights of a row.
    pub fn state_width(&self, dim: usize) -> usize {
        match self {
            RowOptimizer::LazyAdam { .. } | RowOptimizer::Ftrl { .. } => 2 * dim,
            RowOptimizer::Adagrad { .. } => dim,
            RowOptimizer::RowwiseAdagrad { .. } => 1,
            RowOptimizer::Sgd { .. } => 0,
        }
    }

    /// The bias correction `sqrt(1 - beta2^step) / (1 - beta1^step)` of lazy Adam; `step` counts the steps of the
    /// training from 1, not those that touched a row.
    pub fn adam_correction(beta1: f32, beta2: f32, step: u64) -> f32 {
        let power = |beta: f32| f64::from(beta).powf(step as f64);
        ((1.0 - power(beta2)).sqrt() / (1.0 - power(beta1))) as f32
    }

    /// Moves one row, weights and state, by its summed gradient, which it may overwrite.
    #[inline(always)]
    pub fn apply<S: Simd>(&self, s: S, gradient: &mut [f32], row: &mut [f32]) {
        let (weights, state) = row.split_at_mut(gradient.len());
        match *self {
            RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 } => {
                lazy_adam(s, gradient, weights, state, rate * correction, [beta1, beta2], epsilon, l2);
            }
            RowOptimizer::Adagrad { rate, epsilon, l2 } => {
                adagrad(s, gradient, weights, state, rate, epsilon, l2);
            }
            RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 } => {
                let squares = add_l2(s, l2, gradient, weights);
                if !weights.is_empty() {
                    state[0] += squares / weights.len() as f32;
                }
                descend(s, rate / (state[0].sqrt() + epsilon), gradient, weights);
            }
            RowOptimizer::Ftrl { alpha, beta, l1, l2 } => {
                ftrl(s, gradient, weights, state, alpha, beta, [l1, l2]);
            }
            RowOptimizer::Sgd { rate, l2 } => {
                add_l2(s, l2, gradient, weights);
                descend(s, rate, gradient, weights);
            }
        }
    }
}

#[inline(always)]
fn lazy_adam<S: Simd>(
    s: S,
    gradient: &[f32],
    weights: &mut [f32],
    state: &mut [f32],
    rate: f32,
    [beta1, beta2]: [f32; 2],
    epsilon: f32,
    l2: f32,
) {
    let (first, second) = state.split_at_mut(weights.len());
    let (rate, epsilon, l2) = (s.splat(rate), s.splat(epsilon), s.splat(l2));
    let (rest1, rest2) = (s.splat(1.0 - beta1), s.splat(1.0 - beta2));
    let (beta1, beta2) = (s.splat(beta1), s.splat(beta2));
    for span in spans(s, weights.len()) {
        let w = load_span(s, weights, span);
        let g = s.mul_add(l2, w, load_span(s, gradient, span));
        let m = s.mul_add(beta1, load_span(s, first, span), s.mul(rest1, g));
        let v = s.mul_add(beta2, load_span(s, second, span), s.mul(rest2, s.mul(g, g)));
        let moved = s.div(s.mul(rate, m), s.add(s.sqrt(v), epsilon));
        store_span(s, first, span, m);
        store_span(s, second, span, v);
        store_span(s, weights, span, s.sub(w, moved));
    }
}

#[inline(always)]
fn adagrad<S: Simd>(
    s: S,
    gradient: &[f32],
    weights: &mut [f32],
    squares: &mut [f32],
    rate: f32,
    epsilon: f32,
    l2: f32,
) {
    let (rate, epsilon, l2) = (s.splat(rate), s.splat(epsilon), s.splat(l2));
    for span in spans(s, weights.len()) {
        let w = load_span(s, weights, span);
        let g = s.mul_add(l2, w, load_span(s, gradient, span));
        let a = s.mul_add(g, g, load_span(s, squares, span));
        let moved = s.div(s.mul(rate, g), s.add(s.sqrt(a), epsilon));
        store_span(s, squares, span, a);
        store_span(s, weights, span, s.sub(w, moved));
    }
}

#[inline(always)]
fn ftrl<S: Simd>(
    s: S,
    gradient: &[f32],
    weights: &mut [f32],
    state: &mut [f32],
    alpha: f32,
    beta: f32,
    [l1, l2]: [f32; 2],
) {
    let (sums, squares) = state.split_at_mut(weights.len());
    let (zero, per_alpha, begin) = (s.splat(0.0), s.splat(1.0 / alpha), s.splat(beta / alpha + l2));
    let (l1, minus_l1) = (s.splat(l1), s.splat(-l1));
    for span in spans(s, weights.len()) {
        let (w, g) = (load_span(s, weights, span), load_span(s, gradient, span));
        let n = load_span(s, squares, span);
        let moved = s.mul_add(g, g, n);
        // -sign(w) l1.
        let towards = s.select(s.greater(w, zero), minus_l1, s.select(s.greater(zero, w), l1, zero));
        let start = s.sub(towards, s.mul(begin, w));
        let z = s.select(s.greater(n, zero), load_span(s, sums, span), start);
        let sigma = s.mul(s.sub(s.sqrt(moved), s.sqrt(n)), per_alpha);
        let z = s.sub(s.add(z, g), s.mul(sigma, w));
        // z without what lies inside ±l1.
        let outside = s.sub(z, s.max(s.min(z, l1), minus_l1));
        let w = s.div(s.sub(zero, outside), s.mul_add(s.sqrt(moved), per_alpha, begin));
        store_span(s, sums, span, z);
        store_span(s, squares, span, moved);
        store_span(s, weights, span, w);
    }
}

/// `g += l2 w`; returns the sum of the squares of `g`.
#[inline(always)]
fn add_l2<S: Simd>(s: S, l2: f32, g: &mut [f32], w: &[f32]) -> f32 {
    let mut squares = s.splat(0.0);
    for span in spans(s, w.len()) {
        let sum = s.mul_add(s.splat(l2), load_span(s, w, span), load_span(s, g, span));
        squares = s.mul_add(sum, sum, squares);
        store_span(s, g, span, sum);
    }
    s.sum(squares)
}

/// `w -= rate g`.
#[inline(always)]
fn descend<S: Simd>(s: S, rate: f32, g: &[f32], w: &mut [f32]) {
    for span in spans(s, w.len()) {
        let moved = s.mul_add(s.splat(-rate), load_span(s, g, span), load_span(s, w, span));
        store_span(s, w, span, moved);
    }
}
