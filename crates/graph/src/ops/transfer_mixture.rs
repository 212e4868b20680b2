//! `T = Σ_p q_p E_p`, in which a sample's own scenario and the others' are apart: `q_s E_s + Σ_{p≠s} q_p F_p`.
//!
//! q `[batch, scenarios]`, E and F `[batch, scenarios · n]`, T `[batch, n]`; s the row's scenario. With F a copy of E that
//! stops gradients, a scenario's expert learns from its own samples alone and still answers for the others: the simulated
//! intervention of Y. Wang et al., *CausalInt: Causal Inspired Intervention for Multi-Scenario Recommendation*, KDD 2022.
//!
//! Backward: `dq_p = (E or F)_p · dT`, `dE_s = q_s dT`, `dF_p = q_p dT` for p ≠ s, and 0 elsewhere.

use crate::check::Case;
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::transfer::{self as cuda, Experts};

/// A mixture of scenarios' experts, see the [module](self). Inputs: q, E, F.
#[derive(Clone, Debug)]
pub struct TransferMixture {
    scenarios: usize,
}

impl TransferMixture {
    /// Of the experts of `scenarios` scenarios.
    pub fn new(scenarios: usize) -> TransferMixture {
        TransferMixture { scenarios }
    }
}

impl Op for TransferMixture {
    fn name(&self) -> &'static str {
        "transfer_mixture"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [q, own, others]
                if *q == Shape::batch(self.scenarios)
                    && own.space == Space::Batch
                    && own == others
                    && own.cols.is_multiple_of(self.scenarios) =>
            {
                Ok(Shape::batch(own.cols / self.scenarios))
            }
            _ => {
                Err(format!("weights and experts of {} scenarios are needed, not {inputs:?}", self.scenarios))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[1].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reached.fill(true),
            _ => reach::at_same_place(output, reached, output.len()),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (q, own, others, mut y) = (tile.input(0), tile.input(1), tile.input(2), tile.take_output());
        let n = y.cols();
        for (r, &s) in tile.at.batch.scenario[tile.at.range()].iter().enumerate() {
            let y = y.row_mut(r);
            y.fill(0.0);
            for (p, &q) in q.row(r).iter().enumerate() {
                let expert = if p == s as usize { own.row(r) } else { others.row(r) };
                y.iter_mut().zip(&expert[p * n..]).for_each(|(y, e)| *y += q * e);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let (q, own, others) = (tile.input(0), tile.input(1), tile.input(2));
        let dy = tile.take_output_gradient();
        let n = dy.cols();
        if let Some(mut dq) = tile.take_gradient(0) {
            for (r, &s) in scenario.iter().enumerate() {
                let dot = |p: usize| {
                    let expert = if p == s as usize { own.row(r) } else { others.row(r) };
                    expert[p * n..].iter().zip(dy.row(r)).map(|(e, d)| e * d).sum()
                };
                dq.put(r, (0..self.scenarios).map(dot));
            }
        }
        for (i, of_own) in [(1, true), (2, false)] {
            let Some(mut gradient) = tile.take_gradient(i) else { continue };
            for (r, &s) in scenario.iter().enumerate() {
                let part = |p: usize| {
                    let factor = if (p == s as usize) == of_own { q.row(r)[p] } else { 0.0 };
                    dy.row(r).iter().map(move |d| factor * d)
                };
                gradient.put(r, (0..self.scenarios).flat_map(part));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let q = &inputs[0];
        let n = inputs[1].cols / self.scenarios;
        let mut y = Matrix::zeros(q.rows, n);
        for (r, c) in (0..q.rows).flat_map(|r| (0..n).map(move |c| (r, c))) {
            let expert = |p: usize| if p == batch.scenario[r] as usize { &inputs[1] } else { &inputs[2] };
            y.set(r, c, (0..self.scenarios).map(|p| q.at(r, p) * expert(p).at(r, p * n + c)).sum());
        }
        y
    }
}

impl DeviceOp for TransferMixture {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b110, output: true }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let experts = self.experts_on_device(step);
        step.launch(cuda::transfer_mixture(step.input(0), experts, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (q, experts, dy) = (step.input(0), self.experts_on_device(step), step.output_gradient());
        if let Some(dq) = step.take_gradient(0) {
            step.launch(cuda::transfer_mixture_dq(experts, dy, dq.accumulate, dq.to));
        }
        for (i, of_own) in [(1, true), (2, false)] {
            let Some(to) = step.take_gradient(i) else { continue };
            let scenario = experts.scenario;
            step.launch(cuda::transfer_mixture_dexperts(scenario, of_own, q, dy, to.accumulate, to.to));
        }
    }
}

impl TransferMixture {
    fn experts_on_device(&self, step: &DeviceStep<'_>) -> Experts {
        let (own, others, scenario) = (step.input(1), step.input(2), step.batch().scenario);
        Experts { own, others, scenario, scenarios: self.scenarios as u32 }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, n: usize| {
        let case = Case::new(name, move |g, x| g.add("op", TransferMixture::new(scenarios), x));
        case.rows(scenarios).rows(scenarios * n).rows(scenarios * n)
    };
    vec![case("transfer_mixture/one", 1, 1), case("transfer_mixture/three", 3, 9)]
}
