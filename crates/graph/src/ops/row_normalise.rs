//! `y = x / max(|x|, floor)`, row by row.
//!
//! x, y `[batch, n]`. Backward: `dx = (dy − y (y · dy)) / |x|`, or `dy / floor` for a row that is shorter.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::row as cuda;

/// Rows of length 1, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct RowNormalise {
    floor: f32,
}

impl RowNormalise {
    /// Rows shorter than `floor` are divided by it.
    pub fn new(floor: f32) -> RowNormalise {
        RowNormalise { floor }
    }

    /// 1 / max(|x|, floor), and whether the row is no shorter.
    fn scale(&self, x: &[f32]) -> (f64, bool) {
        let norm = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        (1.0 / norm.max(f64::from(self.floor)), norm >= f64::from(self.floor))
    }
}

impl Op for RowNormalise {
    fn name(&self) -> &'static str {
        "row_normalise"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space != Space::Once => Ok(*x),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: true }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut y) = (tile.input(0), tile.take_output());
        for r in 0..x.rows() {
            let (scale, _) = self.scale(x.row(r));
            y.row_mut(r).iter_mut().zip(x.row(r)).for_each(|(y, &x)| *y = (f64::from(x) * scale) as f32);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, y, dy) = (tile.input(0), tile.output(), tile.take_output_gradient());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for r in 0..x.rows() {
            let (scale, on_sphere) = self.scale(x.row(r));
            let pairs = || y.row(r).iter().zip(dy.row(r)).map(|(&y, &d)| (f64::from(y), f64::from(d)));
            let along = if on_sphere { pairs().map(|(y, d)| y * d).sum::<f64>() } else { 0.0 };
            dx.put(r, pairs().map(|(y, d)| ((d - y * along) * scale) as f32));
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        for row in y.data.chunks_exact_mut(inputs[0].cols) {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::from(self.floor));
            row.iter_mut().for_each(|v| *v /= norm);
        }
        y
    }
}

impl DeviceOp for RowNormalise {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::row_normalise(self.floor, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, y, dy) = (step.input(0), step.output(), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::row_normalise_dx(self.floor, x, y, dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize, floor: f32| {
        Case::new(name, move |g, x| g.add("op", RowNormalise::new(floor), x)).rows(cols)
    };
    vec![case("row_normalise/wide", 17, 1e-12), case("row_normalise/floor", 3, 9.0)]
}
