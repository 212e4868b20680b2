//! Predictions on a device: while it trains, and of a finished run.

use manygate_core::{Batch, Error, Serial};
use manygate_cuda::Precision;
use manygate_cuda_tests::Gpu;
use manygate_data::Splits;
use manygate_runtime::{DevicePredictor, Model};
use manygate_train::evaluate::evaluate_dataset;
use manygate_train::metrics::{Evaluation, Metrics};
use manygate_train::{
    Cancel, Config, DeviceChoice, Event, Observer, PrecisionChoice, RunOptions, Silent, train,
};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Every kind of input, two tasks, and no place of its own.
const CONFIG: &str = r#"
[data]
train = []
valid = { last_fraction = 0.2 }
scenario = "tab"

[model]
name = "mmoe"
embedding_dim = 4
experts = 2
expert_units = [16, 8]
tower_units = [8]

[train]
epochs = 2
batch_size = 64
validations_per_epoch = 3

[[features]]
kind = "categorical"
columns = ["user", "item", "tab"]

[[features]]
kind = "numeric"
columns = ["price"]

[[features]]
kind = "bag"
columns = ["tags"]
separator = "|"

[[features]]
kind = "sequence"
columns = ["history"]
separator = "|"
table = "item"
max_length = 6

[[tasks]]
name = "click"

[[tasks]]
name = "buy"
"#;

/// Data and runs of a test.
struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        let lab = Lab(tempfile::tempdir().expect("a folder"));
        lab.write("train.csv", 600);
        lab.write("test.csv", 100);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file in which what is bought follows the user, and lists are of very different lengths.
    fn write(&self, name: &str, rows: usize) {
        let mut text = "user,item,tab,price,tags,history,click,buy\n".to_owned();
        let list = |r: usize, longest: usize, prefix: &str| {
            let ids = (0..r * r % (longest + 1)).map(|i| format!("{prefix}{}", (r + 3 * i) % 9));
            ids.collect::<Vec<_>>().join("|")
        };
        for r in 0..rows {
            let (user, item, tab) = (r * 7 % 23, r * 5 % 11, ["feed", "mail"][r % 2]);
            let (tags, history) = (list(r, 4, "t"), list(r + 1, 6, "i"));
            let (click, buy) =
                (usize::from((user + item) % 3 == 0), usize::from(user % 4 == 0 || r % 17 == 0));
            let price = (r * 31 % 97) as f32 / 10.0;
            writeln!(text, "u{user},i{item},{tab},{price},{tags},{history},{click},{buy}").expect("text");
        }
        fs::write(self.path(name), text).expect("a file");
    }

    /// The configuration with more keys.
    fn config(&self, change: impl Fn(&mut toml::Table)) -> Config {
        let mut table: toml::Table = CONFIG.parse().expect("TOML");
        for (key, file) in [("train", "train.csv"), ("test", "test.csv")] {
            let file = toml::Value::from(self.path(file).display().to_string());
            table["data"].as_table_mut().expect("a table").insert(key.into(), vec![file].into());
        }
        change(&mut table);
        Config::try_from(table).expect("a configuration")
    }

    /// Trains in the folder `run`.
    fn train(&self, config: &Config, run: &str, options: RunOptions, observer: &mut dyn Observer) {
        train(config, &self.path(run), options, observer).expect("a run");
    }
}

fn on(gpu: &Gpu) -> RunOptions {
    let device = DeviceChoice::Cuda(gpu.device().description().ordinal);
    RunOptions { threads: 1, device, ..RunOptions::default() }
}

fn splits(config: &Config) -> Splits {
    manygate_data::load_keeping(&config.data, &config.features, &config.tasks, None, &mut |_| {})
        .expect("data")
}

