//! The number z whose mean is the mean of several: `μ(z) = Σ_m w_m μ(z_m)`, μ a [link](super::Link).
//!
//! z_m `[batch, learners]`, z `[batch, 1]`; w are equal, or the softmax of gate logits `[batch, learners]`. Several
//! networks that answer one question become one score this way, and the loss of that score is computed from z, so that it
//! stays exact where all of them are sure. In logs, with `s(x) = ln σ(x)`:
//!
//! ```text
//! probability   z = ln Σ w_m σ(z_m) − ln Σ w_m σ(−z_m)      sums of exponentials of ln w_m + s(±z_m)
//! rate          z = ln Σ w_m e^{z_m}
//! value         z = Σ w_m z_m
//! ```
//!
//! Backward: `dz/dz_m = w_m μ'(z_m) / μ'(z)`, `dz/d gate_m = w_m (μ(z_m) − μ(z)) / μ'(z)`, the quotients in logs.

use super::bce_of_product::log_sigmoid;
use super::link::{Link, log_sum_exp};
use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::loss as cuda;

/// One score of several, see the [module](self). Inputs: z_m and, where they are weighed, the gate's logits.
#[derive(Clone, Debug)]
pub struct FuseScores {
    link: Link,
    gated: bool,
}

impl FuseScores {
    /// The mean score.
    pub fn mean(link: Link) -> FuseScores {
        FuseScores { link, gated: false }
    }

    /// The score by a gate's weights.
    pub fn gated(link: Link) -> FuseScores {
        FuseScores { link, gated: true }
    }
}

/// What a row has: numbers, gate logits where there are any, and their ln Σ e^x.
#[derive(Clone, Copy)]
struct Row<'a> {
    link: Link,
    z: &'a [f32],
    gate: Option<(&'a [f32], f64)>,
}

impl<'a> Row<'a> {
    fn new(link: Link, z: &'a [f32], gate: Option<&'a [f32]>) -> Row<'a> {
        let total = |gate: &'a [f32]| log_sum_exp(gate.iter().map(|&g| f64::from(g)));
        Row { link, z, gate: gate.map(|gate| (gate, total(gate))) }
    }

    fn log_weight(&self, m: usize) -> f64 {
        match self.gate {
            Some((gate, total)) => f64::from(gate[m]) - total,
            None => -(self.z.len() as f64).ln(),
        }
    }

    fn at(&self, m: usize) -> f64 {
        f64::from(self.z[m])
    }

    /// Over the learners, ln Σ w e^f(z).
    fn log_mean(&self, f: impl Fn(f64) -> f64) -> f64 {
        log_sum_exp((0..self.z.len()).map(|m| self.log_weight(m) + f(self.at(m))))
    }

    /// ln p and ln (1 − p) of the fused probability.
    fn logs(&self) -> [f64; 2] {
        [self.log_mean(log_sigmoid), self.log_mean(|z| log_sigmoid(-z))]
    }

    fn fused(&self) -> f64 {
        match self.link {
            Link::Probability => {
                let [log, log_rest] = self.logs();
                log - log_rest
            }
            Link::Rate => self.log_mean(|z| z),
            Link::Value => (0..self.z.len()).map(|m| self.log_weight(m).exp() * self.at(m)).sum(),
        }
    }

    /// The slopes of each number, or of each gate logit.
    fn slopes(self, of_gate: bool) -> impl Iterator<Item = f64> + 'a {
        let logs = if self.link == Link::Probability { self.logs() } else { [self.fused(), 0.0] };
        (0..self.z.len()).map(move |m| {
            let (log_weight, z) = (self.log_weight(m), self.at(m));
            let share = |log_term: f64, log_total: f64| (log_weight + log_term - log_total).exp();
            match (self.link, of_gate) {
                (Link::Probability, false) => share(log_sigmoid(z) + log_sigmoid(-z), logs[0] + logs[1]),
                (Link::Probability, true) => share(log_sigmoid(z), logs[0]) - share(log_sigmoid(-z), logs[1]),
                (Link::Rate, false) => share(z, logs[0]),
                (Link::Rate, true) => share(z, logs[0]) - log_weight.exp(),
                (Link::Value, false) => log_weight.exp(),
                (Link::Value, true) => log_weight.exp() * (z - logs[0]),
            }
        })
    }
}

