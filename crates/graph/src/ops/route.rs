//! The position of the largest of a row's scores: `y = argmax_k z_k`, of equal ones the first.
//!
//! z `[batch, n]`, y `[batch, 1]`, a whole number that [`ClusterLinear`](super::ClusterLinear) chooses a weight by. No
//! score moves it in passing, so its gradients are 0.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::cluster as cuda;
use manygate_cuda::elementwise;

/// A choice for each row, see the [module](self). Input: z.
#[derive(Clone, Debug)]
pub struct Route;

fn largest<T: PartialOrd + Copy>(scores: &[T]) -> usize {
    (1..scores.len()).fold(0, |best, k| if scores[k] > scores[best] { k } else { best })
}

impl Op for Route {
    fn name(&self) -> &'static str {
        "route"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z] if z.space == Space::Batch && z.cols > 0 => Ok(z.with_cols(1)),
            _ => Err(format!("scores with a row a sample are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, _output: &[bool], _reached: &mut [bool]) {}

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, mut y) = (tile.input(0), tile.take_output());
        (0..z.rows()).for_each(|r| y.row_mut(r)[0] = largest(z.row(r)) as f32);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let Some(mut dz) = tile.take_gradient(0) else { return };
        (0..dz.to.rows()).for_each(|r| dz.put(r, std::iter::repeat(0.0)));
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let z = &inputs[0];
        let data = z.data.chunks_exact(z.cols).map(|row| largest(row) as f64).collect();
        Matrix { rows: z.rows, cols: 1, data }
    }
}

/// Scores are compared as they were computed, never rounded to bf16.
impl DeviceOp for Route {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::route(step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dz) = step.take_gradient(0).filter(|dz| !dz.accumulate) {
            step.launch(elementwise::fill(0.0, dz.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| Case::new(name, |g, x| g.add("op", Route, x)).rows(cols);
    vec![case("route/one", 1), case("route/five", 5)]
}
