//! The loss of several networks that answer one question, each by itself: the mean over learners m of `ℓ(z_m, y)`, or of
//! how far each is from a teacher.
//!
//! z_m `[batch, learners]`, the teacher's z `[batch, 1]`. Loss, mean μ and divergence are those of a
//! [link](super::Link); a distance may also be the square `(μ(teacher) − μ(z_m))²`. X. Liu et al., *Task Adaptive
//! Multi-learner Network for Joint CTR and CVR Estimation*, WWW 2023: the fused score teaches the learners that it is made
//! of, and must then be given as a value that stops gradients.
//!
//! Backward: `dz_m = scale / learners · slope`; the teacher gets the sum of its slopes.

use super::link::Link;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::loss::{self as cuda, LossSum};

/// How far a learner is from its teacher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// The link's divergence: that of two coins, of two Poisson laws, a square of values.
    Divergence,
    /// The squared difference of the means.
    Square,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Label { task: usize, counted: Option<usize> },
    Teacher(Distance),
}

/// The mean loss of learners, see the [module](self). Inputs: z_m and, where there is one, the teacher's z.
#[derive(Clone, Debug)]
pub struct LearnerLoss {
    loss: LossId,
    link: Link,
    target: Target,
}

impl LearnerLoss {
    /// Of `labels[task]`, added to the part `loss`; with `counted`, over rows where `labels[counted]` is above 0 (the
    /// part must say the same).
    pub fn of_label(loss: LossId, link: Link, task: usize, counted: Option<usize>) -> LearnerLoss {
        LearnerLoss { loss, link, target: Target::Label { task, counted } }
    }

    /// Of a teacher, added to the part `loss`.
    pub fn of_teacher(loss: LossId, link: Link, distance: Distance) -> LearnerLoss {
        LearnerLoss { loss, link, target: Target::Teacher(distance) }
    }

    /// What a learner is compared with in row `row` of the batch: a label, or the teacher's number. None where the row
    /// does not count.
    fn target(&self, batch: &Batch, row: usize, teacher: impl FnOnce() -> f64) -> Option<f64> {
        match self.target {
            Target::Label { counted: Some(t), .. } if batch.labels[t][row] <= 0.0 => None,
            Target::Label { task, .. } => Some(f64::from(batch.labels[task][row])),
            Target::Teacher(_) => Some(teacher()),
        }
    }

    fn loss_of(&self, target: f64, z: f64) -> f64 {
        match self.target {
            Target::Label { .. } => self.link.loss(z, target),
            Target::Teacher(Distance::Divergence) => self.link.divergence(target, z),
            Target::Teacher(Distance::Square) => (self.link.mean(target) - self.link.mean(z)).powi(2),
        }
    }

    /// The slopes at the target and at z.
    fn slopes(&self, target: f64, z: f64) -> [f64; 2] {
        match self.target {
            Target::Label { .. } => [0.0, self.link.loss_slope(z, target)],
            Target::Teacher(Distance::Divergence) => self.link.divergence_slopes(target, z),
            Target::Teacher(Distance::Square) => {
                let above = 2.0 * (self.link.mean(target) - self.link.mean(z));
                [above * self.link.slope(target), -above * self.link.slope(z)]
            }
        }
    }

    fn has_teacher(&self) -> bool {
        matches!(self.target, Target::Teacher(_))
    }
}

