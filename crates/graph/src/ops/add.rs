//! The sum of values of one shape, element by element.
//!
//! Backward: every input takes the whole gradient.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, elementwise};

/// A sum, see the [module](self). Inputs: the values.
#[derive(Clone, Debug)]
pub struct Add {
    values: usize,
}

impl Add {
    /// Of `values` values.
    pub fn new(values: usize) -> Add {
        Add { values }
    }
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, rest @ ..]
                if x.space != Space::Once && inputs.len() == self.values && rest.iter().all(|y| y == x) =>
            {
                Ok(*x)
            }
            _ => Err(format!("{} values of one shape are needed, not {inputs:?}", self.values)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, 0..inputs.len());
        for (i, x) in inputs.iter().enumerate() {
            growth.vanish((Axis::OutColumns, 0), (Axis::Columns(i), 0), x.cols);
        }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let mut y = tile.take_output();
        for r in 0..y.rows() {
            let y = y.row_mut(r);
            y.copy_from_slice(tile.input(0).row(r));
            for i in 1..self.values {
                y.iter_mut().zip(tile.input(i).row(r)).for_each(|(y, x)| *y += x);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        for i in 0..self.values {
            let Some(mut dx) = tile.take_gradient(i) else { continue };
            for r in 0..dy.rows() {
                for (to, &d) in dx.to.row_mut(r).iter_mut().zip(dy.row(r)) {
                    *to = if dx.accumulate { *to + d } else { d };
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        for x in &inputs[1..] {
            y.data.iter_mut().zip(&x.data).for_each(|(y, x)| *y += x);
        }
        y
    }
}

impl DeviceOp for Add {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let values: Vec<DeviceMat> = (0..self.values).map(|i| step.input(i)).collect();
        step.launch_all(elementwise::add(&values, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        for i in 0..self.values {
            if let Some(dx) = step.take_gradient(i) {
                step.launch(elementwise::copy_columns(step.output_gradient(), dx.accumulate, dx.to));
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, values: usize, cols: usize| {
        let case = Case::new(name, move |g, x| g.add("op", Add::new(values), x));
        (0..values).fold(case, |case, _| case.rows(cols))
    };
    vec![case("add/two", 2, 1), case("add/three", 3, 17)]
}
