//! What a sample's own scenario says of it, and what the others do, weighed by how near each is to its own:
//! `y = [S_i ; Σ_{m≠i} g_m S_m]`, i the row's scenario.
//!
//! a `[scenarios, scenarios]`, a row of logits for each scenario, S `[batch, scenarios · n]`, y `[batch, 2n]`. The
//! weights g are the softmax of row i of a over m ≠ i; or, dropping, over all m, of which i is left out, so that they
//! sum to less than 1. Of a single scenario the second half is 0. J. Zhou et al., *HiNet: Novel Multi-Scenario &
//! Multi-Task Learning with Hierarchical Information Extraction*, ICDE 2023.
//!
//! Backward, d and e the two halves of dy: `dS_i = d`, `dS_m = g_m e`, `dg_m = S_m · e` with `dg_i = 0`,
//! `da_im = g_m (dg_m − Σ g dg)`, over what the softmax is over.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, copy_bytes, scenarios_refused};
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::DeviceMat;
use manygate_cuda::scenario as cuda;

/// Attention to the other scenarios, see the [module](self). Inputs: a, S.
#[derive(Clone, Debug)]
pub struct ScenarioAttention {
    scenarios: usize,
    drops: bool,
}

impl ScenarioAttention {
    /// With weights over the other scenarios.
    pub fn new(scenarios: usize) -> ScenarioAttention {
        ScenarioAttention { scenarios, drops: false }
    }

    /// With weights over all scenarios, the own one's left out afterwards.
    pub fn dropping(self) -> ScenarioAttention {
        ScenarioAttention { drops: true, ..self }
    }

    /// The softmax of `logits` over what scenario `own` weighs; 0 for what it does not.
    fn weigh(&self, own: usize, logits: &[f32], weights: &mut [f32]) {
        let counts = |m: usize| self.drops || m != own;
        let weighed = || logits.iter().enumerate().filter(|(m, _)| counts(*m));
        let largest = weighed().map(|(_, &a)| a).fold(f32::NEG_INFINITY, f32::max);
        weights.fill(0.0);
        weighed().for_each(|(m, a)| weights[m] = (a - largest).exp());
        let sum: f32 = weights.iter().sum();
        if sum > 0.0 {
            weights.iter_mut().for_each(|g| *g /= sum);
        }
    }
}

