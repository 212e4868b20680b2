//! Binary cross-entropy of a product of two probabilities: `ℓ = −y ln(p q) − (1 − y) ln(1 − p q)`.
//!
//! z, u `[batch, 1]` the logits of p and q (a click, and a conversion after it), y the label column of a task. In logs,
//! `m = ln(p q) = −softplus(−z) − softplus(−u)` and `ln(1 − p q) = ln(−expm1(m))`, which stays exact where the product is
//! close to 0 or to 1. Never `ln(1 − p) + …`, which is another function.
//!
//! Backward: `dm = −y + (1 − y) e^m / (1 − e^m)`, `dz = scale · dm · (1 − p)`, `du = scale · dm · (1 − q)`.

use crate::check::Case;
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::Shape;
use manygate_core::Batch;

/// The loss of two events in a row, see the [module](self). Inputs: both logits.
#[derive(Clone, Debug)]
pub struct BceOfProduct {
    loss: LossId,
    task: usize,
}

impl BceOfProduct {
    /// The loss of `labels[task]`, over all rows, added to the part `loss`.
    pub fn new(loss: LossId, task: usize) -> BceOfProduct {
        BceOfProduct { loss, task }
    }
}

/// ln(1 + e^x).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// ln(p q).
fn log_product(z: f64, u: f64) -> f64 {
    -softplus(-z) - softplus(-u)
}

fn loss(z: f64, u: f64, y: f64) -> f64 {
    let m = log_product(z, u);
    let positive = if y > 0.0 { -y * m } else { 0.0 };
    // Beyond e^−745 the difference from 1 is no number any more.
    let rest = (-m.exp_m1()).max(f64::MIN_POSITIVE);
    positive + if y < 1.0 { -(1.0 - y) * rest.ln() } else { 0.0 }
}

/// The slopes at z and at u.
fn slopes(z: f64, u: f64, y: f64) -> [f64; 2] {
    let m = log_product(z, u);
    let rest = (-m.exp_m1()).max(f64::MIN_POSITIVE);
    // 1 − p and 1 − q over 1 − p q are at most 1: the quotient first, so that nothing large is formed.
    [z, u].map(|logit| {
        let complement = 1.0 / (1.0 + logit.exp());
        -y * complement + (1.0 - y) * m.exp() * (complement / rest).min(1.0)
    })
}

impl Op for BceOfProduct {
    fn name(&self) -> &'static str {
        "bce_of_product"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        if inputs != [Shape::batch(1); 2] {
            return Err(format!("two logits a row are needed, not {inputs:?}"));
        }
        Ok(Shape::batch(0))
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { labels: self.task + 1, ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, u) = (tile.input(0), tile.input(1));
        let labels = &tile.at.batch.labels[self.task][tile.at.range()];
        let sum = tile.take_loss(self.loss.index());
        for (r, &y) in labels.iter().enumerate() {
            *sum += loss(z.row(r)[0].into(), u.row(r)[0].into(), y.into());
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (z, u, scale) = (tile.input(0), tile.input(1), tile.at.scale(self.loss));
        let labels = &tile.at.batch.labels[self.task][tile.at.range()];
        for i in 0..2 {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for (r, &y) in labels.iter().enumerate() {
                let slope = slopes(z.row(r)[0].into(), u.row(r)[0].into(), y.into())[i];
                gradient.put(r, std::iter::once(scale * slope as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (z, u) = (&inputs[0], &inputs[1]);
        let mut terms = Matrix::zeros(z.rows, 1);
        for r in 0..z.rows {
            let (z, u, y) = (z.at(r, 0), u.at(r, 0), f64::from(batch.labels[self.task][r]));
            let (p, q) = (1.0 / (1.0 + (-z).exp()), 1.0 / (1.0 + (-u).exp()));
            let complement = (1.0 - p) + p * (1.0 / (1.0 + u.exp()));
            terms.set(r, 0, -y * (p * q).ln() - (1.0 - y) * complement.ln());
        }
        terms
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, range: f32| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart { name: "product".into(), weight: 0.7, over: Over::Rows })?;
            g.add("op", BceOfProduct::new(loss, 0), x)
        };
        Case::new(name, declare).rows(1).between(-range, range).rows(1).between(-range, range)
    };
    vec![case("bce_of_product", 3.0), case("bce_of_product/large", 12.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_of_any_size_stay_finite() {
        for (z, u) in [(900.0, 900.0), (-900.0, 900.0), (-900.0, -900.0), (60.0, -60.0), (60.0, 60.0)] {
            for y in [0.0, 1.0] {
                let [dz, du] = slopes(z, u, y);
                assert!(loss(z, u, y).is_finite() && dz.abs() <= 1.0 && du.abs() <= 1.0, "{z} {u} {y}");
            }
        }
        // 1 − p² is 2 (1 − p) there: each logit has half of the slope.
        assert!((slopes(40.0, 40.0, 0.0)[0] - 0.5).abs() < 1e-9);
        assert!((loss(40.0, 40.0, 0.0) - (40.0 - 2f64.ln())).abs() < 1e-9);
    }
}
