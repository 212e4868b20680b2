//! `y = a + factor · b`, element by element, with a constant factor.
//!
//! Backward: `da = dy`, `db = factor · dy`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;

/// A weighted sum, see the [module](self). Inputs: a, b.
#[derive(Clone, Debug)]
pub struct AddScaled {
    factor: f32,
}

impl AddScaled {
    /// With this factor.
    pub fn new(factor: f32) -> AddScaled {
        AddScaled { factor }
    }
}

impl Op for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [a, b] if a.space != Space::Once && a == b => Ok(*a),
            _ => Err(format!("two values of one shape are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0, 1]);
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (a, b, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..a.rows() {
            let sums = a.row(r).iter().zip(b.row(r)).map(|(a, b)| a + self.factor * b);
            y.row_mut(r).iter_mut().zip(sums).for_each(|(y, sum)| *y = sum);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for (i, factor) in [(0, 1.0), (1, self.factor)] {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            (0..dy.rows()).for_each(|r| gradient.put(r, dy.row(r).iter().map(|d| factor * d)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().zip(&inputs[1].data).for_each(|(a, b)| *a += f64::from(self.factor) * b);
        y
    }
}

impl DeviceOp for AddScaled {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(elementwise::add_scaled(step.input(0), self.factor, step.input(1), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        for (i, factor) in [(0, 1.0), (1, self.factor)] {
            if let Some(dx) = step.take_gradient(i) {
                step.launch(elementwise::scale(factor, step.output_gradient(), dx.accumulate, dx.to));
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| {
        Case::new(name, |g, x| g.add("op", AddScaled::new(-0.7), x)).rows(cols).rows(cols)
    };
    vec![case("add_scaled/one", 1), case("add_scaled/wide", 17)]
}
