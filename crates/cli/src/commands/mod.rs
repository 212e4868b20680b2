//! The subcommands, one a file.

mod train;

use crate::args::Command;
use manygate_core::Result;

/// Runs a subcommand.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(&args),
        _ => Ok(()),
    }
}
