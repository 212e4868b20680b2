//! The loss of a number: `ℓ = (p − y)²`.
//!
//! p `[batch, 1]`, y the label column of a task. Rows that do not count (their label space excludes them) add nothing.
//!
//! Backward: `dp = 2 scale (p − y)`, 0 for rows that do not count.

use super::learner_loss::LearnerLoss;
use super::link::Link;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;

/// The loss of a regression task, see the [module](self). Input: the prediction.
#[derive(Clone, Debug)]
pub struct SquaredError {
    loss: LossId,
    task: usize,
    counted: Option<usize>,
}

impl SquaredError {
    /// The loss of `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]` is above 0.
    pub fn new(loss: LossId, task: usize, counted: Option<usize>) -> SquaredError {
        SquaredError { loss, task, counted }
    }

    fn counts(&self, batch: &Batch, row: usize) -> bool {
        self.counted.is_none_or(|task| batch.labels[task][row] > 0.0)
    }
}

impl Op for SquaredError {
    fn name(&self) -> &'static str {
        "squared_error"
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

    fn reads(&self) -> Reads {
        Reads { labels: self.task.max(self.counted.unwrap_or(0)) + 1, ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (p, at) = (tile.input(0), tile.at);
        let loss = tile.take_loss(self.loss.index());
        for (r, row) in at.range().enumerate().filter(|(_, row)| self.counts(at.batch, *row)) {
            *loss += (f64::from(p.row(r)[0]) - f64::from(at.batch.labels[self.task][row])).powi(2);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (p, at, scale) = (tile.input(0), tile.at, tile.at.scale(self.loss));
        let Some(mut dp) = tile.take_gradient(0) else { return };
        for (r, row) in at.range().enumerate() {
            let scale = if self.counts(at.batch, row) { 2.0 * scale } else { 0.0 };
            dp.put(r, p.row(r).iter().map(|p| scale * (p - at.batch.labels[self.task][row])));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(batch.rows, 1);
        for r in (0..batch.rows).filter(|&r| self.counts(batch, r)) {
            terms.set(r, 0, (inputs[0].at(r, 0) - f64::from(batch.labels[self.task][r])).powi(2));
        }
        terms
    }
}

impl SquaredError {
    /// The same loss: that of one learner.
    fn of_learner(&self) -> LearnerLoss {
        LearnerLoss::of_label(self.loss, Link::Value, self.task, self.counted)
    }
}

impl DeviceOp for SquaredError {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        DeviceOp::scratch(&self.of_learner(), capacity, inputs)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        DeviceOp::forward(&self.of_learner(), step);
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        DeviceOp::backward(&self.of_learner(), step);
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, counted: Option<usize>, scenarios: &'static [f32]| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("value", 0.7, counted).weighing(scenarios))?;
            g.add("op", SquaredError::new(loss, 0, counted), x)
        };
        Case::new(name, declare).rows(1).between(-3.0, 3.0)
    };
    vec![
        case("squared_error/all", None, &[]),
        case("squared_error/counted", Some(1), &[]),
        case("squared_error/by_scenario", None, &[2.0, 0.0, 0.5]),
        case("squared_error/counted_by_scenario", Some(1), &[0.0, 3.0]),
    ]
}
