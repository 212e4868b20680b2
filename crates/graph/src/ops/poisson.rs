//! Counts: the rate `λ = e^z`, and its loss `ℓ = λ − y z`, the negative log-likelihood of a Poisson count y without its
//! constant.
//!
//! z `[batch, 1]`. Backward of the loss: `dz = scale (λ − y)`, 0 for rows that do not count; of the rate: `dz = dλ λ`.

use super::learner_loss::LearnerLoss;
use super::link::Link;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::amplitude::{Of, amplify};
use manygate_cuda::elementwise;
use manygate_kernels::amplitude::Amplitude;

/// The rate, see the [module](self). Input: z, of any width.
#[derive(Clone, Debug)]
pub struct Rate;

impl Op for Rate {
    fn name(&self) -> &'static str {
        "rate"
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

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, mut y) = (tile.input(0), tile.take_output());
        (0..z.rows()).for_each(|r| y.row_mut(r).iter_mut().zip(z.row(r)).for_each(|(y, z)| *y = z.exp()));
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (y, dy) = (tile.output(), tile.take_output_gradient());
        let Some(mut dz) = tile.take_gradient(0) else { return };
        (0..y.rows()).for_each(|r| dz.put(r, y.row(r).iter().zip(dy.row(r)).map(|(y, d)| y * d)));
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().for_each(|v| *v = v.exp());
        y
    }
}

impl DeviceOp for Rate {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (z, y) = (step.input(0), step.output());
        step.launch(elementwise::fill(1.0, y));
        step.launch(amplify(Amplitude::Exp, y, Of { values: z, parts: None }, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (y, dy) = (step.output(), step.output_gradient());
        if let Some(dz) = step.take_gradient(0) {
            step.launch(elementwise::multiply(y, dy, dz.accumulate, dz.to));
        }
    }
}

/// The loss of a count, see the [module](self). Input: z.
#[derive(Clone, Debug)]
pub struct PoissonLoss {
    loss: LossId,
    task: usize,
    counted: Option<usize>,
}

impl PoissonLoss {
    /// The loss of `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]` is above 0.
    pub fn new(loss: LossId, task: usize, counted: Option<usize>) -> PoissonLoss {
        PoissonLoss { loss, task, counted }
    }

    fn counts(&self, batch: &Batch, row: usize) -> bool {
        self.counted.is_none_or(|task| batch.labels[task][row] > 0.0)
    }
}

impl Op for PoissonLoss {
    fn name(&self) -> &'static str {
        "poisson_loss"
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
        let (z, at) = (tile.input(0), tile.at);
        let loss = tile.take_loss(self.loss.index());
        for (r, row) in at.range().enumerate().filter(|(_, row)| self.counts(at.batch, *row)) {
            let z = z.row(r)[0];
            *loss += f64::from(z.exp()) - f64::from(at.batch.labels[self.task][row]) * f64::from(z);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, at, scale) = (tile.input(0), tile.at, tile.at.scale(self.loss));
        let Some(mut dz) = tile.take_gradient(0) else { return };
        for (r, row) in at.range().enumerate() {
            let scale = if self.counts(at.batch, row) { scale } else { 0.0 };
            dz.put(r, z.row(r).iter().map(|z| scale * (z.exp() - at.batch.labels[self.task][row])));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(batch.rows, 1);
        for r in (0..batch.rows).filter(|&r| self.counts(batch, r)) {
            let z = inputs[0].at(r, 0);
            terms.set(r, 0, z.exp() - f64::from(batch.labels[self.task][r]) * z);
        }
        terms
    }
}

impl PoissonLoss {
    /// The same loss: that of one learner.
    fn of_learner(&self) -> LearnerLoss {
        LearnerLoss::of_label(self.loss, Link::Rate, self.task, self.counted)
    }
}

impl DeviceOp for PoissonLoss {
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
            let loss = g.loss(LossPart::new("count", 0.7, counted).weighing(scenarios))?;
            g.add("op", PoissonLoss::new(loss, 0, counted), x)
        };
        Case::new(name, declare).rows(1).between(-2.0, 2.0)
    };
    vec![
        case("poisson/all", None, &[]),
        case("poisson/counted", Some(1), &[]),
        case("poisson/by_scenario", None, &[2.0, 0.0, 0.5]),
        case("poisson/counted_by_scenario", Some(1), &[0.0, 3.0]),
        Case::new("poisson/rate", |g, x| g.add("op", Rate, x)).rows(3),
    ]
}