impl Op for ScenarioAttention {
    fn name(&self) -> &'static str {
        "scenario_attention"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [logits, groups]
                if *logits == Shape::once(self.scenarios, self.scenarios)
                    && groups.space == Space::Batch
                    && groups.cols.is_multiple_of(self.scenarios) =>
            {
                Ok(Shape::batch(2 * groups.cols / self.scenarios))
            }
            _ => Err(format!("logits and values of {} scenarios are needed, not {inputs:?}", self.scenarios)),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b10, output: false }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        self.scenarios
    }

    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        self.scenarios
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        inputs[1].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let width = output.len() / 2;
        match i {
            0 => reached
                .fill(output[width..].contains(&true) && self.scenarios > if self.drops { 1 } else { 2 }),
            _ => reach::at_same_place(output, reached, width),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let (logits, groups) = (tile.input(0), tile.input(1));
        let (mut weights, mut y) = (tile.take_extra(), tile.take_output());
        let n = y.cols() / 2;
        for (r, &s) in scenario.iter().enumerate() {
            let (own, weights, row) = (s as usize, weights.row_mut(r), groups.row(r));
            self.weigh(own, logits.row(own), weights);
            let (first, second) = y.row_mut(r).split_at_mut(n);
            first.copy_from_slice(&row[own * n..][..n]);
            second.fill(0.0);
            for (m, &g) in weights.iter().enumerate().filter(|(m, _)| *m != own) {
                second.iter_mut().zip(&row[m * n..]).for_each(|(y, v)| *y += g * v);
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scenario = &tile.at.batch.scenario[tile.at.range()];
        let (groups, weights, dy) = (tile.input(1), tile.take_extra(), tile.take_output_gradient());
        let n = dy.cols() / 2;
        if let Some(mut d_logits) = tile.take_gradient(0) {
            if !d_logits.accumulate {
                d_logits.to.fill(0.0);
            }
            let slopes = &mut tile.take_scratch()[..self.scenarios];
            for (r, &s) in scenario.iter().enumerate() {
                let (row, second) = (groups.row(r), &dy.row(r)[n..]);
                for (m, slope) in slopes.iter_mut().enumerate() {
                    let dot = row[m * n..].iter().zip(second).map(|(v, d)| v * d);
                    *slope = if m == s as usize { 0.0 } else { dot.sum() };
                }
                let mean: f32 = weights.row(r).iter().zip(slopes.iter()).map(|(g, slope)| g * slope).sum();
                let weighed = weights.row(r).iter().zip(slopes.iter());
                let to = d_logits.to.row_mut(s as usize).iter_mut();
                to.zip(weighed).for_each(|(to, (g, slope))| *to += g * (slope - mean));
            }
        }
        if let Some(mut d_groups) = tile.take_gradient(1) {
            for (r, &s) in scenario.iter().enumerate() {
                let (first, second) = dy.row(r).split_at(n);
                let part = |(m, &g): (usize, &f32)| {
                    let (factor, d) = if m == s as usize { (1.0, first) } else { (g, second) };
                    d.iter().map(move |d| factor * d)
                };
                d_groups.put(r, weights.row(r).iter().enumerate().flat_map(part));
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (logits, groups) = (&inputs[0], &inputs[1]);
        let n = groups.cols / self.scenarios;
        let mut y = Matrix::zeros(groups.rows, 2 * n);
        for (r, &s) in batch.scenario.iter().enumerate() {
            let own = s as usize;
            let term = |m: usize| if self.drops || m != own { logits.at(own, m).exp() } else { 0.0 };
            let sum: f64 = (0..self.scenarios).map(term).sum();
            for c in 0..n {
                let others = (0..self.scenarios).filter(|&m| m != own);
                y.set(r, c, groups.at(r, own * n + c));
                y.set(r, n + c, others.map(|m| term(m) / sum * groups.at(r, m * n + c)).sum());
            }
        }
        y
    }
}

impl DeviceOp for ScenarioAttention {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b10, output: true }
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        scenarios_refused(self.scenarios)
    }

    fn scratch(&self, capacity: &Capacity, _inputs: &[Shape]) -> u64 {
        let sums = cuda::scenario_sums_scratch(self.scenarios, capacity.rows as u32, self.scenarios as u32);
        copy_bytes(capacity.rows, self.scenarios) + sums
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (logits, groups, weights, y) = (step.input(0), step.input(1), step.extra(), step.output());
        let attention = cuda::Attention { scenario: step.batch().scenario, drops: self.drops };
        step.launch(cuda::scenario_attention(attention, logits, groups, weights, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (groups, weights, dy) = (step.input(1), step.extra(), step.output_gradient());
        let scenario = step.batch().scenario;
        if let Some(to) = step.take_gradient(0) {
            let slopes = DeviceMat { address: step.scratch(), stride: weights.cols, ..weights };
            let scratch = step.scratch() + copy_bytes(weights.rows as usize, self.scenarios);
            let sums = Some((to.to.address, to.accumulate));
            step.launch(cuda::scenario_attention_slopes(scenario, groups, weights, dy, slopes));
            step.launch_all(cuda::scenario_sums(scenario, self.scenarios, None, slopes, sums, None, scratch));
        }
        if let Some(to) = step.take_gradient(1) {
            step.launch(cuda::scenario_attention_dgroups(scenario, weights, dy, to.accumulate, to.to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, op: ScenarioAttention, n: usize| {
        let scenarios = op.scenarios;
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        case.once(scenarios, scenarios).rows(scenarios * n)
    };
    vec![
        case("scenario_attention/one", ScenarioAttention::new(1), 3),
        case("scenario_attention/two", ScenarioAttention::new(2), 1),
        case("scenario_attention/four", ScenarioAttention::new(4), 9),
        case("scenario_attention/dropping_one", ScenarioAttention::new(1).dropping(), 2),
        case("scenario_attention/dropping", ScenarioAttention::new(3).dropping(), 17),
    ]
}
