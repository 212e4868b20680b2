//! `manygate train`.

use crate::args::{Precision, Train, Training};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output;
use crate::progress::Terminal;
use manygate_core::{Error, Result};
use manygate_train::checkpoint::CHECKPOINT_FILE;
use manygate_train::choice;
use manygate_train::report::Part;
use manygate_train::report::terminal::{Look, task_scenario_table};
use manygate_train::{Cancel, Config, DeviceChoice, Outcome, RunOptions, run_folder, train};
use std::path::Path;

/// Reads the configuration that a training command names.
pub(crate) fn load_config(training: &Training, seed: Option<u64>) -> Result<Config> {
    if !training.config.exists() {
        let message = format!("there is no `{}`; give a configuration file", training.config.display());
        return Err(Error::config("CONFIG.toml", message));
    }
    let mut config = Config::load(&training.config, &training.overrides)?;
    if let Some(seed) = seed {
        config.seed = seed;
    }
    Ok(config)
}

/// How a training command is to run.
pub(crate) fn run_options(training: &Training, cancel: Cancel) -> RunOptions {
    let &Training { threads, device, precision, .. } = training;
    RunOptions { threads, resume: false, cancel, device, precision: precision.choice() }
}

pub(crate) fn run(args: &Train, interrupt: &Interrupt) -> std::result::Result<(), Failure> {
    let mut config = load_config(&args.training, args.seed)?;
    if args.start_from.is_some() {
        config.train.start_from.clone_from(&args.start_from);
    }
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => run_folder::default_folder(&args.training.config, args.resume)?,
    };
    if args.resume && !folder.join(CHECKPOINT_FILE).exists() {
        output::say(&format!("there is no checkpoint in {}: starting from the beginning", folder.display()));
    }
    let cancel = interrupt.cancel().clone();
    let options = RunOptions { resume: args.resume, ..run_options(&args.training, cancel) };
    let mut terminal = Terminal::new(&folder, interrupt);
    let outcome = train(&config, &folder, options, &mut terminal);
    terminal.finish(outcome.as_ref().err());
    let outcome = outcome.map_err(|error| {
        // What the system refused it may allow later; other errors would come again.
        let can_go_on = matches!(error, Error::Interrupted { .. } | Error::Io { .. });
        let kept = folder.join(CHECKPOINT_FILE).exists();
        let advice = || format!("go on from the last checkpoint with:\n  {}", resume_command(args, &folder));
        Failure { error, advice: (can_go_on && kept).then(advice) }
    })?;
    Ok(print_outcome(&outcome)?)
}

/// The command that goes on with the run in `folder`.
fn resume_command(args: &Train, folder: &Path) -> String {
    let mut words =
        vec!["manygate".to_owned(), "train".to_owned(), args.training.config.display().to_string()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    args.training.overrides.iter().for_each(|text| option("--set", text.clone()));
    if args.training.threads > 0 {
        option("--threads", args.training.threads.to_string());
    }
    if args.training.device != DeviceChoice::Cpu {
        option("--device", args.training.device.to_string());
    }
    if args.training.precision != Precision::F32 {
        option("--precision", format!("{:?}", args.training.precision).to_lowercase());
    }
    if let Some(seed) = args.seed {
        option("--seed", seed.to_string());
    }
    if let Some(run) = &args.start_from {
        option("--start-from", run.display().to_string());
    }
    option("--out", folder.display().to_string());
    words.push("--resume".to_owned());
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn print_outcome(outcome: &Outcome) -> Result<()> {
    let look = Look::detect();
    let (valid, test) = (&outcome.valid, outcome.test.as_ref());
    let mut tables = vec![task_scenario_table("validation", valid, None, look)];
    let of_test = |test: &Part| task_scenario_table("test", test, outcome.floors.as_ref(), look);
    tables.extend(test.map(of_test));
    output::result(tables.join("\n").trim_end())?;
    output::say(&format!(
        "{} was chosen on validation; {:.1} s; the run is in {}, its report in {}",
        choice::told(outcome.step, &outcome.task_steps),
        outcome.seconds,
        outcome.folder.display(),
        outcome.folder.join(manygate_train::results::REPORT_FILE).display()
    ));
    Ok(())
}
