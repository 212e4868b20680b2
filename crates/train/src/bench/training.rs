//! Training speed on the yardstick's workload, beside the floor that this machine sets.
//!
//! The floor of a step is what arithmetic and memory must cost at the least, added up: the multiply-adds of forward and
//! backward at the machine's peak; 28 bytes a dense parameter (weight, two moments and gradient in, all but the
//! gradient out) at its rate of large copies; one visit for each looked-up row and three for each distinct one at its
//! rate of random rows. Activations and losses are free. Nothing reaches it.

use crate::learner::Learner;
use crate::limits;
use crate::optim::OptimizerConfig;
use crate::workload::{FIELDS, Workload};
use manygate_core::{Buffer, Error, Executor, Pool, Result};
use manygate_graph::{Mode, PlanOptions};
use manygate_kernels::{Isa, peak};
use serde::Serialize;
use std::sync::Barrier;
use std::time::{Duration, Instant};

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
    /// Name of the architecture, which has its default sizes.
    pub model: String,
    /// Rows a step.
    pub batch: usize,
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// Seconds to measure.
    pub seconds: f64,
}

/// What this machine can do, all threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Machine {
    /// Multiply-adds in registers, two operations each, 10^9 operations a second.
    pub fma_gflops: f64,
    /// Large copies, read and written bytes counted, 10^9 bytes a second.
    pub copy_gbs: f64,
    /// Random rows of 64 bytes out of memory, 10^6 rows a second.
    pub random_mrows: f64,
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
    let (_, architecture) = manygate_models::from_table(&model_table(&options.model))?;
    Pool::new(options.threads)?.enter(|exec| {
        // First: its memory is given back before the tables take theirs.
        let machine = measure_machine(Isa::best(), exec.threads());
        let workload = Workload::new(options.batch);
        let graph = manygate_models::build(architecture.as_ref(), &workload.inputs, Mode::Training)?;
        let optimizer = OptimizerConfig::default();
        let learner = Learner::new(graph, PlanOptions::default(), &optimizer, SEED, exec, options.batch)?;
        measure(options, exec, &workload, learner, machine)
    })
}

/// An architecture with its default sizes, which are the yardstick's; only, there the gates of mmoe have a bias.
fn model_table(name: &str) -> toml::Table {
    let mut table = toml::Table::from_iter([("name".to_owned(), toml::Value::from(name))]);
    if name == "mmoe" {
        table.insert("gate_bias".to_owned(), true.into());
    }
    table
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

/// Measures each peak on `threads` threads at once.
pub fn measure_machine(isa: Isa, threads: usize) -> Machine {
    /// Values of the rows that all threads visit, far beyond the caches.
    const TABLE: usize = 64 << 20;
    /// Values that all threads together copy.
    const COPIED: usize = 32 << 20;
    let mut table = Buffer::zeroed(TABLE);
    // Untouched pages would all be the same page of zeros.
    table.fill(1.0);
    let mut copies = Buffer::zeroed(COPIED);
    let together = Barrier::new(threads);
    let part = COPIED / threads;
    let peaks: Vec<Machine> = std::thread::scope(|scope| {
        let (table, together) = (&table[..], &together);
        let parts = copies.chunks_exact_mut(part).zip(table.chunks_exact(part)).take(threads);
        let workers: Vec<_> = parts
            .map(|(to, from)| {
                scope.spawn(move || {
                    together.wait();
                    let fma_gflops = peak::fma_gflops(isa, Duration::from_millis(200));
                    together.wait();
                    let copy_gbs = peak::copy_gbs(from, to, Duration::from_millis(400));
                    together.wait();
                    let random_mrows = peak::random_rows(isa, table, Duration::from_millis(300));
                    Machine { fma_gflops, copy_gbs, random_mrows }
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let sum = |of: fn(&Machine) -> f64| peaks.iter().map(of).sum();
    Machine {
        fma_gflops: sum(|m| m.fma_gflops),
        copy_gbs: sum(|m| m.copy_gbs),
        random_mrows: sum(|m| m.random_mrows),
    }
}

/// The value below which a share of the sorted `times` lies.
fn quantile(times: &[f64], share: f64) -> f64 {
    times[((times.len() - 1) as f64 * share).round() as usize]
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
    fn quantiles_are_measured_values() {
        let times = [1.0, 2.0, 3.0, 4.0, 50.0];
        assert_eq!((quantile(&times, 0.1), quantile(&times, 0.5), quantile(&times, 0.9)), (1.0, 3.0, 50.0));
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }

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
