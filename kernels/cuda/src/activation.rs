//! Activation functions as kernels of their own, see `manygate_kernels::activation`. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch};
use crate::module::ACTIVATION;
use crate::share;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// `act` as kernels read it, an `Activation` of `activation.cuh`: which one, and the slope of a leaky one.
pub fn to_bytes(act: Activation) -> [u8; 8] {
    let (kind, slope) = match act {
        Activation::Identity => (0u32, 0.0f32),
        Activation::Relu => (1, 0.0),
        Activation::LeakyRelu(slope) => (2, slope),
        Activation::Tanh => (3, 0.0),
        Activation::Sigmoid => (4, 0.0),
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..].copy_from_slice(&slope.to_le_bytes());
    bytes
}

/// Applies `act` to every element of `x`, in place.
pub fn activate(act: Activation, x: DeviceMat) -> Launch {
    activate_to(act, x, x)
}

/// `y = act(x)`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes differ.
pub fn activate_to(act: Activation, x: DeviceMat, y: DeviceMat) -> Launch {
    share::assert_alike("activate", &[x, y]);
    let arguments = Arguments::new().with_bytes(&to_bytes(act), 4).with_mat(x).with_mat(y);
    share::launch(&ACTIVATION, "activate", y, arguments)
}

/// Multiplies the gradient `dy` at the output `y` of `act` by the derivative, in place: the gradient at its input.
///
/// # Panics
/// When the shapes differ.
pub fn activation_dx(act: Activation, y: DeviceMat, dy: DeviceMat) -> Launch {
    activation_dx_to(act, y, dy, false, dy)
}

/// `dx = dy ⊙ act'`, or `dx += dy ⊙ act'` with `accumulate`, with the derivative at the output `y` of `act`. The rows
/// that are there are those of `dx`.
///
/// # Panics
/// When the shapes differ.
pub fn activation_dx_to(
    act: Activation,
    y: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    share::assert_alike("activation_dx", &[y, dy, dx]);
    let arguments = Arguments::new().with_bytes(&to_bytes(act), 4).with_mat(y).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dx);
    share::launch(&ACTIVATION, "activation_dx", dx, arguments)
}
