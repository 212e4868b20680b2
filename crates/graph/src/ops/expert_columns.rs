//! `W = [U_1 … U_K ; b]`: maps of experts side by side, and behind them a bias that they share, as one weight.
//!
//! U `[K, out · n]`, a row an expert, row-major `[out, n]`; b `[out, 1]`, W `[out, K · n + 1]`. Backward: each value takes the
//! gradient of its place.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::elementwise::copy_columns;

/// Experts' maps as one weight, see the [module](self). Inputs: U, b.
#[derive(Clone, Debug)]
pub struct ExpertColumns;

impl Op for ExpertColumns {
    fn name(&self) -> &'static str {
        "expert_columns"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [u, b]
                if u.space == Space::Once
                    && b.space == Space::Once
                    && b.cols == 1
                    && u.cols.is_multiple_of(b.rows) =>
            {
                Ok(Shape::once(b.rows, u.rows * (u.cols / b.rows) + 1))
            }
            _ => Err(format!("maps [K, out · n] and a bias [out, 1] are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        if i == 0 { reached.fill(true) } else { reach::same(output, reached) }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let n = inputs[0].cols / inputs[1].rows;
        growth.tie((Axis::Rows(1), 0), (Axis::OutRows, 0), inputs[1].rows);
        for o in 0..inputs[1].rows {
            (0..n).for_each(|i| growth.follow((Axis::Columns(0), o * n + i), (Axis::OutRows, o), 1));
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (u, b, mut w) = (tile.input(0), tile.input(1), tile.take_output());
        let n = u.cols() / b.rows();
        for o in 0..b.rows() {
            let row = w.row_mut(o);
            for (k, to) in row.chunks_exact_mut(n).take(u.rows()).enumerate() {
                to.copy_from_slice(&u.row(k)[o * n..][..n]);
            }
            row[u.rows() * n] = b.row(o)[0];
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dw = tile.take_output_gradient();
        if let Some(mut du) = tile.take_gradient(0) {
            let n = du.to.cols() / dw.rows();
            for k in 0..du.to.rows() {
                du.put(k, (0..dw.rows()).flat_map(|o| dw.row(o)[k * n..][..n].iter().copied()));
            }
        }
        if let Some(mut db) = tile.take_gradient(1) {
            (0..dw.rows()).for_each(|o| db.put(o, dw.row(o).iter().rev().take(1).copied()));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (u, b) = (&inputs[0], &inputs[1]);
        let n = u.cols / b.rows;
        let mut w = Matrix::zeros(b.rows, u.rows * n + 1);
        for o in 0..b.rows {
            (0..u.rows * n).for_each(|c| w.set(o, c, u.at(c / n, o * n + c % n)));
            w.set(o, u.rows * n, b.data[o]);
        }
        w
    }
}

impl DeviceOp for ExpertColumns {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (u, b, w) = (step.input(0), step.input(1), step.output());
        for (map, columns) in maps(u, w) {
            step.launch(copy_columns(map, false, columns));
        }
        step.launch(copy_columns(b, false, w.columns(w.cols - 1, 1)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let dw = step.output_gradient();
        if let Some(du) = step.take_gradient(0) {
            for (map, columns) in maps(du.to, dw) {
                step.launch(copy_columns(columns, du.accumulate, map));
            }
        }
        if let Some(db) = step.take_gradient(1) {
            step.launch(copy_columns(dw.columns(dw.cols - 1, 1), db.accumulate, db.to));
        }
    }
}

/// By expert: its map `[out, n]`, a row of `u`, and its columns of `w`.
fn maps(u: DeviceMat, w: DeviceMat) -> impl Iterator<Item = (DeviceMat, DeviceMat)> {
    let n = u.cols / w.rows;
    (0..u.rows).map(move |k| {
        let address = u.address + 4 * u64::from(k) * u64::from(u.stride);
        (DeviceMat::new(address, w.rows, n), w.columns(k * n, n))
    })
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, experts: usize, out: usize, n: usize| {
        let case = Case::new(name, |g, x| g.add("op", ExpertColumns, x));
        case.once(experts, out * n).once(out, 1)
    };
    vec![case("expert_columns/one", 1, 3, 1), case("expert_columns/three", 3, 7, 4)]
}
