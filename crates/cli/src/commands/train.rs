//! `manygate train`.

use crate::args::{Train, Training};
use crate::progress::Terminal;
use manygate_core::{Error, Result};
use manygate_train::report::terminal::{Look, task_scenario_table};
use manygate_train::{Config, Outcome, RunOptions, run_folder, train};

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

pub(crate) fn run(args: &Train) -> Result<()> {
    let config = load_config(&args.training, args.seed)?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => run_folder::default_folder(&args.training.config, args.resume)?,
    };
    let options = RunOptions { threads: args.training.threads, resume: args.resume };
    let mut terminal = Terminal::new(&folder)?;
    let outcome = train(&config, &folder, options, &mut terminal);
    terminal.finish(outcome.as_ref().err());
    print_outcome(&outcome?);
    Ok(())
}

fn print_outcome(outcome: &Outcome) {
    let look = Look::detect();
    println!("{}", task_scenario_table("validation", &outcome.valid.evaluation, None, &outcome.valid.constants, look));
    if let Some(test) = &outcome.test {
        let floors = outcome.floors.as_ref();
        println!("{}", task_scenario_table("test", &test.evaluation, floors, &test.constants, look));
    }
    eprintln!(
        "step {} was chosen on validation; {:.1} s; the run is in {}, its report in {}",
        outcome.step,
        outcome.seconds,
        outcome.folder.display(),
        outcome.folder.join(manygate_train::results::REPORT_FILE).display()
    );
}
