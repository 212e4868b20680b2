//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use manygate_train::repeat::Requirement;
use manygate_train::{DeviceChoice, PrecisionChoice, PredictOptions};
use std::path::PathBuf;

/// Trains and serves multi-task and multi-scenario recommendation models.
#[derive(Debug, Parser)]
#[command(name = "manygate", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Example:\n  manygate train configs/quickstart.toml --out runs/first\n  manygate eval runs/first\n\n\
    Environment:\n  MANYGATE_ISA=scalar|portable|avx2|avx512  Instruction set [default: the best one of this machine]"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model and leave a run folder with the model, its metrics and a report.
    Train(Train),
    /// Train the same configuration with several seeds and print the mean and deviation of each metric.
    Repeat(Repeat),
    /// Score a trained model on labelled data.
    Eval(Eval),
    /// Write a column a task, its probability, value or rate, for each row of a file.
    Predict(Predict),
    /// List the architectures, or describe one.
    #[command(after_help = "Example:\n  manygate models mmoe")]
    Models(Names),
    /// List the methods that balance the losses of tasks, or describe one.
    #[command(after_help = "Example:\n  manygate methods pcgrad")]
    Methods(Names),
    /// Show what a run holds: parameters, shapes, norms, sizes, its plan, or what its gates do.
    Inspect(Inspect),
    /// Look into data, or make some.
    #[command(subcommand, after_help = "Example:\n  manygate data describe data/quickstart/train.csv.gz")]
    Data(Data),
    /// Show what there is to train on: the CPU, CUDA devices, and which models run there.
    #[command(after_help = "Example:\n  manygate devices --json")]
    Devices(Devices),
    /// Measure speed.
    #[command(
        subcommand,
        after_help = "Example:\n  manygate bench train --model mmoe --batch 4096 --threads 2"
    )]
    Bench(Bench),
}

/// What every training command takes.
#[derive(Debug, Args)]
pub(crate) struct Training {
    /// Configuration file.
    #[arg(default_value = "configs/quickstart.toml", value_name = "CONFIG.toml")]
    pub(crate) config: PathBuf,
    /// Override a key of the configuration, as in `--set model.experts=8`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Threads [default: one for each core]. The result does not depend on it.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) threads: usize,
    /// Where steps are taken: cpu, cuda, or cuda:N for the GPU with that number.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// What products multiply in on a GPU; sums are f32.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub(crate) precision: Precision,
}

/// What every command that predicts with a trained model takes.
#[derive(Debug, Args)]
pub(crate) struct Prediction {
    /// Threads [default: one for each core].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    threads: usize,
    /// Where the model predicts: cpu, cuda, or cuda:N for the GPU with that number.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: DeviceChoice,
    /// What products multiply in on a GPU; sums are f32.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
}

impl Prediction {
    pub(crate) fn options(&self) -> PredictOptions {
        let &Prediction { threads, device, precision } = self;
        PredictOptions { threads, device, precision: precision.choice() }
    }
}

/// What products multiply in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    /// As the CPU, without tensor cores.
    F32,
    /// Operands rounded to 10 bits behind the point, on tensor cores.
    Tf32,
    /// Operands rounded to 7 bits behind the point, on tensor cores.
    Bf16,
}

