//! Binary cross-entropy of a product of probabilities: `ℓ = −y ln(q_1 … q_k) − (1 − y) ln(1 − q_1 … q_k)`.
//!
//! x_j `[batch, 1]` the logit of q_j, the probability of an event given the one before it (a click, a conversion after
//! it); y is the product of the labels, so that a conversion without its click is none. X. Ma et al., *Entire Space
//! Multi-Task Model*, SIGIR 2018, equation 3 (k = 2). In logs, with `s(x) = ln σ(x)` and `p_j = q_1 … q_j`:
//!
//! ```text
//! ln p_j       = ln p_{j−1} + s(x_j)
//! ln (1 − p_j) = logaddexp(ln (1 − p_{j−1}), ln p_{j−1} + s(−x_j))
//! ```
//!
//! which is exact for logits of any size: a product of rounded probabilities loses 1 − p where all of them are close to
//! 1. Never `ln(1 − q_1) + …`, which is another function.
//!
//! Backward: `dx_j = scale · (−y (1 − q_j) + (1 − y) p (1 − q_j) / (1 − p))`, the quotient taken in logs.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::loss::{self as cuda, Event, LossSum};
use std::ops::Range;

/// The loss of several events in a row, see the [module](self). Inputs: the logits, in order.
#[derive(Clone, Debug)]
pub struct BceOfProduct {
    loss: LossId,
    labels: Range<usize>,
}

impl BceOfProduct {
    /// Over all rows, added to the part `loss`; of each event its label column.
    pub fn new(loss: LossId, labels: Range<usize>) -> BceOfProduct {
        BceOfProduct { loss, labels }
    }

    fn label(&self, batch: &Batch, row: usize) -> f64 {
        batch.labels[self.labels.clone()].iter().map(|labels| f64::from(labels[row])).product()
    }
}

/// ln σ(x); NaN where x is not finite, so that it shows.
pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p() + 0.0 * x
}

/// ln p and ln (1 − p) of the product p.
#[derive(Clone, Copy)]
struct Product {
    log: f64,
    log_rest: f64,
}

impl Product {
    fn of(logits: impl Iterator<Item = f64>) -> Product {
        let mut product = Product { log: 0.0, log_rest: f64::NEG_INFINITY };
        for x in logits {
            let missed = product.log + log_sigmoid(-x);
            // In this order a NaN comes through.
            let (high, low) = match product.log_rest > missed {
                true => (product.log_rest, missed),
                false => (missed, product.log_rest),
            };
            product.log_rest = high + (low - high).exp().ln_1p();
            product.log += log_sigmoid(x);
        }
        product
    }

    fn loss(self, label: f64) -> f64 {
        -label * self.log - (1.0 - label) * self.log_rest
    }

    /// The slope at one of the logits.
    fn slope(self, x: f64, label: f64) -> f64 {
        let log_complement = log_sigmoid(-x);
        let of_rest = (self.log + log_complement - self.log_rest).exp();
        -label * log_complement.exp() + (1.0 - label) * of_rest
    }
}

impl Op for BceOfProduct {
    fn name(&self) -> &'static str {
        "bce_of_product"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let events = self.labels.len();
        if events == 0 || inputs.len() != events || inputs.iter().any(|&input| input != Shape::batch(1)) {
            return Err(format!("one logit a row for each of {events} events is needed, not {inputs:?}"));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: u64::MAX, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { labels: self.labels.end, ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        if self.labels.len() <= cuda::MOST_EVENTS { Some(self) } else { None }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, sum) = (tile.at, tile.take_loss(self.loss.index()));
        for r in 0..at.rows {
            let logits = (0..self.labels.len()).map(|j| f64::from(tile.input(j).row(r)[0]));
            *sum += Product::of(logits).loss(self.label(at.batch, at.first_row + r));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, scale) = (tile.at, tile.at.scale(self.loss));
        for i in 0..self.labels.len() {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for r in 0..at.rows {
                let logit = |j: usize| f64::from(tile.input(j).row(r)[0]);
                let product = Product::of((0..self.labels.len()).map(logit));
                let slope = product.slope(logit(i), self.label(at.batch, at.first_row + r));
                gradient.put(r, std::iter::once(scale * slope as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut terms = Matrix::zeros(inputs[0].rows, 1);
        for r in 0..inputs[0].rows {
            // 1 − p as a sum of what each event loses, which cancels nothing.
            let (mut product, mut rest) = (1.0, 0.0);
            for x in inputs.iter().map(|logits| logits.at(r, 0)) {
                rest += product * sigmoid(-x);
                product *= sigmoid(x);
            }
            let y = self.label(batch, r);
            terms.set(r, 0, -y * product.ln() - (1.0 - y) * rest.ln());
        }
        terms
    }
}

impl DeviceOp for BceOfProduct {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        let events = self.events(step, |_, _| None);
        step.launch_all(cuda::bce_of_product(&events, step.scale(self.loss), Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let events = self
            .events(step, |step, i| step.take_gradient(i).map(|gradient| (gradient.to, gradient.accumulate)));
        step.launch_all(cuda::bce_of_product(&events, step.scale(self.loss), None));
    }
}

impl BceOfProduct {
    /// The events, with the gradients that `take` gives.
    fn events(
        &self,
        step: &mut DeviceStep<'_>,
        take: impl Fn(&mut DeviceStep<'_>, usize) -> Option<(DeviceMat, bool)>,
    ) -> Vec<Event> {
        let event = |(i, task): (usize, usize)| {
            let gradient = take(step, i);
            Event { logits: step.input(i), labels: step.batch().labels[task], gradient }
        };
        self.labels.clone().enumerate().map(event).collect()
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, events: usize, range: f32| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("product", 0.7, Over::Rows))?;
            g.add("op", BceOfProduct::new(loss, 0..events), x)
        };
        (0..events).fold(Case::new(name, declare), |case, _| case.rows(1).between(-range, range))
    };
    vec![
        case("bce_of_product", 2, 3.0),
        case("bce_of_product/one", 1, 3.0),
        case("bce_of_product/four", 4, 3.0),
        case("bce_of_product/large", 2, 12.0),
        case("bce_of_product/saturated", 3, 80.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_any_size_stay_finite() {
        for (z, u) in [(900.0, 900.0), (-900.0, 900.0), (-900.0, -900.0), (60.0, -60.0), (60.0, 60.0)] {
            for label in [0.0, 0.3, 1.0] {
                let product = Product::of([z, u].into_iter());
                let slopes = [z, u].map(|x| product.slope(x, label));
                assert!(product.loss(label).is_finite(), "{z} {u} {label}");
                assert!(slopes.iter().all(|slope| slope.abs() <= 1.0 + 1e-12), "{z} {u} {label}: {slopes:?}");
            }
        }
        // 1 − p² is 2 (1 − p) there: each logit has half of the slope.
        for large in [40.0, 80.0, 900.0] {
            let product = Product::of([large, large].into_iter());
            assert!((product.slope(large, 0.0) - 0.5).abs() < 1e-9, "{large}");
            assert!((product.loss(0.0) - (large - 2f64.ln())).abs() < 1e-9, "{large}");
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for logits in [[wrong, 0.5], [0.5, wrong]] {
                let product = Product::of(logits.into_iter());
                assert!(product.loss(0.0).is_nan() && product.loss(1.0).is_nan(), "{logits:?}");
            }
        }
    }
}
