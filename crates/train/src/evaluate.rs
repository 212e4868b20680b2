//! Predictions over a data set, and their metrics.

use crate::metrics::{Evaluation, Judged, Ordered, Ranked, Slices, evaluate, reliability};
use crate::report::{Constants, Part};
use manygate_core::{Error, Executor, Result};
use manygate_data::Dataset;
use manygate_features::{Schema, TaskKind};
use manygate_graph::Plan;
use manygate_runtime::Predictor;

/// Bins of the reliability plots.
const RELIABILITY_BINS: usize = 10;

/// Metrics of `data` under the predictor's weights, and the predictions `[task][row]`.
///
/// # Errors
/// When the data does not fit the model, or a prediction is not a number.
pub fn evaluate_dataset(
    predictor: &mut Predictor<'_>,
    exec: &dyn Executor,
    schema: &Schema,
    data: &Dataset,
) -> Result<(Evaluation, Vec<Vec<f32>>)> {
    let outputs = predictor.predict_all(exec, &data.batch)?;
    evaluate_outputs(predictor.plan(), outputs, schema, data)
}

/// Metrics of `outputs`, `[output][row]`, which `plan` has for the rows of `data`, and the predictions among them,
/// `[task][row]`: a model may have outputs that are no task's, and nothing judges those.
///
/// # Errors
/// When a task has no output.
pub(crate) fn evaluate_outputs(
    plan: &Plan,
    mut outputs: Vec<Vec<f32>>,
    schema: &Schema,
    data: &Dataset,
) -> Result<(Evaluation, Vec<Vec<f32>>)> {
    let mut predictions = Vec::with_capacity(schema.tasks.len());
    for task in &schema.tasks {
        let output = plan.output_names().position(|name| name == task.name);
        let missing = || Error::graph(&task.name, "the model has no output for this task");
        predictions.push(std::mem::take(&mut outputs[output.ok_or_else(missing)?]));
    }
    Ok((judge(schema, data, &predictions)?, predictions))
}

fn judge(schema: &Schema, data: &Dataset, predictions: &[Vec<f32>]) -> Result<Evaluation> {
    let counted = counted(schema, data);
    // A probability within a label space may well be the larger.
    let over_all = |t: usize| schema.tasks[t].space.is_none();
    let judged = schema.tasks.iter().enumerate().map(|(t, task)| Judged {
        task: &task.name,
        kind: task.kind,
        predictions: &predictions[t],
        labels: &data.batch.labels[t],
        counted: counted[t],
        before: task
            .after
            .filter(|&before| over_all(t) && over_all(before))
            .map(|t| predictions[t].as_slice()),
    });
    let slices = Slices {
        scenario: &data.batch.scenario,
        names: &schema.scenarios,
        column: schema.scenario_column.as_deref().unwrap_or("scenario"),
        users: schema.user.as_ref().map(|_| data.users.as_slice()),
    };
    evaluate(&judged.collect::<Vec<_>>(), &slices)
}

fn counted<'d>(schema: &Schema, data: &'d Dataset) -> Vec<Option<&'d [f32]>> {
    schema.tasks.iter().map(|t| t.space.map(|s| data.batch.labels[s].as_slice())).collect()
}

/// An evaluation beside what a constant prediction of the training means reaches.
pub fn part(schema: &Schema, evaluation: Evaluation, means: &Ordered<f64>) -> Part {
    let constants = Constants::of(means, &evaluation);
    let auxiliary = schema.tasks.iter().filter(|task| task.is_auxiliary()).map(|task| task.name.clone());
    Part { evaluation, constants, auxiliary: auxiliary.collect() }
}

/// Mean label of each task over the rows that count: the rate of a binary one.
pub fn label_means(schema: &Schema, data: &Dataset) -> Ordered<f64> {
    let counted = counted(schema, data);
    let mean = |t: usize| {
        let (mut rows, mut sum) = (0u64, 0.0);
        for (r, &label) in data.batch.labels[t].iter().enumerate() {
            if counted[t].is_none_or(|mask| mask[r] == 1.0) {
                rows += 1;
                sum += f64::from(label);
            }
        }
        sum / rows.max(1) as f64
    };
    schema.tasks.iter().enumerate().map(|(t, task)| (task.name.clone(), mean(t))).collect()
}

/// Predicted against observed rates of each binary task.
///
/// # Errors
/// When a prediction is not a number.
pub fn reliabilities(
    schema: &Schema,
    data: &Dataset,
    predictions: &[Vec<f32>],
) -> Result<Ordered<Vec<crate::metrics::ReliabilityBin>>> {
    let counted = counted(schema, data);
    let bins = |t: usize| -> Result<_> {
        let ranked = Ranked::new(&predictions[t], &data.batch.labels[t], counted[t])?;
        Ok((schema.tasks[t].name.clone(), reliability(&ranked, RELIABILITY_BINS)))
    };
    let is_binary = |t: &usize| schema.tasks[*t].kind == TaskKind::Binary;
    let bins: Result<Vec<_>> = (0..schema.tasks.len()).filter(is_binary).map(bins).collect();
    Ok(bins?.into_iter().collect())
}
