//! Metrics: AUC, log loss, GAUC and calibration of every task, over all rows and scenario by scenario.
//!
//! [`evaluate`] is what a run calls. It checks and sorts the rows once a task ([`Ranked`]); each metric is then a
//! function of rows in rising order of prediction, in a file of its own. To add one: a file, a field of
//! [`Metrics`], and a line in `Metrics::of`.
//!
//! The file `metrics.json` of a run holds [`Evaluation`]s under `test` and `valid`, beside `"version": 1` and what
//! the trainer adds. A metric that is not defined (AUC with one class, anything of no rows) is `null`.

mod auc;
mod calibration;
mod gauc;
mod logloss;
mod ordered;
mod ranked;

pub use auc::auc;
pub use calibration::{ReliabilityBin, pcoc, reliability};
pub use gauc::{Gauc, gauc};
pub use logloss::{constant_log_loss, log_loss};
pub use ordered::Ordered;
pub use ranked::Ranked;

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Name of the slice that holds every row.
pub const ALL: &str = "all";

/// The metrics of one task on one slice of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Area under the ROC curve, ties counted half; undefined when a class is missing.
    pub auc: Option<f64>,
    /// Mean binary cross-entropy, natural logarithm (nats a row); undefined without rows.
    pub logloss: Option<f64>,
    /// AUC within users, weighted by impressions; undefined without users or when none has both classes.
    pub gauc: Option<f64>,
    /// Sum of the predictions over the number of positives: above 1 the model promises too much; undefined
    /// without positives.
    pub pcoc: Option<f64>,
    /// Rows that count.
    pub rows: usize,
    /// Rows among them with label 1.
    pub positives: usize,
    /// Users with both classes, over whom `gauc` is taken.
    #[serde(default)]
    pub gauc_users: usize,
}

impl Metrics {
    /// All metrics of `ranked`; `users` is the user of every row of the data, `[rows]`.
    fn of(ranked: &Ranked, users: Option<&[u32]>) -> Metrics {
        let within = users.map(|users| gauc(ranked, users)).unwrap_or_default();
        Metrics {
            auc: auc(ranked),
            logloss: log_loss(ranked),
            gauc: within.value,
            pcoc: pcoc(ranked),
            rows: ranked.len(),
            positives: ranked.positives(),
            gauc_users: within.groups,
        }
    }
}

/// Metrics by task and slice: tasks in the schema's order; in each, `all` first, then the scenarios in the schema's
/// order, named `column=value`. It is written as `{"is_click": {"all": {"auc": ...}, "tab=1": ...}}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evaluation {
    /// Task -> slice -> metrics.
    pub tasks: Ordered<Ordered<Metrics>>,
}

impl Evaluation {
    /// The metrics of `task` on `slice`, if both exist.
    pub fn get(&self, task: &str, slice: &str) -> Option<&Metrics> {
        self.tasks.get(task)?.get(slice)
    }

    /// Mean over tasks of the AUC on all rows, by which checkpoints are chosen. Tasks whose AUC is not defined
    /// stay out; `None` when that is every task.
    pub fn mean_auc(&self) -> Option<f64> {
        let all: Vec<f64> = self.tasks.iter().filter_map(|(_, slices)| slices.get(ALL)?.auc).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }
}

/// Evaluates predictions on all rows and scenario by scenario.
///
/// - `tasks`: names, in the schema's order; `probabilities` and `labels`: `[task][row]`, labels 0 or 1.
/// - `counted`: for each task, `None` or a mask `[row]` of the task's label space: rows with 1 count, others do not
///   (a conversion rate given a click counts clicked rows only). Labels of rows that do not count are not read.
/// - `scenario`: `[row]`, numbers into `scenario_names`; empty where the data has no scenarios, and then the only
///   slice is `all`. Every scenario of the schema gets a slice, be it empty.
/// - `users`: `[row]`, any number for each user, for GAUC.
///
/// # Errors
/// A prediction that is not a number in [0, 1] (also in rows that do not count), a counted label that is neither 0
/// nor 1, columns of different lengths, a scenario number without a name. The message names task and row.
pub fn evaluate(
    tasks: &[&str],
    probabilities: &[Vec<f32>],
    labels: &[Vec<f32>],
    counted: &[Option<&[f32]>],
    scenario: &[u32],
    scenario_names: &[String],
    scenario_column: &str,
    users: Option<&[u32]>,
) -> Result<Evaluation> {
    let columns =
        [("probabilities", probabilities.len()), ("labels", labels.len()), ("counted", counted.len())];
    for (what, given) in columns {
        if given != tasks.len() {
            return Err(wrong(format!("{what} hold {given} tasks, {} are named", tasks.len())));
        }
    }
    let rows = probabilities.first().map_or(0, Vec::len);
    if let Some(users) = users.filter(|users| users.len() != rows) {
        return Err(wrong(format!("{} users for {rows} rows", users.len())));
    }
    if !scenario.is_empty() {
        check_scenarios(scenario, rows, scenario_names.len())?;
    }
    let mut by_task = Vec::with_capacity(tasks.len());
    for (t, task) in tasks.iter().enumerate() {
        let ranked = Ranked::new(&probabilities[t], &labels[t], counted[t])
            .and_then(|ranked| match probabilities[t].len() == rows {
                true => Ok(ranked),
                false => Err(wrong(format!("{} rows, the first task has {rows}", probabilities[t].len()))),
            })
            .map_err(|e| of_task(task, e))?;
        let mut slices = vec![(ALL.to_owned(), Metrics::of(&ranked, users))];
        if !scenario.is_empty() {
            let parts = ranked.by_scenario(scenario, scenario_names.len());
            slices.extend(
                scenario_names
                    .iter()
                    .zip(&parts)
                    .map(|(name, part)| (format!("{scenario_column}={name}"), Metrics::of(part, users))),
            );
        }
        by_task.push(((*task).to_owned(), slices.into_iter().collect()));
    }
    Ok(Evaluation { tasks: by_task.into_iter().collect() })
}

fn check_scenarios(scenario: &[u32], rows: usize, names: usize) -> Result<()> {
    if scenario.len() != rows {
        return Err(wrong(format!("{} scenario numbers for {rows} rows", scenario.len())));
    }
    match scenario.iter().position(|&s| s as usize >= names) {
        Some(row) => Err(wrong(format!(
            "row {row} is of scenario {}, the schema has {names} scenarios",
            scenario[row]
        ))),
        None => Ok(()),
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::graph("evaluation", message)
}

fn of_task(task: &str, error: Error) -> Error {
    match error {
        Error::Graph { at, message } => Error::graph(format!("{at} of task `{task}`"), message),
        other => other,
    }
}

#[cfg(test)]
mod tests;
