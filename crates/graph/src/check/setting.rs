//! The paths of a plan that a case is led along.

use super::Case;
use super::expected::{Data, input_name, param};
use super::helpers::{Source, Weigh};
use crate::graph::{Graph, LossId, LossPart, Mode, Over, Value};
use crate::ops::{Activate, Tap};
use crate::plan::{Plan, PlanOptions};
use manygate_core::Result;
use manygate_kernels::Isa;
use std::fmt;
use std::sync::Arc;

/// Whether another op adds to the gradients of the inputs, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    None,
    /// It adds first: the op under test accumulates, and is the last.
    First,
    /// It adds afterwards.
    Last,
}

/// One way to run a case.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    mode: Mode,
    isa: Isa,
    rows: usize,
    tile_rows: usize,
    lane_rows: usize,
    activated: bool,
    other: Other,
    /// Whether inputs are columns of something wider.
    sliced: bool,
    /// Whether the op above multiplies by the slope of the output's activation.
    slope_above: bool,
    /// The only input that wants a gradient.
    only: Option<usize>,
    outputs: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} rows, tiles of {}, lanes of {}",
            self.mode, self.rows, self.tile_rows, self.lane_rows
        )?;
        let flags = [
            (self.activated, "inputs activated"),
            (self.other == Other::First, "another op adds first"),
            (self.other == Other::Last, "another op adds last"),
            (self.sliced, "inputs are columns"),
            (self.slope_above, "the op above multiplies by the slope"),
            (self.outputs, "output kept"),
        ];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, flag)| write!(f, ", {flag}"))?;
        self.only.map_or(Ok(()), |i| write!(f, ", gradient of input {i} only"))
    }
}

/// Every setting for a case with these numbers.
pub(super) fn settings(case: &Case, data: &Data, isa: Isa, activated: bool) -> Vec<Setting> {
    let tiles = [(128, 256), (5, 256), (128, 16), (5, 16)];
    tiles.into_iter().flat_map(|tiles| settings_in(tiles, case, data, isa, activated)).collect()
}

/// Every setting with tiles and lanes of so many rows.
pub(super) fn settings_in(
    (tile_rows, lane_rows): (usize, usize),
    case: &Case,
    data: &Data,
    isa: Isa,
    activated: bool,
) -> Vec<Setting> {
    let plain = Setting {
        mode: Mode::Training,
        isa,
        rows: data.rows,
        tile_rows,
        lane_rows,
        activated,
        other: Other::None,
        sliced: false,
        slope_above: false,
        only: None,
        outputs: false,
    };
    let mut all = vec![
        plain.clone(),
        Setting { outputs: true, ..plain.clone() },
        Setting { mode: Mode::Evaluation, ..plain.clone() },
        Setting { sliced: true, ..plain.clone() },
    ];
    for other in [Other::First, Other::Last] {
        all.push(Setting { other, ..plain.clone() });
        all.push(Setting { other, sliced: true, outputs: true, ..plain.clone() });
    }
    if data.activated.is_some() {
        all.push(Setting { slope_above: true, ..plain.clone() });
        all.push(Setting { slope_above: true, other: Other::First, ..plain.clone() });
    }
    if case.inputs.len() > 1 {
        all.extend((0..case.inputs.len()).map(|only| Setting { only: Some(only), ..plain.clone() }));
    }
    all
}

/// Columns beside an input that is a part of something wider.
const BESIDE: (usize, usize) = (3, 2);

impl Setting {
    /// Columns to the left and to the right of an input with rows.
    pub(super) fn beside(&self) -> (usize, usize) {
        if self.sliced { BESIDE } else { (0, 0) }
    }

    pub(super) fn learns(&self, i: usize) -> bool {
        self.is_training() && self.only.is_none_or(|only| only == i)
    }

    /// The plan that it is; [`None`] where the case has none.
    ///
    /// # Errors
    /// Why the graph cannot be declared or compiled.
    pub(super) fn plan(&self, case: &Case, data: &Data) -> Result<Option<Plan>> {
        if !self.is_training() && (data.own_part.is_some() || data.lacks_scenarios) {
            return Ok(None);
        }
        Plan::compile(self.graph(case, data)?, self.options(case)).map(Some)
    }

    pub(super) fn is_training(&self) -> bool {
        self.mode == Mode::Training
    }