impl Op for LearnerLoss {
    fn name(&self) -> &'static str {
        "learner_loss"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match (inputs, self.has_teacher()) {
            ([z], false) if z.space == Space::Batch && z.cols > 0 => Ok(Shape::batch(0)),
            ([z, teacher], true) if z.space == Space::Batch && z.cols > 0 && *teacher == Shape::batch(1) => {
                Ok(Shape::batch(0))
            }
            _ => Err(format!("a number a learner, and one of a teacher if there is one, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: u64::MAX, output: false }
    }

    fn reads(&self) -> Reads {
        match self.target {
            Target::Label { task, counted } => {
                Reads { labels: task.max(counted.unwrap_or(0)) + 1, ..Reads::default() }
            }
            Target::Teacher(_) => Reads::default(),
        }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, z, sum) = (tile.at, tile.input(0), tile.take_loss(self.loss.index()));
        for r in 0..at.rows {
            let teacher = || f64::from(tile.input(1).row(r)[0]);
            if let Some(target) = self.target(at.batch, at.first_row + r, teacher) {
                let total: f64 = z.row(r).iter().map(|&z| self.loss_of(target, f64::from(z))).sum();
                *sum += total / z.cols() as f64;
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, z) = (tile.at, tile.input(0));
        let scale = f64::from(at.scale(self.loss)) / z.cols() as f64;
        let teacher = self.has_teacher().then(|| tile.input(1));
        let target = |r: usize| {
            let teacher = || teacher.map_or(0.0, |teacher| f64::from(teacher.row(r)[0]));
            self.target(at.batch, at.first_row + r, teacher)
        };
        if let Some(mut dz) = tile.take_gradient(0) {
            for r in 0..at.rows {
                let target = target(r);
                let slope = |&z: &f32| target.map_or(0.0, |t| self.slopes(t, f64::from(z))[1]);
                dz.put(r, z.row(r).iter().map(|z| (scale * slope(z)) as f32));
            }
        }
        if let Some(mut d_teacher) = teacher.and_then(|_| tile.take_gradient(1)) {
            for r in 0..at.rows {
                let of = |t: f64| z.row(r).iter().map(|&z| self.slopes(t, f64::from(z))[0]).sum::<f64>();
                d_teacher.put(r, std::iter::once((scale * target(r).map_or(0.0, of)) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let z = &inputs[0];
        let mut terms = Matrix::zeros(z.rows, 1);
        for r in 0..z.rows {
            if let Some(target) = self.target(batch, r, || inputs[1].at(r, 0)) {
                let of = |m: usize| match (self.target, self.link) {
                    (Target::Label { .. }, _) => self.link.loss(z.at(r, m), target),
                    (Target::Teacher(Distance::Divergence), Link::Probability) => {
                        let [q, p] = [target, z.at(r, m)].map(|x| 1.0 / (1.0 + (-x).exp()));
                        q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln()
                    }
                    _ => self.loss_of(target, z.at(r, m)),
                };
                terms.set(r, 0, (0..z.cols).map(of).sum::<f64>() / z.cols as f64);
            }
        }
        terms
    }
}

impl DeviceOp for LearnerLoss {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        let (link, target, scale) = (self.link.on_device(), self.target_on(step), step.scale(self.loss));
        step.launch_all(cuda::learner_loss(link, target, step.input(0), scale, None, None, Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (link, target, scale) = (self.link.on_device(), self.target_on(step), step.scale(self.loss));
        let mut take = |i: usize| step.take_gradient(i).map(|gradient| (gradient.to, gradient.accumulate));
        let (dz, d_teacher) = (take(0), if self.has_teacher() { take(1) } else { None });
        step.launch_all(cuda::learner_loss(link, target, step.input(0), scale, dz, d_teacher, None));
    }
}

impl LearnerLoss {
    /// What learners are compared with on a device.
    fn target_on(&self, step: &DeviceStep<'_>) -> cuda::Target {
        let labels = &step.batch().labels;
        match self.target {
            Target::Label { task, counted } => {
                cuda::Target::Label { labels: labels[task], counted: counted.map(|task| labels[task]) }
            }
            Target::Teacher(Distance::Divergence) => cuda::Target::Divergence(step.input(1)),
            Target::Teacher(Distance::Square) => cuda::Target::Square(step.input(1)),
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let of_label = |name: &str, link, learners: usize, counted: Option<usize>| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("learners", 0.7, counted))?;
            g.add("op", LearnerLoss::of_label(loss, link, 0, counted), x)
        };
        Case::new(name, declare).rows(learners).between(-3.0, 3.0)
    };
    let of_teacher = |name: &str, link, learners: usize, distance| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("distill", 0.7, Over::Rows))?;
            g.add("op", LearnerLoss::of_teacher(loss, link, distance), x)
        };
        Case::new(name, declare).rows(learners).between(-2.0, 2.0).rows(1).between(-2.0, 2.0)
    };
    vec![
        of_label("learner_loss/probabilities", Link::Probability, 3, None),
        of_label("learner_loss/counted", Link::Probability, 2, Some(1)),
        of_label("learner_loss/rates", Link::Rate, 2, None),
        of_label("learner_loss/values", Link::Value, 1, Some(1)),
        of_teacher("learner_loss/coins", Link::Probability, 3, Distance::Divergence),
        of_teacher("learner_loss/squares", Link::Probability, 2, Distance::Square),
        of_teacher("learner_loss/poisson", Link::Rate, 2, Distance::Divergence),
        of_teacher("learner_loss/squared_rates", Link::Rate, 1, Distance::Square),
        of_teacher("learner_loss/teacher_of_values", Link::Value, 2, Distance::Divergence),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saturated_learners_have_finite_losses_and_slopes() {
        for (target, z) in [(900.0, -900.0), (-900.0, 900.0), (60.0, 55.0)] {
            let link = Link::Probability;
            let (loss, slopes) = (link.divergence(target, z), link.divergence_slopes(target, z));
            assert!(loss.is_finite() && loss >= 0.0, "{target} {z}: {loss}");
            assert!(slopes.iter().all(|slope| slope.is_finite()), "{target} {z}: {slopes:?}");
        }
    }
}
