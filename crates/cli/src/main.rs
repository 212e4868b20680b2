//! The manygate command: parses arguments, calls the engine, prints. Results go to stdout, the rest to stderr.
//!
//! Exit codes: 0; 1 when something fails (a file that is missing or damaged, data that does not fit); 2 when the wrong
//! thing is asked for (an argument, or a key of the configuration).

mod args;
mod commands;
mod output;
mod progress;

use clap::Parser;
use manygate_core::Error;
use manygate_kernels::Isa;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    let requested = Isa::requested().map_err(|message| Error::config("MANYGATE_ISA", message));
    match requested.and_then(|_| commands::run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Config { key, message }) => {
            output::say(&format!("error: {key}: {message}"));
            ExitCode::from(2)
        }
        Err(error) => {
            output::say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
