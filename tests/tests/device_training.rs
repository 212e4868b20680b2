//! Runs on a device against the same runs on the CPU.

use manygate_core::Error;
use manygate_cuda_tests::{Gpu, project_root};
use manygate_train::{
    Cancel, Config, DeviceChoice, Event, Observer, Outcome, PrecisionChoice, RunOptions, Silent, train,
};

/// Steps of a run that shows that a model learns, and of one in which nothing else happens than in that.
const STEPS: usize = 30;
const FEW_STEPS: usize = 5;

/// A small mmoe on the bundled data, with batches of 128 rows.
fn config(steps: usize, keys: &str) -> Config {
    model(
        steps,
        &format!(
            "name = \"mmoe\"\nembedding_dim = 4\nexperts = 3\nexpert_units = [16, 8]\ntower_units = [8]\n{keys}"
        ),
    )
}

/// A model on the same data.
fn model(steps: usize, keys: &str) -> Config {
    let root = project_root();
    let text = std::fs::read_to_string(root.join("configs/quickstart.toml")).expect("the configuration");
    let mut table: toml::Table = text.parse().expect("TOML");
    let small: toml::Table = keys.parse().expect("TOML");
    table.insert("model".into(), small.into());
    table["train"]["batch_size"] = 128.into();
    let stage: toml::Table = format!("name = \"short\"\nsteps = {steps}").parse().expect("TOML");
    table.insert("stage".into(), vec![toml::Value::from(stage)].into());
    // A run is scored on few rows: where there is no GPU, predictions take longer than its steps.
    let train = root.join("data/quickstart/train.csv.gz").display().to_string();
    let data: toml::Table =
        format!("train = [{train:?}]\nvalid = {{ last_fraction = 0.03 }}\nscenario = \"tab\"")
            .parse()
            .expect("TOML");
    table.insert("data".into(), data.into());
    if let Some(report) = table.get_mut("report").and_then(|report| report.as_table_mut()) {
        report.remove("floors");
    }
    Config::try_from(table).expect("a configuration")
}

/// The loss of each step.
#[derive(Default)]
struct Losses(Vec<f64>, u64);

impl Losses {
    /// Of the steps after `step`.
    fn after(step: u64) -> Losses {
        Losses(Vec::new(), step)
    }
}

impl Observer for Losses {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Step { step, loss, .. } = event {
            assert!(*step > self.1, "step {step} is told after {}", self.1);
            self.1 = *step;
            self.0.push(*loss);
        }
    }
}

fn run(config: &Config, device: DeviceChoice) -> (Vec<f64>, Outcome) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = RunOptions { threads: 1, device, ..RunOptions::default() };
    let mut losses = Losses::default();
    let outcome = train(config, folder.path(), options, &mut losses).expect("a run");
    (losses.0, outcome)
}

fn compare(config: &Config, steps: usize) {
    let gpu = Gpu::new();
    let (losses, outcome) = run(config, DeviceChoice::Cuda(gpu.device().description().ordinal));
    let (expected, by_cpu) = run(config, DeviceChoice::Cpu);
    assert_eq!((losses.len(), expected.len()), (steps, steps));
    for (step, (loss, expected)) in losses.iter().zip(&expected).enumerate() {
        assert!((loss - expected).abs() < 1e-4, "step {}: {loss} on the device, {expected} here", step + 1);
    }
    assert!(steps < STEPS || losses[steps - 1] < losses[0], "it learns: {losses:?}");
    let figures = |outcome: &Outcome| format!("{:.3?}", outcome.valid.evaluation);
    assert_eq!(figures(&outcome), figures(&by_cpu));
}

#[test]
fn thirty_steps_are_those_of_the_cpu() {
    compare(&config(STEPS, ""), STEPS);
}

#[test]
fn scenarios_are_those_of_the_cpu() {
    let dropout = "dropout = 0.2";
    let star = format!("name = \"star\"\nembedding_dim = 4\nunits = [16, 8]\n{dropout}");
    compare(&model(FEW_STEPS, &star), FEW_STEPS);
    let bottom = "bottom_units = [16]\ntower_units = [8]";
    let own = format!("name = \"single_scenario\"\nembedding_dim = 4\n{bottom}\n{dropout}");
    compare(&model(FEW_STEPS, &own), FEW_STEPS);
}

