//! The logit of a product of probabilities: `σ(z) = σ(a) σ(b)`, b for several outcomes of the event a.
//!
//! a `[batch, 1]`, b and z `[batch, n]`. In logs, with `s(x) = ln σ(x)`, so that 1 − σ(a) σ(b) is exact where both are
//! close to 1:
//!
//! ```text
//! z = ln p − ln r     ln p = s(a) + s(b)     ln r = logaddexp(s(−a), s(a) + s(−b))
//! ```
//!
//! Backward: `dz/da = σ(−a) / r`, `dz/db = σ(−b) / r`, the quotients in logs.

use super::bce_of_product::log_sigmoid;
use super::link::log_sum_exp;
use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row as cuda;

/// The logit of a product, see the [module](self). Inputs: a, b.
#[derive(Clone, Debug)]
pub struct ProductLogit;

/// ln r.
fn log_rest(a: f64, b: f64) -> f64 {
    log_sum_exp([log_sigmoid(-a), log_sigmoid(a) + log_sigmoid(-b)].into_iter())
}

impl Op for ProductLogit {
    fn name(&self) -> &'static str {
        "product_logit"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [a, b] if *a == Shape::batch(1) && b.space == Space::Batch && b.cols > 0 => Ok(*b),
            _ => Err(format!("one logit a row and those that follow it are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::by_group(output, reached, 1),
            _ => reach::same(output, reached),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (a, b, mut z) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..b.rows() {
            let a = f64::from(a.row(r)[0]);
            for (z, &b) in z.row_mut(r).iter_mut().zip(b.row(r)) {
                let b = f64::from(b);
                *z = (log_sigmoid(a) + log_sigmoid(b) - log_rest(a, b)) as f32;
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (a, b, dz) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        let slope = |x: f64, a: f64, b: f64| (log_sigmoid(-x) - log_rest(a, b)).exp();
        if let Some(mut da) = tile.take_gradient(0) {
            for r in 0..b.rows() {
                let a = f64::from(a.row(r)[0]);
                let terms = b.row(r).iter().zip(dz.row(r));
                let sum: f64 = terms.map(|(&b, &d)| f64::from(d) * slope(a, a, f64::from(b))).sum();
                da.put(r, std::iter::once(sum as f32));
            }
        }
        if let Some(mut db) = tile.take_gradient(1) {
            for r in 0..b.rows() {
                let a = f64::from(a.row(r)[0]);
                let terms = b.row(r).iter().zip(dz.row(r));
                db.put(r, terms.map(|(&b, &d)| d * slope(f64::from(b), a, f64::from(b)) as f32));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut z = inputs[1].clone();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (at, b) in z.data.iter_mut().enumerate() {
            let a = inputs[0].at(at / inputs[1].cols, 0);
            let rest = sigmoid(-a) + sigmoid(a) * sigmoid(-*b);
            *b = (sigmoid(a) * sigmoid(*b) / rest).ln();
        }
        z
    }
}

impl DeviceOp for ProductLogit {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::product_logit(step.input(0), step.input(1), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (a, b, dz) = (step.input(0), step.input(1), step.output_gradient());
        let [da, db] = [0, 1].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        if da.is_some() || db.is_some() {
            step.launch(cuda::product_logit_backward(a, b, dz, da, db));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, n: usize, range: f32| {
        let case = Case::new(name, |g, x| g.add("op", ProductLogit, x));
        case.rows(1).between(-range, range).rows(n).between(-range, range)
    };
    vec![
        case("product_logit/one", 1, 3.0),
        case("product_logit/several", 3, 3.0),
        case("product_logit/large", 2, 30.0),
    ]
}
