//! Centres of clusters that follow the rows that chose them: `C' = V / |V|` row by row, `V = β C + (1 − β) G`.
//!
//! C, G, C' `[clusters, n]`, values that exist once; G what the rows pull each centre to, `rᵀ x` as
//! [`WeightGradient`](super::WeightGradient) sums it. C' may be the state that C is at the next step. J. Li et al.,
//! *AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR Prediction*, 2022.
//!
//! Backward: `dV = (dC' − C' (C' · dC')) / |V|`, `dC = β dV`, `dG = (1 − β) dV`.

use crate::check::Case;
use crate::device::{DeviceBatch, DeviceOp, DeviceStep};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::cluster as cuda;
use manygate_cuda::{DeviceMat, Launch};

/// Shortest length that is divided by.
const SHORTEST: f32 = 1e-12;

/// Centres after a step, see the [module](self). Inputs: C, G.
#[derive(Clone, Debug)]
pub struct MoveCenters {
    beta: f32,
    state: Option<usize>,
}

impl MoveCenters {
    /// With the share `beta` of the old centres.
    pub fn new(beta: f32) -> MoveCenters {
        MoveCenters { beta, state: None }
    }

    /// The result is what state number `state` becomes after a training step.
    pub fn becoming(self, state: usize) -> MoveCenters {
        MoveCenters { state: Some(state), ..self }
    }

    fn moved<'a>(&self, old: &'a [f32], pull: &'a [f32]) -> impl Iterator<Item = f32> + use<'a> {
        let beta = self.beta;
        old.iter().zip(pull).map(move |(c, g)| beta * c + (1.0 - beta) * g)
    }

    fn length(values: impl Iterator<Item = f32>) -> f32 {
        (values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt() as f32).max(SHORTEST)
    }
}

impl Op for MoveCenters {
    fn name(&self) -> &'static str {
        "move_centers"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [old, pull] if old.space == Space::Once && old == pull => Ok(*old),
            _ => Err(format!("two matrices of one shape that exist once are needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b11, output: true }
    }

    fn next_state(&self) -> Option<usize> {
        self.state
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        reach::same(output, reached);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (old, pull, mut to) = (tile.input(0), tile.input(1), tile.take_output());
        for k in 0..old.rows() {
            let scale = 1.0 / Self::length(self.moved(old.row(k), pull.row(k)));
            let moved = self.moved(old.row(k), pull.row(k));
            to.row_mut(k).iter_mut().zip(moved).for_each(|(to, v)| *to = scale * v);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (old, pull, unit) = (tile.input(0), tile.input(1), tile.output());
        let dy = tile.take_output_gradient();
        for (i, share) in [(0, self.beta), (1, 1.0 - self.beta)] {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for k in 0..unit.rows() {
                let (unit, dy) = (unit.row(k), dy.row(k));
                let along: f32 = unit.iter().zip(dy).map(|(y, d)| y * d).sum();
                let scale = share / Self::length(self.moved(old.row(k), pull.row(k)));
                gradient.put(k, unit.iter().zip(dy).map(|(y, d)| scale * (d - y * along)));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let (mut y, beta) = (inputs[0].clone(), f64::from(self.beta));
        y.data.iter_mut().zip(&inputs[1].data).for_each(|(c, g)| *c = beta * *c + (1.0 - beta) * g);
        for row in y.data.chunks_exact_mut(inputs[0].cols) {
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::from(SHORTEST));
            row.iter_mut().for_each(|v| *v /= length);
        }
        y
    }
}

impl DeviceOp for MoveCenters {
    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.launch(cuda::move_centers(self.moving(step), step.output()));
    }

    fn update_state(
        &self,
        _batch: &DeviceBatch,
        go_on: u64,
        output: DeviceMat,
        state: u64,
        _cols: u32,
    ) -> Vec<Launch> {
        vec![cuda::keep_centers(go_on, output, state)]
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (moving, unit, dy) = (self.moving(step), step.output(), step.output_gradient());
        let [d_old, d_pull] = [0, 1].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        step.launch_all(Vec::from_iter(cuda::move_centers_backward(moving, unit, dy, d_old, d_pull)));
    }
}

impl MoveCenters {
    fn moving(&self, step: &DeviceStep<'_>) -> cuda::Moving {
        cuda::Moving { beta: self.beta, shortest: SHORTEST, old: step.input(0), pull: step.input(1) }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, clusters: usize, n: usize| {
        Case::new(name, |g, x| g.add("op", MoveCenters::new(0.9), x)).once(clusters, n).once(clusters, n)
    };
    vec![case("move_centers/one", 1, 5), case("move_centers/wide", 3, 17)]
}