/// That two evaluations of the same weights differ by no more than sums are rounded.
fn assert_alike(device: &Evaluation, cpu: &Evaluation, tasks: &[&str]) {
    for task in tasks {
        for group in ["all", "tab=feed", "tab=mail"] {
            let figures = |evaluation: &Evaluation| {
                let Metrics { auc, logloss, rows, .. } =
                    evaluation.get(task, group).cloned().unwrap_or_default();
                (auc.unwrap_or(-1.0), logloss.unwrap_or(-1.0), rows)
            };
            let (there, here) = (figures(device), figures(cpu));
            assert_eq!(there.2, here.2);
            // Two rows whose scores are next to each other may change places.
            let close = (there.0 - here.0).abs() < 2e-3 && (there.1 - here.1).abs() < 1e-5;
            assert!(close, "{task}, {group}: {there:?} on the device, {here:?} here");
        }
    }
}

/// Evaluates the weights of each validation that is the best, which are in the model file by then, on the CPU.
struct Again<'a> {
    folder: PathBuf,
    splits: &'a Splits,
    compared: usize,
}

impl Observer for Again<'_> {
    fn event(&mut self, event: &Event<'_>) {
        let Event::Validated { evaluation, best: true, best_of, .. } = event else { return };
        let model = Model::open_to_score(&self.folder).expect("a model");
        let mut predictor = model.predictor(&Serial, 64).expect("a predictor");
        let schema = model.encoder.schema();
        let here = evaluate_dataset(&mut predictor, &Serial, schema, &self.splits.valid).expect("metrics");
        // Where each task keeps its own weights, those of the others are of another validation.
        let tasks = if best_of.is_empty() { &["click", "buy"] } else { &best_of[..] };
        assert_alike(evaluation, &here.0, tasks);
        self.compared += 1;
    }
}

/// Trains in the folder `run`, and evaluates the weights of each validation that is the best on the CPU too.
fn validate_again(lab: &Lab, config: &Config, run: &str, options: RunOptions) {
    let splits = splits(config);
    let mut again = Again { folder: lab.path(run), splits: &splits, compared: 0 };
    lab.train(config, run, options, &mut again);
    assert!(again.compared >= 1, "no validation of {run} is compared");
}

#[test]
fn what_differs_in_training_is_that_of_evaluation() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    let small = "embedding_dim = 4\ntower_units = [8]";
    let models = [
        ("mmoe", "experts = 2\nexpert_units = [16, 8]\nnorm = \"batch\"\ndropout = 0.2"),
        ("moe", "experts = 2\nexpert_units = [8]"),
        ("shared_bottom", "bottom_units = [8]\nnorm = \"batch\""),
        ("single_task", "bottom_units = [8]"),
    ];
    for (name, keys) in models {
        let config = lab.config(|table| {
            let model = format!("name = \"{name}\"\n{small}\n{keys}").parse::<toml::Table>().expect("TOML");
            table.insert("model".into(), model.into());
        });
        validate_again(&lab, &config, name, on(&gpu));
        // Worse ones too, against those of a run on the CPU: under a normalisation the gradient of a bias is 0 but for
        // rounding, by which adam moves it all the same.
        let losses = |run: &str, options| {
            let mut losses = Vec::new();
            let note = |_, _, evaluation: &Evaluation| {
                losses.push(evaluation.get("buy", "all").and_then(|m| m.logloss).expect("a log loss"));
            };
            lab.train(&config, run, options, &mut Validations(note));
            losses
        };
        let there = losses(&format!("{name}-there"), on(&gpu));
        let here = losses(&format!("{name}-here"), RunOptions { threads: 1, ..RunOptions::default() });
        assert_eq!((there.len(), here.len()), (6, 6));
        let close = there.iter().zip(&here).all(|(there, here)| (there - here).abs() < 2e-3);
        assert!(close, "{name}: {there:?} on the device, {here:?} here");
    }
    // What is validated are the weights as they are served, whatever training multiplies in.
    let config = lab.config(|_| {});
    let options = RunOptions { precision: PrecisionChoice::Bf16, ..on(&gpu) };
    validate_again(&lab, &config, "bf16", options);
}

