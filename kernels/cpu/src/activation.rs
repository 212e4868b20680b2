//! Activation functions: on vectors for the end of other kernels, and as kernels of their own.
//!
//! Derivatives are taken from the output, so that a network keeps one buffer a layer and not two.

use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::math;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// An activation function whose derivative is a function of its output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `v`.
    Identity,
    /// `max(v, 0)`; the derivative at 0 is 0.
    Relu,
    /// `v` where positive, else the slope times `v`; the slope is positive, or the output would not tell the side.
    LeakyRelu(f32),
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-v)`.
    Sigmoid,
}

impl Activation {
    /// The function of each lane. NaN stays NaN.
    #[inline(always)]
    pub fn apply<S: Simd>(self, s: S, v: S::V) -> S::V {
        let zero = s.splat(0.0);
        match self {
            Activation::Identity => v,
            // In this order `max` returns a NaN in `v`; the other one would turn it into 0.
            Activation::Relu => s.max(zero, v),
            Activation::LeakyRelu(slope) => s.select(s.greater(v, zero), v, s.mul(v, s.splat(slope))),
            Activation::Tanh => math::tanh(s, v),
            Activation::Sigmoid => math::sigmoid(s, v),
        }
    }

    /// The derivative of each lane, from the output `y` of [`apply`](Activation::apply). A NaN
    /// output of `Relu`, `Tanh` or `Sigmoid` has a NaN slope.
    #[inline(always)]
    pub fn slope_from_output<S: Simd>(self, s: S, y: S::V) -> S::V {
        let zero = s.splat(0.0);
        let one = s.splat(1.0);
        match self {
            Activation::Identity => one,
            // `max` is 0 for every output that is not positive, and NaN for NaN.
            Activation::Relu => s.select(s.greater(y, zero), one, s.max(zero, y)),
            Activation::LeakyRelu(slope) => s.select(s.greater(y, zero), one, s.splat(slope)),
            Activation::Tanh => s.sub(one, s.mul(y, y)),
            Activation::Sigmoid => s.mul(y, s.sub(one, y)),
        }
    }
}

dispatch! {
    /// Applies `act` to every element of `x`, in place.
    pub fn activate(act: Activation, x: MatMut<'_>) = activate_body;
}

#[inline(always)]
fn activate_body<S: Simd>(s: S, act: Activation, mut x: MatMut<'_>) {
    if act == Activation::Identity {
        return;
    }
    for r in 0..x.rows() {
        let x = x.row_mut(r);
        for span in spans(s, x.len()) {
            let v = act.apply(s, load_span(s, x, span));
            store_span(s, x, span, v);
        }
    }
}

dispatch! {
    /// Multiplies the gradient `dy` at the output `y` of `act` by the derivative, in place: the gradient at its input.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn activation_dx(act: Activation, y: Mat<'_>, dy: MatMut<'_>) = activation_dx_body;
}

#[inline(always)]
fn activation_dx_body<S: Simd>(s: S, act: Activation, y: Mat<'_>, mut dy: MatMut<'_>) {
    assert_eq!((y.rows(), y.cols()), (dy.rows(), dy.cols()), "activation_dx: y and dy differ in shape");
    if act == Activation::Identity {
        return;
    }
    for r in 0..y.rows() {
        let (y, dy) = (y.row(r), dy.row_mut(r));
        for span in spans(s, y.len()) {
            let slope = act.slope_from_output(s, load_span(s, y, span));
            let dx = s.mul(load_span(s, dy, span), slope);
            store_span(s, dy, span, dx);
        }
    }
}
