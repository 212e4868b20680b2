//! How a command that did not succeed ends.

use crate::interrupt::Interrupt;
use crate::output;
use manygate_core::Error;
use std::process::ExitCode;

/// What went wrong, and what can be done now.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Said after the error.
    pub(crate) advice: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, advice: None }
    }
}

impl Failure {
    /// Says it and gives the exit code.
    pub(crate) fn end(&self, interrupt: &Interrupt) -> ExitCode {
        let code = match &self.error {
            Error::Interrupted { .. } => {
                output::say(&self.error.to_string());
                ExitCode::from(interrupt.exit_code())
            }
            Error::Config { key, message } => {
                output::say(&format!("error: {key}: {message}"));
                ExitCode::from(2)
            }
            error => {
                output::say(&format!("error: {error}"));
                ExitCode::FAILURE
            }
        };
        self.advice.iter().for_each(|advice| output::say(advice));
        code
    }
}
