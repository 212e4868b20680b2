//! The subcommands, one a file.

mod bench;
mod bench_kernels;
mod data;
mod devices;
mod eval;
mod inspect;
mod models;
mod predict;
mod repeat;
mod train;

use crate::args::{Bench, Command, Data};
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Runs a subcommand.
pub(crate) fn run(command: Command, interrupt: &Interrupt) -> Result<(), Failure> {
    let done = match command {
        Command::Train(args) => return train::run(&args, interrupt),
        Command::Repeat(args) => repeat::run(&args, interrupt),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Models(args) => models::models(&args),
        Command::Methods(args) => models::methods(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Data(Data::Describe(args)) => data::describe(&args),
        Command::Data(Data::Synth(args)) => data::synth(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Bench(Bench::Train(args)) => bench::train(&args),
        Command::Bench(Bench::Infer(args)) => bench::infer(&args),
        Command::Bench(Bench::Kernels(args)) => bench_kernels::run(&args),
    };
    Ok(done?)
}
