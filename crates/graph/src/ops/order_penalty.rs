//! A penalty on a later event that is predicted likelier than the one before it: `ℓ = Σ_t max(p_t − p_{t−1}, 0)`.
//!
//! z_t `[batch, 1]` the logit of `p_t = σ(z_t)`, events in order. The behavioural expectation calibrator of D. Xi et al.,
//! *Modeling the Sequential Dependence among Audience Multi-step Conversions*, KDD 2021, equation 8, as a mean over rows.
//!
//! Backward: `dz_t = scale · p_t (1 − p_t) · ([p_t > p_{t−1}] − [p_{t+1} > p_t])`; 0 where two are equal.

use super::link::Link;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::Shape;
use manygate_core::Batch;
use manygate_cuda::loss::{self as cuda, Event, LossSum};

/// The penalty on events out of order, see the [module](self). Inputs: the logits, in order.
#[derive(Clone, Debug)]
pub struct OrderPenalty {
    loss: LossId,
    events: usize,
}

impl OrderPenalty {
    /// Of `events` events, added to the part `loss`.
    pub fn new(loss: LossId, events: usize) -> OrderPenalty {
        OrderPenalty { loss, events }
    }
}

impl Op for OrderPenalty {
    fn name(&self) -> &'static str {
        "order_penalty"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if self.events < 2
            || inputs.len() != self.events
            || inputs.iter().any(|&input| input != Shape::batch(1))
        {
            return Err(format!(
                "one logit a row for each of two or more events, {}, not {inputs:?}",
                self.events
            ));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: u64::MAX, output: false }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        if self.events <= cuda::MOST_EVENTS { Some(self) } else { None }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let sum = tile.take_loss(self.loss.index());
        for r in 0..tile.at.rows {
            let probability = |t: usize| Link::Probability.mean(f64::from(tile.input(t).row(r)[0]));
            *sum += (1..self.events).map(|t| above(probability(t), probability(t - 1))).sum::<f64>();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scale = f64::from(tile.at.scale(self.loss));
        for t in 0..self.events {
            let Some(mut gradient) = tile.take_gradient(t) else { continue };
            for r in 0..tile.at.rows {
                let z = |t: usize| f64::from(tile.input(t).row(r)[0]);
                // The logistic function only rises: logits have the order of probabilities.
                let too_likely = |t: usize| f64::from(t > 0 && t < self.events && z(t) > z(t - 1));
                let slope = (too_likely(t) - too_likely(t + 1)) * Link::Probability.slope(z(t));
                gradient.put(r, std::iter::once((scale * slope) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut terms = Matrix::zeros(inputs[0].rows, 1);
        for r in 0..terms.rows {
            let probability = |t: usize| 1.0 / (1.0 + (-inputs[t].at(r, 0)).exp());
            terms.set(r, 0, (1..self.events).map(|t| above(probability(t), probability(t - 1))).sum());
        }
        terms
    }
}

impl DeviceOp for OrderPenalty {
    fn sums_by_scenario(&self) -> bool {
        true
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        8 * u64::from(cuda::partials_of(capacity.rows as u32))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let sum = LossSum { sum: step.loss_sum(self.loss), partials: step.scratch() };
        let event = |t: usize| Event { logits: step.input(t), labels: 0, gradient: None };
        let events: Vec<Event> = (0..self.events).map(event).collect();
        step.launch_all(cuda::order_penalty(&events, step.scale(self.loss), Some(sum)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let event = |t: usize| {
            let gradient = step.take_gradient(t).map(|gradient| (gradient.to, gradient.accumulate));
            Event { logits: step.input(t), labels: 0, gradient }
        };
        let events: Vec<Event> = (0..self.events).map(event).collect();
        step.launch_all(cuda::order_penalty(&events, step.scale(self.loss), None));
    }
}

/// max(p − before, 0), and NaN where one of them is not a number, so that it shows.
fn above(p: f64, before: f64) -> f64 {
    let difference = p - before;
    if difference <= 0.0 { 0.0 } else { difference }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, events: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("order", 0.7, Over::Rows))?;
            g.add("op", OrderPenalty::new(loss, events), x)
        };
        (0..events).fold(Case::new(name, declare), |case, _| case.rows(1).between(-3.0, 3.0))
    };
    vec![case("order_penalty/two", 2), case("order_penalty/four", 4)]
}
