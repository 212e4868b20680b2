//! `W' = W − rate · G`: a step along a gradient, as a value of its own.
//!
//! W and G are of one shape and exist once. Backward: `dW = dW'`, `dG = −rate · dW'`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise as cuda;

/// A step, see the [module](self). Inputs: W, G.
#[derive(Clone, Debug)]
pub struct Descend {
    rate: f32,
}

impl Descend {
    /// A step of this rate.
    pub fn new(rate: f32) -> Descend {
        Descend { rate }
    }
}

impl Op for Descend {
    fn name(&self) -> &'static str {
        "descend"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [w, g] if w.space == Space::Once && g == w => Ok(*w),
            _ => Err(format!("a weight and its gradient are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0, 1]);
        (0..2).for_each(|i| growth.tie((Axis::Rows(i), 0), (Axis::OutRows, 0), inputs[i].rows));
        growth.vanish((Axis::OutColumns, 0), (Axis::Columns(0), 0), inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (w, g) = (tile.input(0).contiguous(), tile.input(1).contiguous());
        let to = tile.take_output().into_contiguous();
        to.iter_mut().zip(w.iter().zip(g)).for_each(|(to, (w, g))| *to = w - self.rate * g);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient().into_contiguous();
        for (i, factor) in [(0, 1.0), (1, -self.rate)] {
            let Some(gradient) = tile.take_gradient(i) else { continue };
            for (to, &d) in gradient.to.into_contiguous().iter_mut().zip(&*dy) {
                *to = if gradient.accumulate { *to + factor * d } else { factor * d };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        y.data.iter_mut().zip(&inputs[1].data).for_each(|(w, g)| *w -= f64::from(self.rate) * g);
        y
    }
}

impl DeviceOp for Descend {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (w, g, y) = (step.input(0), step.input(1), step.output());
        step.launch(cuda::add_scaled(w, -self.rate, g, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let dy = step.output_gradient();
        for (i, factor) in [(0, 1.0), (1, -self.rate)] {
            let Some(gradient) = step.take_gradient(i) else { continue };
            step.launch(cuda::scale(factor, dy, gradient.accumulate, gradient.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: usize, cols: usize| {
        Case::new(name, |g, x| g.add("op", Descend::new(0.3), x)).once(rows, cols).once(rows, cols)
    };
    vec![case("descend/one", 1, 1), case("descend/weight", 3, 17)]
}
