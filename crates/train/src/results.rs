//! The end of a run: the chosen model scored on validation and test, `metrics.json` and the report.
//!
//! `metrics.json`: `{"version": 1, "test": E, "valid": E, "label_rates": {"is_click": ..}, "step": .., "model": ..,
//! "seed": .., "seconds": ..}`. Label rates are the mean labels of the fit rows, over the rows that count. E is
//! `{"is_click": {"all": {"auc", "logloss", "gauc", "pcoc", "rows", "positives", "gauc_users"}, "tab=1": {..}}}`;
//! an undefined metric is `null`, and `test` is `null` without test data. A task whose labels are numbers also has
//! `"errors": {"rmse", "mae", "nmae", "loss", "deviance", "label_mean", "label_deviation"}`, and `null` where a metric is
//! one of probabilities. One that comes `after` another has `"above_earlier"`, the share of rows with a larger prediction
//! than the other's; `"auxiliary": ["x"]` lists tasks that are not served, `"violations": [{"task", "after", "file",
//! "rows", "first_line"}]` the rows whose labels contradict `after`. Both are absent where there are none. Where each task
//! takes its own best validation, `task_steps` has the step of each, and `step` is the last of them.

use crate::choice;
use crate::config::Config;
use crate::evaluate::{evaluate_outputs, part, reliabilities};
use crate::metrics::{Evaluation, Ordered};
use crate::model_predictor::ModelPredictor;
use crate::progress::Progress;
use crate::report::{Floors, Part, ReportData, charts, html};
use crate::steps::{DeviceChoice, PrecisionChoice};
use manygate_core::{Batch, Error, Executor, Result, write_atomically};
use manygate_data::{Splits, Violation};
use manygate_kernels::Isa;
use manygate_runtime::Model;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// File of the metrics in a run folder.
pub const METRICS_FILE: &str = "metrics.json";
/// File of the report in a run folder.
pub const REPORT_FILE: &str = "report.html";
/// Folder of the report's pictures in a run folder.
pub const CHARTS_FOLDER: &str = "charts";

/// What a finished run gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// Step of the chosen checkpoint, the last where each task has its own.
    pub step: u64,
    /// The chosen step of each task, where each has its own.
    pub task_steps: Ordered<u64>,
    /// Validation metrics of the chosen checkpoint.
    pub valid: Part,
    /// Test metrics of the chosen checkpoint.
    pub test: Option<Part>,
    /// Baselines to compare the test with.
    pub floors: Option<Floors>,
    /// Seconds from start to report.
    pub seconds: f64,
}

/// What the end of a run needs to know.
pub(crate) struct RunFacts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) folder: &'a Path,
    pub(crate) splits: &'a Splits,
    pub(crate) progress: &'a Progress,
    pub(crate) task_steps: Ordered<u64>,
    /// Names of the parts of the loss.
    pub(crate) losses: Vec<String>,
    pub(crate) parameters: (usize, usize),
    pub(crate) means: Ordered<f64>,
    /// Where the chosen model predicts.
    pub(crate) device: DeviceChoice,
    pub(crate) threads: usize,
    pub(crate) isa: Isa,
    pub(crate) started: Instant,
}

#[derive(Serialize)]
struct MetricsFile<'a> {
    version: u32,
    test: Option<&'a Evaluation>,
    valid: &'a Evaluation,
    label_rates: &'a Ordered<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    auxiliary: &'a [String],
    #[serde(skip_serializing_if = "<[Violation]>::is_empty")]
    violations: &'a [Violation],
    model: &'a str,
    seed: u64,
    step: u64,
    #[serde(skip_serializing_if = "Ordered::is_empty")]
    task_steps: &'a Ordered<u64>,
    seconds: f64,
}

