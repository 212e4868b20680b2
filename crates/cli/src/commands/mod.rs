//! The subcommands, one a file.

mod bench;
mod eval;
mod inspect;
mod models;
mod predict;
mod repeat;
mod train;

use crate::args::{Bench, Command};
use manygate_core::Result;

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Repeat(args) => repeat::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Models(args) => models::models(&args),
        Command::Methods(args) => models::methods(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(Bench::Train(args)) => bench::run(&args),
    }
}
