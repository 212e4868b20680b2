//! Mean and biased variance of every column over the batch: the first half of batch normalisation, and a join.
//!
//! x `[batch, n]`, output `[2n, 1]`: n means, then n variances. By scenario, over the rows of each: output
//! `[2 · scenarios, n]`, a row of means for each scenario, then a row of variances for each; zeros for a scenario without
//! rows. Over a list, x is `[ids of the list, n]` and B its ids in the batch. Sums are f64, in lane order.
//!
//! With running statistics `E ← E + m (mean − E)`, `V ← V + m (v − V)` after each training step, where v is the variance
//! as it is or, unbiased, times B/(B−1); then a single row leaves V as it is. Those of a scenario without rows stay.
//!
//! Backward, B the rows (of the scenario): `dx = d_mean / B + d_var · 2 (x − mean) / B`.

use crate::check::Case;
use crate::device::{Capacity, DeviceBatch, DeviceOp, DeviceStep, Halves, groups_refused};
use crate::graph::{Graph, Value};
use crate::growth::{Axis, Growth};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reads, Reduction, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::{DeviceMat, Launch, norm as cuda};
use manygate_kernels::norm;

/// Running statistics that a training step moves.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Index of the state, as large as the output.
    pub state: usize,
    /// Weight of the new value.
    pub momentum: f32,
    /// Whether variances are those of the population.
    pub unbiased: bool,
}

/// Statistics of the batch, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    running: Option<Running>,
    scenarios: Option<usize>,
    bag: Option<usize>,
}

impl BatchMoments {
    /// Statistics that may move running ones.
    pub fn new(running: Option<Running>) -> BatchMoments {
        BatchMoments { running, scenarios: None, bag: None }
    }

    /// For each of `scenarios` scenarios.
    pub fn by_scenario(self, scenarios: usize) -> BatchMoments {
        BatchMoments { scenarios: Some(scenarios), ..self }
    }

    /// Over the ids of list `bag`; not by scenario.
    pub fn over_list(self, bag: usize) -> BatchMoments {
        BatchMoments { bag: Some(bag), scenarios: None, ..self }
    }

    fn groups(&self) -> usize {
        self.scenarios.unwrap_or(1)
    }

    /// Rows of each group in the batch.
    fn rows(&self, facts: &Facts, group: usize) -> usize {
        match (self.scenarios, self.bag) {
            (Some(_), _) => facts.scenario_rows[group],
            (None, Some(bag)) => facts.positions[bag],
            (None, None) => facts.rows,
        }
    }
}

