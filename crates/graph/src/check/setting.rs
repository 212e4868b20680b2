//! The paths of a plan that a case is led along.

use super::Case;
use super::expected::{ACTIVATION, Data, Sampled, input_name, param};
use super::helpers::{Activate, Source, Weigh};
use crate::graph::{Graph, LossId, LossPart, Mode, Over, Value};
use crate::op::{LookupSource, activate_f64};
use crate::ops::Tap;
use crate::param::Parameters;
use crate::plan::{Plan, PlanOptions};
use crate::run::Input;
use crate::workspace::Workspace;
use manygate_core::{Batch, Result, Serial};
use manygate_kernels::embedding::Rows;
use manygate_kernels::{Isa, Mat};
use std::fmt;
use std::ops::Range;
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
    let mut all = Vec::new();
    for (tile_rows, lane_rows) in [(128, 256), (5, 256), (128, 16), (5, 16)] {
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
        all.push(plain.clone());
        all.push(Setting { outputs: true, ..plain.clone() });
        all.push(Setting { mode: Mode::Evaluation, ..plain.clone() });
        for other in [Other::First, Other::Last] {
            all.push(Setting { other, ..plain.clone() });
            all.push(Setting { other, sliced: true, outputs: true, ..plain.clone() });
        }
        all.push(Setting { sliced: true, ..plain.clone() });
        if data.activated.is_some() {
            all.push(Setting { slope_above: true, ..plain.clone() });
            all.push(Setting { slope_above: true, other: Other::First, ..plain.clone() });
        }
        if case.inputs.len() > 1 {
            all.extend((0..case.inputs.len()).map(|only| Setting { only: Some(only), ..plain.clone() }));
        }
    }
    all
}

/// Columns beside an input that is a part of something wider.
const BESIDE: (usize, usize) = (3, 2);

impl Setting {
    fn beside(&self) -> (usize, usize) {
        if self.sliced { BESIDE } else { (0, 0) }
    }