impl Precision {
    pub(crate) fn choice(self) -> PrecisionChoice {
        match self {
            Precision::F32 => PrecisionChoice::F32,
            Precision::Tf32 => PrecisionChoice::Tf32,
            Precision::Bf16 => PrecisionChoice::Bf16,
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  manygate train configs/quickstart.toml --set model.experts=8 --out runs/eight --seed 7\n  \
    manygate train more_features.toml --start-from runs/eight --out runs/more"
)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) training: Training,
    /// Run folder [default: runs/<CONFIG>-<number>].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Seed, in place of the configuration's.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Begin with what the run in this folder learnt, in place of `train.start_from`: the same model with the same features,
    /// and with new ones, which have no effect before the first step.
    #[arg(long, value_name = "RUN")]
    pub(crate) start_from: Option<PathBuf>,
    /// Go on from the last checkpoint of --out [default: of the newest run of this configuration].
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  manygate repeat configs/quickstart.toml --seeds 1,2,3,4,5\n  \
    manygate repeat configs/protocol/mmoe.toml --reference configs/protocol/reference.json")]
pub(crate) struct Repeat {
    #[command(flatten)]
    pub(crate) training: Training,
    /// The seeds.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,4,5", value_name = "N,N,...")]
    pub(crate) seeds: Vec<u64>,
    /// Rows to score.
    #[arg(long, value_enum, default_value_t = Part::Test)]
    pub(crate) part: Part,
    /// Fail (exit code 1) when a task's AUC is below this with any seed; may be repeated.
    #[arg(long, value_name = "TASK=AUC")]
    pub(crate) require: Vec<Requirement>,
    /// Compare with these figures of another engine; fail (exit code 1) when a mean of the test rows is more than three
    /// standard errors and .001 away, or all means lean to one side by more than luck explains.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) reference: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Rows that `repeat` scores.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    /// The test files.
    Test,
    /// The validation rows.
    Valid,
}

#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  manygate eval runs/quickstart-1 --data data/quickstart/test.csv.gz")]
pub(crate) struct Eval {
    /// Run folder.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Labelled CSV file, plain, gzip or zstd [default: the test files of the run's configuration]; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) prediction: Prediction,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  manygate predict runs/quickstart-1 --data data/quickstart/test.csv.gz --out predictions.csv"
)]
pub(crate) struct Predict {
    /// Run folder.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// CSV file, plain, gzip or zstd; labels are not needed. May be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// CSV file to write: a header with the tasks, then a line for each row of the data, in its order.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) prediction: Prediction,
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The one to describe.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  manygate inspect runs/quickstart-1 --plan")]
pub(crate) struct Inspect {
    /// Run folder.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// Show the training plan: steps, buffers, joins, bytes.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Show what the gates do on some rows: the mean weight of each expert by task and scenario, or what becomes of each
    /// field by scenario, and which experts are dead or duplicates.
    #[arg(long, conflicts_with = "plan")]
    pub(crate) gates: bool,
    /// CSV file whose rows the gates see [default: the test files of the run's configuration]; may be repeated.
    #[arg(long, value_name = "FILE", requires = "gates")]
    pub(crate) data: Vec<PathBuf>,
    /// Also write the gates as a picture.
    #[arg(long, value_name = "FILE.svg", requires = "gates")]
    pub(crate) svg: Option<PathBuf>,
    /// Print JSON (of the parameters, or the gates).
    #[arg(long, conflicts_with = "plan")]
    pub(crate) json: bool,
    /// Threads [default: one for each core].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N", requires = "gates")]
    pub(crate) threads: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Show what CSV files hold, column by column, and a configuration that fits them.
    Describe(Describe),
    /// Write CSV with known properties: tasks of a chosen correlation (Ma et al., KDD 2018, section 3.2), scenarios,
    /// cascades, histories. The same seed gives the same bytes.
    Synth(Synth),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  manygate data describe data/quickstart/train.csv.gz --config my.toml\n  \
    manygate data describe configs/quickstart.toml --rows 10000"
)]
pub(crate) struct Describe {
    /// CSV files, plain, gzip or zstd, or patterns of names; or a configuration (.toml), whose training files are read.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Column whose values are the scenarios [default: that of the configuration, or one with a usual name].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) scenario: Option<String>,
    /// Label column [default: those of the configuration, or those of 0 and 1 with a usual name]; may be repeated.
    #[arg(long = "label", value_name = "COLUMN")]
    pub(crate) labels: Vec<String>,
    /// Look at the first N rows only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rows: Option<u64>,
    /// Write the configuration to this file, which must not exist, and do not print it.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  manygate data synth --out synth.csv.gz --config synth.toml --rows 100000 --correlation 0.5\n  \
    manygate data synth --out shop.csv --scenarios 0.7,0.2,0.1 --cascade --sequence 20 --rate 0.2,0.05"
)]
pub(crate) struct Synth {
    /// CSV file to write, gzip where its name ends with .gz.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Write a configuration that trains on it to this file, which must not exist, in place of printing it.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Rows.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    pub(crate) rows: u64,
    /// Seed of everything.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Numbers a row.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) inputs: usize,
    /// Tasks.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) tasks: usize,
    /// Cosine between the weights of the first task and of each other one, from -1 to 1.
    #[arg(long, default_value_t = 0.5, value_name = "P", allow_negative_numbers = true)]
    pub(crate) correlation: f64,
    /// Rate of positive labels over all rows, one for all tasks or one a task [default: .25, and in a cascade a quarter
    /// of the rate before].
    #[arg(long = "rate", value_delimiter = ',', value_name = "R,R,...")]
    pub(crate) rates: Vec<f64>,
    /// How a target becomes a label.
    #[arg(long, value_enum, default_value_t = Rule::Sample)]
    pub(crate) labels: Rule,
    /// Write the targets too, for regression.
    #[arg(long)]
    pub(crate) targets: bool,
    /// A label can be 1 only where that of the task before is.
    #[arg(long)]
    pub(crate) cascade: bool,
    /// Share of the rows of each scenario, each with inputs and targets of its own.
    #[arg(long, value_delimiter = ',', value_name = "S,S,...")]
    pub(crate) scenarios: Vec<f64>,
    /// Different users and different items, the first ones the most frequent; 0 leaves them out.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) ids: u32,
    /// A history of up to so many items, whose topics tell whether the row's item suits.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LENGTH")]
    pub(crate) sequence: usize,
    /// Threads [default: one for each core]. The file does not depend on it.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) threads: usize,
}

