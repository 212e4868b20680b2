//! `G = Σ δ ⊗ x` over the rows of the batch: the gradient of a linear layer's weight as a value, and a join.
//!
//! δ `[batch, out]`, x `[batch, in]`, G `[out, in]`; without x, `Σ δ` as `[out, 1]`: the gradient of the bias. A further
//! step on the weights (C. Finn, P. Abbeel, S. Levine, *Model-Agnostic Meta-Learning*, ICML 2017) is then an ordinary
//! value, and its second-order terms are this op's backward pass: `dδ = dG x`, `dx = dGᵀ δ`. Sums are f64.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, copy_bytes};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reduction, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::gemm::{self, Heads};
use manygate_cuda::{DeviceMat, elementwise};
use manygate_kernels::Mat;
use manygate_kernels::activation::Activation;

/// The gradient of a weight, see the [module](self). Inputs: δ, and x for a weight.
#[derive(Clone, Copy, Debug)]
pub enum WeightGradient {
    /// `[out, in]`.
    Weight,
    /// `[out, 1]`.
    Bias,
}

impl WeightGradient {
    /// A row of x; that of a bias is 1.
    fn row<'a>(&self, x: Option<Mat<'a>>, r: usize) -> &'a [f32] {
        x.map_or(&[1.0], |x| x.row(r))
    }

    fn has_x(&self) -> bool {
        matches!(self, WeightGradient::Weight)
    }
}

impl Op for WeightGradient {
    fn name(&self) -> &'static str {
        "weight_gradient"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match (self, inputs) {
            (WeightGradient::Weight, [delta, x])
                if delta.space == Space::Batch && x.space == Space::Batch =>
            {
                Ok(Shape::once(delta.cols, x.cols))
            }
            (WeightGradient::Bias, [delta]) if delta.space == Space::Batch => Ok(Shape::once(delta.cols, 1)),
            _ => Err(format!("values with a row a sample are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: if self.has_x() { 0b11 } else { 0 }, output: false }
    }

    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.tie((Axis::Columns(0), 0), (Axis::OutRows, 0), inputs[0].cols);
        if self.has_x() {
            growth.same_columns(inputs, [1]);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, _tile: &mut Forward<'_>) {}

    fn backward(&self, tile: &mut Backward<'_>) {
        let dg = tile.once_gradient();
        let x = self.has_x().then(|| tile.input(1));
        if let Some(mut d_delta) = tile.take_gradient(0) {
            for r in 0..tile.at.rows {
                let x = self.row(x, r);
                for (to, o) in d_delta.to.row_mut(r).iter_mut().zip(0..) {
                    let add: f32 = dg.row(o).iter().zip(x).map(|(g, x)| g * x).sum();
                    *to = if d_delta.accumulate { *to + add } else { add };
                }
            }
        }
        if !self.has_x() {
            return;
        }
        if let Some(mut dx) = tile.take_gradient(1) {
            let delta = tile.input(0);
            for r in 0..tile.at.rows {
                let to = dx.to.row_mut(r);
                if !dx.accumulate {
                    to.fill(0.0);
                }
                for (o, &d) in delta.row(r).iter().enumerate() {
                    to.iter_mut().zip(dg.row(o)).for_each(|(to, g)| *to += d * g);
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let delta = &inputs[0];
        let cols = if self.has_x() { inputs[1].cols } else { 1 };
        let mut g = Matrix::zeros(delta.cols, cols);
        for (r, o) in (0..delta.rows).flat_map(|r| (0..delta.cols).map(move |o| (r, o))) {
            for c in 0..cols {
                let x = if self.has_x() { inputs[1].at(r, c) } else { 1.0 };
                g.data[o * cols + c] += delta.at(r, o) * x;
            }
        }
        g
    }
}

impl Reduction for WeightGradient {
    fn partial_len(&self, inputs: &[Shape]) -> usize {
        inputs.iter().map(|shape| shape.cols).product()
    }

    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]) {
        let delta = tile.input(0);
        let x = self.has_x().then(|| tile.input(1));
        for r in 0..delta.rows() {
            let x = self.row(x, r);
            for (sums, &d) in partial.chunks_exact_mut(x.len()).zip(delta.row(r)) {
                sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(d) * f64::from(x));
            }
        }
    }

    fn finish(&self, _facts: &Facts, sums: &[f64], output: &mut [f32]) {
        output.iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum as f32);
    }
}

impl DeviceOp for WeightGradient {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (rows, out) = (capacity.rows, inputs[0].cols);
        let sums = match inputs.get(1) {
            Some(x) => gemm::linear_dw_scratch(rows as u32, x.cols as u32, out as u32, 1),
            None => gemm::column_sums_scratch(rows as u32, out as u32),
        };
        copy_bytes(rows, out).max(4 * sums as u64)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (delta, g, scratch) = (step.input(0), step.output(), step.scratch());
        if self.has_x() {
            let (x, precision) = (step.input(1), step.precision(delta.element));
            step.launch_all(gemm::linear_dw(precision, delta, x, false, g, None, scratch));
        } else {
            step.launch_all(gemm::column_sums(delta, false, g.address, scratch));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (dg, scratch) = (step.output_gradient(), step.scratch());
        let precision = step.precision(dg.element);
        if let Some(d_delta) = step.take_gradient(0) {
            let x = self.has_x().then(|| step.input(1));
            step.put_gradient(d_delta, scratch, |step, to| {
                let heads = Heads::one(dg.rows, 0, Activation::Identity);
                step.launch(match x {
                    Some(x) => gemm::linear(precision, x, dg, &heads, to),
                    None => elementwise::broadcast(DeviceMat::new(dg.address, 1, dg.rows), to),
                });
            });
        }
        if self.has_x()
            && let Some(dx) = step.take_gradient(1)
        {
            let delta = step.input(0);
            step.launch(gemm::linear_dx(precision, delta, dg, dx.accumulate, None, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let weight = |name: &str, out: usize, input: usize| {
        Case::new(name, |g, x| g.add("op", WeightGradient::Weight, x)).rows(out).rows(input)
    };
    vec![
        weight("weight_gradient/one", 1, 1),
        weight("weight_gradient/weight", 5, 9),
        Case::new("weight_gradient/bias", |g, x| g.add("op", WeightGradient::Bias, x)).rows(7),
    ]
}
