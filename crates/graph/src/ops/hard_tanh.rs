//! `y = min(max(x, −1), 1)`, element by element. Backward: `dx = dy` where −1 < y < 1, else 0.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::mixture as cuda;

/// A hyperbolic tangent in three straight pieces, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct HardTanh;

impl Op for HardTanh {
    fn name(&self) -> &'static str {
        "hard_tanh"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space != Space::Once => Ok(*x),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0, output: true }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for r in 0..x.rows() {
            y.row_mut(r).iter_mut().zip(x.row(r)).for_each(|(y, x)| *y = x.clamp(-1.0, 1.0));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (y, dy) = (tile.output(), tile.take_output_gradient());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for r in 0..dy.rows() {
            let slopes = y.row(r).iter().map(|y| if y.abs() < 1.0 { 1.0 } else { 0.0 });
            dx.put(r, dy.row(r).iter().zip(slopes).map(|(d, slope)| d * slope));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        y
    }
}

impl DeviceOp for HardTanh {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::hard_tanh(step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (y, dy) = (step.output(), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::hard_tanh_dx(y, dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case =
        |name: &str, cols| Case::new(name, |g, x| g.add("op", HardTanh, x)).rows(cols).between(-3.0, 3.0);
    vec![case("hard_tanh/one", 1), case("hard_tanh/wide", 17)]
}
