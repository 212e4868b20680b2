//! The risk of a conversion over all samples from those that were clicked: each weighs by the inverse of its click's
//! propensity, or the error of the others is imputed (doubly robust).
//!
//! Logits `[batch, 1]`: c of the click, u of the conversion given a click, i of the imputed error; o and r the labels of
//! click and click-and-conversion. H. Wang et al., *ESCM²: Entire Space Counterfactual Multi-Task Model for Post-Click
//! Conversion Rate Estimation*, SIGIR 2022, equations 9 to 13.
//!
//! ```text
//! v = 1 / max(σ(c), least)     e = BCE(r, σ(u))     d = softplus(i) or σ(i)
//! inverse      ℓ = o e v
//! error        ℓ = d + o (e − d) v
//! imputation   ℓ = o (e − d)² v
//! ```
//!
//! The mean is over all rows, clicked or not: divided by the clicked ones it estimates something else. What a term must not
//! train is given as a value that stops gradients: the propensity c always, in the paper.
//!
//! Backward, where the propensity is above `least`: `dv/dc = −v (1 − σ(c))`, else 0; `de/du = σ(u) − r`.

use super::bce_of_product::log_sigmoid;
use super::link::Link;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::loss::{self as cuda, Event, LossSum};

/// The imputed error, of the logit of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imputed {
    /// ln(1 + e^i): from 0 up.
    Softplus,
    /// σ(i): between 0 and 1.
    Sigmoid,
}

/// A term of the risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Errors by inverse propensity.
    Inverse,
    /// The imputed error, corrected where the true one is known.
    Error(Imputed),
    /// How far the imputed error is from the true one.
    Imputation(Imputed),
}

/// A term of the counterfactual risk, see the [module](self). Inputs: c, u and, with an imputed error, i.
#[derive(Clone, Debug)]
pub struct CounterfactualRisk {
    loss: LossId,
    risk: Risk,
    labels: [usize; 2],
    least: f64,
}

impl CounterfactualRisk {
    /// Added to the part `loss`, over all rows; `labels` are the columns of click and click-and-conversion, `least` the
    /// propensity that a smaller one counts as.
    pub fn new(loss: LossId, risk: Risk, labels: [usize; 2], least: f64) -> CounterfactualRisk {
        CounterfactualRisk { loss, risk, labels, least }
    }

    fn inputs(&self) -> usize {
        if self.risk == Risk::Inverse { 2 } else { 3 }
    }

    /// The loss of a row, and its slopes at c, u and i.
    fn row(&self, labels: [f64; 2], logit: impl Fn(usize) -> f64) -> (f64, [f64; 3]) {
        let [o, r] = labels;
        let (c, u) = (logit(0), logit(1));
        let propensity = Link::Probability.mean(c);
        let v = 1.0 / if propensity < self.least { self.least } else { propensity };
        let dv = if propensity > self.least { -v * log_sigmoid(-c).exp() } else { 0.0 };
        let (e, de) = (Link::Probability.loss(u, r), Link::Probability.loss_slope(u, r));
        let imputed = |kind: Imputed| {
            let i = logit(2);
            match kind {
                Imputed::Softplus => (-log_sigmoid(-i), Link::Probability.mean(i)),
                Imputed::Sigmoid => (Link::Probability.mean(i), Link::Probability.slope(i)),
            }
        };
        match self.risk {
            Risk::Inverse => (o * e * v, [o * e * dv, o * v * de, 0.0]),
            Risk::Error(kind) => {
                let (d, dd) = imputed(kind);
                (d + o * (e - d) * v, [o * (e - d) * dv, o * v * de, (1.0 - o * v) * dd])
            }
            Risk::Imputation(kind) => {
                let (d, dd) = imputed(kind);
                let twice = 2.0 * o * (e - d) * v;
                (o * (e - d) * (e - d) * v, [o * (e - d) * (e - d) * dv, twice * de, -twice * dd])
            }
        }
    }

    fn labels(&self, batch: &Batch, row: usize) -> [f64; 2] {
        self.labels.map(|task| f64::from(batch.labels[task][row]))
    }
}

