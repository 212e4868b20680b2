//! `y = M[s]`: the row of each sample's scenario, of a matrix `[scenarios, n]` that learns as dense parameters do.
//!
//! Output `[batch, n]`. Backward: `dM[s] = Σ dy` over the rows of scenario s.

use crate::check::Case;
use crate::op::{Backward, Forward, Matrix, Op, Reads, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;

/// A row for each scenario, see the [module](self). Input: M.
#[derive(Clone, Debug)]
pub struct ScenarioEmbedding {
    scenarios: usize,
}

impl ScenarioEmbedding {
    /// For `scenarios` scenarios.
    pub fn new(scenarios: usize) -> ScenarioEmbedding {
        ScenarioEmbedding { scenarios }
    }
}

impl Op for ScenarioEmbedding {
    fn name(&self) -> &'static str {
        "scenario_embedding"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [m] if m.space == Space::Once && m.rows == self.scenarios => Ok(Shape::batch(m.cols)),
            _ => Err(format!("a matrix with {} rows is needed, not {inputs:?}", self.scenarios)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reads(&self) -> Reads {
        Reads { scenarios: Some(self.scenarios), ..Reads::default() }
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let scenarios = &tile.at.batch.scenario[tile.at.range()];
        let (m, mut y) = (tile.input(0), tile.take_output());
        for (r, &s) in scenarios.iter().enumerate() {
            y.row_mut(r).copy_from_slice(m.row(s as usize));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let scenarios = &tile.at.batch.scenario[tile.at.range()];
        let dy = tile.take_output_gradient();
        let Some(mut dm) = tile.take_gradient(0) else { return };
        if !dm.accumulate {
            dm.to.fill(0.0);
        }
        for (r, &s) in scenarios.iter().enumerate() {
            dm.to.row_mut(s as usize).iter_mut().zip(dy.row(r)).for_each(|(to, d)| *to += d);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let m = &inputs[0];
        let row = |&s: &u32| (0..m.cols).map(move |c| m.at(s as usize, c));
        Matrix { rows: batch.rows, cols: m.cols, data: batch.scenario.iter().flat_map(row).collect() }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, cols: usize| {
        let case = Case::new(name, move |g, x| g.add("op", ScenarioEmbedding::new(scenarios), x));
        case.once(scenarios, cols)
    };
    vec![case("scenario_embedding/one", 1, 1), case("scenario_embedding/wide", 4, 17)]
}
