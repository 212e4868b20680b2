//! `manygate repeat`.

use super::train::load_config;
use crate::args::{Part, Repeat};
use crate::output;
use manygate_core::{Error, Result};
use manygate_train::metrics::ALL;
use manygate_train::repeat::{Rows, SeedResult, repeat};
use manygate_train::report::repeat::repetition_tables;
use manygate_train::report::terminal::Look;

pub(crate) fn run(args: &Repeat) -> Result<()> {
    let config = load_config(&args.training, None)?;
    if let Some(other) = args.require.iter().find(|r| !config.tasks.iter().any(|t| t.name == r.task)) {
        return Err(Error::config("--require", format!("there is no task `{}`", other.task)));
    }
    let rows = match args.part {
        Part::Test => Rows::Test,
        Part::Valid => Rows::Valid,
    };
    let repetition =
        repeat(&config, &args.seeds, rows, args.training.threads, &mut |seed| output::say(&line(seed)))?;
    if args.json {
        output::json(&repetition)?;
    } else {
        output::result(repetition_tables(&repetition, Look::detect()).trim_end())?;
    }
    repetition.check(&args.require)
}

/// What is said of a finished seed.
fn line(seed: &SeedResult) -> String {
    let tasks = seed.evaluation.tasks.iter();
    let auc = tasks.filter_map(|(task, slices)| Some((task, slices.get(ALL)?.auc?)));
    let auc: Vec<String> = auc.map(|(task, auc)| format!("{task} {auc:.4}")).collect();
    format!("seed {}: step {}, AUC {}; {:.1} s", seed.seed, seed.step, auc.join(" "), seed.seconds)
}
