//! `y = act(x)`, element by element: an activation that no other op ends in.
//!
//! x, y `[batch, n]`. Backward: `dx = dy ⊙ act'`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation as cuda;
use manygate_kernels::activation::{self, Activation};
use std::ops::Range;

/// An activation of its own, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct Activate {
    activation: Activation,
    cols: usize,
}

impl Activate {
    /// Of values of this width.
    pub fn new(activation: Activation, cols: usize) -> Activate {
        Activate { activation, cols }
    }
}

impl Op for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space != Space::Once && x.cols == self.cols => Ok(*x),
            _ => Err(format!("one input with {} columns is needed, not {inputs:?}", self.cols)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0, output: true }
    }

    fn activated(&self) -> Option<(Activation, Range<usize>)> {
        Some((self.activation, 0..self.cols))
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        (0..x.rows()).for_each(|r| y.row_mut(r).copy_from_slice(x.row(r)));
        activation::activate(tile.at.isa, self.activation, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let mut dy = tile.take_output_gradient();
        if !tile.activation_done {
            activation::activation_dx(tile.at.isa, self.activation, tile.output(), dy.reborrow());
        }
        let Some(mut dx) = tile.take_gradient(0) else { return };
        (0..dy.rows()).for_each(|r| dx.put(r, dy.row(r).iter().copied()));
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().for_each(|v| *v = activate_f64(self.activation, *v));
        y
    }
}

impl DeviceOp for Activate {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::activate_to(self.activation, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let dy = step.output_gradient();
        let Some(dx) = step.take_gradient(0) else { return };
        let activation = if step.activation_done() { Activation::Identity } else { self.activation };
        let y = if step.activation_done() { dy } else { step.output() };
        step.launch(cuda::activation_dx_to(activation, y, dy, dx.accumulate, dx.to));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, activation, cols: usize| {
        Case::new(name, move |g, x| g.add("op", Activate::new(activation, cols), x)).rows(cols)
    };
    vec![
        case("activate/tanh", Activation::Tanh, 5),
        case("activate/leaky_relu", Activation::LeakyRelu(0.2), 17),
        case("activate/sigmoid", Activation::Sigmoid, 1),
    ]
}