#[test]
fn a_validation_is_that_of_the_same_weights_on_the_cpu() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    let config = lab.config(|_| {});
    validate_again(&lab, &config, "run", on(&gpu));
    let splits = splits(&config);
    // What the run says of its test rows.
    let model = Model::open_to_score(&lab.path("run")).expect("a model");
    let mut predictor = model.predictor(&Serial, 64).expect("a predictor");
    let test = splits.test.as_ref().expect("test rows");
    let (here, _) = evaluate_dataset(&mut predictor, &Serial, model.encoder.schema(), test).expect("metrics");
    let text = fs::read_to_string(lab.path("run/metrics.json")).expect("metrics");
    let metrics: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let there = metrics["test"]["buy"]["all"]["logloss"].as_f64().expect("a log loss");
    let here = here.get("buy", "all").and_then(|m| m.logloss).expect("a log loss");
    assert!((there - here).abs() < 1e-5, "{there} on the device, {here} here");
}

#[test]
fn stages_and_patience_are_those_of_the_cpu() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    let config = lab.config(|table| {
        let stages: toml::Table = "[[stage]]\nname = \"still\"\npatience = 2\n[stage.optimizer.dense]\nrate = 1e-30\n\
                                   [stage.optimizer.tables]\nrate = 1e-30\n[[stage]]\nname = \"learns\"\nsteps = 5"
            .parse()
            .expect("TOML");
        table.extend(stages);
    });
    let validations = |run: &str, options| {
        let mut seen = Vec::new();
        lab.train(
            &config,
            run,
            options,
            &mut Validations(|step, best, _: &Evaluation| seen.push((step, best))),
        );
        seen
    };
    let there = validations("there", on(&gpu));
    let here = validations("here", RunOptions { threads: 1, ..RunOptions::default() });
    assert_eq!(there, here);
    // Three validations without a better one, of which the first counts as better than none; and those of the other stage.
    assert_eq!(there.len(), 5, "{there:?}");
}

/// Hands on the step of each validation, whether it is the best, and its metrics.
struct Validations<F>(F);

impl<F: FnMut(u64, bool, &Evaluation) + Send> Observer for Validations<F> {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Validated { step, best, evaluation, .. } = event {
            self.0(*step, *best, evaluation);
        }
    }
}

/// Steps that change no bit, so that the first validation stays the best.
fn standing_still(table: &mut toml::Table) {
    let keys = "[dense]\nrate = 1e-30\n[tables]\nrate = 1e-30".parse::<toml::Table>().expect("TOML");
    table.insert("optimizer".into(), keys.into());
}

#[test]
fn a_validation_that_is_not_better_leaves_weights_where_they_are() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    let Some((standin, ordinal)) = gpu.standin() else { return };
    let config = lab.config(standing_still);
    let mut brought = Vec::new();
    let note = |_, best, _: &Evaluation| brought.push((best, standin.downloaded(ordinal)));
    lab.train(&config, "run", on(&gpu), &mut Validations(note));
    assert_eq!(
        brought.iter().map(|(best, _)| *best).collect::<Vec<_>>(),
        [true, false, false, false, false, false]
    );
    let differences: Vec<u64> = brought.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    // Moments and the rest of the first checkpoint are brought with its weights, before it is told. From there on: two
    // predictions of each of 120 rows, and what two or three steps tell of two losses.
    for difference in differences {
        assert!((2 * 4 * 120..2 * 4 * 120 + 4 * 24).contains(&difference), "{difference} bytes");
    }
}

/// Copies the run folder behind a step, as if the process had been killed there; or asks to stop there.
struct LeaveAt<'a> {
    step: u64,
    copy: Option<(&'a Path, &'a Path)>,
    cancel: Cancel,
}

impl Observer for LeaveAt<'_> {
    fn event(&mut self, event: &Event<'_>) {
        if !matches!(event, Event::Step { step, .. } if *step == self.step) {
            return;
        }
        let Some((from, to)) = self.copy else { return self.cancel.request() };
        copy_folder(from, to);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let into = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &into);
        } else {
            fs::copy(&path, &into).expect("a copy");
        }
    }
}

