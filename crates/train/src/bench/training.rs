//! Training speed on the yardstick's workload, beside the floor that this machine sets.
//!
//! The floor of a step is what arithmetic and memory must cost at the least, added up: the multiply-adds of forward and
//! backward at the machine's peak; 28 bytes a dense parameter (weight, two moments and gradient in, all but the
//! gradient out) at its rate of large copies; one visit for each looked-up row and three for each distinct one at its
//! rate of random rows. Activations and losses are free. An update in place may move more bytes a second than a copy, which
//! also fetches what it overwrites: a small batch of a model with many dense parameters can come below the floor.

use super::yardstick::Yardstick;
use super::{Machine, measure_machine, quantile};
use crate::learner::Learner;
use crate::limits;
use crate::optim::OptimizerConfig;
use crate::workload::{FIELDS, Workload};
use manygate_core::{Error, Executor, Pool, Result};
use manygate_graph::{Mode, PlanOptions};
use manygate_kernels::Isa;
use serde::Serialize;
use std::time::Instant;

/// Steps before the clock runs.
const WARM_UP: usize = 4;
/// Fewest steps that are measured, however long they take.
const FEWEST_STEPS: usize = 5;
const SEED: u64 = 7;
/// Bytes that Adam must move for a dense parameter.
const ADAM_BYTES: f64 = 28.0;
/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Name of the architecture, which has the yardstick's sizes.
    pub model: String,
    /// Rows a step.
    pub batch: usize,
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Seconds to measure.
    pub seconds: f64,
}

/// The parts of the floor, in milliseconds a step.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floor {
    /// Multiply-adds.
    pub arithmetic: f64,
    /// Adam over the dense parameters.
    pub dense_parameters: f64,
    /// Look-ups and updates of table rows.
    pub table_rows: f64,
}

/// Result of [`bench_training`]; the JSON of `manygate bench train --json`.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingSpeed {
    /// Version of this form.
    pub version: u32,
    /// Name of the architecture.
    pub model: String,
    /// Rows a step.
    pub batch: usize,
    /// Threads.
    pub threads: usize,
    /// Rows a second at the median step.
    pub samples_per_second: f64,
    /// Median step, in milliseconds.
    pub step_ms: f64,
    /// Its 10th percentile.
    pub step_ms_p10: f64,
    /// Its 90th percentile.
    pub step_ms_p90: f64,
    /// Least milliseconds that a step must take.
    pub floor_ms: f64,
    /// What the floor is made of.
    pub floor_parts_ms: Floor,
    /// Steps measured.
    pub steps: usize,
    /// Most memory that the process held, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// Instruction set.
    pub isa: String,
    /// Precision of the products.
    pub precision: &'static str,
    /// Dense parameters.
    pub dense_parameters: usize,
    /// Values in tables.
    pub table_values: usize,
    /// Rows of tables that a batch looks up, each counted once.
    pub distinct_rows: usize,
    /// Bytes of the step's buffers: tile arenas, lane sums, packed weights.
    pub workspace_bytes: usize,
    /// The peaks that the floor rests on.
    pub machine: Machine,
}

/// Measures training steps: the machine first, then the model.
///
/// # Errors
/// When an option cannot be used or the model cannot be built.
pub fn bench_training(options: &BenchOptions) -> Result<TrainingSpeed> {
    if options.batch == 0 {
        return Err(Error::config("--batch", "must be at least 1"));
    }
    limits::at_most("--batch", options.batch, limits::MAX_BATCH)?;
    if !(options.seconds.is_finite() && options.seconds > 0.0) {
        return Err(Error::config("--seconds", "must be a number above 0"));
    }
    let yardstick = Yardstick::of(&options.model)?;
    let (_, architecture) = manygate_models::from_table(&yardstick.model)?;
    Pool::new(options.threads)?.enter(|exec| {
        // First: its memory is given back before the tables take theirs.
        let machine = measure_machine(Isa::best(), exec.threads());
        let workload = Workload::of(options.batch, yardstick.tasks, yardstick.lists);
        let graph = manygate_models::build(architecture.as_ref(), &workload.inputs, Mode::Training)?;
        let optimizer = OptimizerConfig::default();
        let learner = Learner::new(graph, PlanOptions::default(), &optimizer, SEED, exec, options.batch)?;
        measure(options, exec, &workload, learner, machine)
    })
}

fn measure(
    options: &BenchOptions,
    exec: &dyn Executor,
    workload: &Workload,
    mut learner: Learner,
    machine: Machine,
) -> Result<TrainingSpeed> {
    let mut batches = workload.batches.iter().cycle();
    let mut step = |learner: &mut Learner| -> Result<f64> {
        let Some(batch) = batches.next() else { return Err(Error::config("--batch", "gives no batches")) };
        let start = Instant::now();
        learner.step(exec, batch)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    for _ in 0..WARM_UP {
        step(&mut learner)?;
    }
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < FEWEST_STEPS || begin.elapsed().as_secs_f64() < options.seconds {
        times.push(step(&mut learner)?);
    }
    times.sort_unstable_by(f64::total_cmp);
    let step_ms = quantile(&times, 0.5);
    let (dense_parameters, table_values) = learner.parameter_counts();
    let distinct_rows = workload.distinct_rows();
    // Two operations a multiply-add, and the backward has twice those of the forward.
    let flops = 6.0 * (learner.plan.multiply_adds() * options.batch) as f64;
    let visits = (FIELDS * options.batch + 3 * distinct_rows) as f64;
    let floor = Floor {
        arithmetic: flops / machine.fma_gflops * 1e-6,
        dense_parameters: ADAM_BYTES * dense_parameters as f64 / machine.copy_gbs * 1e-6,
        table_rows: visits / machine.random_mrows * 1e-3,
    };
    Ok(TrainingSpeed {
        version: 1,
        model: options.model.clone(),
        batch: options.batch,
        threads: exec.threads(),
        samples_per_second: options.batch as f64 / step_ms * 1e3,
        step_ms,
        step_ms_p10: quantile(&times, 0.1),
        step_ms_p90: quantile(&times, 0.9),
        floor_ms: floor.arithmetic + floor.dense_parameters + floor.table_rows,
        floor_parts_ms: floor,
        steps: times.len(),
        peak_rss_bytes: peak_rss_bytes(),
        isa: learner.plan.isa().to_string(),
        precision: "f32",
        dense_parameters,
        table_values,
        distinct_rows,
        workspace_bytes: learner.workspace_bytes(),
        machine,
    })
}

/// The high-water mark of resident memory, from the kernel's own account.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_told() {
        let options = BenchOptions { model: "mmoe".into(), batch: 4, threads: 1, seconds: 1.0 };
        let message = |options: BenchOptions| bench_training(&options).unwrap_err().to_string();
        assert!(
            message(BenchOptions { batch: 0, ..options.clone() }).contains("--batch: must be at least 1")
        );
        assert!(message(BenchOptions { seconds: f64::NAN, ..options.clone() }).contains("--seconds"));
        assert!(
            message(BenchOptions { model: "mmoo".into(), ..options }).contains("there is no model `mmoo`")
        );
    }
}
