//! `y = xᵀ`, of a matrix that exists once: a weight that a paper writes `[in, out]`, as the products of layers want it.
//!
//! x `[rows, cols]`, y `[cols, rows]`. Backward: `dx = dyᵀ`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::elementwise::{self as cuda, Matrices};

/// A transposed matrix, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct Transpose;

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space == Space::Once => Ok(Shape::once(x.cols, x.rows)),
            _ => Err(format!("one matrix that exists once is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.tie((Axis::Rows(0), 0), (Axis::OutColumns, 0), inputs[0].rows);
        growth.tie((Axis::Columns(0), 0), (Axis::OutRows, 0), inputs[0].cols);
        growth.vanish((Axis::OutColumns, 0), (Axis::Rows(0), 0), inputs[0].rows);
        growth.vanish((Axis::OutRows, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for r in 0..x.rows() {
            x.row(r).iter().enumerate().for_each(|(c, &v)| y.row_mut(c)[r] = v);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(mut dx) = tile.take_gradient(0) else { return };
        (0..dy.cols()).for_each(|r| dx.put(r, (0..dy.rows()).map(|c| dy.row(c)[r])));
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut y = Matrix::zeros(x.cols, x.rows);
        (0..x.rows).for_each(|r| (0..x.cols).for_each(|c| y.set(c, r, x.at(r, c))));
        y
    }
}

impl DeviceOp for Transpose {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::transpose(one(step.input(0)), false, one(step.output())));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::transpose(one(step.output_gradient()), dx.accumulate, one(dx.to)));
        }
    }
}

fn one(first: DeviceMat) -> Matrices {
    Matrices { first, count: 1, next: 0 }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: usize, cols: usize| {
        Case::new(name, |g, x| g.add("op", Transpose, x)).once(rows, cols)
    };
    vec![case("transpose/vector", 1, 5), case("transpose/matrix", 7, 3)]
}
