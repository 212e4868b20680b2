//! `ℓ = y · v` a row: a loss whose gradient at y is v, the gradient of something that is computed outside of the plan.
//!
//! y, v `[batch, n]`, of which v is mostly columns of the batch's numbers behind a
//! [stop](crate::Graph::stop_gradient). Over [`Over::Once`] and with weight 1, y gets v as it is. So
//! plans chain: what a second plan finds at its input goes on backward in the first, as the critic's gradient at an action
//! does in the actor (D. Silver et al., *Deterministic Policy Gradient Algorithms*, ICML 2014).
//!
//! Backward: `dy = scale · v`, `dv = scale · y`.

use crate::check::Case;
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;

/// A gradient from outside, see the [module](self). Inputs: y, v.
#[derive(Clone, Debug)]
pub struct OuterGradient {
    loss: LossId,
}

impl OuterGradient {
    /// Adds to the part `loss`.
    pub fn new(loss: LossId) -> OuterGradient {
        OuterGradient { loss }
    }
}

impl Op for OuterGradient {
    fn name(&self) -> &'static str {
        "outer_gradient"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [y, v] if y.space == Space::Batch && v == y => Ok(Shape::batch(0)),
            _ => Err(format!("two values of one shape, with a row a sample, are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (y, v) = (tile.input(0), tile.input(1));
        let product = |r: usize| -> f64 {
            y.row(r).iter().zip(v.row(r)).map(|(&y, &v)| f64::from(y) * f64::from(v)).sum()
        };
        *tile.take_loss(self.loss.index()) += (0..y.rows()).map(product).sum::<f64>();
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scale = tile.at.scale(self.loss);
        for i in 0..2 {
            let other = tile.input(1 - i);
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            (0..other.rows()).for_each(|r| gradient.put(r, other.row(r).iter().map(|v| scale * v)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (y, v) = (&inputs[0], &inputs[1]);
        let mut terms = Matrix::zeros(y.rows, 1);
        (0..y.rows).for_each(|r| terms.set(r, 0, (0..y.cols).map(|c| y.at(r, c) * v.at(r, c)).sum()));
        terms
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, over: Over, weight: f32, cols: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("outer", weight, over))?;
            g.add("op", OuterGradient::new(loss), x)
        };
        Case::new(name, declare).rows(cols).rows(cols)
    };
    vec![case("outer_gradient/one", Over::Once, 1.0, 1), case("outer_gradient/weighted", Over::Rows, 0.7, 17)]
}
