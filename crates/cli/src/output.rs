//! Where words go: results to stdout, the rest to stderr. A reader that has seen enough (`| head`) ends neither a run
//! nor the program with a panic.

use manygate_core::{Error, Result};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints a result, with a line feed at its end.
pub(crate) fn result(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(e)),
        _ => Ok(()),
    }
}

/// Prints a result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::format("stdout", e.to_string()))?;
    result(&text)
}

/// Says something beside the result. Nobody listening is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
