//! `y = Σ_i w_i x_i` over the ids of each sample; zero for a sample without ids. With the weights of a second list,
//! `y = Σ_i w_i u_i x_i`: its ids stand beside those of the first. Where a sample has more of one than of the other, the
//! last ones are paired, which are the latest, and those without a partner add nothing.
//!
//! x `[ids of the list, n]`, w `[ids of the list, 1]`, u `[ids of the second list, 1]`, y `[batch, n]`.
//! Backward: `dx_i = w_i u_i dy`, `dw_i = u_i x_i · dy`, `du_i = w_i x_i · dy`.

use crate::check::{Case, LONGEST};
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Rowset, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::sequence as cuda;
use manygate_kernels::{Mat, sequence};
use std::ops::Range;

/// A weighted sum along a list, see the [module](self). Inputs: x, w and, with a second list, u.
#[derive(Clone, Debug)]
pub struct WeightedPool {
    bag: usize,
    longest: usize,
    beside: Option<usize>,
}

impl WeightedPool {
    /// Of list `bag`, of which a sample has at most `longest` ids.
    pub fn new(bag: usize, longest: usize) -> WeightedPool {
        WeightedPool { bag, longest, beside: None }
    }

    /// With the weights of list `other` too.
    pub fn beside(self, other: usize) -> WeightedPool {
        WeightedPool { beside: Some(other), ..self }
    }

    /// The ids of sample `r` that have a partner, and their partners.
    fn pairs(&self, at: &Rowset<'_>, r: usize) -> (Range<usize>, Range<usize>) {
        let ids = at.positions_of(self.bag, r);
        let others = self.beside.map_or(ids.clone(), |other| at.positions_of(other, r));
        let count = ids.len().min(others.len());
        (ids.end - count..ids.end, others.end - count..others.end)
    }
}

/// A column of weights, `ids` of it, times another where there is one.
fn products(to: &mut [f32], w: Mat<'_>, ids: Range<usize>, u: Option<Mat<'_>>, others: Range<usize>) {
    for (to, (i, j)) in to.iter_mut().zip(ids.zip(others)) {
        *to = w.row(i)[0] * u.map_or(1.0, |u| u.row(j)[0]);
    }
}

impl Op for WeightedPool {
    fn name(&self) -> &'static str {
        "weighted_pool"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let of = |bag| Shape::position(bag, 1);
        match (inputs, self.beside) {
            ([x, w], None) if x.space == Space::Position(self.bag) && *w == of(self.bag) => {
                Ok(Shape::batch(x.cols))
            }
            ([x, w, u], Some(other))
                if x.space == Space::Position(self.bag) && *w == of(self.bag) && *u == of(other) =>
            {
                Ok(Shape::batch(x.cols))
            }
            _ => Err(format!("ids of list {} and a weight for each are needed, not {inputs:?}", self.bag)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: false }
    }

    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        2 * self.longest
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        self.longest * inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, x, w) = (tile.at, tile.input(0), tile.input(1));
        let u = self.beside.map(|_| tile.input(2));
        let (mut y, weights) = (tile.take_output(), tile.take_scratch());
        for r in 0..at.rows {
            let (ids, others) = self.pairs(&at, r);
            let weights = &mut weights[..ids.len()];
            products(weights, w, ids.clone(), u, others);
            sequence::weighted_sum(at.isa, weights, x.row_range(ids.start, ids.len()), y.row_mut(r));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, x, w) = (tile.at, tile.input(0), tile.input(1));
        let u = self.beside.map(|_| tile.input(2));
        let (dy, scratch) = (tile.take_output_gradient(), tile.take_scratch());
        let (mut dx, mut dw) = (tile.take_gradient(0), tile.take_gradient(1));
        let mut du = self.beside.and_then(|_| tile.take_gradient(2));
        // Ids without a partner get nothing.
        for gradient in [&mut dx, &mut dw, &mut du].into_iter().flatten().filter(|g| !g.accumulate) {
            gradient.to.fill(0.0);
        }
        let (weights, inner) = scratch.split_at_mut(self.longest);
        for r in 0..at.rows {
            let (ids, others) = self.pairs(&at, r);
            let (weights, inner) = (&mut weights[..ids.len()], &mut inner[..ids.len()]);
            if let Some(dx) = &mut dx {
                products(weights, w, ids.clone(), u, others.clone());
                sequence::outer(at.isa, weights, dy.row(r), true, dx.to.row_range(ids.start, ids.len()));
            }
            if dw.is_none() && du.is_none() {
                continue;
            }
            sequence::dots(at.isa, x.row_range(ids.start, ids.len()), dy.row(r), inner);
            for ((i, j), inner) in ids.zip(others).zip(&*inner) {
                if let Some(dw) = &mut dw {
                    dw.to.row_mut(i)[0] += inner * u.map_or(1.0, |u| u.row(j)[0]);
                }
                if let Some(du) = &mut du {
                    du.to.row_mut(j)[0] += inner * w.row(i)[0];
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let ids = |bag: usize, r: usize| {
            let ends = &batch.bags[bag].offsets;
            ends[r] as usize..ends[r + 1] as usize
        };
        let mut y = Matrix::zeros(batch.rows, x.cols);
        for r in 0..batch.rows {
            let others = ids(self.beside.unwrap_or(self.bag), r).rev();
            for (i, j) in ids(self.bag, r).rev().zip(others) {
                let weight = inputs[1].at(i, 0) * inputs.get(2).map_or(1.0, |u| u.at(j, 0));
                (0..x.cols).for_each(|c| y.data[r * x.cols + c] += weight * x.at(i, c));
            }
        }
        y
    }
}

impl DeviceOp for WeightedPool {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (lists, weights) = (step.lists(self.bag), self.weights(step));
        step.launch(cuda::weighted_pool(lists, weights, step.input(0), step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (lists, weights) = (step.lists(self.bag), self.weights(step));
        let (x, dy) = (step.input(0), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::weighted_pool_dx(lists, weights, dy, dx.accumulate, dx.to));
        }
        let dw = step.take_gradient(1).map(|dw| (dw.to, dw.accumulate));
        let du = self.beside.and_then(|_| step.take_gradient(2)).map(|du| (du.to, du.accumulate));
        if dw.is_some() || du.is_some() {
            step.launch(cuda::weighted_pool_dw(lists, weights, x, dy, dw, du));
        }
    }
}

impl WeightedPool {
    fn weights(&self, step: &DeviceStep<'_>) -> cuda::Weights {
        let beside = self.beside.map(|other| (step.input(2), step.batch().bags[other].offsets));
        cuda::Weights { w: step.input(1), beside }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let alone = |name: &str, cols: usize| {
        let case = Case::new(name, |g, x| g.add("op", WeightedPool::new(0, LONGEST), x));
        case.positions(0, cols).positions(0, 1)
    };
    let beside = |name: &str, cols: usize| {
        let case = Case::new(name, |g, x| g.add("op", WeightedPool::new(0, LONGEST).beside(1), x));
        case.positions(0, cols).positions(0, 1).positions(1, 1)
    };
    vec![alone("weighted_pool/one", 1), alone("weighted_pool/wide", 17), beside("weighted_pool/two_lists", 5)]
}
