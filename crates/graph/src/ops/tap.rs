//! The identity, whose gradient is kept for the whole batch: how a caller reads the gradient of an intermediate value.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;

/// A value whose gradient is kept, see the [module](self). Input: the value.
#[derive(Clone, Debug)]
pub struct Tap;

impl Op for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space != Space::Once => Ok(*x),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn keeps_output_gradient(&self) -> bool {
        true
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for r in 0..x.rows() {
            y.row_mut(r).copy_from_slice(x.row(r));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for r in 0..dy.rows() {
            for (to, &d) in dx.to.row_mut(r).iter_mut().zip(dy.row(r)) {
                *to = if dx.accumulate { *to + d } else { d };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        inputs[0].clone()
    }
}

impl DeviceOp for Tap {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(elementwise::copy_columns(step.input(0), false, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dx) = step.take_gradient(0) {
            step.launch(elementwise::copy_columns(step.output_gradient(), dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols| Case::new(name, |g, x| g.add("op", Tap, x)).rows(cols);
    vec![case("tap/one", 1), case("tap/wide", 17)]
}
