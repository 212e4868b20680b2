//! `y = x0 ⊙ m + x`: what a cross layer makes of its map m = W x + b, in one pass. In the first layer x is x0 itself.
//!
//! x0, m, x, y `[batch, n]`. R. Wang et al., *DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
//! Learning to Rank Systems*, WWW 2021, equation 1. Backward, in one pass too: `dx0 = dy ⊙ m` (and `dy`, where x is x0),
//! `dm = dy ⊙ x0`, `dx = dy`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;
use manygate_kernels::cross::{self, Target};

/// The end of a cross layer, see the [module](self). Inputs: x0, m, and x unless it is x0.
#[derive(Clone, Debug)]
pub struct Cross {
    same: bool,
}

impl Cross {
    /// Of the first layer, whose x is x0.
    pub fn first() -> Cross {
        Cross { same: true }
    }

    /// Of a further layer.
    pub fn further() -> Cross {
        Cross { same: false }
    }
}

/// A gradient as the kernels of cross layers take it.
pub(super) fn target(gradient: Gradient<'_>) -> Target<'_> {
    Target { to: gradient.to, accumulate: gradient.accumulate }
}

impl Op for Cross {
    fn name(&self) -> &'static str {
        "cross"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x0, rest @ ..]
                if x0.space != Space::Once
                    && rest.len() == if self.same { 1 } else { 2 }
                    && rest.iter().all(|shape| shape == x0) =>
            {
                Ok(*x0)
            }
            _ => Err(format!("x0, a map and x of one shape are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, 0..inputs.len());
        [0, 2].into_iter().filter(|&i| i < inputs.len()).for_each(|i| {
            growth.vanish((Axis::OutColumns, 0), (Axis::Columns(i), 0), inputs[i].cols);
        });
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let x = tile.input(if self.same { 0 } else { 2 });
        cross::cross(tile.at.isa, tile.input(0), tile.input(1), x, tile.take_output());
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x0, map, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        let (dx0, dmap) = (tile.take_gradient(0).map(target), tile.take_gradient(1).map(target));
        let dx = if self.same { None } else { tile.take_gradient(2).map(target) };
        cross::cross_dx(tile.at.isa, x0, map, dy.as_mat(), self.same, dx0, dmap, dx);
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x0, map, x) = (&inputs[0], &inputs[1], inputs.get(2).unwrap_or(&inputs[0]));
        let mut y = x.clone();
        y.data.iter_mut().zip(&x0.data).zip(&map.data).for_each(|((y, x0), m)| *y += x0 * m);
        y
    }
}

impl DeviceOp for Cross {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let x = step.input(if self.same { 0 } else { 2 });
        step.launch(elementwise::multiply(step.input(0), step.input(1), false, step.output()));
        step.launch(elementwise::copy_columns(x, true, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let dy = step.output_gradient();
        for i in 0..2 {
            if let Some(dx) = step.take_gradient(i) {
                step.launch(elementwise::multiply(dy, step.input(1 - i), dx.accumulate, dx.to));
                if self.same && i == 0 {
                    step.launch(elementwise::copy_columns(dy, true, dx.to));
                }
            }
        }
        if !self.same
            && let Some(dx) = step.take_gradient(2)
        {
            step.launch(elementwise::copy_columns(dy, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: Cross, cols: usize| {
        let values = if op.same { 2 } else { 3 };
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        (0..values).fold(case, |case, _| case.rows(cols))
    };
    vec![case("cross/first", Cross::first(), 5), case("cross/further", Cross::further(), 35)]
}