#[test]
fn scenarios_in_any_order_are_those_of_the_cpu() {
    let sarnet =
        "name = \"sarnet\"\nembedding_dim = 4\nscenario_dim = 4\nshared_experts = 2\nscenario_experts = 1";
    compare(&model(FEW_STEPS, &format!("{sarnet}\nexpert_units = [8]")), FEW_STEPS);
}

#[test]
fn behaviours_are_those_of_the_cpu() {
    let attention = "name = \"attention\"\nembedding_dim = 4\nhistory = \"hist_video_ids\"\nunits = [8]";
    let din = "kind = \"din\"\ntarget = \"video_id\"\nunit_units = [4]\nunit_activation = \"dice\"";
    compare(&model(FEW_STEPS, &format!("{attention}\n{din}")), FEW_STEPS);
    let among_themselves = "kind = \"self\"\nattention_head_dim = 2\nposition = true";
    compare(&model(FEW_STEPS / 2, &format!("{attention}\n{among_themselves}")), FEW_STEPS / 2);
}

#[test]
fn clusters_are_those_of_the_cpu() {
    let adaptdhm = "name = \"adaptdhm\"\nembedding_dim = 4\nunits = [16, 8]";
    compare(&model(FEW_STEPS, adaptdhm), FEW_STEPS);
}

/// Asks to stop after some steps.
struct StopAfter(u64, Cancel);

impl Observer for StopAfter {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Step { step, .. } if *step == self.0) {
            self.1.request();
        }
    }
}

#[test]
fn a_run_goes_on_where_another_device_left_it() {
    let plain = config(2 * FEW_STEPS, "");
    go_on(&plain);
    // What a method has learnt comes along.
    go_on(&balanced(plain, "method = \"famo\"\nrate = 0.1"));
}

fn go_on(config: &Config) {
    let (gpu, folder) = (Gpu::new(), tempfile::tempdir().expect("a folder"));
    let devices = [DeviceChoice::Cuda(gpu.device().description().ordinal), DeviceChoice::Cpu];
    let run = folder.path().join("run");
    for (device, stop) in [(devices[0], 3), (devices[1], 6)] {
        let cancel = Cancel::default();
        let options = RunOptions {
            threads: 1,
            device,
            resume: stop > 3,
            cancel: cancel.clone(),
            ..RunOptions::default()
        };
        let stopped = train(config, &run, options, &mut StopAfter(stop, cancel)).expect_err("it is stopped");
        assert!(
            matches!(stopped, Error::Interrupted { step } if step == stop || step == stop + 1),
            "{stopped}"
        );
    }
    let options = RunOptions { threads: 1, device: devices[0], resume: true, ..RunOptions::default() };
    let outcome = train(config, &run, options, &mut Losses::after(6)).expect("the rest of the run");
    let (_, by_cpu) = self::run(config, DeviceChoice::Cpu);
    let figures = |outcome: &Outcome| format!("{:.3?}", outcome.valid.evaluation);
    assert_eq!(figures(&outcome), figures(&by_cpu));
}

/// Checks the losses of a run whose products multiply in something else than f32.
fn check_close(config: &Config, capability: (u32, u32), precision: PrecisionChoice, tolerance: f64) {
    let (expected, _) = run(config, DeviceChoice::Cpu);
    let (gpu, folder) = (Gpu::of_capability(capability), tempfile::tempdir().expect("a folder"));
    let device = DeviceChoice::Cuda(gpu.device().description().ordinal);
    let options = RunOptions { threads: 1, device, precision, ..RunOptions::default() };
    let mut losses = Losses::default();
    train(config, folder.path(), options, &mut losses).expect("a run");
    for (step, (loss, expected)) in losses.0.iter().zip(&expected).enumerate() {
        let difference = (loss - expected).abs();
        assert!(difference < tolerance, "{precision:?}, step {}: {loss} for {expected}", step + 1);
    }
    assert!(losses.0 != expected, "{precision:?} rounds");
}

#[test]
fn tensor_cores_come_close() {
    check_close(&config(FEW_STEPS, ""), (8, 0), PrecisionChoice::Tf32, 2e-3);
    check_close(&config(FEW_STEPS, ""), (8, 0), PrecisionChoice::Bf16, 2e-2);
    // By the instructions of Hopper.
    check_close(&config(FEW_STEPS, ""), (9, 0), PrecisionChoice::Bf16, 2e-2);
}

