//! `y = max(x, 0) + a ⊙ min(x, 0)`: a leaky rectifier whose slope each unit learns.
//!
//! x, y `[batch, n]` (or a row an id of a list), a `[n, 1]`. K. He, X. Zhang, S. Ren, J. Sun, *Delving Deep into
//! Rectifiers*, ICCV 2015. Backward: `dx = dy` where x > 0, else `a dy`; `da = Σ dy min(x, 0)`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::activation::{self as cuda, Bend, BendGradients};

/// A rectifier with learnt slopes, see the [module](self). Inputs: x, a.
#[derive(Clone, Debug)]
pub struct Prelu;

impl Op for Prelu {
    fn name(&self) -> &'static str {
        "prelu"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, a] if x.space != Space::Once && *a == Shape::once(x.cols, 1) => Ok(*x),
            _ => Err(format!("values with rows and a slope [n, 1] are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        growth.tie((Axis::Rows(1), 0), (Axis::OutColumns, 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, a, mut y) = (tile.input(0), tile.input(1).contiguous(), tile.take_output());
        for r in 0..x.rows() {
            for ((y, &x), a) in y.row_mut(r).iter_mut().zip(x.row(r)).zip(a) {
                *y = if x > 0.0 { x } else { a * x };
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, a, dy) = (tile.input(0), tile.input(1).contiguous(), tile.take_output_gradient());
        if let Some(mut dx) = tile.take_gradient(0) {
            for r in 0..x.rows() {
                let slopes = x.row(r).iter().zip(a).map(|(&x, &a)| if x > 0.0 { 1.0 } else { a });
                dx.put(r, dy.row(r).iter().zip(slopes).map(|(d, slope)| d * slope));
            }
        }
        if let Some(da) = tile.take_gradient(1) {
            let sums = da.to.into_contiguous();
            if !da.accumulate {
                sums.fill(0.0);
            }
            for r in 0..x.rows() {
                for ((sum, d), x) in sums.iter_mut().zip(dy.row(r)).zip(x.row(r)) {
                    *sum += d * x.min(0.0);
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (mut y, cols) = (inputs[0].clone(), inputs[0].cols);
        for (i, v) in y.data.iter_mut().enumerate() {
            *v = v.max(0.0) + inputs[1].data[i % cols] * v.min(0.0);
        }
        y
    }
}

impl DeviceOp for Prelu {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::dice_scratch(capacity.rows_in(inputs[0]) as u32, inputs[0].cols as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let bend = Bend { moments: None, slopes: step.input(1).address };
        step.launch(cuda::dice(step.input(0), bend, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, dy) = (step.input(0), step.output_gradient());
        let bend = Bend { moments: None, slopes: step.input(1).address };
        let dx = step.take_gradient(0).map(|dx| (dx.to, dx.accumulate));
        let slopes = step.take_gradient(1).map(|sum| (sum.to.address, sum.accumulate));
        let sums = BendGradients { slopes, scratch: step.scratch(), ..BendGradients::default() };
        step.launch_all(cuda::dice_backward(x, bend, dy, dx, sums));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("prelu/one", |g, x| g.add("op", Prelu, x)).rows(1).once(1, 1),
        Case::new("prelu/wide", |g, x| g.add("op", Prelu, x)).rows(17).once(17, 1),
        Case::new("prelu/positions", |g, x| g.add("op", Prelu, x)).positions(0, 5).once(5, 1),
    ]
}
