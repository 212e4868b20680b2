//! `z_i = [q ; k_i ; q − k_i ; q ⊙ k_i]`: what a network is told of a query and of each id of a list, to say how much the
//! two have to do with each other.
//!
//! q `[batch, n]`, k `[ids of the list, n]`, z `[ids of the list, 4n]`. G. Zhou et al., *Deep Interest Network for
//! Click-Through Rate Prediction*, KDD 2018.
//!
//! Backward, with dz in four parts a, b, c, d: `dk_i = b_i − c_i + q ⊙ d_i`, `dq = Σ_i a_i + c_i + k_i ⊙ d_i`, zero for a
//! sample without ids.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::sequence as cuda;
use manygate_kernels::sequence;

/// A query beside the ids of list `bag`, see the [module](self). Inputs: q, k.
#[derive(Clone, Debug)]
pub struct Compare {
    bag: usize,
}

impl Compare {
    /// With the ids of list `bag`.
    pub fn new(bag: usize) -> Compare {
        Compare { bag }
    }
}

impl Op for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [q, k] if q.space == Space::Batch && *k == Shape::position(self.bag, q.cols) => {
                Ok(k.with_cols(4 * k.cols))
            }
            _ => Err(format!("a query and ids of list {} as wide are needed, not {inputs:?}", self.bag)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: false }
    }

    fn reach(&self, inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::at_same_place(output, reached, inputs[0].cols);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, q, k, mut z) = (tile.at, tile.input(0), tile.input(1), tile.take_output());
        for r in 0..at.rows {
            let ids = at.positions_of(self.bag, r);
            let to = z.row_range(ids.start, ids.len());
            sequence::compare(at.isa, q.row(r), k.row_range(ids.start, ids.len()), to);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, q, k, dz) = (tile.at, tile.input(0), tile.input(1), tile.take_output_gradient());
        if let Some(mut dk) = tile.take_gradient(1) {
            for r in 0..at.rows {
                let ids = at.positions_of(self.bag, r);
                let dz = dz.as_mat().row_range(ids.start, ids.len());
                let to = dk.to.row_range(ids.start, ids.len());
                sequence::compare_dk(at.isa, q.row(r), dz, dk.accumulate, to);
            }
        }
        if let Some(mut dq) = tile.take_gradient(0) {
            for r in 0..at.rows {
                let ids = at.positions_of(self.bag, r);
                let dz = dz.as_mat().row_range(ids.start, ids.len());
                let to = dq.to.row_mut(r);
                sequence::compare_dq(at.isa, k.row_range(ids.start, ids.len()), dz, dq.accumulate, to);
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (q, k) = (&inputs[0], &inputs[1]);
        let mut z = Matrix::zeros(k.rows, 4 * k.cols);
        for (r, ends) in batch.bags[self.bag].offsets.windows(2).enumerate() {
            for (i, c) in (ends[0] as usize..ends[1] as usize).flat_map(|i| (0..k.cols).map(move |c| (i, c)))
            {
                let (q, k) = (q.at(r, c), k.at(i, c));
                for (part, value) in [q, k, q - k, q * k].into_iter().enumerate() {
                    z.set(i, part * inputs[1].cols + c, value);
                }
            }
        }
        z
    }
}

impl DeviceOp for Compare {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::compare(step.lists(self.bag), step.input(0), step.input(1), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (lists, q, k, dz) = (step.lists(self.bag), step.input(0), step.input(1), step.output_gradient());
        if let Some(dk) = step.take_gradient(1) {
            step.launch(cuda::compare_dk(lists, q, dz, dk.accumulate, dk.to));
        }
        if let Some(dq) = step.take_gradient(0) {
            step.launch(cuda::compare_dq(lists, k, dz, dq.accumulate, dq.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols: usize| {
        Case::new(name, |g, x| g.add("op", Compare::new(0), x)).rows(cols).positions(0, cols)
    };
    vec![case("compare/one", 1), case("compare/wide", 19)]
}
