//! `manygate bench train` and `manygate bench infer`.

use crate::args::{BenchInfer, BenchTrain};
use crate::output;
use manygate_core::Result;
use manygate_train::bench::{
    BenchOptions, InferenceOptions, InferenceSpeed, TrainingSpeed, bench_inference, bench_training,
};
use manygate_train::report::terminal::{Look, table};

pub(crate) fn train(args: &BenchTrain) -> Result<()> {
    let options = BenchOptions {
        model: args.model.clone(),
        batch: args.batch,
        threads: args.threads,
        seconds: args.seconds,
    };
    output::say(
        "measuring the machine, filling 2.7 million table rows, then stepping; other work disturbs the figures",
    );
    let speed = bench_training(&options)?;
    if args.json { output::json(&speed) } else { output::result(&text(&speed)) }
}

pub(crate) fn infer(args: &BenchInfer) -> Result<()> {
    let options = InferenceOptions {
        model: args.model.clone(),
        batches: args.batch.clone(),
        threads: args.threads,
        seconds: args.seconds,
    };
    output::say("filling 2.7 million table rows, then predicting; other work disturbs the figures");
    let speed = bench_inference(&options)?;
    if args.json { output::json(&speed) } else { output::result(&latencies(&speed)) }
}

fn latencies(s: &InferenceSpeed) -> String {
    let rows = s.latencies.iter().map(|l| {
        let figures =
            [format!("{:.1}", l.p50_us), format!("{:.1}", l.p99_us), format!("{:.0}", l.rows_per_second)];
        [vec![l.batch.to_string()], figures.to_vec(), vec![l.predictions.to_string()]].concat()
    });
    let header = ["rows", "p50, us", "p99, us", "rows a second", "predictions"];
    let (threads, flops) = (s.threads, 2 * s.multiply_adds);
    format!(
        "{}, {threads} {}, {}, {flops} operations a row\n{}",
        s.model,
        if threads == 1 { "thread" } else { "threads" },
        s.isa,
        table(&header, rows, 0, Look::detect())
    )
}

fn text(s: &TrainingSpeed) -> String {
    let floor = s.floor_parts_ms;
    let lines = [
        format!("{}, batch {}, {} threads, {}, {}", s.model, s.batch, s.threads, s.isa, s.precision),
        format!("samples a second  {:.0}", s.samples_per_second),
        format!(
            "step              {:.2} ms (median of {}; 10 % below {:.2}, 10 % above {:.2})",
            s.step_ms, s.steps, s.step_ms_p10, s.step_ms_p90
        ),
        format!(
            "floor             {:.2} ms ({:.2} arithmetic, {:.2} dense parameters, {:.2} table rows)",
            s.floor_ms, floor.arithmetic, floor.dense_parameters, floor.table_rows
        ),
        format!("step / floor      {:.2}", s.step_ms / s.floor_ms),
        format!(
            "machine           FMA {:.0} GFLOP/s, copy {:.1} GB/s, random rows {:.0} M/s",
            s.machine.fma_gflops, s.machine.copy_gbs, s.machine.random_mrows
        ),
        format!(
            "memory            {} at its peak; buffers of a step {}",
            s.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), mebibytes),
            mebibytes(s.workspace_bytes as u64)
        ),
    ];
    lines.join("\n")
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}
