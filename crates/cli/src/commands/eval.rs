//! `manygate eval`.

use crate::args::Eval;
use crate::output;
use manygate_core::Result;
use manygate_train::metrics::Evaluation;
use manygate_train::report::terminal::{Look, task_scenario_table};
use manygate_train::score::score;
use serde::Serialize;

/// The JSON form.
#[derive(Serialize)]
struct Scores<'a> {
    version: u32,
    data: &'a Evaluation,
}

pub(crate) fn run(args: &Eval) -> Result<()> {
    let score = score(&args.run, &args.data, &args.prediction.options())?;
    if args.json {
        return output::json(&Scores { version: 1, data: &score.part.evaluation });
    }
    let title = if args.data.is_empty() { "test" } else { "data" };
    let table = task_scenario_table(title, &score.part, score.floors.as_ref(), Look::detect());
    output::result(table.trim_end())
}
