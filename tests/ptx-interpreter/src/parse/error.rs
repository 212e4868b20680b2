//! What is wrong with PTX text.

use std::fmt;

/// PTX that is not understood: where, and what about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The kernel or function, empty outside of all.
    kernel: String,
    /// The line, counted from one.
    line: u32,
    /// The text of that line.
    text: String,
    /// What is wrong with it.
    message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> ParseError {
        ParseError { kernel: String::new(), line, text: String::new(), message: message.into() }
    }

    /// Inside of `kernel`.
    pub(crate) fn in_kernel(mut self, kernel: &str) -> ParseError {
        if self.kernel.is_empty() {
            self.kernel = kernel.to_owned();
        }
        self
    }

    /// With the text of its line, taken from `source`.
    pub(crate) fn with_text(mut self, source: &str) -> ParseError {
        self.text = line_of(source, self.line).to_owned();
        self
    }

    /// The line, counted from one.
    pub fn line(&self) -> u32 {
        self.line
    }
}

/// Line `line` of `source`, counted from one, without the spaces around it.
pub(crate) fn line_of(source: &str, line: u32) -> &str {
    source.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim()
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kernel.is_empty() {
            write!(f, "{}, ", self.kernel)?;
        }
        write!(f, "line {} `{}`: {}", self.line, self.text, self.message)
    }
}

impl std::error::Error for ParseError {}

impl From<ParseError> for String {
    fn from(error: ParseError) -> String {
        error.to_string()
    }
}
