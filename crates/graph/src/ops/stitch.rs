//! Activations of several networks mixed by a matrix: `y_t = Σ_j A[t, j] x_j`.
//!
//! x, y `[batch, tasks · units]`, the networks side by side; A `[tasks, tasks]`, or `[tasks, tasks · units]` with a weight
//! for each unit of a pair, `y_t = Σ_j A[t, j] ⊙ x_j`. Row t of A makes what network t reads next. I. Misra,
//! A. Shrivastava, A. Gupta, M. Hebert, *Cross-stitch Networks for Multi-task Learning*, CVPR 2016.
//!
//! Backward: `dA[t, j] = <dy_t, x_j>` over the batch and, where a pair has one weight, over units;
//! `dx_j = Σ_t A[t, j] dy_t`.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::graph::{Graph, Value};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::stitch::{self as cuda, Weights};
use manygate_kernels::{activation, stitch};

/// Networks that mix, see the [module](self). Inputs: x, A.
#[derive(Clone, Debug)]
pub struct Stitch {
    tasks: usize,
}

impl Stitch {
    /// Of `tasks` networks.
    pub fn new(tasks: usize) -> Stitch {
        Stitch { tasks }
    }
}

impl Op for Stitch {
    fn name(&self) -> &'static str {
        "stitch"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let [x, a] = inputs else { return Err(format!("{} inputs, 2 are needed", inputs.len())) };
        let tasks = self.tasks;
        if tasks == 0 || x.space != Space::Batch || x.cols == 0 || !x.cols.is_multiple_of(tasks) {
            return Err(format!("{x} is not {tasks} networks side by side"));
        }
        if a.space != Space::Once || a.rows != tasks || (a.cols != tasks && a.cols != x.cols) {
            return Err(format!("a matrix [{tasks}, {tasks}] or [{tasks}, {}] is needed, not {a}", x.cols));
        }
        Ok(*x)
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn masks(&self, input: usize) -> bool {
        input == 0
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.tasks * inputs[0].cols
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::at_same_place(output, reached, inputs[0].cols / self.tasks),
            _ => reach::by_group(output, reached, self.tasks),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, a, y) = (tile.input(0), tile.input(1), tile.take_output());
        stitch::stitch(tile.at.isa, self.tasks, a.contiguous(), false, x, false, y);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (isa, x, a) = (tile.at.isa, tile.input(0), tile.input(1).contiguous());
        let dy = tile.take_output_gradient();
        if let Some(da) = tile.take_gradient(1) {
            let sums = da.to.into_contiguous();
            if !da.accumulate {
                sums.fill(0.0);
            }
            stitch::stitch_dweights(isa, self.tasks, x, dy.as_mat(), sums);
        }
        if let Some(mut dx) = tile.take_gradient(0) {
            stitch::stitch(isa, self.tasks, a, true, dy.as_mat(), dx.accumulate, dx.to.reborrow());
            if let Some((activation, output)) = dx.mask {
                activation::activation_dx(isa, activation, output, dx.to);
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (x, a) = (&inputs[0], &inputs[1]);
        let units = x.cols / self.tasks;
        let mut y = Matrix::zeros(x.rows, x.cols);
        for (r, c) in (0..x.rows).flat_map(|r| (0..x.cols).map(move |c| (r, c))) {
            let (t, unit) = (c / units, c % units);
            let weight = |j: usize| {
                let at = if a.cols == self.tasks { j } else { j * units + unit };
                a.at(t, at)
            };
            y.set(r, c, (0..self.tasks).map(|j| weight(j) * x.at(r, j * units + unit)).sum());
        }
        y
    }
}

impl DeviceOp for Stitch {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let (tasks, cols) = (self.tasks as u32, inputs[0].cols as u32);
        cuda::stitch_dweights_scratch(capacity.rows as u32, tasks, cols / tasks)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let weights = Weights::new(step.input(1));
        step.launch(cuda::stitch(weights, false, step.input(0), false, None, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, weights, dy) = (step.input(0), Weights::new(step.input(1)), step.output_gradient());
        if let Some(da) = step.take_gradient(1) {
            let to = Weights::new(da.to);
            step.launch_all(cuda::stitch_dweights(x, dy, da.accumulate, to, step.scratch()));
        }
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::stitch(weights, true, dy, dx.accumulate, dx.mask, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, tasks: usize, units: usize, weights: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| g.add("op", Stitch::new(tasks), x);
        Case::new(name, declare).rows(tasks * units).once(tasks, tasks * weights)
    };
    vec![
        case("stitch/two", 2, 5, 1),
        case("stitch/wide", 3, 17, 1),
        case("stitch/per_unit", 3, 19, 19),
        case("stitch/one_unit", 2, 1, 1),
    ]
}
