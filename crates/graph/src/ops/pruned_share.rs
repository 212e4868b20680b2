//! The shares of units that are pruned, `s_l = 1 − mean over rows and units of [v > ε]` with v = γ sigmoid(α r_l): a
//! reduction.
//!
//! r_1 … r_L `[batch, n_l]`; output `[L, 1]`, which exists once. Which units are pruned is a step; straight through it,
//! the gradient is that of 1 − mean v: `dr_l = −ds_l v' / (rows n_l)`. Without that it is 0. X. Yang et al.,
//! *AdaSparse: Learning Adaptively Sparse Structures for Multi-Domain Click-Through Rate Prediction*, CIKM 2022.

use super::amplify::weight_f64;
use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reduction, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{amplitude as cuda, elementwise};
use manygate_kernels::amplitude::{self, Pruning, Target};

/// Shares of pruned units, see the [module](self). Inputs: r_1 … r_L.
#[derive(Clone, Debug)]
pub struct PrunedShare {
    pruning: Pruning,
    straight_through: bool,
    units: Vec<usize>,
}

impl PrunedShare {
    /// Of layers with these numbers of units.
    pub fn new(pruning: Pruning, straight_through: bool, units: Vec<usize>) -> PrunedShare {
        PrunedShare { pruning, straight_through, units }
    }
}

impl Op for PrunedShare {
    fn name(&self) -> &'static str {
        "pruned_share"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let fits = inputs.len() == self.units.len()
            && inputs.iter().zip(&self.units).all(|(r, &n)| r.space == Space::Batch && r.cols == n && n > 0);
        match fits && !inputs.is_empty() {
            true => Ok(Shape::once(inputs.len(), 1)),
            false => Err(format!("layers of {:?} units are needed, not {inputs:?}", self.units)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: (1 << self.units.len()) - 1, output: false }
    }

    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        reached.fill(output[i] && self.straight_through);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, _tile: &mut Forward<'_>) {}

    fn backward(&self, tile: &mut Backward<'_>) {
        let shares = tile.once_gradient();
        for (i, &units) in self.units.iter().enumerate() {
            let (r, Some(dr)) = (tile.input(i), tile.take_gradient(i)) else { continue };
            let mean = tile.at.facts.rows as f32 * units as f32;
            let factor = if self.straight_through { -shares.row(i)[0] / mean } else { 0.0 };
            let target = Target { to: dr.to, accumulate: dr.accumulate };
            amplitude::pruning_dr(tile.at.isa, self.pruning, r, factor, target);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let share = |r: &Matrix| {
            let open = r.data.iter().filter(|&&r| weight_f64(self.pruning, r).is_some()).count();
            1.0 - open as f64 / r.data.len() as f64
        };
        Matrix { rows: inputs.len(), cols: 1, data: inputs.iter().map(share).collect() }
    }
}

impl Reduction for PrunedShare {
    fn partial_len(&self, inputs: &[Shape]) -> usize {
        inputs.len()
    }

    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]) {
        for (i, sum) in partial.iter_mut().enumerate() {
            *sum += amplitude::unpruned(tile.at.isa, self.pruning, tile.input(i));
        }
    }

    fn finish(&self, facts: &Facts, sums: &[f64], output: &mut [f32]) {
        for ((share, sum), &units) in output.iter_mut().zip(sums).zip(&self.units) {
            *share = (1.0 - sum / (facts.rows * units) as f64) as f32;
        }
    }
}

impl DeviceOp for PrunedShare {
    fn halves(&self) -> Halves {
        Halves { output: false, ..Halves::ALL }
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        let bytes = |&units: &usize| cuda::pruned_share_scratch(capacity.rows as u32, units as u32);
        self.units.iter().map(bytes).max().unwrap_or(0)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let shares = step.output().address;
        for i in 0..self.units.len() {
            let share = shares + 4 * i as u64;
            step.launch_all(cuda::pruned_share(self.pruning, step.input(i), share, step.scratch()));
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let d_shares = step.output_gradient().address;
        for i in 0..self.units.len() {
            let (r, Some(dr)) = (step.input(i), step.take_gradient(i)) else { continue };
            if self.straight_through {
                let d_share = d_shares + 4 * i as u64;
                step.launch(cuda::pruning_dr(self.pruning, r, d_share, dr.accumulate, dr.to));
            } else if !dr.accumulate {
                step.launch(elementwise::fill(0.0, dr.to));
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check). Straight through a step, differences say nothing
/// of the gradient: golden cases of adasparse check that.
pub fn cases() -> Vec<Case> {
    let pruning = Pruning { scale: 1.5, steepness: 2.0, threshold: 0.6 };
    let case = |name: &str, units: &[usize]| {
        let op = PrunedShare::new(pruning, false, units.to_vec());
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        units.iter().fold(case, |case, &n| case.rows(n))
    };
    vec![case("pruned_share/one", &[5]), case("pruned_share/three", &[7, 18, 1])]
}
