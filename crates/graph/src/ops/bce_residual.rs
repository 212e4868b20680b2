//! `y = (σ(z) − label) / B`: the gradient of a mean binary cross-entropy at its logit, as a value; B the rows of the batch.
//!
//! z, y `[batch, 1]`. Backward: `dz = dy σ(z) (1 − σ(z)) / B`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row as cuda;

/// A loss's gradient as a value, see the [module](self). Input: the logit.
#[derive(Clone, Debug)]
pub struct BceResidual {
    task: usize,
}

impl BceResidual {
    /// Against `labels[task]`.
    pub fn new(task: usize) -> BceResidual {
        BceResidual { task }
    }
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

impl Op for BceResidual {
    fn name(&self) -> &'static str {
        "bce_residual"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z] if *z == Shape::batch(1) && z.space == Space::Batch => Ok(*z),
            _ => Err(format!("one logit a row is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { labels: self.task + 1, ..Reads::default() }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let labels = &tile.at.batch.labels[self.task][tile.at.range()];
        let rows = tile.at.facts.rows as f32;
        let (z, mut y) = (tile.input(0), tile.take_output());
        for (r, label) in labels.iter().enumerate() {
            y.row_mut(r)[0] = (sigmoid(z.row(r)[0]) - label) / rows;
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let rows = tile.at.facts.rows as f32;
        let (z, dy) = (tile.input(0), tile.take_output_gradient());
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for r in 0..z.rows() {
            let p = sigmoid(z.row(r)[0]);
            dz.put(r, dy.row(r).iter().map(|d| d * p * (1.0 - p) / rows));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        for (z, &label) in y.data.iter_mut().zip(&batch.labels[self.task]) {
            *z = (1.0 / (1.0 + (-*z).exp()) - f64::from(label)) / batch.rows as f64;
        }
        y
    }
}

impl DeviceOp for BceResidual {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let labels = step.batch().labels[self.task];
        step.launch(cuda::bce_residual(step.input(0), labels, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (z, dy) = (step.input(0), step.output_gradient());
        if let Some(dz) = step.take_gradient(0) {
            step.launch(cuda::bce_residual_dz(z, dy, dz.accumulate, dz.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = Case::new("bce_residual", |g, x| g.add("op", BceResidual::new(1), x));
    vec![case.rows(1).between(-4.0, 4.0)]
}
