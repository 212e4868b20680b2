//! `y = a · b`, row by row.
//!
//! a, b `[batch, n]`, y `[batch, 1]`. Backward: `da = dy b`, `db = dy a`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row_product::{Start, Vectors, row_outer, row_product};
use manygate_kernels::activation::Activation;

/// The inner product of rows, see the [module](self). Inputs: a, b.
#[derive(Clone, Debug)]
pub struct RowDot;

impl Op for RowDot {
    fn name(&self) -> &'static str {
        "row_dot"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [a, b] if a.space != Space::Once && a == b => Ok(a.with_cols(1)),
            _ => Err(format!("two values of one shape are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (a, b, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..a.rows() {
            y.row_mut(r)[0] = a.row(r).iter().zip(b.row(r)).map(|(a, b)| a * b).sum();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for i in 0..2 {
            let other = tile.input(1 - i);
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            (0..dy.rows()).for_each(|r| gradient.put(r, other.row(r).iter().map(|v| dy.row(r)[0] * v)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (a, b) = (&inputs[0], &inputs[1]);
        let mut y = Matrix::zeros(a.rows, 1);
        (0..a.rows).for_each(|r| y.set(r, 0, (0..a.cols).map(|c| a.at(r, c) * b.at(r, c)).sum()));
        y
    }
}

/// A row is a matrix of one row: the product is that of b with a.
impl DeviceOp for RowDot {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b11, output: false }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (a, b, y) = (step.input(0), step.input(1), step.output());
        step.launch(row_product(b, a, Vectors::ONE, false, Start::Zero, Activation::Identity, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let dy = step.output_gradient();
        for i in 0..2 {
            let Some(gradient) = step.take_gradient(i) else { continue };
            let other = step.input(1 - i);
            step.launch(row_outer(dy, other, Vectors::ONE, gradient.accumulate, gradient.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| Case::new(name, |g, x| g.add("op", RowDot, x)).rows(cols).rows(cols);
    vec![case("row_dot/one", 1), case("row_dot/wide", 17)]
}
