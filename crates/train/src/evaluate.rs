//! Predictions over a data set, and their metrics.

use crate::metrics::{Evaluation, Ordered, Ranked, evaluate, reliability};
use crate::report::{Constants, Part, constant_log_losses};
use manygate_core::{Error, Executor, Result};
use manygate_data::Dataset;
use manygate_features::Schema;
use manygate_runtime::Predictor;

/// Bins of the reliability plots.
const RELIABILITY_BINS: usize = 10;

/// Metrics of `data` under the predictor's weights, and the probabilities `[task][row]`: a model may have outputs that
/// are no task's, and nothing judges those.
///
/// # Errors
/// When the data does not fit the model, or a prediction is not a number.
pub fn evaluate_dataset(
    predictor: &mut Predictor<'_>,
    exec: &dyn Executor,
    schema: &Schema,
    data: &Dataset,
) -> Result<(Evaluation, Vec<Vec<f32>>)> {
    let mut outputs = predictor.predict_all(exec, &data.batch)?;
    let mut probabilities = Vec::with_capacity(schema.tasks.len());
    for task in &schema.tasks {
        let output = predictor.output_names().position(|name| name == task.name);
        let missing = || Error::graph(&task.name, "the model has no output for this task");
        probabilities.push(std::mem::take(&mut outputs[output.ok_or_else(missing)?]));
    }
    Ok((evaluate_probabilities(schema, data, &probabilities)?, probabilities))
}

fn evaluate_probabilities(schema: &Schema, data: &Dataset, probabilities: &[Vec<f32>]) -> Result<Evaluation> {
    let tasks: Vec<&str> = schema.tasks.iter().map(|t| t.name.as_str()).collect();
    let labels = &data.batch.labels;
    let counted: Vec<Option<&[f32]>> = counted(schema, data);
    let users = schema.user.as_ref().map(|_| data.users.as_slice());
    let column = schema.scenario_column.as_deref().unwrap_or("scenario");
    evaluate(&tasks, probabilities, labels, &counted, &data.batch.scenario, &schema.scenarios, column, users)
}

fn counted<'d>(schema: &Schema, data: &'d Dataset) -> Vec<Option<&'d [f32]>> {
    schema.tasks.iter().map(|t| t.space.map(|s| data.batch.labels[s].as_slice())).collect()
}

/// An evaluation beside what a constant prediction of the training rates reaches.
pub fn part(evaluation: Evaluation, rates: &Ordered<f64>) -> Part {
    let constants: Constants = constant_log_losses(rates, &evaluation);
    Part { evaluation, constants }
}

/// Label rate of each task over the rows that count.
pub fn label_rates(schema: &Schema, data: &Dataset) -> Ordered<f64> {
    let counted = counted(schema, data);
    let rate = |t: usize| {
        let (mut rows, mut positives) = (0u64, 0u64);
        for (r, &label) in data.batch.labels[t].iter().enumerate() {
            if counted[t].is_none_or(|mask| mask[r] == 1.0) {
                rows += 1;
                positives += u64::from(label == 1.0);
            }
        }
        positives as f64 / rows.max(1) as f64
    };
    schema.tasks.iter().enumerate().map(|(t, task)| (task.name.clone(), rate(t))).collect()
}

/// Predicted against observed rates of each task.
///
/// # Errors
/// When a prediction is not a number.
pub fn reliabilities(
    schema: &Schema,
    data: &Dataset,
    probabilities: &[Vec<f32>],
) -> Result<Ordered<Vec<crate::metrics::ReliabilityBin>>> {
    let counted = counted(schema, data);
    let bins = |t: usize| -> Result<_> {
        let ranked = Ranked::new(&probabilities[t], &data.batch.labels[t], counted[t])?;
        Ok((schema.tasks[t].name.clone(), reliability(&ranked, RELIABILITY_BINS)))
    };
    let bins: Result<Vec<_>> = (0..schema.tasks.len()).map(bins).collect();
    Ok(bins?.into_iter().collect())
}
