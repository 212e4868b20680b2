//! `y = M[s] ⊙ x + B[s]`: every row scaled and shifted, value by value, as its scenario wants.
//!
//! x, y `[batch, n]`, M and B `[scenarios, n]`. Q. Shen et al., *SAR-Net*, CIKM 2021.
//! Backward: `dx = M[s] ⊙ dy`, `dM[s] = Σ dy ⊙ x`, `dB[s] = Σ dy`, over the rows of scenario s.

use crate::check::Case;
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves, scenarios_refused};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::scenario as cuda;

/// A transformation for each scenario, see the [module](self). Inputs: x, M, B.
#[derive(Clone, Debug)]
pub struct ScenarioAffine {
    scenarios: usize,
}

impl ScenarioAffine {
    /// For `scenarios` scenarios.
    pub fn new(scenarios: usize) -> ScenarioAffine {
        ScenarioAffine { scenarios }
    }
}

impl Op for ScenarioAffine {
    fn name(&self) -> &'static str {
        "scenario_affine"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [x, m, b] if x.space == Space::Batch && *m == Shape::once(self.scenarios, x.cols) && b == m => {
                Ok(*x)
            }
            _ => {
                let rows = self.scenarios;
                Err(format!("rows and two matrices with {rows} rows as wide are needed, not {inputs:?}"))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b011, output: false }
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            0 => reach::same(output, reached),
            _ => reached.fill(true),
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, 0..3);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let scenarios = &tile.at.batch.scenario[tile.at.range()];
        let (x, m, b, mut y) = (tile.input(0), tile.input(1), tile.input(2), tile.take_output());
        for (r, &s) in scenarios.iter().enumerate() {
            let (m, b) = (m.row(s as usize), b.row(s as usize));
            for (((y, x), m), b) in y.row_mut(r).iter_mut().zip(x.row(r)).zip(m).zip(b) {
                *y = m * x + b;
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scenarios = &tile.at.batch.scenario[tile.at.range()];
        let (x, m, dy) = (tile.input(0), tile.input(1), tile.take_output_gradient());
        if let Some(mut dx) = tile.take_gradient(0) {
            for (r, &s) in scenarios.iter().enumerate() {
                dx.put(r, dy.row(r).iter().zip(m.row(s as usize)).map(|(d, m)| d * m));
            }
        }
        let [mut dm, mut db] = [1, 2].map(|i| tile.take_gradient(i));
        for gradient in [&mut dm, &mut db].into_iter().flatten().filter(|g| !g.accumulate) {
            gradient.to.fill(0.0);
        }
        for (r, &s) in scenarios.iter().enumerate() {
            if let Some(dm) = &mut dm {
                let products = dy.row(r).iter().zip(x.row(r)).map(|(d, x)| d * x);
                dm.to.row_mut(s as usize).iter_mut().zip(products).for_each(|(to, d)| *to += d);
            }
            if let Some(db) = &mut db {
                db.to.row_mut(s as usize).iter_mut().zip(dy.row(r)).for_each(|(to, d)| *to += d);
            }
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let mut y = inputs[0].clone();
        for (row, &s) in y.data.chunks_exact_mut(inputs[0].cols).zip(&batch.scenario) {
            for (c, v) in row.iter_mut().enumerate() {
                *v = inputs[1].at(s as usize, c) * *v + inputs[2].at(s as usize, c);
            }
        }
        y
    }
}

impl DeviceOp for ScenarioAffine {
    fn halves(&self) -> Halves {
        Halves { inputs: 0b1, output: true }
    }

    fn refuses(&self, _inputs: &[Shape]) -> Option<String> {
        scenarios_refused(self.scenarios)
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        cuda::scenario_sums_scratch(self.scenarios, capacity.rows as u32, inputs[0].cols as u32)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (x, m, b, y) = (step.input(0), step.input(1), step.input(2), step.output());
        step.launch(cuda::scenario_affine(step.batch().scenario, x, m, b, y));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (x, m, dy, scenario) =
            (step.input(0), step.input(1), step.output_gradient(), step.batch().scenario);
        if let Some(dx) = step.take_gradient(0) {
            step.launch(cuda::scenario_affine_dx(scenario, m, dy, dx.accumulate, dx.to));
        }
        let [dm, db] = [1, 2].map(|i| step.take_gradient(i).map(|to| (to.to.address, to.accumulate)));
        let scratch = step.scratch();
        step.launch_all(cuda::scenario_sums(scenario, self.scenarios, Some(x), dy, db, dm, scratch));
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, cols: usize| {
        let case = Case::new(name, move |g, x| g.add("op", ScenarioAffine::new(scenarios), x));
        case.rows(cols).once(scenarios, cols).once(scenarios, cols)
    };
    vec![case("scenario_affine/one", 1, 1), case("scenario_affine/wide", 3, 17)]
}
