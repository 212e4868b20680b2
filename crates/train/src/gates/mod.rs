//! What the gates of a trained model do: the mean weight of each expert by task and scenario, the mean factor of each
//! field by scenario, and which experts do nothing, or the same as another.

mod statistics;

use crate::config::Config;
use manygate_core::{Batch, Error, Executor, Pool, Result};
use manygate_data::encode_file;
use manygate_graph::{Draws, GateView, GateWeights, Input, Mode, Plan, PlanOptions, RowOrder, Workspace};
use manygate_runtime::predictor::CHUNK_ROWS;
use manygate_runtime::{CONFIG_FILE, Model, model_inputs};
use serde::Serialize;
use statistics::{Bank, Means};
use std::path::{Path, PathBuf};

/// An expert whose largest mean weight is below this share of an equal one is told as unused.
const UNUSED: f64 = 0.01;
/// Two experts of a gate whose outputs correlate at least this much are told as duplicates.
const DUPLICATE: f64 = 0.99;

/// The gates of a run on some rows; the JSON of `manygate inspect --gates --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gates {
    /// Version of this form.
    pub version: u32,
    /// Name of the architecture.
    pub model: String,
    /// Slices of the rows: `all`, then each scenario.
    pub slices: Vec<Slice>,
    /// The gates, in order of declaration.
    pub gates: Vec<Gate>,
    /// Every expert that a gate weighs.
    pub experts: Vec<Expert>,
    /// Pairs of experts that do the same.
    pub duplicates: Vec<Duplicate>,
}

/// Rows of a scenario, or all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Slice {
    /// `all`, or `column=value`.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
}

/// What a gate does to what it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Shares of experts, which sum to 1 in each row.
    Shares,
    /// What a field's values are multiplied by.
    Factors,
    /// How many times as long a field's vector becomes.
    Gain,
}

/// Mean weights of a gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Prefix of its parameters.
    pub name: String,
    /// What its numbers are.
    pub kind: Kind,
    /// What it weighs: experts or fields.
    pub of: Vec<String>,
    /// `[of][slice]`; null where a slice has no rows.
    pub means: Vec<Vec<Option<f64>>>,
}

/// An expert, over all gates that see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expert {
    /// Prefix of its parameters.
    pub name: String,
    /// Its largest mean weight of all gates and slices.
    pub largest_share: f64,
    /// The gate of that weight.
    pub gate: String,
    /// The slice of that weight.
    pub slice: String,
    /// Root mean square over its units of the standard deviation over rows.
    pub deviation: f64,
    /// Why it is dead, where it is.
    pub dead: Option<Death>,
}

/// Why an expert is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// Its output is the same for all rows.
    Constant,
    /// No gate gives it a hundredth of an equal share in any slice.
    Unused,
}

/// Two experts that a gate sees and that do the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duplicate {
    /// The experts.
    pub experts: [String; 2],
    /// Correlation of their outputs over rows and units.
    pub correlation: f64,
}

/// Looks at the gates of a run's chosen model on files, on none the test files of its configuration.
///
/// # Errors
/// When the run cannot be opened, it names no test files, the data does not fit the model, or the model has no gates.
pub fn gates(folder: &Path, files: &[PathBuf], threads: usize) -> Result<Gates> {
    let model = Model::open_to_score(folder)?;
    let config = Config::load(&folder.join(CONFIG_FILE), &[])?;
    let (_, architecture) = manygate_models::from_table(&config.model)?;
    let schema = model.encoder.schema();
    let mut graph = manygate_models::build(architecture.as_ref(), &model_inputs(schema)?, Mode::Evaluation)?;
    if graph.gates().is_empty() {
        let message =
            format!("`{}` has no gates to look at; `manygate inspect` shows its parameters", model.name);
        return Err(Error::config("--gates", message));
    }
    graph.output_gates();
    let views = graph.gates().to_vec();
    let plan = Plan::compile(graph, PlanOptions::default())?;

    let files = if files.is_empty() { config.data.test } else { files.to_vec() };
    if files.is_empty() {
        return Err(Error::config("--data", "is needed: the run's configuration names no test files"));
    }
    let data = encode_file(&model.encoder, &files, false, &mut |_| {})?;
    let column = schema.scenario_column.as_deref().unwrap_or("scenario");
    let scenarios = schema.scenarios.iter().map(|value| format!("{column}={value}"));
    let slices: Vec<String> = std::iter::once(crate::metrics::ALL.to_owned()).chain(scenarios).collect();
    Pool::new(threads)?.enter(|exec| look(&model, &plan, &views, &data.batch, slices, exec))
}

