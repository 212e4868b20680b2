//! `p = softmax(x)` over the ids of each sample, column by column. Nothing is padded, so nothing is masked: the weights of
//! a sample's ids sum to 1, and a sample without ids has none.
//!
//! x, p `[ids of the list, n]`. Backward: `dx_i = p_i (dp_i − Σ_j p_j dp_j)`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::sequence as cuda;

/// Softmax along a list, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct SequenceSoftmax {
    bag: usize,
}

impl SequenceSoftmax {
    /// Of values with a row an id of list `bag`.
    pub fn new(bag: usize) -> SequenceSoftmax {
        SequenceSoftmax { bag }
    }
}

impl Op for SequenceSoftmax {
    fn name(&self) -> &'static str {
        "sequence_softmax"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space == Space::Position(self.bag) => Ok(*x),
            _ => Err(format!("ids of list {} are needed, not {inputs:?}", self.bag)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0, output: true }
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (x, mut p) = (tile.input(0), tile.take_output());
        for (r, c) in (0..tile.at.rows).flat_map(|r| (0..x.cols()).map(move |c| (r, c))) {
            let ids = tile.at.positions_of(self.bag, r);
            let max = ids.clone().fold(f32::NEG_INFINITY, |max, i| max.max(x.row(i)[c]));
            let mut sum = 0.0;
            for i in ids.clone() {
                let e = (x.row(i)[c] - max).exp();
                p.row_mut(i)[c] = e;
                sum += e;
            }
            ids.for_each(|i| p.row_mut(i)[c] /= sum);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (p, dp) = (tile.output(), tile.take_output_gradient());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for (r, c) in (0..tile.at.rows).flat_map(|r| (0..p.cols()).map(move |c| (r, c))) {
            let ids = tile.at.positions_of(self.bag, r);
            let mean: f32 = ids.clone().map(|i| p.row(i)[c] * dp.row(i)[c]).sum();
            for i in ids {
                let d = p.row(i)[c] * (dp.row(i)[c] - mean);
                let to = &mut dx.to.row_mut(i)[c];
                *to = if dx.accumulate { *to + d } else { d };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut p = inputs[0].clone();
        p.data.iter_mut().for_each(|v| *v = v.exp());
        for ends in batch.bags[self.bag].offsets.windows(2) {
            let ids = ends[0] as usize..ends[1] as usize;
            for c in 0..p.cols {
                let sum: f64 = ids.clone().map(|i| p.at(i, c)).sum();
                ids.clone().for_each(|i| p.data[i * inputs[0].cols + c] /= sum);
            }
        }
        p
    }
}

impl DeviceOp for SequenceSoftmax {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::sequence_softmax(step.lists(self.bag), step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (lists, p, dp) = (step.lists(self.bag), step.output(), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::sequence_softmax_dx(lists, p, dp, dx.accumulate, dx.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| {
        Case::new(name, |g, x| g.add("op", SequenceSoftmax::new(0), x)).positions(0, cols)
    };
    vec![case("sequence_softmax/one", 1), case("sequence_softmax/several", 3)]
}