impl Op for BatchMoments {
    fn name(&self) -> &'static str {
        "batch_moments"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let space = self.bag.map_or(Space::Batch, Space::Position);
        match inputs {
            [x] if x.space == space => Ok(match self.scenarios {
                Some(scenarios) => Shape::once(2 * scenarios, x.cols),
                None => Shape::once(2 * x.cols, 1),
            }),
            _ => Err(format!("one input with rows is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b1, output: true }
    }

    fn reads(&self) -> Reads {
        let bags = self.bag.map_or(0, |bag| bag + 1);
        Reads { scenarios: self.scenarios, by_scenario: self.scenarios.is_some(), bags, ..Reads::default() }
    }

    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }

    fn reach(&self, _inputs: &[Shape], _i: usize, output: &[bool], reached: &mut [bool]) {
        match self.scenarios {
            Some(_) => reached.fill(true),
            None => reach::at_same_place(output, reached, reached.len()),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        let n = inputs[0].cols;
        match self.scenarios {
            Some(_) => growth.same_columns(inputs, [0]),
            None => {
                [0, n].into_iter().for_each(|at| growth.tie((Axis::OutRows, at), (Axis::Columns(0), 0), n))
            }
        }
    }

    fn forward(&self, _tile: &mut Forward<'_>) {}

    fn backward(&self, tile: &mut Backward<'_>) {
        let (x, moments, gradient) =
            (tile.input(0), tile.output().contiguous(), tile.once_gradient().contiguous());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        let n = x.cols();
        let group = self.scenarios.map_or(0, |_| tile.at.scenario());
        let scale = 1.0 / self.rows(tile.at.facts, group) as f32;
        let (mean, variance) = (group * n, (self.groups() + group) * n);
        for r in 0..x.rows() {
            let (x, dx_row) = (x.row(r), dx.to.row_mut(r));
            for c in 0..n {
                let from_variance = 2.0 * gradient[variance + c] * (x[c] - moments[mean + c]);
                let add = scale * (gradient[mean + c] + from_variance);
                dx_row[c] = if dx.accumulate { dx_row[c] + add } else { add };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut out = match self.scenarios {
            Some(scenarios) => Matrix::zeros(2 * scenarios, x.cols),
            None => Matrix::zeros(2 * x.cols, 1),
        };
        for group in 0..self.groups() {
            let own = |r: &usize| self.scenarios.is_none() || batch.scenario[*r] as usize == group;
            let rows: Vec<usize> = (0..x.rows).filter(own).collect();
            let count = rows.len().max(1) as f64;
            for c in 0..x.cols {
                let mean = rows.iter().map(|&r| x.at(r, c)).sum::<f64>() / count;
                let variance = rows.iter().map(|&r| (x.at(r, c) - mean).powi(2)).sum::<f64>() / count;
                out.data[group * x.cols + c] = mean;
                out.data[(self.groups() + group) * x.cols + c] = variance;
            }
        }
        out
    }
}

impl Reduction for BatchMoments {
    fn partial_len(&self, inputs: &[Shape]) -> usize {
        2 * self.groups() * inputs[0].cols
    }

    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]) {
        let x = tile.input(0);
        let group = self.scenarios.map_or(0, |_| tile.at.scenario());
        let (sums, squares) = partial.split_at_mut(self.groups() * x.cols());
        let own = group * x.cols()..(group + 1) * x.cols();
        norm::column_moments(tile.at.isa, x, &mut sums[own.clone()], &mut squares[own]);
    }

    fn finish(&self, facts: &Facts, sums: &[f64], output: &mut [f32]) {
        let half = sums.len() / 2;
        let n = half / self.groups();
        for i in 0..half {
            let rows = self.rows(facts, i / n).max(1) as f64;
            let mean = sums[i] / rows;
            output[i] = mean as f32;
            output[half + i] = (sums[half + i] / rows - mean * mean).max(0.0) as f32;
        }
    }

    fn state(&self) -> Option<usize> {
        self.running.map(|running| running.state)
    }

    fn update_state(&self, facts: &Facts, output: &[f32], state: &mut [f32]) {
        let Some(Running { momentum, unbiased, .. }) = self.running else { return };
        let half = output.len() / 2;
        let n = half / self.groups();
        for i in 0..half {
            let rows = self.rows(facts, i / n);
            if rows > 0 {
                state[i] += momentum * (output[i] - state[i]);
            }
            if rows > usize::from(unbiased) {
                let scale = if unbiased { rows as f32 / (rows - 1) as f32 } else { 1.0 };
                state[half + i] += momentum * (output[half + i] * scale - state[half + i]);
            }
        }
    }
}

impl DeviceOp for BatchMoments {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: false }
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let rows = capacity.rows_in(inputs[0]) as u32;
        cuda::batch_moments_scratch(self.groups(), rows, inputs[0].cols as u32)
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        groups_refused(self.groups())
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, moments, groups) = (step.input(0), step.output(), step.groups(self.scenarios));
        step.launch_all(cuda::batch_moments(groups, x, moments.address, step.scratch()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, moments, gradient) = (step.input(0), step.output(), step.output_gradient());
        if let Some(dx) = step.take_gradient(0) {
            let (groups, [moments, gradient]) =
                (step.groups(self.scenarios), [moments, gradient].map(|mat| mat.address));
            step.launch(cuda::batch_moments_dx(groups, x, moments, gradient, dx.accumulate, dx.to));
        }
    }

    fn update_state(
        &self,
        batch: &DeviceBatch,
        go_on: u64,
        output: DeviceMat,
        state: u64,
        cols: u32,
    ) -> Vec<Launch> {
        let Some(Running { momentum, unbiased, .. }) = self.running else { return Vec::new() };
        let starts = match (self.scenarios, self.bag) {
            (Some(_), _) => batch.scenario_starts,
            (None, Some(bag)) => batch.bags[bag].id_range,
            (None, None) => batch.row_range,
        };
        let groups = cuda::Groups::of(starts, self.groups());
        vec![cuda::move_running(go_on, groups, cols, output.address, momentum, unbiased, state)]
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, cols| Case::new(name, |g, x| g.add("op", BatchMoments::new(None), x)).rows(cols);
    let by_scenario = |name: &str, cols, scenarios| {
        let declare =
            move |g: &mut Graph, x: &[Value]| g.add("op", BatchMoments::new(None).by_scenario(scenarios), x);
        Case::new(name, declare).rows(cols)
    };
    vec![
        case("batch_moments/one", 1),
        case("batch_moments/wide", 19),
        by_scenario("batch_moments/by_scenario", 9, 3),
        Case::new("batch_moments/list", |g, x| g.add("op", BatchMoments::new(None).over_list(0), x))
            .positions(0, 5),
    ]
}
