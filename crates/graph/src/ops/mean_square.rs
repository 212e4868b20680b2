//! `ℓ = x²` a row: a loss that draws a number to zero.
//!
//! x `[batch, 1]`. Backward: `dx = 2 scale x`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::loss::LossSum;
use manygate_cuda::row as cuda;

/// The loss of a square, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct MeanSquare {
    loss: LossId,
}

impl MeanSquare {
    /// Adds to the part `loss`, over all rows.
    pub fn new(loss: LossId) -> MeanSquare {
        MeanSquare { loss }
    }
}

impl Op for MeanSquare {
    fn name(&self) -> &'static str {
        "mean_square"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs != [Shape::batch(1)] {
            return Err(format!("one number a row is needed, not {inputs:?}"));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(0);
        let sum: f64 = (0..x.rows()).map(|r| f64::from(x.row(r)[0]).powi(2)).sum();
        *tile.take_loss(self.loss.index()) += sum;
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, scale) = (tile.input(0), tile.at.scale(self.loss));
        let Some(mut dx) = tile.take_gradient(0) else { return };
        (0..x.rows()).for_each(|r| dx.put(r, x.row(r).iter().map(|v| 2.0 * scale * v)));
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut terms = inputs[0].clone();
        terms.data.iter_mut().for_each(|v| *v *= *v);
        terms
    }
}

impl DeviceOp for MeanSquare {
    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        cuda::partials_bytes(capacity.rows as u32, 1)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        step.launch_all(cuda::mean_square(step.input(0), step.scale(self.loss).factors, None, Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dx) = step.take_gradient(0) {
            let to = Some((dx.to, dx.accumulate));
            step.launch_all(cuda::mean_square(step.input(0), step.scale(self.loss).factors, to, None));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let declare = |g: &mut Graph, x: &[Value]| {
        let loss = g.loss(LossPart::new("square", 0.7, Over::Rows))?;
        g.add("op", MeanSquare::new(loss), x)
    };
    vec![Case::new("mean_square", declare).rows(1)]
}