impl Op for FuseScores {
    fn name(&self) -> &'static str {
        "fuse_scores"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let count = if self.gated { 2 } else { 1 };
        let fits = |input: &Shape| input.space == Space::Batch && input.cols > 0 && input == &inputs[0];
        if inputs.len() != count || !inputs.iter().all(fits) {
            return Err(format!("scores, and as many gate logits where they are weighed, not {inputs:?}"));
        }
        Ok(Shape::batch(1))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: u64::MAX, output: false }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::by_group(output, reached, 1);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, gate, mut out) = (tile.input(0), self.gated.then(|| tile.input(1)), tile.take_output());
        for r in 0..z.rows() {
            out.row_mut(r)[0] = Row::new(self.link, z.row(r), gate.map(|gate| gate.row(r))).fused() as f32;
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, gate, dy) = (tile.input(0), self.gated.then(|| tile.input(1)), tile.take_output_gradient());
        for i in 0..1 + usize::from(self.gated) {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for r in 0..z.rows() {
                let row = Row::new(self.link, z.row(r), gate.map(|gate| gate.row(r)));
                gradient.put(r, row.slopes(i == 1).map(|slope| dy.row(r)[0] * slope as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let z = &inputs[0];
        let mut fused = Matrix::zeros(z.rows, 1);
        for r in 0..z.rows {
            let weight = |m: usize| if self.gated { inputs[1].at(r, m).exp() } else { 1.0 };
            let total: f64 = (0..z.cols).map(weight).sum();
            let mean = |f: &dyn Fn(f64) -> f64| -> f64 {
                (0..z.cols).map(|m| weight(m) / total * f(z.at(r, m))).sum()
            };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let value = match self.link {
                Link::Probability => (mean(&sigmoid) / mean(&|x| sigmoid(-x))).ln(),
                Link::Rate => mean(&f64::exp).ln(),
                Link::Value => mean(&|x| x),
            };
            fused.set(r, 0, value);
        }
        fused
    }
}

impl DeviceOp for FuseScores {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let gate = self.gated.then(|| step.input(1));
        step.launch(cuda::fuse_scores(self.link.on_device(), step.input(0), gate, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (z, gate, d) = (step.input(0), self.gated.then(|| step.input(1)), step.output_gradient());
        let mut take = |i: usize| step.take_gradient(i).map(|gradient| (gradient.to, gradient.accumulate));
        let (dz, d_gate) = (take(0), if self.gated { take(1) } else { None });
        step.launch(cuda::fuse_scores_backward(self.link.on_device(), z, gate, d, dz, d_gate));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: FuseScores, learners: usize, range: f32| {
        let gated = op.gated;
        let declare = move |g: &mut Graph, x: &[Value]| g.add("op", op.clone(), x);
        let case = Case::new(name, declare).rows(learners).between(-range, range);
        if gated { case.rows(learners) } else { case }
    };
    vec![
        case("fuse_scores/probabilities", FuseScores::mean(Link::Probability), 3, 3.0),
        case("fuse_scores/one", FuseScores::mean(Link::Probability), 1, 3.0),
        case("fuse_scores/saturated", FuseScores::mean(Link::Probability), 4, 60.0),
        case("fuse_scores/gated", FuseScores::gated(Link::Probability), 3, 3.0),
        case("fuse_scores/rates", FuseScores::mean(Link::Rate), 2, 2.0),
        case("fuse_scores/gated_rates", FuseScores::gated(Link::Rate), 3, 2.0),
        case("fuse_scores/values", FuseScores::mean(Link::Value), 3, 2.0),
        case("fuse_scores/gated_values", FuseScores::gated(Link::Value), 2, 2.0),
    ]
}
