//! `y_g = [x_g ; m]`: the same vector beside each of several groups.
//!
//! x `[batch, groups · n]`, m a row of `[rows, u]`, y `[batch, groups · (n + u)]`.
//! Backward: `dx_g` the first n columns of `dy_g`, `dm = Σ` of the others, over groups and samples.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, elementwise, gemm};

/// A vector beside groups, see the [module](self). Inputs: x, the matrix that has m.
#[derive(Clone, Debug)]
pub struct AttachRow {
    groups: usize,
    row: usize,
    /// Columns of m.
    cols: usize,
}

impl AttachRow {
    /// Row `row` of a matrix with `cols` columns, beside each of `groups` groups.
    pub fn new(groups: usize, row: usize, cols: usize) -> AttachRow {
        AttachRow { groups, row, cols }
    }
}

impl Op for AttachRow {
    fn name(&self) -> &'static str {
        "attach_row"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, m]
                if x.space == Space::Batch
                    && m.space == Space::Once
                    && m.cols == self.cols
                    && self.row < m.rows
                    && self.groups > 0
                    && x.cols.is_multiple_of(self.groups) =>
            {
                Ok(Shape::batch(x.cols + self.groups * self.cols))
            }
            _ => Err(format!(
                "{} groups and a matrix with row {} are needed, not {inputs:?}",
                self.groups, self.row
            )),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let n = inputs[0].cols / self.groups;
        let groups = output.chunks_exact(n + self.cols);
        if i == 0 {
            reached.chunks_exact_mut(n).zip(groups).for_each(|(to, y)| to.copy_from_slice(&y[..n]));
        } else {
            reached[self.row] = groups.flat_map(|y| &y[n..]).any(|&marked| marked);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, m, mut y) = (tile.input(0), tile.input(1).row(self.row), tile.take_output());
        let n = x.cols() / self.groups;
        for r in 0..x.rows() {
            for (y, x) in y.row_mut(r).chunks_exact_mut(n + self.cols).zip(x.row(r).chunks_exact(n)) {
                y[..n].copy_from_slice(x);
                y[n..].copy_from_slice(m);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let wide = dy.cols() / self.groups;
        let n = wide - self.cols;
        if let Some(mut dx) = tile.take_gradient(0) {
            for r in 0..dy.rows() {
                dx.put(r, dy.row(r).chunks_exact(wide).flat_map(|dy| &dy[..n]).copied());
            }
        }
        if let Some(dm) = tile.take_gradient(1) {
            let mut dm = dm.only_rows(self.row, 1);
            if !dm.accumulate {
                dm.to.fill(0.0);
            }
            for dy in (0..dy.rows()).flat_map(|r| dy.row(r).chunks_exact(wide)) {
                dm.to.row_mut(0).iter_mut().zip(&dy[n..]).for_each(|(to, d)| *to += d);
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x, m) = (&inputs[0], &inputs[1]);
        let n = x.cols / self.groups;
        let own = &m.data[self.row * m.cols..(self.row + 1) * m.cols];
        let data = x.data.chunks_exact(n).flat_map(|x| x.iter().chain(own)).copied().collect();
        Matrix { rows: x.rows, cols: x.cols + self.groups * m.cols, data }
    }
}

impl DeviceOp for AttachRow {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        4 * gemm::column_sums_scratch(capacity.rows as u32, self.cols as u32) as u64
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, m) = (step.input(0), self.row_of(step.input(1)));
        for (x, [of_x, of_m]) in self.groups_of(x).zip(self.parts(step.output())) {
            step.launch(elementwise::copy_columns(x, false, of_x));
            step.launch(elementwise::broadcast(m, of_m));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (dy, scratch) = (step.output_gradient(), step.scratch());
        if let Some(dx) = step.take_gradient(0) {
            for (dx_g, [dy_g, _]) in self.groups_of(dx.to).zip(self.parts(dy)) {
                step.launch(elementwise::copy_columns(dy_g, dx.accumulate, dx_g));
            }
        }
        if let Some(dm) = step.take_gradient(1) {
            if !dm.accumulate {
                step.launch(elementwise::fill(0.0, dm.to));
            }
            let to = self.row_of(dm.to).address;
            for [_, dy_g] in self.parts(dy) {
                step.launch_all(gemm::column_sums(dy_g, true, to, scratch));
            }
        }
    }
}

impl AttachRow {
    /// m, or its gradient, as one row.
    fn row_of(&self, m: DeviceMat) -> DeviceMat {
        DeviceMat::new(m.address + 4 * self.row as u64 * u64::from(m.stride), 1, m.cols)
    }

    /// The columns of each group.
    fn groups_of(&self, x: DeviceMat) -> impl Iterator<Item = DeviceMat> {
        let groups = self.groups as u32;
        let n = x.cols / groups;
        (0..groups).map(move |g| x.columns(g * n, n))
    }

    /// By group of y, or of its gradient: what is of x, and what is of m.
    fn parts(&self, y: DeviceMat) -> impl Iterator<Item = [DeviceMat; 2]> {
        let cols = self.cols as u32;
        self.groups_of(y).map(move |y| [y.columns(0, y.cols - cols), y.columns(y.cols - cols, cols)])
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, groups: usize, n: usize, cols: usize| {
        let op = AttachRow::new(groups, 1, cols);
        Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(groups * n).once(3, cols)
    };
    vec![case("attach_row/one", 1, 1, 1), case("attach_row/groups", 3, 5, 4)]
}
