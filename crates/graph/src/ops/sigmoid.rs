//! `p = 1 / (1 + e^−z)`, element by element: probabilities as outputs.
//!
//! Backward: `dz = dp ⊙ p (1 − p)`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Saved, activate_f64};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation;
use manygate_kernels::activation::Activation;
use manygate_kernels::loss;

/// The logistic function, see the [module](self). Input: z.
#[derive(Clone, Debug)]
pub struct Sigmoid;

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z] if z.space == Space::Batch => Ok(*z),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0, output: true }
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
        let (z, p) = (tile.input(0), tile.take_output());
        loss::sigmoid(tile.at.isa, z, p);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (p, dp) = (tile.output(), tile.take_output_gradient());
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for r in 0..p.rows() {
            for ((to, &p), &dp) in dz.to.row_mut(r).iter_mut().zip(p.row(r)).zip(dp.row(r)) {
                let add = dp * p * (1.0 - p);
                *to = if dz.accumulate { *to + add } else { add };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut p = inputs[0].clone();
        p.data.iter_mut().for_each(|v| *v = activate_f64(Activation::Sigmoid, *v));
        p
    }
}

impl DeviceOp for Sigmoid {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(activation::activate_to(Activation::Sigmoid, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (p, dp) = (step.output(), step.output_gradient());
        if let Some(dz) = step.take_gradient(0) {
            step.launch(activation::activation_dx_to(Activation::Sigmoid, p, dp, dz.accumulate, dz.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case =
        |name: &str, cols| Case::new(name, |g, x| g.add("op", Sigmoid, x)).rows(cols).between(-6.0, 6.0);
    vec![case("sigmoid/one", 1), case("sigmoid/wide", 19)]
}
