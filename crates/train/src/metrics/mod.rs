//! Metrics of every task, over all rows and scenario by scenario: AUC, log loss, GAUC and calibration of probabilities,
//! errors of numbers.
//!
//! [`evaluate`] is what a run calls. It checks the rows once a task and sorts those of probabilities ([`Ranked`],
//! [`Numbers`]); each metric is then a function of them, in a file of its own. To add one: a file, a field of [`Metrics`]
//! or [`Errors`], and a line in `Metrics::of` or `Metrics::of_numbers`.
//!
//! The file `metrics.json` of a run holds [`Evaluation`]s under `test` and `valid`, beside `"version": 1` and what
//! the trainer adds. A metric that is not defined (AUC with one class, anything of no rows) is `null`.

mod auc;
mod calibration;
mod cascade;
mod deviance;
mod gauc;
mod logloss;
mod mae;
mod numbers;
mod ordered;
mod ranked;
mod rmse;

pub use auc::auc;
pub use calibration::{ReliabilityBin, pcoc, reliability};
pub use cascade::above_earlier;
pub use deviance::{deviance, poisson_loss, predicted_over_observed};
pub use gauc::{Gauc, gauc};
pub use logloss::{constant_log_loss, log_loss};
pub use mae::{mae, nmae};
pub use numbers::Numbers;
pub use ordered::Ordered;
pub use ranked::Ranked;
pub use rmse::{constant_rmse, mean_squared_error};

use manygate_core::{Error, Result};
use manygate_features::TaskKind;
use serde::{Deserialize, Serialize};

/// Name of the slice that holds every row.
pub const ALL: &str = "all";

/// The metrics of one task on one slice of the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Area under the ROC curve, ties counted half; undefined when a class is missing.
    pub auc: Option<f64>,
    /// Mean binary cross-entropy, natural logarithm (nats a row); undefined without rows.
    pub logloss: Option<f64>,
    /// AUC within users, weighted by impressions; undefined without users or when none has both classes.
    pub gauc: Option<f64>,
    /// Sum of the predictions over that of the labels, for binary and poisson tasks: above 1 the model promises too
    /// much; undefined where all labels are 0.
    pub pcoc: Option<f64>,
    /// Rows that count.
    pub rows: usize,
    /// Rows among them whose label is not 0.
    pub positives: usize,
    /// Users with both classes, over whom `gauc` is taken.
    #[serde(default)]
    pub gauc_users: usize,
    /// How far predictions are from labels that are numbers: regression and poisson tasks have it, binary ones have not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// For a binary task that comes [after](Judged::before) another: the share of rows whose prediction is above that of
    /// the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above_earlier: Option<f64>,
}

/// How far predictions are from labels that are numbers. What is not defined, as anything of no rows, is [`None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Root of the mean squared error.
    pub rmse: Option<f64>,
    /// Mean absolute error.
    pub mae: Option<f64>,
    /// Sum of the absolute errors over that of the labels' absolute values.
    pub nmae: Option<f64>,
    /// The loss that is trained, all scenarios counted alike: the mean squared error, or that of counts.
    pub loss: Option<f64>,
    /// Deviance of rates from counts; undefined for regression.
    pub deviance: Option<f64>,
    /// Mean of the labels.
    pub label_mean: Option<f64>,
    /// Standard deviation of the labels, over the number of rows.
    pub label_deviation: Option<f64>,
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
            ..Metrics::default()
        }
    }

    /// All metrics of `numbers`, counts or not.
    fn of_numbers(numbers: &Numbers, counts: bool) -> Metrics {
        let squares = mean_squared_error(numbers);
        let label_mean = numbers.mean(|row| row.label);
        let spread = label_mean.and_then(|mean| numbers.mean(|row| (row.label - mean).powi(2)));
        let errors = Errors {
            rmse: squares.map(f64::sqrt),
            mae: mae(numbers),
            nmae: nmae(numbers),
            loss: if counts { poisson_loss(numbers) } else { squares },
            deviance: deviance(numbers).filter(|_| counts),
            label_mean,
            label_deviation: spread.map(f64::sqrt),
        };
        Metrics {
            pcoc: predicted_over_observed(numbers).filter(|_| counts),
            rows: numbers.len(),
            positives: numbers.events(),
            errors: Some(errors),
            ..Metrics::default()
        }
    }

    /// The loss that is trained, all scenarios counted alike, whatever the task's kind; undefined without rows.
    pub fn loss(&self) -> Option<f64> {
        self.errors.map_or(self.logloss, |errors| errors.loss)
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

    /// Mean AUC on all rows over those of `tasks` that have one; `None` when none has.
    pub fn mean_auc<'a>(&self, tasks: impl Iterator<Item = &'a str>) -> Option<f64> {
        let all: Vec<f64> = tasks.filter_map(|task| self.get(task, ALL)?.auc).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }
}

