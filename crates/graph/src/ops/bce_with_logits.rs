//! Binary cross-entropy from logits: `ℓ = max(z, 0) − z y + ln(1 + e^−|z|)`.
//!
//! z `[batch, 1]`, y the label column of a task. Rows that do not count (their label space excludes them) add nothing.
//! Never computed from a rounded probability, so logits beyond ±50 are exact.
//!
//! Backward: `dz = seed · weight / denominator · (σ(z) − y)`, 0 for rows that do not count.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::loss::{self as cuda, LossSum};
use manygate_kernels::{MatMut, loss};

/// The loss of a binary task, see the [module](self). Input: the logit.
#[derive(Clone, Debug)]
pub struct BceWithLogits {
    loss: LossId,
    task: usize,
    counted: Option<usize>,
}

impl BceWithLogits {
    /// The loss of `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]`
    /// is above 0 (the part's [`over`](crate::LossPart::over) must say the same: it gives the denominator).
    pub fn new(loss: LossId, task: usize, counted: Option<usize>) -> BceWithLogits {
        BceWithLogits { loss, task, counted }
    }
}

impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs != [Shape::batch(1)] {
            return Err(format!("one logit a row is needed, not {inputs:?}"));
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

    fn scratch(&self, rows: usize, _inputs: &[Shape]) -> usize {
        rows
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, logits) = (tile.at, tile.input(0));
        let labels = &at.batch.labels[self.task][at.range()];
        let counted = self.counted.map(|t| &at.batch.labels[t][at.range()]);
        *tile.take_loss(self.loss.index()) +=
            loss::bce_with_logits(at.isa, logits, labels, counted, 0.0, None);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, logits) = (tile.at, tile.input(0));
        let labels = &at.batch.labels[self.task][at.range()];
        let counted = self.counted.map(|t| &at.batch.labels[t][at.range()]);
        let scale = at.scale(self.loss);
        let Some(mut gradient) = tile.take_gradient(0) else { return };
        if gradient.accumulate {
            let spare = tile.take_scratch();
            loss::bce_with_logits(
                at.isa,
                logits,
                labels,
                counted,
                scale,
                Some(MatMut::new(spare, at.rows, 1)),
            );
            for r in 0..at.rows {
                gradient.to.row_mut(r)[0] += spare[r];
            }
        } else {
            loss::bce_with_logits(at.isa, logits, labels, counted, scale, Some(gradient.to));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let z = &inputs[0];
        let mut terms = Matrix::zeros(z.rows, 1);
        for r in 0..z.rows {
            let (z, y) = (z.at(r, 0), f64::from(batch.labels[self.task][r]));
            if self.counted.is_none_or(|t| batch.labels[t][r] > 0.0) {
                terms.set(r, 0, z.max(0.0) - z * y + (-z.abs()).exp().ln_1p());
            }
        }
        terms
    }
}

impl DeviceOp for BceWithLogits {
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

impl BceWithLogits {
    fn launch(&self, step: &mut DeviceStep<'_>, gradient: Option<(DeviceMat, bool)>, sum: Option<LossSum>) {
        let (logits, labels, scale) = (step.input(0), &step.batch().labels, step.scale(self.loss));
        let counted = self.counted.map(|task| labels[task]);
        step.launch_all(cuda::bce_with_logits(logits, labels[self.task], counted, scale, gradient, sum));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, counted: Option<usize>, scenarios: &'static [f32], range: f32| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("task", 0.7, counted).weighing(scenarios))?;
            g.add("op", BceWithLogits::new(loss, 0, counted), x)
        };
        Case::new(name, declare).rows(1).between(-range, range)
    };
    vec![
        case("bce_with_logits/all", None, &[], 3.0),
        case("bce_with_logits/counted", Some(1), &[], 3.0),
        case("bce_with_logits/large", None, &[], 60.0),
        case("bce_with_logits/by_scenario", None, &[2.0, 0.0, 0.5], 3.0),
        case("bce_with_logits/counted_by_scenario", Some(1), &[0.0, 3.0], 3.0),
    ]
}
