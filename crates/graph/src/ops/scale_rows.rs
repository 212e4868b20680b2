//! `y = s x`: every row times a number of its own.
//!
//! x `[batch, n]`, s `[batch, 1]`. Backward: `dx = s dy`, `ds = x · dy`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row_product::{Start, Vectors, row_outer, row_product};
use manygate_kernels::activation::Activation;

/// Rows times numbers, see the [module](self). Inputs: x, s.
#[derive(Clone, Debug)]
pub struct ScaleRows;

impl Op for ScaleRows {
    fn name(&self) -> &'static str {
        "scale_rows"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, s] if x.space != Space::Once && *s == x.with_cols(1) => Ok(*x),
            _ => Err(format!("rows and a number for each are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, s, mut y) = (tile.input(0), tile.input(1), tile.take_output());
        for r in 0..x.rows() {
            y.row_mut(r).iter_mut().zip(x.row(r)).for_each(|(y, x)| *y = s.row(r)[0] * x);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, s, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        if let Some(mut dx) = tile.take_gradient(0) {
            (0..x.rows()).for_each(|r| dx.put(r, dy.row(r).iter().map(|d| s.row(r)[0] * d)));
        }
        if let Some(mut ds) = tile.take_gradient(1) {
            let dot = |r: usize| x.row(r).iter().zip(dy.row(r)).map(|(x, d)| x * d).sum();
            (0..x.rows()).for_each(|r| ds.put(r, std::iter::once(dot(r))));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (mut y, s) = (inputs[0].clone(), &inputs[1]);
        for (r, row) in y.data.chunks_exact_mut(inputs[0].cols).enumerate() {
            row.iter_mut().for_each(|v| *v *= s.at(r, 0));
        }
        y
    }
}

/// A row is a matrix of one row: the outer product of s and x.
impl DeviceOp for ScaleRows {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, s, y) = (step.input(0), step.input(1), step.output());
        step.launch(row_outer(s, x, Vectors::ONE, false, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, s, dy) = (step.input(0), step.input(1), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(row_outer(s, dy, Vectors::ONE, dx.accumulate, dx.to));
        }
        if let Some(ds) = step.take_gradient(1) {
            let start = if ds.accumulate { Start::Output } else { Start::Zero };
            step.launch(row_product(x, dy, Vectors::ONE, false, start, Activation::Identity, ds.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| Case::new(name, |g, x| g.add("op", ScaleRows, x)).rows(cols).rows(1);
    vec![case("scale_rows/one", 1), case("scale_rows/wide", 17)]
}
