//! How much the gradients of scenarios are in each other's way: `½ Σ_d |g_d − c_d|²`, a loss of values that exist once.
//!
//! g `[scenarios, k]`, a gradient for each scenario with rows in the batch, in order; c is their orthogonal basis by
//! classical Gram–Schmidt: `c_d = g_d − Σ_{j<d} a_dj c_j`, `a_dj = (c_j · g_d) / (c_j · c_j + 1e-9)`. A scenario without
//! rows is skipped, the first with rows has no conflict.
//! Y. Wang et al., *CausalInt: Causal Inspired Intervention for Multi-Scenario Recommendation*, KDD 2022.
//!
//! Backward, from the last scenario to the first, with P_d = Σ_j a_dj c_j: `dP = scale · P_d − dc_d`, `dg_d += dc_d`, and
//! for each j, `da = dP · c_j`, `n = c_j · c_j + 1e-9`: `dg_d += da c_j / n`,
//! `dc_j += a_dj dP + da (g_d − 2 a_dj c_j) / n`. With a fixed basis no gradient flows through c_j.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep};
use crate::graph::{Graph, LossId, LossPart, Over, Value};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reads, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::elementwise;
use manygate_cuda::transfer::{self as cuda, Conflict, Present};
use manygate_kernels::Mat;

/// The conflict of gradients, see the [module](self). Input: g.
#[derive(Clone, Debug)]
pub struct GradientConflict {
    loss: LossId,
    scenarios: usize,
    basis_fixed: bool,
}

const FLOOR: f64 = 1e-9;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn add(to: &mut [f32], factor: f64, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, &v)| *to += (factor * f64::from(v)) as f32);
}

impl GradientConflict {
    /// Adds to the part `loss`, which is taken [as it is](Over::Once).
    pub fn new(loss: LossId, scenarios: usize, basis_fixed: bool) -> GradientConflict {
        GradientConflict { loss, scenarios, basis_fixed }
    }

    fn present(&self, facts: &Facts) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.scenarios).filter(|&s| facts.scenario_rows[s] > 0)
    }

    /// The basis c and what is taken off each gradient, P, both `[scenarios, k]`, row-major.
    fn orthogonalise(&self, facts: &Facts, g: Mat<'_>, basis: &mut [f32], taken: &mut [f32]) {
        let k = g.cols();
        taken.fill(0.0);
        for d in self.present(facts) {
            let (before, own) = basis.split_at_mut(d * k);
            let (own, taken) = (&mut own[..k], &mut taken[d * k..][..k]);
            for c in self.present(facts).take_while(|&j| j < d).map(|j| &before[j * k..][..k]) {
                add(taken, dot(c, g.row(d)) / (dot(c, c) + FLOOR), c);
            }
            own.iter_mut().zip(g.row(d)).zip(taken).for_each(|((c, g), t)| *c = g - *t);
        }
    }
}

impl Op for GradientConflict {
    fn name(&self) -> &'static str {
        "gradient_conflict"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [g] if g.space == Space::Once && g.rows == self.scenarios => Ok(Shape::once(0, 0)),
            _ => {
                Err(format!("a gradient for each of {} scenarios is needed, not {inputs:?}", self.scenarios))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn loss(&self) -> Option<LossId> {
        Some(self.loss)
    }

    fn scratch(&self, _rows: usize, inputs: &[Shape]) -> usize {
        3 * inputs[0].len()
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let g = tile.input(0);
        let len = g.rows() * g.cols();
        let (basis, taken) = tile.take_scratch().split_at_mut(len);
        self.orthogonalise(tile.at.facts, g, basis, &mut taken[..len]);
        *tile.take_loss(self.loss.index()) += 0.5 * dot(&taken[..len], &taken[..len]);
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (g, facts) = (tile.input(0), tile.at.facts);
        let (k, len) = (g.cols(), g.rows() * g.cols());
        let (basis, rest) = tile.take_scratch().split_at_mut(len);
        let (taken, d_basis) = rest.split_at_mut(len);
        let d_basis = &mut d_basis[..len];
        self.orthogonalise(facts, g, basis, taken);
        d_basis.fill(0.0);
        let Some(mut dg) = tile.take_gradient(0) else { return };
        if !dg.accumulate {
            dg.to.fill(0.0);
        }
        let scale = tile.at.scale(self.loss);
        for d in self.present(facts).rev() {
            let (d_before, d_own) = d_basis.split_at_mut(d * k);
            let (d_own, d_taken, to) = (&d_own[..k], &mut taken[d * k..][..k], dg.to.row_mut(d));
            add(to, 1.0, d_own);
            d_taken.iter_mut().zip(d_own).for_each(|(t, dc)| *t = scale * *t - dc);
            for j in self.present(facts).take_while(|&j| j < d) {
                let (c, dc) = (&basis[j * k..][..k], &mut d_before[j * k..][..k]);
                let norm = dot(c, c) + FLOOR;
                let (a, da) = (dot(c, g.row(d)) / norm, dot(d_taken, c));
                add(to, da / norm, c);
                if !self.basis_fixed {
                    add(dc, a, d_taken);
                    add(dc, da / norm, g.row(d));
                    add(dc, -2.0 * a * da / norm, c);
                }
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let g = &inputs[0];
        let mut terms = Matrix::zeros(batch.rows, 1);
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for d in (0..self.scenarios).filter(|&d| batch.scenario.contains(&(d as u32))) {
            let own: Vec<f64> = (0..g.cols).map(|c| g.at(d, c)).collect();
            let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let mut rest = own.clone();
            for c in &basis {
                let a = inner(c, &own) / (inner(c, c) + FLOOR);
                rest.iter_mut().zip(c).for_each(|(r, c)| *r -= a * c);
            }
            terms.data[0] += 0.5 * own.iter().zip(&rest).map(|(g, c)| (g - c).powi(2)).sum::<f64>();
            basis.push(rest);
        }
        terms
    }
}

impl DeviceOp for GradientConflict {
    fn scratch(&self, _capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::gradient_conflict_scratch(inputs[0].rows as u32, inputs[0].cols as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        self.launch(step, Conflict::Loss(step.loss_sum(self.loss)));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dg) = step.take_gradient(0) {
            if !dg.accumulate {
                step.launch(elementwise::fill(0.0, dg.to));
            }
            self.launch(step, Conflict::Gradient { scale: step.scale(self.loss).factors, dg: dg.to });
        }
    }
}

impl GradientConflict {
    fn launch(&self, step: &mut DeviceStep<'_>, what: Conflict) {
        let present = Present { scenario: step.batch().scenario, rows: step.batch().rows };
        let (g, scratch) = (step.input(0), step.scratch());
        step.launch(cuda::gradient_conflict(g, present, self.basis_fixed, what, scratch));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, k: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            let loss = g.loss(LossPart::new("conflict", 0.7, Over::Once))?;
            g.add("op", GradientConflict::new(loss, scenarios, false), x)
        };
        Case::new(name, declare).once(scenarios, k)
    };
    vec![case("gradient_conflict/two", 2, 5), case("gradient_conflict/four", 4, 9)]
}
