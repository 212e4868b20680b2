//! `y = w`: one vector for every sample.
//!
//! w `[1, n]` or `[n, 1]`, y `[batch, n]`. Backward: `dw = Σ dy`.

use crate::check::Case;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;

/// A vector for every sample, see the [module](self). Input: w.
#[derive(Clone, Debug)]
pub struct Broadcast;

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [w] if w.space == Space::Once && (w.rows == 1 || w.cols == 1) => Ok(Shape::batch(w.len())),
            _ => Err(format!("one vector is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (w, mut y) = (tile.input(0).contiguous(), tile.take_output());
        (0..y.rows()).for_each(|r| y.row_mut(r).copy_from_slice(w));
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(dw) = tile.take_gradient(0) else { return };
        let sums = dw.to.into_contiguous();
        if !dw.accumulate {
            sums.fill(0.0);
        }
        for r in 0..dy.rows() {
            sums.iter_mut().zip(dy.row(r)).for_each(|(sum, d)| *sum += d);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let cols = inputs[0].data.len();
        Matrix { rows: batch.rows, cols, data: inputs[0].data.repeat(batch.rows) }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str| Case::new(name, |g, x| g.add("op", Broadcast, x));
    vec![case("broadcast/row").once(1, 17), case("broadcast/column").once(5, 1)]
}
