//! Latency of predictions: the served outputs of a batch of rows, from ids to probabilities.

use super::quantile;
use super::yardstick::Yardstick;
use crate::limits;
use crate::workload::Workload;
use manygate_core::{Error, Executor, Pool, Result};
use manygate_embedding::{Table, Tables};
use manygate_graph::{Mode, Parameters, Plan, PlanOptions};
use manygate_runtime::Predictor;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Predictions before the clock runs.
const WARM_UP: usize = 10;
/// As many predictions are measured, however long they take, up to [`LONGEST`]: a 99th percentile of fewer says little.
const ENOUGH: usize = 100;
/// Times the seconds asked for, after which fewer predictions have to do.
const LONGEST: f64 = 5.0;
const SEED: u64 = 7;

/// What is measured.
#[derive(Clone, Debug)]
pub struct InferenceOptions {
    /// Name of the architecture, which has the yardstick's sizes.
    pub model: String,
    /// Rows a prediction, each by itself.
    pub batches: Vec<usize>,
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Seconds to measure each.
    pub seconds: f64,
}

/// Result of [`bench_inference`]; the JSON of `manygate bench infer --json`.
#[derive(Clone, Debug, Serialize)]
pub struct InferenceSpeed {
    /// Version of this form.
    pub version: u32,
    /// Name of the architecture.
    pub model: String,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Multiply-adds a row.
    pub multiply_adds: usize,
    /// By number of rows.
    pub latencies: Vec<Latency>,
}

/// Latency of predictions of so many rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Rows a prediction.
    pub batch: usize,
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// Rows a second at the median.
    pub rows_per_second: f64,
    /// Predictions measured.
    pub predictions: usize,
}

/// Measures predictions with initial weights.
///
/// # Errors
/// When an option cannot be used or the model cannot be built.
pub fn bench_inference(options: &InferenceOptions) -> Result<InferenceSpeed> {
    if options.batches.is_empty() || options.batches.contains(&0) {
        return Err(Error::config("--batch", "must be numbers of rows, each at least 1"));
    }
    for &batch in &options.batches {
        limits::at_most("--batch", batch, limits::MAX_BATCH)?;
    }
    if !(options.seconds.is_finite() && options.seconds > 0.0) {
        return Err(Error::config("--seconds", "must be a number above 0"));
    }
    let yardstick = Yardstick::of(&options.model)?;
    let (_, architecture) = manygate_models::from_table(&yardstick.model)?;
    Pool::new(options.threads)?.enter(|exec| {
        let inputs = crate::workload::inputs(yardstick.tasks, yardstick.lists);
        let graph = manygate_models::build(architecture.as_ref(), &inputs, Mode::Evaluation)?;
        let plan = Plan::compile(graph, PlanOptions::default())?;
        let weights = Weights {
            params: Parameters::initial(Arc::clone(plan.layout()), SEED),
            state: Parameters::initial(Arc::clone(plan.state_layout()), SEED),
            tables: Tables(plan.tables().iter().map(|t| Table::initial(t.clone(), 0, SEED, exec)).collect()),
        };
        let latency = |&batch: &usize| latency(options, exec, &yardstick, &plan, &weights, batch);
        Ok(InferenceSpeed {
            version: 1,
            model: options.model.clone(),
            threads: exec.threads(),
            isa: plan.isa().to_string(),
            multiply_adds: plan.multiply_adds(),
            latencies: options.batches.iter().map(latency).collect::<Result<_>>()?,
        })
    })
}

struct Weights {
    params: Parameters,
    state: Parameters,
    tables: Tables,
}

fn latency(
    options: &InferenceOptions,
    exec: &dyn Executor,
    yardstick: &Yardstick,
    plan: &Plan,
    weights: &Weights,
    batch: usize,
) -> Result<Latency> {
    let workload = Workload::of(batch, yardstick.tasks, yardstick.lists);
    let Weights { params, state, tables } = weights;
    let mut predictor = Predictor::new(plan, params, state, tables, exec, batch)?;
    let mut out = vec![0.0; batch * predictor.output_names().count()];
    let (mut times, mut begin) = (Vec::new(), Instant::now());
    for (number, rows) in workload.batches.iter().cycle().enumerate() {
        if number == WARM_UP {
            (times, begin) = (Vec::new(), Instant::now());
        }
        let start = Instant::now();
        predictor.predict_into(exec, rows, &mut out)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        let passed = begin.elapsed().as_secs_f64() / options.seconds;
        if number >= WARM_UP && passed >= 1.0 && (times.len() >= ENOUGH || passed >= LONGEST) {
            break;
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let p50_us = quantile(&times, 0.5);
    Ok(Latency {
        batch,
        p50_us,
        p99_us: quantile(&times, 0.99),
        rows_per_second: batch as f64 / p50_us * 1e6,
        predictions: times.len(),
    })
}