#[test]
fn tensor_cores_come_close_with_weights_that_are_computed() {
    let star = model(FEW_STEPS, "name = \"star\"\nembedding_dim = 4\nunits = [16, 1]");
    check_close(&star, (8, 0), PrecisionChoice::Bf16, 2e-2);
}

#[test]
fn tensor_cores_come_close_along_lists() {
    let attention = "name = \"attention\"\nembedding_dim = 4\nunits = [8]\nhistory = \"hist_video_ids\"";
    let target = "kind = \"target\"\ntarget = \"video_id\"\nattention_head_dim = 2";
    check_close(
        &model(FEW_STEPS / 2, &format!("{attention}\n{target}")),
        (8, 0),
        PrecisionChoice::Bf16,
        2e-2,
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_anything_moves() {
    let mut config = config(FEW_STEPS, "");
    // The first step throws the weights so far that later losses overflow.
    config.optimizer.dense.rate = Some(1e30);
    let gpu = Gpu::new();
    let told = |device| {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RunOptions { threads: 1, device, ..RunOptions::default() };
        match train(&config, folder.path(), options, &mut Silent) {
            Err(Error::NonFinite { step, .. }) => step,
            other => panic!("{:?}", other.map(|_| "a whole run")),
        }
    };
    let step = told(DeviceChoice::Cuda(gpu.device().description().ordinal));
    assert_eq!(step, told(DeviceChoice::Cpu));
}

#[test]
fn dropout_draws_the_numbers_of_the_cpu() {
    compare(&config(FEW_STEPS, "dropout = 0.2"), FEW_STEPS);
}

#[test]
fn gradients_are_clipped_as_on_the_cpu() {
    let mut config = config(FEW_STEPS, "");
    config.optimizer.clip_norm = Some(0.05);
    compare(&config, FEW_STEPS);
}

/// Adds `[balance]`, or keys of it, to a configuration.
fn balanced(mut config: Config, keys: &str) -> Config {
    config.balance = Some(keys.parse().expect("TOML"));
    config
}

/// Of the methods one that weighs losses and looks twice, and one that weighs their gradients.
#[test]
fn losses_are_weighed_as_on_the_cpu() {
    for keys in ["method = \"famo\"\nrate = 0.1", "method = \"pcgrad\""] {
        compare(&balanced(config(FEW_STEPS, "dropout = 0.2"), keys), FEW_STEPS);
    }
}

/// A stage has its own frozen tensors, factors of losses and optimisers, and begins with what the one before left.
#[test]
fn stages_follow_each_other_as_on_the_cpu() {
    let mut config = config(2, "");
    let first = "name = \"first\"\nsteps = 2\nfreeze = [\"embedding.*\"]\nlosses = { is_click = 0.5 }\n\
                 [optimizer]\nclip_norm = 0.05\nclip_tables = true";
    config.stage.insert(0, first.parse::<toml::Table>().expect("TOML").try_into().expect("a stage"));
    compare(&balanced(config, "method = \"pcgrad\""), 4);
}

#[test]
fn gradients_of_tables_are_clipped_as_on_the_cpu() {
    let descent = "method = \"sgd\"\nrate = 5";
    let mut config = config(FEW_STEPS, "");
    let keys = format!("clip_norm = 0.05\nclip_tables = true\n[dense]\n{descent}\n[tables]\n{descent}");
    config.optimizer = keys.parse().expect("the keys");
    compare(&config, FEW_STEPS);
}

#[test]
fn a_gradient_that_is_not_finite_is_not_clipped_but_told() {
    let mut config = config(FEW_STEPS, "embedding_deviation = 1e20");
    config.tasks.iter_mut().for_each(|task| task.weight = 1e30);
    let gpu = Gpu::new();
    let told = |config: &Config, device| {
        let folder = tempfile::tempdir().expect("a folder");
        let options = RunOptions { threads: 1, device, ..RunOptions::default() };
        match train(config, folder.path(), options, &mut Silent) {
            Err(Error::NonFiniteGradient { step, tensor }) => (step, tensor),
            other => panic!("{:?}", other.map(|_| "a whole run")),
        }
    };
    for (norm, value) in [(Some(1.0), None), (None, Some(1.0))] {
        (config.optimizer.clip_norm, config.optimizer.clip_value) = (norm, value);
        let on_device = told(&config, DeviceChoice::Cuda(gpu.device().description().ordinal));
        assert_eq!(on_device, told(&config, DeviceChoice::Cpu));
    }
}
