//! `manygate predict`.

use crate::args::Predict;
use crate::output;
use manygate_core::Result;
use manygate_train::score::predict;

pub(crate) fn run(args: &Predict) -> Result<()> {
    let rows = predict(&args.run, &args.data, &args.out, &args.prediction.options())?;
    output::say(&format!("{rows} rows are in {}", args.out.display()));
    Ok(())
}