/// Scores the chosen model from its file, as a user would, and writes the results.
pub(crate) fn finish(facts: &RunFacts<'_>, exec: &dyn Executor) -> Result<Outcome> {
    let model = Model::open_to_score(facts.folder)?;
    let schema = facts.splits.encoder.schema();
    let Splits { valid, test: test_rows, .. } = facts.splits;
    let data: Vec<&Batch> =
        [Some(valid), test_rows.as_ref()].into_iter().flatten().map(|d| &d.batch).collect();
    // As training validates, whatever it multiplies in.
    let mut predictor = ModelPredictor::new(&model, facts.device, PrecisionChoice::F32, exec, &data)?;
    let (valid, _) = evaluate_outputs(&model.plan, predictor.predict_all(&valid.batch)?, schema, valid)?;
    let valid = part(schema, valid, &facts.means);
    let mut reliability = Ordered::default();
    let mut test = None;
    if let Some(data) = test_rows {
        let outputs = predictor.predict_all(&data.batch)?;
        let (evaluation, predictions) = evaluate_outputs(&model.plan, outputs, schema, data)?;
        reliability = reliabilities(schema, data, &predictions)?;
        test = Some(part(schema, evaluation, &facts.means));
    }
    let floors = facts.config.report.floors.as_ref().map(Floors::load).transpose()?;
    let step = facts.progress.chosen.iter().map(|chosen| chosen.step).max().unwrap_or(facts.progress.step);
    let task_steps = facts.task_steps.clone();
    let seconds = facts.started.elapsed().as_secs_f64();
    let violations = facts.splits.violations();
    let file = MetricsFile {
        version: 1,
        test: test.as_ref().map(|t| &t.evaluation),
        valid: &valid.evaluation,
        label_rates: &facts.means,
        auxiliary: &valid.auxiliary,
        violations: &violations,
        model: &model.name,
        seed: facts.config.seed,
        step,
        task_steps: &task_steps,
        seconds,
    };
    let path = facts.folder.join(METRICS_FILE);
    let json = serde_json::to_string_pretty(&file).map_err(|e| Error::format(&path, e.to_string()))?;
    write_atomically(&path, json.as_bytes())?;
    let report = ReportData {
        title: format!("{} on {}", model.name, data_name(facts.config)),
        facts: fact_lines(facts, &model, &violations, seconds),
        tasks: schema.tasks.iter().map(|t| t.name.clone()).collect(),
        losses: facts.losses.clone(),
        training: facts.progress.training.clone(),
        validation: facts.progress.validation.clone(),
        chosen_step: task_steps.is_empty().then_some(step),
        chosen_by_task: task_steps.clone(),
        test: test.clone(),
        valid: Some(valid.clone()),
        floors: floors.clone(),
        reliability,
    };
    write_atomically(&facts.folder.join(REPORT_FILE), html::report(&report).as_bytes())?;
    write_charts(facts.folder, &report)?;
    Ok(Outcome { folder: facts.folder.to_path_buf(), step, task_steps, valid, test, floors, seconds })
}

/// Mean label of each task over the fit rows, from the metrics of a run folder; [`None`] before the run's end, and for
/// runs that did not keep them.
///
/// # Errors
/// When the file cannot be read or is not of this form.
pub fn label_means(folder: &Path) -> Result<Option<Ordered<f64>>> {
    #[derive(Deserialize)]
    struct Rates {
        label_rates: Option<Ordered<f64>>,
    }
    let path = folder.join(METRICS_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let damaged =
        |e: serde_json::Error| Error::format(&path, format!("is damaged ({e}); remove it to do without"));
    Ok(serde_json::from_str::<Rates>(&text).map_err(damaged)?.label_rates)
}

/// Writes the report's pictures as files of their own, to be shown elsewhere.
fn write_charts(folder: &Path, report: &ReportData) -> Result<()> {
    let charts = folder.join(CHARTS_FOLDER);
    std::fs::create_dir_all(&charts).map_err(Error::io("create the folder", &charts))?;
    write_atomically(&charts.join("learning_curve.svg"), charts::learning_curve(report).as_bytes())?;
    for task in report.binary_tasks().filter(|_| report.test.is_some()) {
        // A task may be called anything; a file may not.
        let name: String = task.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
        write_atomically(&charts.join(format!("auc_{name}.svg")), charts::auc_bars(report, task).as_bytes())?;
    }
    Ok(())
}

/// The folder of the training files, by which people call a data set.
fn data_name(config: &Config) -> String {
    let folder = config.data.train.first().and_then(|f| f.parent()).and_then(|f| f.file_name());
    folder.map_or_else(|| "data".to_owned(), |f| f.to_string_lossy().into_owned())
}

fn fact_lines(
    facts: &RunFacts<'_>,
    model: &Model,
    violations: &[Violation],
    seconds: f64,
) -> Vec<(String, String)> {
    let rows = |d: &manygate_data::Dataset| d.batch.rows.to_string();
    let paper = manygate_models::find(&model.name).map_or("", |entry| entry.paper);
    let mut lines = vec![
        ("model".to_owned(), model.name.clone()),
        ("paper".to_owned(), paper.to_owned()),
        ("seed".to_owned(), facts.config.seed.to_string()),
        ("parameters".to_owned(), format!("{} dense, {} in tables", facts.parameters.0, facts.parameters.1)),
        ("rows to fit".to_owned(), rows(&facts.splits.fit)),
        ("rows to validate".to_owned(), rows(&facts.splits.valid)),
    ];
    if let Some(test) = &facts.splits.test {
        lines.push(("rows to test".to_owned(), rows(test)));
    }
    lines.extend(violations.iter().map(|v| (format!("{} without {}", v.task, v.after), v.to_string())));
    if !facts.task_steps.is_empty() {
        lines.push(("chosen".to_owned(), choice::told(0, &facts.task_steps)));
    }
    lines.push(("machine".to_owned(), format!("{} threads, {}", facts.threads, facts.isa)));
    lines.push(("seconds".to_owned(), format!("{seconds:.1}")));
    lines
}
