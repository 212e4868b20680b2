//! The loss of experts that compete for samples: `ℓ = −log Σ_e g_e exp(−(y − o_e)² / 2)`, with g the softmax of a gate's
//! logits z. Up to a constant it is the negative log-likelihood of a mixture of normal distributions of variance 1.
//!
//! z, o `[batch, E]`; y a column of labels. R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton, *Adaptive Mixtures of
//! Local Experts*, Neural Computation 3, 1991, equation 1.3.
//!
//! Computed as `lse(z) − lse(z − (y − o)² / 2)`, with lse the logarithm of a sum of exponentials taken from the largest of
//! them on, so that no far target makes it infinite. Backward, with h the second softmax, the share of each expert in
//! the sample: `dz = g − h`, `do = h ⊙ (o − y)`; each times the part's scale, 0 for rows that do not count.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::loss::{self as cuda, LossSum};

/// The loss, see the [module](self). Inputs: z, o.
#[derive(Clone, Debug)]
pub struct MixtureLikelihood {
    loss: LossId,
    task: usize,
    counted: Option<usize>,
}

impl MixtureLikelihood {
    /// The loss of the target `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]`
    /// is above 0.
    pub fn new(loss: LossId, task: usize, counted: Option<usize>) -> MixtureLikelihood {
        MixtureLikelihood { loss, task, counted }
    }

    fn counts(&self, batch: &Batch, row: usize) -> bool {
        self.counted.is_none_or(|task| batch.labels[task][row] > 0.0)
    }
}

/// Of some numbers: the largest, and the sum of exponentials of their distances from it.
fn largest_and_sum(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    // A NaN is passed over here, and is found in the sum.
    let largest = numbers.clone().fold(f64::NEG_INFINITY, f64::max);
    (largest, numbers.map(|v| (v - largest).exp()).sum())
}

/// The logit of each expert with what the target says of it: z − (y − o)² / 2.
fn with_target<'a>(z: &'a [f32], o: &'a [f32], y: f32) -> impl Iterator<Item = f64> + Clone + 'a {
    let y = f64::from(y);
    z.iter().zip(o).map(move |(&z, &o)| f64::from(z) - 0.5 * (y - f64::from(o)).powi(2))
}

fn widened(z: &[f32]) -> impl Iterator<Item = f64> + Clone + '_ {
    z.iter().copied().map(f64::from)
}

impl Op for MixtureLikelihood {
    fn name(&self) -> &'static str {
        "mixture_likelihood"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z, o] if z == o && *z == Shape::batch(z.cols) && z.cols > 0 => Ok(Shape::batch(0)),
            _ => Err(format!("a logit and an output of each expert are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
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
        let (z, o, at) = (tile.input(0), tile.input(1), tile.at);
        let loss = tile.take_loss(self.loss.index());
        for (r, row) in at.range().enumerate().filter(|(_, row)| self.counts(at.batch, *row)) {
            let (largest, sum) = largest_and_sum(widened(z.row(r)));
            let target = with_target(z.row(r), o.row(r), at.batch.labels[self.task][row]);
            let (largest_of_target, sum_of_target) = largest_and_sum(target);
            *loss += largest - largest_of_target + (sum / sum_of_target).ln();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, o, at, scale) = (tile.input(0), tile.input(1), tile.at, tile.at.scale(self.loss));
        let (mut dz, mut d_o) = (tile.take_gradient(0), tile.take_gradient(1));
        for (r, row) in at.range().enumerate() {
            let (z, o, y) = (z.row(r), o.row(r), at.batch.labels[self.task][row]);
            let scale = if self.counts(at.batch, row) { f64::from(scale) } else { 0.0 };
            let (largest, sum) = largest_and_sum(widened(z));
            let target = with_target(z, o, y);
            let (largest_of_target, sum_of_target) = largest_and_sum(target.clone());
            let shares = target.map(|v| (v - largest_of_target).exp() / sum_of_target);
            if let Some(dz) = &mut dz {
                let gate = widened(z).map(|z| (z - largest).exp() / sum);
                dz.put(r, gate.zip(shares.clone()).map(|(g, h)| (scale * (g - h)) as f32));
            }
            if let Some(d_o) = &mut d_o {
                let distances = o.iter().map(|&o| f64::from(o) - f64::from(y));
                d_o.put(r, shares.zip(distances).map(|(h, distance)| (scale * h * distance) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (z, o) = (&inputs[0], &inputs[1]);
        let mut terms = Matrix::zeros(batch.rows, 1);
        for r in (0..batch.rows).filter(|&r| self.counts(batch, r)) {
            let y = f64::from(batch.labels[self.task][r]);
            let sum: f64 = (0..z.cols).map(|e| z.at(r, e).exp()).sum();
            let likelihood: f64 =
                (0..z.cols).map(|e| z.at(r, e).exp() / sum * (-0.5 * (y - o.at(r, e)).powi(2)).exp()).sum();
            terms.set(r, 0, -likelihood.ln());
        }
        terms
    }
}

impl DeviceOp for MixtureLikelihood {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        self.launch(step, [None; 2], Some(sum));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let gradients = [0, 1].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        self.launch(step, gradients, None);
    }
}

impl MixtureLikelihood {
    fn launch(
        &self,
        step: &mut DeviceStep<'_>,
        [dz, d_o]: [Option<(DeviceMat, bool)>; 2],
        sum: Option<LossSum>,
    ) {
        let (labels, scale) = (&step.batch().labels, step.scale(self.loss));
        let (target, counted) = (labels[self.task], self.counted.map(|task| labels[task]));
        let (z, o) = (step.input(0), step.input(1));
        step.launch_all(cuda::mixture_likelihood(z, o, target, counted, scale, dz, d_o, sum));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, experts: usize, counted: Option<usize>| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let over = Over::from(counted);
            let loss = g.loss(LossPart::new("target", 0.7, over))?;
            g.add("op", MixtureLikelihood::new(loss, 0, counted), x)
        };
        Case::new(name, declare).rows(experts).between(-2.0, 2.0).rows(experts).between(-3.0, 3.0)
    };
    vec![
        case("mixture_likelihood/one", 1, None),
        case("mixture_likelihood/all", 4, None),
        case("mixture_likelihood/counted", 3, Some(1)),
    ]
}
