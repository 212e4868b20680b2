//! `y = w`: one vector for every sample.
//!
//! w `[n, 1]`, or a row of `[rows, n]`, y `[batch, n]`. Backward: `dw = Σ dy`, 0 for the other rows.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, elementwise, gemm};

/// A vector for every sample, see the [module](self). Input: w.
#[derive(Clone, Debug)]
pub struct Broadcast {
    row: Option<usize>,
}

impl Broadcast {
    /// A vector `[n, 1]`.
    pub fn vector() -> Broadcast {
        Broadcast { row: None }
    }

    /// Row `row` of a matrix.
    pub fn row(row: usize) -> Broadcast {
        Broadcast { row: Some(row) }
    }
}

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match (inputs, self.row) {
            ([w], None) if w.space == Space::Once && w.cols == 1 => Ok(Shape::batch(w.rows)),
            ([w], Some(row)) if w.space == Space::Once && row < w.rows => Ok(Shape::batch(w.cols)),
            _ => Err(format!("one vector, or a matrix with the row, is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        match self.row {
            Some(row) => reached[row] = true,
            None => reach::same(output, reached),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        match self.row {
            Some(_) => growth.same_columns(inputs, [0]),
            None => growth.tie((Axis::Rows(0), 0), (Axis::OutColumns, 0), inputs[0].rows),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (w, mut y) = (tile.input(0), tile.take_output());
        let w = self.row.map_or_else(|| w.contiguous(), |row| w.row(row));
        (0..y.rows()).for_each(|r| y.row_mut(r).copy_from_slice(w));
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(dw) = tile.take_gradient(0) else { return };
        let rows = dw.to.rows();
        let (first, count) = self.row.map_or((0, rows), |row| (row, 1));
        let dw = dw.only_rows(first, count);
        let sums = dw.to.into_contiguous();
        if !dw.accumulate {
            sums.fill(0.0);
        }
        for r in 0..dy.rows() {
            sums.iter_mut().zip(dy.row(r)).for_each(|(sum, d)| *sum += d);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let w = &inputs[0];
        let values = self.row.map_or(&w.data[..], |row| &w.data[row * w.cols..(row + 1) * w.cols]);
        Matrix { rows: batch.rows, cols: values.len(), data: values.repeat(batch.rows) }
    }
}

impl DeviceOp for Broadcast {
    fn halves(&self) -> Halves {
        Halves { inputs: 0, output: true }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        4 * gemm::column_sums_scratch(capacity.rows as u32, self.width(inputs[0])) as u64
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let y = step.output();
        step.launch(elementwise::broadcast(self.vector_of(step.input(0)), y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (dy, scratch) = (step.output_gradient(), step.scratch());
        let Some(dw) = step.take_gradient(0) else { return };
        if self.row.is_some() && !dw.accumulate {
            step.launch(elementwise::fill(0.0, dw.to));
        }
        let sums = self.vector_of(dw.to).address;
        step.launch_all(gemm::column_sums(dy, dw.accumulate, sums, scratch));
    }
}

impl Broadcast {
    /// Values of the vector of `w`.
    fn width(&self, w: Shape) -> u32 {
        self.row.map_or(w.rows, |_| w.cols) as u32
    }

    /// The vector of `w`, or its gradient, as one row.
    fn vector_of(&self, w: DeviceMat) -> DeviceMat {
        match self.row {
            None => DeviceMat::new(w.address, 1, w.rows),
            Some(row) => DeviceMat::new(w.address + 4 * row as u64 * u64::from(w.stride), 1, w.cols),
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: Broadcast| Case::new(name, move |g, x| g.add("op", op.clone(), x));
    vec![
        case("broadcast/row", Broadcast::row(1)).once(3, 17),
        case("broadcast/vector", Broadcast::vector()).once(5, 1),
    ]
}
