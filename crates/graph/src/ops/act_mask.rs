//! `y = v ⊙ φ'(z)`: a value times the slope of a piecewise-linear activation, one layer of a backward pass written as a
//! forward expression.
//!
//! v `[batch, n]`, h = φ(z) `[batch, n]`. The slope is constant almost everywhere, so that h gets no gradient.
//! Backward: `dv = dy ⊙ φ'(z)`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{activation as cuda, elementwise};
use manygate_kernels::activation::Activation;

/// A product with a slope, see the [module](self). Inputs: v, h.
#[derive(Clone, Debug)]
pub struct ActMask {
    activation: Activation,
}

impl ActMask {
    /// By the slope of `activation`.
    pub fn new(activation: Activation) -> ActMask {
        ActMask { activation }
    }

    /// The slope where the output is `h`; [`None`] for an activation whose slope is not constant in pieces.
    fn slope(&self, h: f32) -> Option<f32> {
        match self.activation {
            Activation::Identity => Some(1.0),
            Activation::Relu => Some(if h > 0.0 { 1.0 } else { 0.0 }),
            Activation::LeakyRelu(slope) => Some(if h > 0.0 { 1.0 } else { slope }),
            Activation::Tanh | Activation::Sigmoid => None,
        }
    }

    fn times<'a>(&'a self, v: &'a [f32], h: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        v.iter().zip(h).map(|(v, &h)| v * self.slope(h).unwrap_or(0.0))
    }
}

impl Op for ActMask {
    fn name(&self) -> &'static str {
        "act_mask"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if self.slope(0.0).is_none() {
            return Err(format!("the slope of {:?} is not constant in pieces", self.activation));
        }
        match inputs {
            [v, h] if v.space != Space::Once && v == h => Ok(*v),
            _ => Err(format!("two values of one shape are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b10, output: false }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        if i == 0 {
            reach::same(output, reached);
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0, 1]);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (v, h, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..v.rows() {
            y.row_mut(r).iter_mut().zip(self.times(v.row(r), h.row(r))).for_each(|(to, v)| *to = v);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (h, dy) = (tile.input(1), tile.take_output_gradient());
        if let Some(mut dv) = tile.take_gradient(0) {
            (0..dy.rows()).for_each(|r| dv.put(r, self.times(dy.row(r), h.row(r))));
        }
        if let Some(mut dh) = tile.take_gradient(1) {
            (0..dy.rows()).for_each(|r| dh.put(r, std::iter::repeat_n(0.0, h.cols())));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (mut y, h) = (inputs[0].clone(), &inputs[1]);
        let slopes = h.data.iter().map(|&h| f64::from(self.slope(h as f32).unwrap_or(0.0)));
        y.data.iter_mut().zip(slopes).for_each(|(v, slope)| *v *= slope);
        y
    }
}

impl DeviceOp for ActMask {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (v, h, y) = (step.input(0), step.input(1), step.output());
        step.launch(cuda::activation_dx_to(self.activation, h, v, false, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (h, dy) = (step.input(1), step.output_gradient());
        if let Some(dv) = step.take_gradient(0) {
            step.launch(cuda::activation_dx_to(self.activation, h, dy, dv.accumulate, dv.to));
        }
        if let Some(dh) = step.take_gradient(1)
            && !dh.accumulate
        {
            step.launch(elementwise::fill(0.0, dh.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, activation| {
        Case::new(name, move |g, x| g.add("op", ActMask::new(activation), x)).rows(cols).rows(cols)
    };
    vec![
        case("act_mask/relu", 5, Activation::Relu),
        case("act_mask/leaky_relu", 17, Activation::LeakyRelu(0.2)),
    ]
}