#[test]
fn a_run_that_is_left_anywhere_ends_with_the_same_bytes() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    // Rates so large that some validations are worse than the one before.
    let config = lab.config(|table| {
        let keys = "[dense]\nrate = 0.1\n[tables]\nrate = 0.1".parse::<toml::Table>().expect("TOML");
        table.insert("optimizer".into(), keys.into());
    });
    let mut best = Vec::new();
    lab.train(
        &config,
        "whole",
        on(&gpu),
        &mut Validations(|step, is_best, _: &Evaluation| best.push((step, is_best))),
    );
    let worse = best.iter().find(|(_, is_best)| !is_best).expect("a validation that is worse").0;
    let model = |run: &str| fs::read(lab.path(run).join("model.safetensors")).expect("a model");
    let whole = model("whole");

    // Killed a step behind a validation that left no checkpoint.
    let (from, to) = (lab.path("killed"), lab.path("left"));
    let mut observer = LeaveAt { step: worse + 1, copy: Some((&from, &to)), cancel: Cancel::default() };
    lab.train(&config, "killed", on(&gpu), &mut observer);
    lab.train(&config, "left", RunOptions { resume: true, ..on(&gpu) }, &mut Silent);
    assert!(model("left") == whole, "the run that was killed ends otherwise");

    // Asked to stop there.
    let cancel = Cancel::default();
    let options = RunOptions { cancel: cancel.clone(), ..on(&gpu) };
    let mut observer = LeaveAt { step: worse + 1, copy: None, cancel };
    let stopped = train(&config, &lab.path("stopped"), options, &mut observer);
    assert!(matches!(stopped, Err(Error::Interrupted { step }) if step > worse), "it is stopped");
    lab.train(&config, "stopped", RunOptions { resume: true, ..on(&gpu) }, &mut Silent);
    assert!(model("stopped") == whole, "the run that was stopped ends otherwise");
}

/// `count` rows of `data`, again and again.
fn rows_of(data: &Batch, count: usize) -> Batch {
    let mut batch = Batch::empty_like(data);
    batch.gather(data, &(0..count).map(|r| (r % data.rows) as u32).collect::<Vec<_>>());
    batch
}

#[test]
fn any_number_of_rows_is_predicted_as_on_the_cpu() {
    let (lab, gpu) = (Lab::new(), Gpu::new());
    let config = lab.config(|_| {});
    lab.train(&config, "run", RunOptions { threads: 1, ..RunOptions::default() }, &mut Silent);
    let (model, splits) = (Model::open(&lab.path("run")).expect("a model"), splits(&config));
    let data = &splits.fit.batch;
    // More than are predicted at a time, and a part of that; one by one; none.
    let batches = [8192 + 37, 1, 5, 64, 0].map(|rows| rows_of(data, rows));
    let all: Vec<&Batch> = batches.iter().collect();
    let mut device =
        DevicePredictor::new(gpu.device(), &model, Precision::F32, &all).expect("a device that predicts");
    let mut cpu = model.predictor(&Serial, 256).expect("a predictor");
    assert!(device.output_names().eq(cpu.output_names()));
    for batch in &batches {
        let (there, here) = (device.predict_all(batch), cpu.predict_all(&Serial, batch));
        let (there, here) = (there.expect("predictions"), here.expect("predictions"));
        for (there, here) in there.iter().zip(&here) {
            assert_eq!((there.len(), here.len()), (batch.rows, batch.rows));
            for (row, (there, here)) in there.iter().zip(here).enumerate() {
                assert!((there - here).abs() < 1e-5, "row {row}: {there} on the device, {here} here");
            }
        }
    }
    // What is wrong with data is said in the same words, and is no matter to those that come after.
    let mut damaged = rows_of(data, 5000);
    damaged.dense[4321] = f32::NAN;
    let told = device.predict_all(&damaged).expect_err("it is no number").to_string();
    assert_eq!(told, cpu.predict_all(&Serial, &damaged).expect_err("it is no number").to_string());
    let few = rows_of(data, 3);
    assert_eq!(device.predict_all(&few).expect("predictions")[0].len(), 3);
}
