//! `y = a ⊙ b`, element by element.
//!
//! Backward: `da = dy ⊙ b`, `db = dy ⊙ a`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;

/// A product, see the [module](self). Inputs: a, b.
#[derive(Clone, Debug)]
pub struct Multiply;

impl Op for Multiply {
    fn name(&self) -> &'static str {
        "multiply"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [a, b] if a.space != Space::Once && a == b => Ok(*a),
            _ => Err(format!("two values of one shape are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0, 1]);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (a, b, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..a.rows() {
            let products = a.row(r).iter().zip(b.row(r)).map(|(a, b)| a * b);
            y.row_mut(r).iter_mut().zip(products).for_each(|(y, product)| *y = product);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for i in 0..2 {
            let other = tile.input(1 - i);
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            (0..dy.rows())
                .for_each(|r| gradient.put(r, dy.row(r).iter().zip(other.row(r)).map(|(d, v)| d * v)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().zip(&inputs[1].data).for_each(|(a, b)| *a *= b);
        y
    }
}

impl DeviceOp for Multiply {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(elementwise::multiply(step.input(0), step.input(1), false, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        for i in 0..2 {
            if let Some(dx) = step.take_gradient(i) {
                let (dy, other) = (step.output_gradient(), step.input(1 - i));
                step.launch(elementwise::multiply(dy, other, dx.accumulate, dx.to));
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case =
        |name: &str, cols: usize| Case::new(name, |g, x| g.add("op", Multiply, x)).rows(cols).rows(cols);
    vec![case("multiply/one", 1), case("multiply/wide", 17)]
}
