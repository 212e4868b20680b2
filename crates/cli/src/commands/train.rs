//! `manygate train`.

use crate::args::{Train, Training};
use crate::output;
use crate::progress::Terminal;
use manygate_core::{Error, Result};
use manygate_train::checkpoint::CHECKPOINT_FILE;
use manygate_train::report::Part;
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
    if args.resume && !folder.join(CHECKPOINT_FILE).exists() {
        output::say(&format!("there is no checkpoint in {}: starting from the beginning", folder.display()));
    }
    let options = RunOptions { threads: args.training.threads, resume: args.resume };
    let mut terminal = Terminal::new(&folder);
    let outcome = train(&config, &folder, options, &mut terminal);
    terminal.finish(outcome.as_ref().err());
    print_outcome(&outcome?)
}

fn print_outcome(outcome: &Outcome) -> Result<()> {
    let look = Look::detect();
    let (valid, test) = (&outcome.valid, outcome.test.as_ref());
    let mut tables = vec![task_scenario_table("validation", &valid.evaluation, None, &valid.constants, look)];
    let of_test =
        |t: &Part| task_scenario_table("test", &t.evaluation, outcome.floors.as_ref(), &t.constants, look);
    tables.extend(test.map(of_test));
    output::result(tables.join("\n").trim_end())?;
    output::say(&format!(
        "step {} was chosen on validation; {:.1} s; the run is in {}, its report in {}",
        outcome.step,
        outcome.seconds,
        outcome.folder.display(),
        outcome.folder.join(manygate_train::results::REPORT_FILE).display()
    ));
    Ok(())
}
