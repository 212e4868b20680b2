//! The loss of a task in which every row has a weight of its own: `Σ w ℓ / rows`. The weights are not in the denominator.
//!
//! z `[batch, 1]`, y the label column of a task, w one of the batch's numbers. ℓ is that of the task's kind: cross-entropy
//! of sigmoid(z) with y, `(z − y)²`, or `e^z − y z`. Rows that do not count (their label space excludes them) add nothing.
//!
//! Backward: `dz = scale w ℓ'(z)` with ℓ' `sigmoid(z) − y`, `2 (z − y)` or `e^z − y`; 0 for rows that do not count.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::loss::{self as cuda, Link, LossSum};

/// What the loss of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowLoss {
    /// Binary cross-entropy from a logit.
    CrossEntropy,
    /// Squared error of a number.
    Squared,
    /// Of a count, from the logarithm of its rate.
    Poisson,
}

impl RowLoss {
    /// What kernels know it by: how z gives the mean of a label.
    fn on_device(self) -> Link {
        match self {
            RowLoss::CrossEntropy => Link::Probability,
            RowLoss::Squared => Link::Value,
            RowLoss::Poisson => Link::Rate,
        }
    }

    fn value(self, z: f64, y: f64) -> f64 {
        match self {
            RowLoss::CrossEntropy => z.max(0.0) - z * y + (-z.abs()).exp().ln_1p(),
            RowLoss::Squared => (z - y).powi(2),
            RowLoss::Poisson => z.exp() - y * z,
        }
    }

    fn slope(self, z: f32, y: f32) -> f32 {
        match self {
            RowLoss::CrossEntropy => 1.0 / (1.0 + (-z).exp()) - y,
            RowLoss::Squared => 2.0 * (z - y),
            RowLoss::Poisson => z.exp() - y,
        }
    }
}

/// Which of the batch's numbers weighs a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowWeight {
    /// Its column.
    pub column: usize,
    /// Columns of the batch.
    pub width: usize,
}

impl RowWeight {
    fn of(self, batch: &Batch, row: usize) -> f32 {
        batch.dense[row * self.width + self.column]
    }
}

/// A loss with weights by row, see the [module](self). Input: z.
#[derive(Clone, Debug)]
pub struct WeightedLoss {
    kind: RowLoss,
    loss: LossId,
    task: usize,
    counted: Option<usize>,
    weight: RowWeight,
}

impl WeightedLoss {
    /// The loss of `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]` is above 0.
    pub fn new(
        kind: RowLoss,
        loss: LossId,
        task: usize,
        counted: Option<usize>,
        weight: RowWeight,
    ) -> WeightedLoss {
        WeightedLoss { kind, loss, task, counted, weight }
    }

    fn counts(&self, batch: &Batch, row: usize) -> bool {
        self.counted.is_none_or(|task| batch.labels[task][row] > 0.0)
    }
}

impl Op for WeightedLoss {
    fn name(&self) -> &'static str {
        "weighted_loss"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs != [Shape::batch(1)] || self.weight.column >= self.weight.width {
            let weight = self.weight;
            return Err(format!("one number a row, and a column for {weight:?}, are needed, not {inputs:?}"));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn reads(&self) -> Reads {
        let labels = self.task.max(self.counted.unwrap_or(0)) + 1;
        Reads { labels, dense: Some(self.weight.width), ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, at) = (tile.input(0), tile.at);
        let loss = tile.take_loss(self.loss.index());
        for (r, row) in at.range().enumerate().filter(|(_, row)| self.counts(at.batch, *row)) {
            let label = f64::from(at.batch.labels[self.task][row]);
            *loss +=
                f64::from(self.weight.of(at.batch, row)) * self.kind.value(f64::from(z.row(r)[0]), label);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, at, scale) = (tile.input(0), tile.at, tile.at.scale(self.loss));
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for (r, row) in at.range().enumerate() {
            let scale = if self.counts(at.batch, row) { scale * self.weight.of(at.batch, row) } else { 0.0 };
            let label = at.batch.labels[self.task][row];
            dz.put(r, z.row(r).iter().map(|&z| scale * self.kind.slope(z, label)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(batch.rows, 1);
        for r in (0..batch.rows).filter(|&r| self.counts(batch, r)) {
            let label = f64::from(batch.labels[self.task][r]);
            let weight = f64::from(self.weight.of(batch, r));
            terms.set(r, 0, weight * self.kind.value(inputs[0].at(r, 0), label));
        }
        terms
    }
}

impl DeviceOp for WeightedLoss {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        self.launch(step, None, Some(sum));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(gradient) = step.take_gradient(0) {
            self.launch(step, Some((gradient.to, gradient.accumulate)), None);
        }
    }
}

impl WeightedLoss {
    fn launch(&self, step: &mut DeviceStep<'_>, dz: Option<(DeviceMat, bool)>, sum: Option<LossSum>) {
        let (link, z, labels) = (self.kind.on_device(), step.input(0), &step.batch().labels);
        let RowWeight { column, width } = self.weight;
        let (weights, scale) = (step.dense(width).columns(column as u32, 1), step.scale(self.loss));
        let (own, counted) = (labels[self.task], self.counted.map(|task| labels[task]));
        step.launch_all(cuda::weighted_loss(link, z, own, counted, weights, scale, dz, sum));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, kind: RowLoss, counted: Option<usize>, scenarios: &'static [f32]| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let weight = RowWeight { column: 1, width: 3 };
            let loss = g.loss(LossPart::new("task", 0.7, counted).weighing(scenarios))?;
            g.add("op", WeightedLoss::new(kind, loss, 0, counted, weight), x)
        };
        Case::new(name, declare).rows(1).between(-2.0, 2.0)
    };
    vec![
        case("weighted_loss/cross_entropy", RowLoss::CrossEntropy, None, &[]),
        case("weighted_loss/squared", RowLoss::Squared, Some(1), &[]),
        case("weighted_loss/poisson", RowLoss::Poisson, None, &[2.0, 0.0, 0.5]),
    ]
}
