//! The manygate command: parses arguments, calls the engine, prints. Results go to stdout, the rest to stderr; exit
//! code 0, 1 for a failure, 2 for wrong usage.

mod args;
mod commands;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    match commands::run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            // A wrong value of an argument or a key is wrong usage; everything else is a failure.
            ExitCode::from(if matches!(error, manygate_core::Error::Config { .. }) { 2 } else { 1 })
        }
    }
}
