//! Values side by side: x_1 `[batch, n_1]` … x_k `[batch, n_k]` give `[batch, Σ n]`.
//!
//! Backward: each input takes its columns of the gradient.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;

/// Columns of several values in one, see the [module](self). Inputs: the values.
#[derive(Clone, Debug)]
pub struct Concat {
    widths: Vec<usize>,
}

impl Concat {
    /// Of values of these widths.
    pub fn new(widths: Vec<usize>) -> Concat {
        Concat { widths }
    }

    /// Position, first column and width of each input.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.widths.iter().enumerate().scan(0, |at, (i, &width)| {
            *at += width;
            Some((i, *at - width, width))
        })
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let Some(first) = inputs.first().filter(|x| x.space != Space::Once) else {
            return Err(format!("values with rows are needed, not {inputs:?}"));
        };
        let fits = |(shape, &width): (&Shape, &usize)| shape.space == first.space && shape.cols == width;
        if inputs.len() != self.widths.len() || !inputs.iter().zip(&self.widths).all(fits) {
            return Err(format!("values of widths {:?} are needed, not {inputs:?}", self.widths));
        }
        Ok(first.with_cols(self.widths.iter().sum()))
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        for (_, from, width) in self.parts().filter(|(part, ..)| *part == i) {
            reach::same(&output[from..from + width], reached);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, _inputs: &[Shape], growth: &mut Growth<'_>) {
        for (i, from, width) in self.parts() {
            growth.tie((Axis::Columns(i), 0), (Axis::OutColumns, from), width);
            growth.vanish((Axis::OutColumns, from), (Axis::Columns(i), 0), width);
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let mut y = tile.take_output();
        for (i, from, width) in self.parts() {
            let x = tile.input(i);
            let mut to = y.columns(from, width);
            (0..x.rows()).for_each(|r| to.row_mut(r).copy_from_slice(x.row(r)));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for (i, from, width) in self.parts() {
            let Some(mut dx) = tile.take_gradient(i) else { continue };
            for r in 0..dy.rows() {
                for (to, &d) in dx.to.row_mut(r).iter_mut().zip(&dy.row(r)[from..from + width]) {
                    *to = if dx.accumulate { *to + d } else { d };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let rows = inputs[0].rows;
        let mut y = Matrix::zeros(rows, self.widths.iter().sum());
        for (i, from, width) in self.parts() {
            for (r, c) in (0..rows).flat_map(|r| (0..width).map(move |c| (r, c))) {
                y.set(r, from + c, inputs[i].at(r, c));
            }
        }
        y
    }
}

impl DeviceOp for Concat {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        for (i, from, width) in self.parts() {
            let y = step.output().columns(from as u32, width as u32);
            step.launch(elementwise::copy_columns(step.input(i), false, y));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        for (i, from, width) in self.parts() {
            let Some(dx) = step.take_gradient(i) else { continue };
            let dy = step.output_gradient().columns(from as u32, width as u32);
            step.launch(elementwise::copy_columns(dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, widths: &[usize]| {
        let op = Concat::new(widths.to_vec());
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        widths.iter().fold(case, |case, &width| case.rows(width))
    };
    vec![case("concat/one", &[3]), case("concat/three", &[17, 1, 5])]
}
