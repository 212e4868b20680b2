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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use proptest::prelude::*;

    const ALL: [Activation; 5] = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.1),
        Activation::Tanh,
        Activation::Sigmoid,
    ];

    fn exact(act: Activation, v: f64) -> f64 {
        match act {
            Activation::Identity => v,
            Activation::Relu => v.max(0.0),
            Activation::LeakyRelu(slope) => {
                if v > 0.0 {
                    v
                } else {
                    v * f64::from(slope)
                }
            }
            Activation::Tanh => v.tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-v).exp()),
        }
    }

    proptest! {
        #[test]
        fn values_and_slopes_agree_with_f64(rows in 0usize..5, cols in 0usize..40, pad in 0usize..3, seed: u64) {
            let stride = cols + pad;
            let x = values(seed, rows * stride, 4.0);
            let upstream = values(seed ^ 1, rows * stride, 1.0);
            for isa in Isa::available() {
                for act in ALL {
                    let mut y = x.clone();
                    activate(isa, act, MatMut::strided(&mut y, rows, cols, stride));
                    let mut dx = upstream.clone();
                    activation_dx(isa, act, Mat::strided(&y, rows, cols, stride),
                        MatMut::strided(&mut dx, rows, cols, stride));
                    for i in 0..rows * stride {
                        if i % stride >= cols {
                            prop_assert_eq!((y[i], dx[i]), (x[i], upstream[i]), "padding was written");
                            continue;
                        }
                        let v = f64::from(x[i]);
                        prop_assert!(close(y[i], exact(act, v), 1e-6), "{isa} {act:?} of {v}: {}", y[i]);
                        let h = 1e-6;
                        let slope = (exact(act, v + h) - exact(act, v - h)) / (2.0 * h);
                        let expected = slope * f64::from(upstream[i]);
                        prop_assert!(v.abs() < 1e-5 || close(dx[i], expected, 2e-6), "{isa} {act:?}' of {v}: {}", dx[i]);
                    }
                }
            }
        }
    }

    #[test]
    fn nan_is_never_hidden_and_relu_is_flat_at_zero() {
        for isa in Isa::available() {
            for act in ALL {
                let mut y = [f32::NAN, 1.0, f32::NAN];
                activate(isa, act, MatMut::new(&mut y, 1, 3));
                assert!(y[0].is_nan() && !y[1].is_nan() && y[2].is_nan(), "{isa} {act:?}: {y:?}");
                let mut dy = [f32::NAN; 3];
                activation_dx(isa, act, Mat::new(&[1.0, 0.0, 0.5], 1, 3), MatMut::new(&mut dy, 1, 3));
                assert!(dy.iter().all(|d| d.is_nan()), "{isa} {act:?}: {dy:?}");
            }
            let mut dy = [3.0; 4];
            let y = [0.0, -0.0, 2.0, f32::NAN];
            activation_dx(isa, Activation::Relu, Mat::new(&y, 1, 4), MatMut::new(&mut dy, 1, 4));
            assert_eq!(dy[..3], [0.0, 0.0, 3.0]);
            assert!(dy[3].is_nan());
        }
    }
}
