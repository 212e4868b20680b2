//! The sum of every column over the rows of each scenario: x `[batch, n]`, output `[scenarios, n]`, and a join.
//!
//! Sums are f64, in lane order; zero for a scenario without rows. Backward: `dx = dy[s]`, s the row's scenario.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, copy_bytes, scenario_sums_scratch};
use crate::op::{Backward, Facts, Forward, Matrix, Op, Reads, Reduction, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;

/// Sums by scenario, see the [module](self). Input: x.
#[derive(Clone, Debug)]
pub struct ScenarioSums {
    scenarios: usize,
}

impl ScenarioSums {
    /// For `scenarios` scenarios.
    pub fn new(scenarios: usize) -> ScenarioSums {
        ScenarioSums { scenarios }
    }
}

impl Op for ScenarioSums {
    fn name(&self) -> &'static str {
        "scenario_sums"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x] if x.space == Space::Batch => Ok(Shape::once(self.scenarios, x.cols)),
            _ => Err(format!("one input with a row a sample is needed, not {inputs:?}")),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, _tile: &mut Forward<'_>) {}

    fn backward(&self, tile: &mut Backward<'_>) {
        let (dy, range) = (tile.once_gradient(), tile.at.range());
        let Some(mut dx) = tile.take_gradient(0) else { return };
        for (r, &s) in tile.at.batch.scenario[range].iter().enumerate() {
            for (to, &d) in dx.to.row_mut(r).iter_mut().zip(dy.row(s as usize)) {
                *to = if dx.accumulate { *to + d } else { d };
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let x = &inputs[0];
        let mut sums = Matrix::zeros(self.scenarios, x.cols);
        for (r, &s) in batch.scenario.iter().enumerate() {
            (0..x.cols).for_each(|c| sums.data[s as usize * x.cols + c] += x.at(r, c));
        }
        sums
    }
}

impl Reduction for ScenarioSums {
    fn partial_len(&self, inputs: &[Shape]) -> usize {
        self.scenarios * inputs[0].cols
    }

    fn accumulate(&self, tile: &Forward<'_>, partial: &mut [f64]) {
        let x = tile.input(0);
        for (r, &s) in tile.at.batch.scenario[tile.at.range()].iter().enumerate() {
            let sums = &mut partial[s as usize * x.cols()..][..x.cols()];
            sums.iter_mut().zip(x.row(r)).for_each(|(sum, &v)| *sum += f64::from(v));
        }
    }

    fn finish(&self, _facts: &Facts, sums: &[f64], output: &mut [f32]) {
        output.iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum as f32);
    }
}

impl DeviceOp for ScenarioSums {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let cols = inputs[0].cols;
        scenario_sums_scratch(capacity, self.scenarios, cols).max(copy_bytes(capacity.rows, cols))
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        step.sum_by_scenario(step.input(0), false, step.output(), step.scratch());
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (dy, scratch) = (step.output_gradient(), step.scratch());
        if let Some(dx) = step.take_gradient(0) {
            step.put_gradient(dx, scratch, |step, to| step.rows_of_scenarios(dy, to));
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, cols: usize| {
        Case::new(name, move |g, x| g.add("op", ScenarioSums::new(scenarios), x)).rows(cols)
    };
    vec![case("scenario_sums/one", 1, 1), case("scenario_sums/wide", 3, 17)]
}
