//! `y = Σ_i Σ_c x_i[c]`: all columns of all inputs, added up row by row.
//!
//! x_i `[batch, n_i]`, y `[batch, 1]`. Backward: every column takes the gradient of its row.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::interaction as cuda;

/// The sum of all columns, see the [module](self). Inputs: the values.
#[derive(Clone, Debug)]
pub struct SumColumns {
    values: usize,
}

impl SumColumns {
    /// Of `values` values.
    pub fn new(values: usize) -> SumColumns {
        SumColumns { values }
    }
}

impl Op for SumColumns {
    fn name(&self) -> &'static str {
        "sum_columns"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, rest @ ..]
                if x.space != Space::Once
                    && inputs.len() == self.values
                    && rest.iter().all(|y| y.space == x.space) =>
            {
                Ok(x.with_cols(1))
            }
            _ => Err(format!("{} values with rows are needed, not {inputs:?}", self.values)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        for (i, x) in inputs.iter().enumerate() {
            growth.zero((Axis::Columns(i), 0), x.cols);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let mut y = tile.take_output();
        for r in 0..y.rows() {
            y.row_mut(r)[0] = (0..self.values).map(|i| tile.input(i).row(r).iter().sum::<f32>()).sum();
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for i in 0..self.values {
            let Some(mut dx) = tile.take_gradient(i) else { continue };
            let cols = dx.to.cols();
            (0..dy.rows()).for_each(|r| dx.put(r, std::iter::repeat_n(dy.row(r)[0], cols)));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = Matrix::zeros(inputs[0].rows, 1);
        for (r, x) in (0..y.rows).flat_map(|r| inputs.iter().map(move |x| (r, x))) {
            y.set(r, 0, y.at(r, 0) + (0..x.cols).map(|c| x.at(r, c)).sum::<f64>());
        }
        y
    }
}

impl DeviceOp for SumColumns {
    fn halves(&self) -> Halves {
        Halves { inputs: u64::MAX, output: false }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        for i in 0..self.values {
            step.launch(cuda::sum_columns(step.input(i), i > 0, step.output()));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        for i in 0..self.values {
            if let Some(dx) = step.take_gradient(i) {
                step.launch(cuda::sum_columns_dx(step.output_gradient(), dx.accumulate, dx.to));
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, widths: &[usize]| {
        let values = widths.len();
        let case = Case::new(name, move |g, x| g.add("op", SumColumns::new(values), x));
        widths.iter().fold(case, |case, &cols| case.rows(cols))
    };
    vec![case("sum_columns/one", &[5]), case("sum_columns/three", &[1, 17, 3])]
}
