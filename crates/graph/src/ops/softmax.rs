//! `q = softmax(z)`, row by row.
//!
//! z, q `[batch, n]`. Backward: `dz = q ⊙ (dq − q · dq)`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row as cuda;

/// Probabilities of a row, see the [module](self). Input: z.
#[derive(Clone, Debug)]
pub struct Softmax;

/// The softmax of `z`, written to `q`.
pub(super) fn softmax(z: &[f32], q: &mut [f32]) {
    let largest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    q.iter_mut().zip(z).for_each(|(q, z)| *q = (z - largest).exp());
    let sum: f32 = q.iter().sum();
    q.iter_mut().for_each(|q| *q /= sum);
}

/// The softmax of each row, in f64.
pub(super) fn softmax_f64(z: &Matrix) -> Matrix {
    let mut q = z.clone();
    for row in q.data.chunks_exact_mut(z.cols) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|z| *z = (*z - largest).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|q| *q /= sum);
    }
    q
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z] if z.space != Space::Once && z.cols > 0 => Ok(*z),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0, output: true }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, mut q) = (tile.input(0), tile.take_output());
        (0..z.rows()).for_each(|r| softmax(z.row(r), q.row_mut(r)));
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (q, dq) = (tile.output(), tile.take_output_gradient());
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for r in 0..q.rows() {
            let mean: f32 = q.row(r).iter().zip(dq.row(r)).map(|(q, d)| q * d).sum();
            dz.put(r, q.row(r).iter().zip(dq.row(r)).map(|(q, d)| q * (d - mean)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        softmax_f64(&inputs[0])
    }
}

impl DeviceOp for Softmax {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: false }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::softmax(step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (q, dq) = (step.output(), step.output_gradient());
        if let Some(dz) = step.take_gradient(0) {
            step.launch(cuda::softmax_dz(q, dq, dz.accumulate, dz.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| Case::new(name, |g, x| g.add("op", Softmax, x)).rows(cols);
    vec![case("softmax/one", 1), case("softmax/wide", 17).between(-5.0, 5.0)]
}
