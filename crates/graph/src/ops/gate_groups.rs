//! `y = [g_1 z_1 … g_K z_K ; Σ_k g_k]`: groups of columns times a gate each, and behind them what all gates are together.
//!
//! z `[batch, K · n]`, g `[batch, K]`, y `[batch, K · n + 1]`; without g every gate is 1. A map of y by the experts' maps side
//! by side and their common bias ([`ExpertColumns`](super::ExpertColumns)) is their mixture, and nothing of the width of
//! an expert's output exists for each expert. Backward: `dz_k = g_k dy_k`, `dg_k = z_k · dy_k + dy_last`.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::mixture as cuda;

/// Gated groups, see the [module](self). Inputs: z and, with gates, g.
#[derive(Clone, Debug)]
pub struct GateGroups {
    groups: usize,
    gated: bool,
}

impl GateGroups {
    /// `groups` groups, each times its gate.
    pub fn new(groups: usize) -> GateGroups {
        GateGroups { groups, gated: true }
    }

    /// `groups` groups whose gates are 1.
    pub fn open(groups: usize) -> GateGroups {
        GateGroups { groups, gated: false }
    }
}

impl Op for GateGroups {
    fn name(&self) -> &'static str {
        "gate_groups"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [z, gates @ ..]
                if z.space == Space::Batch
                    && self.groups > 0
                    && z.cols.is_multiple_of(self.groups)
                    && gates.len() == usize::from(self.gated)
                    && gates.iter().all(|g| *g == z.with_cols(self.groups)) =>
            {
                Ok(Shape::batch(z.cols + 1))
            }
            _ => Err(format!("{} groups, and as many gates, are needed, not {inputs:?}", self.groups)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: if self.gated { 0b11 } else { 0 }, output: false }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[0].cols
    }

    fn reach(&self, inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let (z, sum) = output.split_at(inputs[0].cols);
        let groups = z.chunks_exact(inputs[0].cols / self.groups);
        match i {
            0 => reached.copy_from_slice(z),
            _ => reached.iter_mut().zip(groups).for_each(|(to, group)| *to = sum[0] || group.contains(&true)),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (z, gates, mut y) = (tile.input(0), self.gated.then(|| tile.input(1)), tile.take_output());
        let (cols, n) = (z.cols(), z.cols() / self.groups);
        for r in 0..z.rows() {
            let (to, sum) = y.row_mut(r).split_at_mut(cols);
            to.copy_from_slice(z.row(r));
            sum[0] = match &gates {
                None => self.groups as f32,
                Some(gates) => {
                    for (group, g) in to.chunks_exact_mut(n).zip(gates.row(r)) {
                        group.iter_mut().for_each(|v| *v *= g);
                    }
                    gates.row(r).iter().sum()
                }
            };
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let (cols, gates) = (dy.cols() - 1, self.gated.then(|| tile.input(1)));
        let n = cols / self.groups;
        if let Some(mut dz) = tile.take_gradient(0) {
            for r in 0..dy.rows() {
                let d = &dy.row(r)[..cols];
                match &gates {
                    None => dz.put(r, d.iter().copied()),
                    Some(gates) => {
                        let groups = d.chunks_exact(n).zip(gates.row(r));
                        dz.put(r, groups.flat_map(|(d, g)| d.iter().map(move |d| d * g)));
                    }
                }
            }
        }
        if self.gated
            && let Some(mut dg) = tile.take_gradient(1)
        {
            let z = tile.input(0);
            for r in 0..dy.rows() {
                let (d, sum) = dy.row(r).split_at(cols);
                let groups = z.row(r).chunks_exact(n).zip(d.chunks_exact(n));
                dg.put(r, groups.map(|(z, d)| sum[0] + z.iter().zip(d).map(|(z, d)| z * d).sum::<f32>()));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], _batch: &Batch) -> Matrix {
        let z = &inputs[0];
        let gate = |r: usize, k: usize| inputs.get(1).map_or(1.0, |g| g.at(r, k));
        let mut y = Matrix::zeros(z.rows, z.cols + 1);
        for r in 0..z.rows {
            (0..z.cols).for_each(|c| y.set(r, c, z.at(r, c) * gate(r, c / (z.cols / self.groups))));
            y.set(r, z.cols, (0..self.groups).map(|k| gate(r, k)).sum());
        }
        y
    }
}

impl DeviceOp for GateGroups {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (z, gates) = (step.input(0), self.gated.then(|| step.input(1)));
        step.launch(cuda::gate_groups(self.groups as u32, z, gates, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (dy, gates) = (step.output_gradient(), self.gated.then(|| step.input(1)));
        if let Some(dz) = step.take_gradient(0) {
            step.launch(cuda::gate_groups_dz(self.groups as u32, gates, dy, dz.accumulate, dz.to));
        }
        if self.gated
            && let Some(dg) = step.take_gradient(1)
        {
            step.launch(cuda::gate_groups_dg(step.input(0), dy, dg.accumulate, dg.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: GateGroups, n: usize| {
        let (groups, gated) = (op.groups, op.gated);
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x)).rows(groups * n);
        if gated { case.rows(groups) } else { case }
    };
    vec![
        case("gate_groups/one", GateGroups::new(1), 1),
        case("gate_groups/three", GateGroups::new(3), 5),
        case("gate_groups/open", GateGroups::open(2), 4),
    ]
}
