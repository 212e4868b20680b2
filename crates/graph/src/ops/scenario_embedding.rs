//! `y = M[s]`: the row of each sample's scenario, of a matrix `[scenarios, n]` that learns as dense parameters do.
//!
//! Output `[batch, n]`. Over a list of scenarios, `[ids of the list, n]`: id j is scenario j − 1, as rows of a table stand
//! behind the unknown one; an id that is none gives zeros. Backward: `dM[s] = Σ dy` over the rows of scenario s.

use crate::check::{Case, LONGEST};
use crate::device::{Capacity, DeviceOp, DeviceStep, listed_scenarios_scratch, scenario_sums_scratch};
use crate::graph::{Graph, Value};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Matrix, Op, Reads, Rowset, Saved};
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use std::ops::Range;

/// A row for each scenario, see the [module](self). Input: M.
#[derive(Clone, Debug)]
pub struct ScenarioEmbedding {
    scenarios: usize,
    /// The list whose ids are scenarios, instead of the samples'.
    bag: Option<usize>,
}

impl ScenarioEmbedding {
    /// For `scenarios` scenarios.
    pub fn new(scenarios: usize) -> ScenarioEmbedding {
        ScenarioEmbedding { scenarios, bag: None }
    }

    /// Of the ids of list `bag`.
    pub fn of_list(self, bag: usize) -> ScenarioEmbedding {
        ScenarioEmbedding { bag: Some(bag), ..self }
    }

    /// The scenarios `rows` of a batch, the samples' or those of its list; [`None`] where an id is none.
    fn scenarios<'a>(
        &self,
        batch: &'a Batch,
        rows: Range<usize>,
    ) -> impl Iterator<Item = Option<usize>> + use<'a> {
        let (ids, behind) = match self.bag {
            Some(bag) => (&batch.bags[bag].ids[rows], 1),
            None => (&batch.scenario[rows], 0),
        };
        let scenarios = self.scenarios;
        ids.iter().map(move |&id| (id as usize).checked_sub(behind).filter(|&s| s < scenarios))
    }

    /// The rows of a tile.
    fn of_tile<'a>(&self, at: &Rowset<'a>) -> impl Iterator<Item = Option<usize>> + use<'a> {
        self.scenarios(at.batch, self.bag.map_or(at.range(), |bag| at.positions(bag)))
    }
}

impl Op for ScenarioEmbedding {
    fn name(&self) -> &'static str {
        "scenario_embedding"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [m] if m.space == Space::Once && m.rows == self.scenarios => {
                Ok(self.bag.map_or(Shape::batch(m.cols), |bag| Shape::position(bag, m.cols)))
            }
            _ => Err(format!("a matrix with {} rows is needed, not {inputs:?}", self.scenarios)),
        }
    }

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn reads(&self) -> Reads {
        match self.bag {
            Some(bag) => Reads { bags: bag + 1, ..Reads::default() },
            None => Reads { scenarios: Some(self.scenarios), ..Reads::default() },
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        growth.same_columns(inputs, [0]);
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (m, mut y) = (tile.input(0), tile.take_output());
        for (r, scenario) in self.of_tile(&tile.at).enumerate() {
            match scenario {
                Some(s) => y.row_mut(r).copy_from_slice(m.row(s)),
                None => y.row_mut(r).fill(0.0),
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let dy = tile.take_output_gradient();
        let Some(mut dm) = tile.take_gradient(0) else { return };
        if !dm.accumulate {
            dm.to.fill(0.0);
        }
        for (r, s) in self.of_tile(&tile.at).enumerate().filter_map(|(r, s)| Some((r, s?))) {
            dm.to.row_mut(s).iter_mut().zip(dy.row(r)).for_each(|(to, d)| *to += d);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let m = &inputs[0];
        let rows = self.bag.map_or(batch.rows, |bag| batch.bags[bag].ids.len());
        let row = |s: Option<usize>| (0..m.cols).map(move |c| s.map_or(0.0, |s| m.at(s, c)));
        Matrix { rows, cols: m.cols, data: self.scenarios(batch, 0..rows).flat_map(row).collect() }
    }
}

impl DeviceOp for ScenarioEmbedding {
    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let cols = inputs[0].cols;
        match self.bag {
            Some(bag) => listed_scenarios_scratch(capacity, bag, self.scenarios, cols),
            None => scenario_sums_scratch(capacity, self.scenarios, cols),
        }
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let (m, y) = (step.input(0), step.output());
        match self.bag {
            Some(bag) => step.rows_of_listed_scenarios(bag, m, y, step.scratch()),
            None => step.rows_of_scenarios(m, y),
        }
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        if let Some(dm) = step.take_gradient(0) {
            let (dy, scratch) = (step.output_gradient(), step.scratch());
            match self.bag {
                Some(bag) => step.sum_by_listed_scenario(bag, dy, dm.accumulate, dm.to, scratch),
                None => step.sum_by_scenario(dy, dm.accumulate, dm.to, scratch),
            }
        }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, scenarios: usize, cols: usize| {
        let case = Case::new(name, move |g, x| g.add("op", ScenarioEmbedding::new(scenarios), x));
        case.once(scenarios, cols)
    };
    let of_list = |name: &str, scenarios: usize, cols: usize| {
        let declare = move |g: &mut Graph, x: &[Value]| {
            g.sequence(0, LONGEST)?;
            g.add("op", ScenarioEmbedding::new(scenarios).of_list(0), x)
        };
        Case::new(name, declare).once(scenarios, cols)
    };
    vec![
        case("scenario_embedding/one", 1, 1),
        case("scenario_embedding/wide", 4, 17),
        of_list("scenario_embedding/list", 6, 5),
    ]
}