    /// The gradient where it is read: with what the other op adds, and below the activation.
    pub(super) fn below(&self, case: &Case, data: &Data, i: usize, at: usize, d: f64) -> f64 {
        let other = if self.other == Other::None { 0.0 } else { f64::from(data.other_weights[i][at]) };
        let is_activated = self.activated && case.inputs[i].once.is_none();
        (d + other) * if is_activated { data.slope(i, at) } else { 1.0 }
    }

    fn options(&self, case: &Case) -> PlanOptions {
        let frozen = (0..case.inputs.len()).filter(|&i| !self.learns(i)).map(input_name).collect();
        let Setting { tile_rows, lane_rows, outputs, isa, .. } = *self;
        PlanOptions { tile_rows, lane_rows, outputs, frozen, isa }
    }

    fn graph(&self, case: &Case, data: &Data) -> Result<Graph> {
        let mut g = Graph::new(self.mode);
        super::declare_sequences(&mut g, &case.inputs)?;
        let inputs: Vec<Value> =
            (0..case.inputs.len()).map(|i| self.input(&mut g, case, data, i)).collect::<Result<_>>()?;
        // The backward pass goes from the last op to the first.
        if self.other == Other::Last {
            self.others(&mut g, data, &inputs)?;
        }
        let output = (case.declare)(&mut g, &inputs)?;
        if self.other == Other::First {
            self.others(&mut g, data, &inputs)?;
        }
        if let Some(weights) = &data.output_weights {
            g.output("output", output);
            if self.is_training() {
                self.weigh_output(&mut g, data, weights, output)?;
            }
        }
        Ok(g)
    }

    fn input(&self, g: &mut Graph, case: &Case, data: &Data, i: usize) -> Result<Value> {
        let cols = case.inputs[i].cols;
        if let Some(rows) = case.inputs[i].once {
            return g.param(param(i, rows, cols)?);
        }
        let (left, right) = self.beside();
        let wide = left + cols + right;
        let rows = data.raw[i].rows;
        let mut values = vec![0.5; rows * wide];
        for r in 0..rows {
            for c in 0..cols {
                values[r * wide + left + c] = data.raw[i].at(r, c) as f32;
            }
        }
        let source = Source { values: values.into(), cols: wide, bag: case.inputs[i].bag };
        let mut x = g.add(format!("source.{i}"), source, &[])?;
        if self.learns(i) {
            x = g.add(input_name(i), Tap, &[x])?;
        }
        if self.activated {
            x = g.add(format!("activate.{i}"), Activate::new(data.activation, wide), &[x])?;
        }
        g.columns(x, left, cols)
    }

    fn others(&self, g: &mut Graph, data: &Data, inputs: &[Value]) -> Result<()> {
        for (i, &input) in inputs.iter().enumerate() {
            let (loss, weights) = (part(g, &format!("other.{i}"))?, Arc::clone(&data.other_weights[i]));
            let op = Weigh { loss, weights, shape: g.shape(input), masks: false };
            g.add(format!("other.{i}"), op, &[input])?;
        }
        Ok(())
    }

    /// Weighs the output as a whole, or its activated columns and those beside them apart.
    fn weigh_output(&self, g: &mut Graph, data: &Data, weights: &Arc<[f32]>, output: Value) -> Result<()> {
        let (loss, shape) = (part(g, "output")?, g.shape(output));
        let Some(activated) = data.activated.clone().filter(|_| self.slope_above) else {
            let op = Weigh { loss, weights: Arc::clone(weights), shape, masks: false };
            return g.add("weigh", op, &[output]).map(|_| ());
        };
        for columns in [0..activated.start, activated.clone(), activated.end..shape.cols] {
            let value = g.columns(output, columns.start, columns.len())?;
            let rows = weights.chunks_exact(shape.cols).flat_map(|row| &row[columns.clone()]);
            let (weights, masks) = (rows.copied().collect(), columns == activated);
            let op = Weigh { loss, weights, shape: g.shape(value), masks };
            g.add(format!("weigh.{}", columns.start), op, &[value])?;
        }
        Ok(())
    }
}

fn part(g: &mut Graph, name: &str) -> Result<LossId> {
    g.loss(LossPart::new(name, 1.0, Over::Rows))
}