/// What is judged of one task; all columns are `[row]`.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Its name.
    pub task: &'a str,
    /// What its labels are.
    pub kind: TaskKind,
    /// Probabilities, numbers or rates, as the kind is.
    pub predictions: &'a [f32],
    /// What came: 0 or 1, or finite numbers.
    pub labels: &'a [f32],
    /// A mask of the task's label space: rows with 1 count, others do not (a conversion rate given a click counts clicked
    /// rows only). Labels of rows that do not count are not read.
    pub counted: Option<&'a [f32]>,
    /// Predictions of the task that this one, a binary one, comes after.
    pub before: Option<&'a [f32]>,
}

/// Which rows are of which scenario, and which of which user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slices<'a> {
    /// `[row]`, numbers into the names; empty where the data has no scenarios, and then the only slice is `all`.
    pub scenario: &'a [u32],
    /// Every scenario of the schema: each gets a slice, be it empty.
    pub names: &'a [String],
    /// Their column, which stands before a name.
    pub column: &'a str,
    /// `[row]`, any number for each user, for GAUC.
    pub users: Option<&'a [u32]>,
}

/// Evaluates the predictions of tasks, in the schema's order, on all rows and scenario by scenario.
///
/// # Errors
/// A prediction that is not a number in [0, 1], or for numbers not finite (also in rows that do not count), a counted
/// label that is none, columns of different lengths, a scenario number without a name. The message names task and row.
pub fn evaluate(tasks: &[Judged<'_>], slices: &Slices<'_>) -> Result<Evaluation> {
    let rows = tasks.first().map_or(0, |task| task.predictions.len());
    if let Some(users) = slices.users.filter(|users| users.len() != rows) {
        return Err(wrong(format!("{} users for {rows} rows", users.len())));
    }
    if !slices.scenario.is_empty() {
        check_scenarios(slices.scenario, rows, slices.names.len())?;
    }
    let mut by_task = Vec::with_capacity(tasks.len());
    for task in tasks {
        let metrics = of_task(task, slices, rows).map_err(|e| with_task(task.task, e))?;
        let name = |scenario: &String| format!("{}={scenario}", slices.column);
        let names = std::iter::once(ALL.to_owned()).chain(slices.names.iter().map(name));
        by_task.push((task.task.to_owned(), names.zip(metrics).collect()));
    }
    Ok(Evaluation { tasks: by_task.into_iter().collect() })
}

/// The metrics of all rows, then those of each scenario.
fn of_task(task: &Judged<'_>, slices: &Slices<'_>, rows: usize) -> Result<Vec<Metrics>> {
    let has = task.predictions.len();
    if has != rows {
        return Err(wrong(format!("{has} rows, the first task has {rows}")));
    }
    let by_scenario = !slices.scenario.is_empty();
    if task.kind != TaskKind::Binary {
        let all = Numbers::new(task.predictions, task.labels, task.counted)?;
        let parts = by_scenario.then(|| all.by_scenario(slices.scenario, slices.names.len()));
        let metrics = |part: &Numbers| Metrics::of_numbers(part, task.kind == TaskKind::Poisson);
        return Ok(std::iter::once(&all).chain(parts.iter().flatten()).map(metrics).collect());
    }
    let all = Ranked::new(task.predictions, task.labels, task.counted)?;
    let parts = by_scenario.then(|| all.by_scenario(slices.scenario, slices.names.len()));
    let metrics = |part: &Ranked| Metrics {
        above_earlier: task.before.and_then(|before| above_earlier(part, before)),
        ..Metrics::of(part, slices.users)
    };
    Ok(std::iter::once(&all).chain(parts.iter().flatten()).map(metrics).collect())
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

fn with_task(task: &str, error: Error) -> Error {
    match error {
        Error::Graph { at, message } => Error::graph(format!("{at} of task `{task}`"), message),
        other => other,
    }
}

#[cfg(test)]
mod tests;
