//! `manygate repeat`.

use super::train::{load_config, run_options};
use crate::args::{Part, Repeat};
use crate::interrupt::Interrupt;
use crate::output::{self, figures};
use manygate_core::{Error, Result};
use manygate_train::agreement::{self, Reference, Signs};
use manygate_train::choice;
use manygate_train::repeat::{Repetition, Rows, SeedResult, repeat};
use manygate_train::report::agreement::agreement_table;
use manygate_train::report::repeat::repetition_tables;
use manygate_train::report::terminal::Look;

pub(crate) fn run(args: &Repeat, interrupt: &Interrupt) -> Result<()> {
    let config = load_config(&args.training, None)?;
    args.require.iter().try_for_each(|requirement| requirement.check(&config))?;
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
    let compared = |seeds: &[u64]| -> Result<Repetition> {
        let options = run_options(&args.training, interrupt.cancel().clone());
        let told = &mut |seed: &SeedResult| output::say(&line(seed));
        let mut repetition = repeat(&config, seeds, rows, &options, told)?;
        repetition.agreement = reference.map(|reference| reference.compare(&repetition)).transpose()?;
        repetition.signs = repetition.agreement.as_deref().map(Signs::of);
        Ok(repetition)
    };
    // The folders of its runs are temporary, and must not stay behind.
    interrupt.listen();
    let mut repetition = compared(&args.seeds)?;
    if let Some(Err(miss)) = repetition.agreement.as_deref().map(agreement::check) {
        output::say(&format!(
            "{miss}; once more with fresh seeds, as one figure of many is outside by chance"
        ));
        let last = args.seeds.iter().copied().max().unwrap_or(0);
        let fresh: Vec<u64> = (1..=args.seeds.len() as u64).map(|i| last.saturating_add(i)).collect();
        repetition.again = Some(Box::new(compared(&fresh)?));
    }
    if args.json {
        output::json(&repetition)?;
    } else {
        let again = repetition.again.as_deref().map(tables).map(|again| format!("\n\nfresh seeds\n{again}"));
        output::result(&(tables(&repetition) + &again.unwrap_or_default()))?;
    }
    repetition.check(&args.require)?;
    let cells = |repetition: &Repetition| repetition.agreement.clone().unwrap_or_default();
    match &repetition.again {
        Some(again) => agreement::check_again(&cells(&repetition), &cells(again)),
        None => Ok(()),
    }
}

fn tables(repetition: &Repetition) -> String {
    let look = Look::detect();
    let beside = repetition.agreement.as_ref().map(|cells| format!("\n{}", agreement_table(cells, look)));
    let tables = repetition_tables(repetition, look) + &beside.unwrap_or_default();
    tables.trim_end().to_owned()
}

/// What is said of a finished seed.
fn line(seed: &SeedResult) -> String {
    let figures = figures(&seed.evaluation);
    let chosen = choice::told(seed.step, &seed.task_steps);
    format!("seed {}: {chosen}, {figures}; {:.1} s", seed.seed, seed.seconds)
}
