//! `manygate repeat`.

use super::train::load_config;
use crate::args::{Part, Repeat};
use crate::output;
use manygate_core::{Error, Result};
use manygate_train::agreement::{self, Reference, Signs};
use manygate_train::metrics::ALL;
use manygate_train::repeat::{Rows, SeedResult, repeat};
use manygate_train::report::agreement::agreement_table;
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
    // A reference that cannot be used should not come to light after the last seed.
    let reference = args.reference.as_deref().map(Reference::load).transpose()?;
    let reference = reference.as_ref().map(|reference| reference.of(&config)).transpose()?;
    if reference.is_some() && (rows == Rows::Valid || args.seeds.len() < 2) {
        return Err(Error::config("--reference", "compares test rows over at least two seeds"));
    }
    let mut repetition =
        repeat(&config, &args.seeds, rows, args.training.threads, &mut |seed| output::say(&line(seed)))?;
    repetition.agreement = reference.map(|reference| reference.compare(&repetition)).transpose()?;
    repetition.signs = repetition.agreement.as_deref().map(Signs::of);
    if args.json {
        output::json(&repetition)?;
    } else {
        let look = Look::detect();
        let beside = repetition.agreement.as_ref().map(|cells| format!("\n{}", agreement_table(cells, look)));
        let tables = repetition_tables(&repetition, look) + &beside.unwrap_or_default();
        output::result(tables.trim_end())?;
    }
    repetition.check(&args.require)?;
    repetition.agreement.as_deref().map_or(Ok(()), agreement::check)
}

/// What is said of a finished seed.
fn line(seed: &SeedResult) -> String {
    let tasks = seed.evaluation.tasks.iter();
    let auc = tasks.filter_map(|(task, slices)| Some((task, slices.get(ALL)?.auc?)));
    let auc: Vec<String> = auc.map(|(task, auc)| format!("{task} {auc:.4}")).collect();
    format!("seed {}: step {}, AUC {}; {:.1} s", seed.seed, seed.step, auc.join(" "), seed.seconds)
}
