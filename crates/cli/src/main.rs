//! The manygate command: parses arguments, calls the engine, prints. Results go to stdout, the rest to stderr.
//!
//! Exit codes: 0; 1 when something fails (a file that is missing or damaged, data that does not fit); 2 when the wrong
//! thing is asked for (an argument, or a key of the configuration); 130 or 143 when Ctrl-C or SIGTERM stopped a run.

mod args;
mod commands;
mod failure;
mod interrupt;
mod output;
mod progress;

use clap::Parser;
use interrupt::Interrupt;
use manygate_core::Error;
use manygate_kernels::Isa;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(unix)]
    interrupt::report_size_limits();
    let arguments = args::Arguments::parse();
    let interrupt = Interrupt::default();
    let requested = Isa::requested().map_err(|message| Error::config("MANYGATE_ISA", message).into());
    match requested.and_then(|_| commands::run(arguments.command, &interrupt)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.end(&interrupt),
    }
}
