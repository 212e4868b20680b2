//! `y = x0 (w · x) + b + r`: a cross layer with a vector. The residual r is x, and in the first layer x is x0, unless
//! fields pass a transformation before they interact.
//!
//! Values with rows `[batch, n]`, w and b `[n, 1]`. R. Wang et al., *Deep & Cross Network for Ad Click Predictions*,
//! ADKDD 2017, equation 3; its bias stands outside of the product. Backward, in one pass, with s = w · x and q = dy · x0
//! of a row: `dx0 = s dy`, `dx = q w`, `dr = dy`, summed where they are one value; `dw = Σ q x`, `db = Σ dy`.

use super::cross::target;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::cross as cuda;
use manygate_cuda::{DeviceMat, Precision, gemm};
use manygate_kernels::cross::{self, Roles, VectorGradients};

/// A cross layer with a vector, see the [module](self). Inputs: the different ones among x0, x and r, then w and b.
#[derive(Clone, Debug)]
pub struct CrossVector {
    x0: usize,
    x: usize,
    residual: usize,
}

impl CrossVector {
    /// Says which of the inputs x0, x and r are.
    pub fn new([x0, x, residual]: [usize; 3]) -> CrossVector {
        CrossVector { x0, x, residual }
    }

    /// Inputs with rows.
    fn values(&self) -> usize {
        1 + self.x0.max(self.x).max(self.residual)
    }

    fn roles(&self, i: usize) -> Roles {
        Roles { factor: i == self.x0, inner: i == self.x, residual: i == self.residual }
    }
}

/// The vector that a gradient is summed in, from 0 unless it goes on.
fn sums(gradient: Gradient<'_>) -> &mut [f32] {
    let to = gradient.to.into_contiguous();
    if !gradient.accumulate {
        to.fill(0.0);
    }
    to
}

impl Op for CrossVector {
    fn name(&self) -> &'static str {
        "cross_vector"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let count = self.values();
        match inputs.split_at_checked(count) {
            Some((values @ [first, ..], [w, b]))
                if first.space != Space::Once
                    && values.iter().all(|shape| shape == first)
                    && *w == Shape::once(first.cols, 1)
                    && b == w =>
            {
                Ok(*first)
            }
            _ => Err(format!("{count} values of one shape, w and b [n, 1] are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 1 << self.x0 | 1 << self.x, output: false }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        1
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        2 * inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        // Every column depends on w · x.
        if i == self.x || i == self.values() { reached.fill(true) } else { reach::same(output, reached) }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let (values, n) = (self.values(), inputs[0].cols);
        growth.same_columns(inputs, 0..values);
        (values..values + 2).for_each(|i| growth.tie((Axis::Rows(i), 0), (Axis::OutColumns, 0), n));
        // The sum w · x is a factor of every column.
        growth.zero((Axis::Rows(values), 0), n);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let [x0, x, residual] = [self.x0, self.x, self.residual].map(|i| tile.input(i));
        let [w, b] = [0, 1].map(|i| tile.input(self.values() + i).contiguous());
        let (dots, y) = (tile.take_extra(), tile.take_output());
        cross::cross_vector(tile.at.isa, x0, x, residual, w, b, dots, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (isa, count) = (tile.at.isa, self.values());
        let (x0, x, w) = (tile.input(self.x0), tile.input(self.x), tile.input(count).contiguous());
        let (dots, dy) = (tile.take_extra(), tile.take_output_gradient());
        let [weight, bias] = [count, count + 1].map(|i| tile.take_gradient(i).map(sums));
        let mut gradients = [(); 3].map(|()| (Roles::default(), None));
        for (i, gradient) in gradients[..count].iter_mut().enumerate() {
            *gradient = (self.roles(i), tile.take_gradient(i).map(target));
        }
        let sums = VectorGradients { weight, bias };
        cross::cross_vector_dx(isa, x0, x, w, dots.as_mat(), dy.as_mat(), sums, &mut gradients[..count]);
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x0, x, w, b) =
            (&inputs[self.x0], &inputs[self.x], &inputs[self.values()], &inputs[self.values() + 1]);
        let mut y = inputs[self.residual].clone();
        for r in 0..y.rows {
            let number: f64 = (0..y.cols).map(|c| w.data[c] * x.at(r, c)).sum();
            (0..y.cols).for_each(|c| y.set(r, c, y.at(r, c) + x0.at(r, c) * number + b.data[c]));
        }
        y
    }
}

impl DeviceOp for CrossVector {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (rows, cols) = (capacity.rows as u32, inputs[0].cols as u32);
        let dw = gemm::linear_dw_scratch(rows, cols, 1, 1);
        inner_bytes(capacity) + 4 * dw.max(gemm::column_sums_scratch(rows, cols)) as u64
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let [x0, x, residual] = [self.x0, self.x, self.residual].map(|i| step.input(i));
        let [w, b] = [0, 1].map(|i| as_row(step.input(self.values() + i)));
        step.launch(cuda::cross_vector(x0, x, residual, w, b, step.extra(), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (count, dy, dots) = (self.values(), step.output_gradient(), step.extra());
        let (x0, x, w) = (step.input(self.x0), step.input(self.x), as_row(step.input(count)));
        let inner = DeviceMat { address: step.scratch(), stride: 1, ..dots };
        let scratch = step.scratch() + inner_bytes(step.capacity());
        let targets: Vec<cuda::Target> = (0..count)
            .map(|i| (self.roles(i), step.take_gradient(i).map(|to| (to.to, to.accumulate))))
            .collect();
        step.launch(cuda::cross_vector_dx(x0, w, dots, dy, inner, &targets));
        if let Some(dw) = step.take_gradient(count) {
            let to = as_row(dw.to);
            step.launch_all(gemm::linear_dw(Precision::F32, inner, x, dw.accumulate, to, None, scratch));
        }
        if let Some(db) = step.take_gradient(count + 1) {
            step.launch_all(gemm::column_sums(dy, db.accumulate, db.to.address, scratch));
        }
    }
}

/// A vector `[n, 1]` as one row.
fn as_row(vector: DeviceMat) -> DeviceMat {
    DeviceMat::new(vector.address, 1, vector.rows)
}

/// Bytes of a number for each row, a multiple of 256.
fn inner_bytes(capacity: &Capacity) -> u64 {
    (4 * capacity.rows as u64).next_multiple_of(256)
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, places: [usize; 3], cols: usize| {
        let op = CrossVector::new(places);
        let values = op.values();
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        (0..values).fold(case, |case, _| case.rows(cols)).once(cols, 1).once(cols, 1)
    };
    vec![
        case("cross_vector/first", [0, 0, 0], 19),
        case("cross_vector/further", [0, 1, 1], 35),
        case("cross_vector/transformed_first", [0, 0, 1], 1),
        case("cross_vector/transformed", [0, 1, 2], 5),
    ]
}
