//! A part of each row of a matrix, read as a matrix: how one generated row holds the weights of several layers.
//!
//! x `[rows, n]`; from column `from` on, `out · in` values of each row, row-major `[out, in]`, give `[rows · out, in]`;
//! transposed, they are `[in, out]`. Backward: the part takes its gradient, the rest of a row 0.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth, Place, Span};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::elementwise::{self as cuda, Matrices};

/// A part of rows as a weight, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct WeightPart {
    from: usize,
    out: usize,
    input: usize,
    transposed: bool,
}

impl WeightPart {
    /// From column `from` on, `[out, input]` of each row.
    pub fn new(from: usize, out: usize, input: usize) -> WeightPart {
        WeightPart { from, out, input, transposed: false }
    }

    /// Stored as `[input, out]`.
    pub fn transposed(self) -> WeightPart {
        WeightPart { transposed: true, ..self }
    }

    /// Column of x that holds `(o, i)` of the weight.
    fn place(&self, o: usize, i: usize) -> usize {
        self.from + if self.transposed { i * self.out + o } else { o * self.input + i }
    }

    fn units(&self, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let out = self.out;
        (0..rows).flat_map(move |r| (0..out).map(move |o| (r, o)))
    }
}

impl Op for WeightPart {
    fn name(&self) -> &'static str {
        "weight_part"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let end = self.from + self.out * self.input;
        match inputs {
            [x] if x.space == Space::Once && end <= x.cols => Ok(Shape::once(x.rows * self.out, self.input)),
            _ => Err(format!("a matrix with at least {end} columns is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::by_group(output, reached, inputs[0].rows);
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let zero = |row: Place, column: Place| row.starts_at_zero() || column.starts_at_zero();
        for r in 0..inputs[0].rows {
            let rows = Span::new(Axis::OutRows, r * self.out, self.out);
            let columns = Span::new(Axis::OutColumns, 0, self.input);
            growth.matrix(Axis::Columns(0), |o, i| self.place(o, i), rows, columns, zero);
            growth.gather((Axis::Rows(0), r), (Axis::OutRows, r * self.out), self.out);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for (r, o) in self.units(x.rows()) {
            let row = x.row(r);
            let to = y.row_mut(r * self.out + o);
            to.iter_mut().enumerate().for_each(|(i, to)| *to = row[self.place(o, i)]);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(mut dx) = tile.take_gradient(0) else { return };
        if !dx.accumulate {
            dx.to.fill(0.0);
        }
        for (r, o) in self.units(dx.to.rows()) {
            let to = dx.to.row_mut(r);
            dy.row(r * self.out + o).iter().enumerate().for_each(|(i, d)| to[self.place(o, i)] += d);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut y = Matrix::zeros(x.rows * self.out, self.input);
        for (r, o) in self.units(x.rows) {
            (0..self.input).for_each(|i| y.set(r * self.out + o, i, x.at(r, self.place(o, i))));
        }
        y
    }
}

impl DeviceOp for WeightPart {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, y) = (step.input(0), step.output());
        let (part, rows) = (self.part_of(x), self.as_rows(x.rows, y));
        step.launch(if self.transposed {
            cuda::transpose(self.matrices(part), false, self.turned(rows))
        } else {
            cuda::copy_columns(part, false, rows)
        });
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let Some(dx) = step.take_gradient(0) else { return };
        if !dx.accumulate {
            step.launch(cuda::fill(0.0, dx.to));
        }
        let (part, rows) = (self.part_of(dx.to), self.as_rows(dx.to.rows, step.output_gradient()));
        step.launch(if self.transposed {
            cuda::transpose(self.turned(rows), true, self.matrices(part))
        } else {
            cuda::copy_columns(rows, true, part)
        });
    }
}

impl WeightPart {
    /// The part of x, or of its gradient, that is a weight: `[rows, out · in]`.
    fn part_of(&self, x: DeviceMat) -> DeviceMat {
        x.columns(self.from as u32, (self.out * self.input) as u32)
    }

    /// The weights, whose rows follow one another, with all of a row of x in a row: `[rows, out · in]`.
    fn as_rows(&self, rows: u32, weights: DeviceMat) -> DeviceMat {
        DeviceMat::new(weights.address, rows, (self.out * self.input) as u32)
    }

    /// The matrix in each row of a part, `[in, out]`.
    fn matrices(&self, part: DeviceMat) -> Matrices {
        let first = DeviceMat::new(part.address, self.input as u32, self.out as u32);
        Matrices { first, count: part.rows, next: part.stride }
    }

    /// The matrix in each row of weights, `[out, in]`.
    fn turned(&self, rows: DeviceMat) -> Matrices {
        let first = DeviceMat::new(rows.address, self.out as u32, self.input as u32);
        Matrices { first, count: rows.rows, next: rows.stride }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: WeightPart, rows: usize, cols: usize| {
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).once(rows, cols)
    };
    vec![
        case("weight_part/middle", WeightPart::new(3, 4, 2), 3, 13),
        case("weight_part/transposed", WeightPart::new(0, 5, 3).transposed(), 2, 15),
    ]
}