/// Runs the plan over all rows and sums up.
fn look(
    model: &Model,
    plan: &Plan,
    views: &[GateView],
    data: &Batch,
    slices: Vec<String>,
    exec: &dyn Executor,
) -> Result<Gates> {
    data.validate()?;
    let weights = model.weights();
    let prepared = plan.prepare(exec, &weights.params, &weights.state, &weights.tables)?;
    let mut ws = Workspace::sharing(plan, exec.threads(), CHUNK_ROWS, &prepared)?;
    let mut means: Vec<Means> = views.iter().map(|view| Means::new(view.of.len(), slices.len())).collect();
    let mut banks: Vec<Bank> = Vec::new();
    let mut rows_of = vec![0u64; slices.len()];
    let (mut order, mut part) = (RowOrder::default(), Batch::empty_like(data));
    let rows: Vec<u32> = (0..data.rows as u32).collect();
    for rows in rows.chunks(CHUNK_ROWS) {
        part.gather(data, rows);
        let arranged = order.arrange(plan, &part)?;
        let input = Input {
            params: &weights.params,
            state: &weights.state,
            tables: &weights.tables,
            batch: arranged.batch,
            seeds: &[],
            draws: Draws::default(),
        };
        plan.run(exec, &mut ws, &input)?;
        let scenario = &arranged.batch.scenario;
        rows_of[0] += rows.len() as u64;
        scenario.iter().for_each(|&s| rows_of[s as usize + 1] += 1);
        for (view, means) in views.iter().zip(&mut means) {
            means.add(plan, &ws, view, scenario)?;
        }
        for view in views {
            Bank::add(&mut banks, plan, &ws, view)?;
        }
    }
    let experts = experts(views, &means, &banks, &slices);
    let duplicates = banks.iter().flat_map(|bank| bank.duplicates(DUPLICATE)).collect();
    let kind = |view: &GateView| match view.weights {
        GateWeights::Softmax { .. } => Kind::Shares,
        GateWeights::Factors { .. } => Kind::Factors,
        GateWeights::Gain { .. } => Kind::Gain,
    };
    let gates = views.iter().zip(&means).map(|(view, means)| Gate {
        name: view.name.clone(),
        kind: kind(view),
        of: view.of.clone(),
        means: means.of_each(),
    });
    let slices = slices.into_iter().zip(rows_of).map(|(name, rows)| Slice { name, rows });
    Ok(Gates {
        version: 1,
        model: model.name.clone(),
        slices: slices.collect(),
        gates: gates.collect(),
        experts,
        duplicates,
    })
}

/// Every expert that a gate weighs, with its largest share.
fn experts(views: &[GateView], means: &[Means], banks: &[Bank], slices: &[String]) -> Vec<Expert> {
    let mut experts: Vec<(Expert, f64)> = Vec::new();
    for (view, means) in views.iter().zip(means) {
        if !matches!(view.weights, GateWeights::Softmax { .. }) {
            continue;
        }
        for (name, means) in view.of.iter().zip(means.of_each()) {
            let largest = means.iter().zip(slices).filter_map(|(mean, slice)| Some(((*mean)?, slice)));
            let Some((share, slice)) = largest.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
            let equal = 1.0 / view.of.len() as f64;
            let found = experts.iter_mut().find(|(expert, _)| expert.name == *name);
            match found {
                Some((expert, _)) if expert.largest_share >= share => {}
                Some((expert, of_equal)) => {
                    (expert.largest_share, *of_equal) = (share, share / equal);
                    (expert.gate, expert.slice) = (view.name.clone(), slice.clone());
                }
                None => {
                    let deviation = banks.iter().find_map(|bank| bank.deviation(name)).unwrap_or_default();
                    let (gate, slice) = (view.name.clone(), slice.clone());
                    let expert = Expert {
                        name: name.clone(),
                        largest_share: share,
                        gate,
                        slice,
                        deviation,
                        dead: None,
                    };
                    experts.push((expert, share / equal));
                }
            }
        }
    }
    let judged = experts.into_iter().map(|(mut expert, of_equal)| {
        expert.dead = match (expert.deviation == 0.0, of_equal < UNUSED) {
            (true, _) => Some(Death::Constant),
            (false, true) => Some(Death::Unused),
            (false, false) => None,
        };
        expert
    });
    judged.collect()
}
