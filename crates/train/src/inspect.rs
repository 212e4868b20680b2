//! What a run folder holds: its tensors in figures, and the plan that trained them.

use crate::config::Config;
use manygate_core::Result;
use manygate_features::Encoder;
use manygate_graph::plan::describe::Description;
use manygate_graph::{Mode, Parameters, Plan, PlanOptions};
use manygate_runtime::{CONFIG_FILE, Model, VOCAB_FOLDER, model_inputs};
use serde::Serialize;
use std::path::Path;

/// The tensors of a run; the JSON of `manygate inspect --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Version of this form.
    pub version: u32,
    /// Name of the architecture.
    pub model: String,
    /// Dense parameters, in order of declaration.
    pub parameters: Vec<Tensor>,
    /// State that no gradient moves: running statistics.
    pub state: Vec<Tensor>,
    /// Embedding tables, in the order of the schema.
    pub tables: Vec<Tensor>,
    /// Sums over all of them.
    pub totals: Totals,
}

/// A tensor in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tensor {
    /// Name in the model file, which patterns of `train.freeze` match.
    pub name: String,
    /// `[out, in]`, `[out]`; `[rows, dim]` for a table, whose row 0 is the unknown row.
    pub shape: Vec<usize>,
    /// Values.
    pub count: usize,
    /// Bytes.
    pub bytes: usize,
    /// Square root of the sum of squares.
    pub norm: f64,
    /// Mean value.
    pub mean: f64,
    /// Largest absolute value.
    pub largest: f32,
}

/// Numbers of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Values of dense parameters.
    pub parameters: usize,
    /// Values of state.
    pub state: usize,
    /// Values of tables.
    pub tables: usize,
    /// Bytes of all.
    pub bytes: usize,
}

/// Reads the chosen model of a run folder.
///
/// # Errors
/// As [`Model::open`].
pub fn inspect(folder: &Path) -> Result<Inspection> {
    let model = Model::open(folder)?;
    let of_set = |set: &Parameters| -> Vec<Tensor> {
        set.tensors().map(|(block, values)| Tensor::new(&block.name, &block.shape, values)).collect()
    };
    let tables = model.weights().tables.0.iter().map(|table| {
        let spec = table.spec();
        Tensor::new(&spec.name, &[spec.rows, spec.dim], &table.weights())
    });
    let (parameters, state) = (of_set(&model.weights().params), of_set(&model.weights().state));
    let tables: Vec<Tensor> = tables.collect();
    let count = |tensors: &[Tensor]| tensors.iter().map(|t| t.count).sum::<usize>();
    let totals = Totals {
        parameters: count(&parameters),
        state: count(&state),
        tables: count(&tables),
        bytes: [&parameters, &state, &tables].iter().flat_map(|set| set.iter()).map(|t| t.bytes).sum(),
    };
    Ok(Inspection { version: 1, model: model.name, parameters, state, tables, totals })
}

/// The plan that trains a run's model.
#[derive(Debug)]
pub struct TrainingPlan {
    /// What it looks like.
    pub description: Description,
    /// Rows of the run's batches.
    pub rows: usize,
    /// Lanes that a batch is divided into.
    pub lanes: usize,
}

/// The plan that trains a run's model. No weights are read: the run may be unfinished.
///
/// # Errors
/// When the configuration or schema of the run is missing or damaged.
pub fn training_plan(folder: &Path) -> Result<TrainingPlan> {
    manygate_runtime::model::check_folder(folder)?;
    let config = Config::load(&folder.join(CONFIG_FILE), &[])?;
    let encoder = Encoder::load(&folder.join(VOCAB_FOLDER))?;
    let (_, architecture) = manygate_models::from_table(&config.model)?;
    let graph =
        manygate_models::build(architecture.as_ref(), &model_inputs(encoder.schema())?, Mode::Training)?;
    let options = PlanOptions { frozen: config.train.freeze, ..PlanOptions::default() };
    let plan = Plan::compile(graph, options)?;
    let rows = config.train.batch_size;
    Ok(TrainingPlan { description: plan.describe(), rows, lanes: plan.lanes(rows) })
}

impl TrainingPlan {
    /// Bytes of all buffers of a step on `threads` threads.
    pub fn bytes(&self, threads: usize) -> usize {
        let number = |each: &str| match each {
            "worker" => threads,
            "lane" => self.lanes,
            "row" => self.rows,
            _ => 1,
        };
        self.description.buffers.iter().map(|buffer| buffer.bytes * number(buffer.each)).sum()
    }
}

impl Tensor {
    fn new(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            count: values.len(),
            bytes: size_of_val(values),
            norm: squares.sqrt(),
            mean: sum / values.len().max(1) as f64,
            largest: values.iter().fold(0.0, |largest, v| v.abs().max(largest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_in_figures() {
        let tensor = Tensor::new("w", &[2, 2], &[3.0, -4.0, 0.0, 0.0]);
        assert_eq!(
            (tensor.count, tensor.bytes, tensor.norm, tensor.mean, tensor.largest),
            (4, 16, 5.0, -0.25, 4.0)
        );
        let empty = Tensor::new("none", &[0], &[]);
        assert_eq!((empty.norm, empty.mean, empty.largest), (0.0, 0.0, 0.0));
    }
}