    fn learns(&self, i: usize) -> bool {
        self.mode == Mode::Training && self.only.is_none_or(|only| only == i)
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
            if self.mode == Mode::Training {
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
            x = g.add(format!("activate.{i}"), Activate { activation: ACTIVATION, cols: wide }, &[x])?;
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

/// Runs a case in one setting and compares everything.
pub(super) fn run(case: &Case, data: &Data, setting: &Setting) -> std::result::Result<(), String> {
    if setting.mode == Mode::Evaluation && (data.own_part.is_some() || data.lacks_scenarios) {
        return Ok(());
    }
    let compile = || Plan::compile(setting.graph(case, data)?, setting.options(case));
    let plan = compile().map_err(|e| e.to_string())?;
    let mut params = Parameters::initial(Arc::clone(plan.layout()), 0);
    for (i, input) in data.raw.iter().enumerate().filter(|(i, _)| case.inputs[*i].once.is_some()) {
        let values: Vec<f32> = input.data.iter().map(|&v| v as f32).collect();
        params.set(&input_name(i), &values).map_err(|e| e.to_string())?;
    }
    let state = Parameters::initial(Arc::clone(plan.state_layout()), 0);
    let specs = plan.tables().iter().zip(&data.tables);
    let tables: Vec<Rows<'_>> = specs.map(|(t, v)| Rows::new(v, t.rows, t.dim, t.dim)).collect();
    let seeds: Vec<f32> = plan.losses().iter().map(|part| data.seed(part)).collect();
    let input = Input {
        params: &params,
        state: &state,
        tables: &tables,
        batch: &data.batch,
        seeds: &seeds,
        draws: data.draws(),
    };
    let mut ws = Workspace::new(&plan, 1, data.rows);
    plan.pack(&Serial, &mut ws, &params);
    ws.spoil();
    plan.run(&Serial, &mut ws, &input).map_err(|e| e.to_string())?;
    let first = Found::new(case, data, setting, &plan, &ws)?;
    first.compare(case, data, setting)?;
    plan.run(&Serial, &mut ws, &input).map_err(|e| e.to_string())?;
    let second = Found::new(case, data, setting, &plan, &ws)?;
    if first.bits() != second.bits() {
        return Err("a second run gives other values".into());
    }
    Ok(())
}

/// What a run computed.
struct Found {
    output: Option<Vec<f32>>,
    loss: Option<f64>,
    /// By input that learns: its gradient.
    gradients: Vec<Option<Vec<f32>>>,
    tables: Vec<Vec<f32>>,
}

pub(super) fn flat(view: Mat<'_>) -> Vec<f32> {
    (0..view.rows()).flat_map(|r| view.row(r)).copied().collect()
}

/// The gradient of some parameters.
pub(super) fn lane_sum(plan: &Plan, ws: &Workspace, range: Range<usize>) -> Vec<f32> {
    let lanes = plan.gradients(ws);
    range.map(|at| (0..lanes.rows()).map(|lane| lanes.row(lane)[at]).sum()).collect()
}

/// The gradient of every table, `[rows, dim]`.
pub(super) fn scatter(plan: &Plan, ws: &Workspace, batch: &Batch) -> Vec<Vec<f32>> {
    let mut tables: Vec<Vec<f32>> = plan.tables().iter().map(|t| vec![0.0; t.rows * t.dim]).collect();
    for source in plan.sparse_sources() {
        let dim = plan.tables()[source.table].dim;
        let rows = plan.sparse_gradient(ws, source);
        let of_scenario = |r: &usize| source.scenario.is_none_or(|s| batch.scenario[*r] as usize == s);
        for r in (0..rows.rows()).filter(of_scenario) {
            let ids = match source.source {
                LookupSource::Field(f) => &batch.ids[f][r..=r],
                LookupSource::Bag(b) => batch.bags[b].row(r),
                LookupSource::Positions(b) => &batch.bags[b].ids[r..=r],
            };
            for &id in ids {
                let to = &mut tables[source.table][id as usize * dim..][..dim];
                to.iter_mut().zip(rows.row(r)).for_each(|(to, d)| *to += d);
            }
        }
    }
    tables
}

impl Found {
    fn new(
        case: &Case,
        data: &Data,
        setting: &Setting,
        plan: &Plan,
        ws: &Workspace,
    ) -> std::result::Result<Found, String> {
        let text = |e: manygate_core::Error| e.to_string();
        let mut found = Found { output: None, loss: None, gradients: Vec::new(), tables: Vec::new() };
        if plan.output_names().next().is_some() {
            found.output = Some(flat(plan.output(ws, "output").map_err(text)?));
        }
        if setting.mode == Mode::Evaluation {
            return Ok(found);
        }
        let own = data.own_part.as_ref().map_or("output", |part| &part.name);
        let part = plan.losses().iter().position(|p| p.name == own);
        found.loss = part.map(|p| ws.part_losses()[p] * f64::from(data.seed(&plan.losses()[p])));
        for (i, spec) in case.inputs.iter().enumerate() {
            let name = input_name(i);
            found.gradients.push(match (setting.learns(i), spec.once) {
                (false, _) => None,
                (true, None) => Some(flat(plan.tapped_gradient(ws, &name).map_err(text)?)),
                (true, Some(_)) => {
                    let block = plan.layout().blocks().find(|(block, _)| block.name == name);
                    Some(lane_sum(plan, ws, block.map(|(_, range)| range).unwrap_or_default()))
                }
            });
        }
        found.tables = scatter(plan, ws, &data.batch);
        Ok(found)
    }

    fn bits(&self) -> Vec<u64> {
        let numbers = self.output.iter().chain(self.gradients.iter().flatten()).chain(&self.tables).flatten();
        numbers.map(|v| u64::from(v.to_bits())).chain(self.loss.map(f64::to_bits)).collect()
    }

    fn compare(&self, case: &Case, data: &Data, setting: &Setting) -> std::result::Result<(), String> {
        if let Some(output) = &self.output {
            let expected: Sampled = data.output.data.iter().copied().enumerate().collect();
            compare("output", output, &expected)?;
        }
        if let Some(loss) = self.loss {
            let scale: f64 = data.output.data.iter().map(|v| v.abs()).sum();
            if loss.is_nan() || (loss - data.loss).abs() > 1e-5 * scale.max(1.0) {
                return Err(format!("the loss is {loss}, the reference's {}", data.loss));
            }
        }
        for (i, found) in self.gradients.iter().enumerate() {
            let Some(found) = found else { continue };
            let cols = case.inputs[i].cols;
            let (left, right) = if case.inputs[i].once.is_some() { (0, 0) } else { setting.beside() };
            let wide = left + cols + right;
            let place = |at: usize| at / cols * wide + left + at % cols;
            let expected: Sampled = data.gradients[i]
                .iter()
                .map(|&(at, d)| (place(at), setting.below(case, data, i, at, d)))
                .collect();
            compare(&format!("gradient of input {i}"), found, &expected)?;
            let is_beside = |at: &usize| !(left..left + cols).contains(&(at % wide));
            if let Some(at) = (0..found.len()).filter(is_beside).find(|&at| found[at] != 0.0) {
                return Err(format!("gradient of input {i}: {} beside its columns", found[at]));
            }
        }
        for (t, expected) in data.table_gradients.iter().enumerate().filter(|_| !self.tables.is_empty()) {
            compare(&format!("gradient of table {t}"), &self.tables[t], expected)?;
        }
        Ok(())
    }
}

impl Setting {
    /// The gradient where it is read: with what the other op adds, and below the activation.
    fn below(&self, case: &Case, data: &Data, i: usize, at: usize, d: f64) -> f64 {
        let other = if self.other == Other::None { 0.0 } else { f64::from(data.other_weights[i][at]) };
        let slope = if self.activated && case.inputs[i].once.is_none() {
            1.0 - activate_f64(ACTIVATION, data.raw[i].data[at]).powi(2)
        } else {
            1.0
        };
        (d + other) * slope
    }
}

/// Compares the expected elements of a tensor, and that all of it is finite.
pub(super) fn compare(what: &str, found: &[f32], expected: &Sampled) -> std::result::Result<(), String> {
    compare_above(1e-6, what, found, expected)
}

/// The same where an error of `noise` is none, however small what is expected.
pub(super) fn compare_above(
    noise: f64,
    what: &str,
    found: &[f32],
    expected: &Sampled,
) -> std::result::Result<(), String> {
    if let Some(at) = found.iter().position(|v| !v.is_finite()) {
        return Err(format!("{what} is {} at {at}", found[at]));
    }
    let scale = expected.iter().map(|(_, e)| e.abs()).fold(0.0, f64::max);
    for &(at, e) in expected {
        let found = found.get(at).copied().map_or(f64::NAN, f64::from);
        if (found - e).abs() > 1e-4 * e.abs() + 1e-5 * scale + noise || found.is_nan() {
            return Err(format!("{what} at {at} is {found}, {e} is expected"));
        }
    }
    Ok(())
}