/// How a target becomes a label.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Rule {
    /// 1 with a probability that rises with the target.
    Sample,
    /// 1 where the target is above a threshold.
    Threshold,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Training steps on the yardstick's workload: 26 fields of 10 to 1,000,000 rows, Zipf ids, 13 numbers.
    Train(BenchTrain),
    /// Predictions on the same workload: median and 99th percentile of their latency by number of rows.
    Infer(BenchInfer),
    /// CUDA kernels, one by one: time, rates, and the share of what the device does at the most, measured there too.
    Kernels(BenchKernels),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  manygate bench train --model mmoe --batch 4096 --threads 2 --json")]
pub(crate) struct BenchTrain {
    /// Architecture.
    #[arg(long, default_value = "mmoe", value_name = "NAME")]
    pub(crate) model: String,
    /// Rows a step.
    #[arg(long, default_value_t = 4096, value_name = "N")]
    pub(crate) batch: usize,
    /// Threads [default: one for each core].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) threads: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    pub(crate) seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  manygate bench infer --model ple --batch 1,256 --threads 1")]
pub(crate) struct BenchInfer {
    /// Architecture.
    #[arg(long, default_value = "mmoe", value_name = "NAME")]
    pub(crate) model: String,
    /// Rows a prediction, several after commas.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256,4096", value_name = "N")]
    pub(crate) batch: Vec<usize>,
    /// Threads.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
    /// Seconds to measure each number of rows.
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    pub(crate) seconds: f64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  manygate bench kernels --device cuda\n  manygate bench kernels --kernel mmoe --json"
)]
pub(crate) struct BenchKernels {
    /// The GPU: cuda, or cuda:N for the one with that number.
    #[arg(long, default_value = "cuda", value_name = "DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Measure only kernels with this in their names.
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Take shapes that are small enough for an interpreter of kernels: results are compared, times mean nothing.
    #[arg(long)]
    pub(crate) small: bool,
    /// Leave out what would begin later than this.
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