impl Op for CounterfactualRisk {
    fn name(&self) -> &'static str {
        "counterfactual_risk"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs.len() != self.inputs() || inputs.iter().any(|&input| input != Shape::batch(1)) {
            return Err(format!("{} values of one logit a row are needed, not {inputs:?}", self.inputs()));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: u64::MAX, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { labels: self.labels[0].max(self.labels[1]) + 1, ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, sum) = (tile.at, tile.take_loss(self.loss.index()));
        for r in 0..at.rows {
            let labels = self.labels(at.batch, at.first_row + r);
            *sum += self.row(labels, |i| f64::from(tile.input(i).row(r)[0])).0;
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, scale) = (tile.at, f64::from(tile.at.scale(self.loss)));
        for i in 0..self.inputs() {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for r in 0..at.rows {
                let labels = self.labels(at.batch, at.first_row + r);
                let (_, slopes) = self.row(labels, |i| f64::from(tile.input(i).row(r)[0]));
                gradient.put(r, std::iter::once((scale * slopes[i]) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut terms = Matrix::zeros(inputs[0].rows, 1);
        for row in 0..terms.rows {
            let [o, r] = self.labels(batch, row);
            let v = 1.0 / sigmoid(inputs[0].at(row, 0)).max(self.least);
            let p = sigmoid(inputs[1].at(row, 0));
            let e = -r * p.ln() - (1.0 - r) * (1.0 - p).ln();
            let imputed = |kind: Imputed| match kind {
                Imputed::Softplus => inputs[2].at(row, 0).exp().ln_1p(),
                Imputed::Sigmoid => sigmoid(inputs[2].at(row, 0)),
            };
            let term = match self.risk {
                Risk::Inverse => o * e * v,
                Risk::Error(kind) => imputed(kind) + o * (e - imputed(kind)) * v,
                Risk::Imputation(kind) => o * (e - imputed(kind)).powi(2) * v,
            };
            terms.set(row, 0, term);
        }
        terms
    }
}

impl DeviceOp for CounterfactualRisk {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        let events: Vec<Event> = (0..self.inputs()).map(|i| self.event(step, i)).collect();
        self.launch(step, &events, Some(sum));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let with_gradient = |i: usize| {
            let gradient = step.take_gradient(i).map(|gradient| (gradient.to, gradient.accumulate));
            Event { gradient, ..self.event(step, i) }
        };
        let events: Vec<Event> = (0..self.inputs()).map(with_gradient).collect();
        self.launch(step, &events, None);
    }
}

impl CounterfactualRisk {
    /// Input `i` on a device, without its gradient.
    fn event(&self, step: &DeviceStep<'_>, i: usize) -> Event {
        let labels = self.labels.get(i).map_or(0, |&task| step.batch().labels[task]);
        Event { logits: step.input(i), labels, gradient: None }
    }

    fn launch(&self, step: &mut DeviceStep<'_>, events: &[Event], sum: Option<LossSum>) {
        let imputed = |kind: Imputed| match kind {
            Imputed::Softplus => cuda::Imputed::Softplus,
            Imputed::Sigmoid => cuda::Imputed::Sigmoid,
        };
        let risk = match self.risk {
            Risk::Inverse => cuda::Risk::Inverse,
            Risk::Error(kind) => cuda::Risk::Error(imputed(kind)),
            Risk::Imputation(kind) => cuda::Risk::Imputation(imputed(kind)),
        };
        let scale = step.scale(self.loss);
        step.launch_all(cuda::counterfactual_risk(risk, self.least as f32, events, scale, sum));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, risk: Risk, least: f64| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("risk", 0.7, Over::Rows))?;
            g.add("op", CounterfactualRisk::new(loss, risk, [0, 1], least), x)
        };
        let inputs = if risk == Risk::Inverse { 2 } else { 3 };
        (0..inputs).fold(Case::new(name, declare), |case, _| case.rows(1).between(-3.0, 3.0))
    };
    vec![
        case("counterfactual_risk/inverse", Risk::Inverse, 0.3),
        case("counterfactual_risk/error", Risk::Error(Imputed::Softplus), 0.1),
        case("counterfactual_risk/bounded_error", Risk::Error(Imputed::Sigmoid), 1e-6),
        case("counterfactual_risk/imputation", Risk::Imputation(Imputed::Softplus), 0.1),
        case("counterfactual_risk/bounded_imputation", Risk::Imputation(Imputed::Sigmoid), 0.3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_propensity_weighs_as_the_least_and_learns_nothing() {
        let mut g = Graph::new(crate::Mode::Training);
        let loss = g.loss(LossPart::new("risk", 1.0, Over::Rows)).unwrap();
        let op = CounterfactualRisk::new(loss, Risk::Inverse, [0, 1], 0.1);
        let (loss, slopes) = op.row([1.0, 1.0], |i| [-30.0, 0.0][i]);
        assert_eq!((loss, slopes[0]), (10.0 * 2f64.ln(), 0.0));
        let (_, slopes) = op.row([1.0, 1.0], |i| [0.0, 0.0][i]);
        assert!(slopes[0] < 0.0);
        assert_eq!(op.row([0.0, 0.0], |i| [0.0, 0.0][i]), (0.0, [-0.0, 0.0, 0.0]));
    }
}
