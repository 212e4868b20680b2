//! The one error type: what went wrong, where, and what to do about it.

use std::path::{Path, PathBuf};

/// Result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Messages name the place and end with the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes or kinds do not fit together while a graph is built or a plan is compiled.
    #[error("{at}: {message}")]
    Graph {
        /// The op, layer or parameter.
        at: String,
        /// What does not fit, with the shapes.
        message: String,
    },
    /// A configuration that cannot be used.
    #[error("configuration: {key}: {message}")]
    Config {
        /// The dotted key, `model.experts`.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A value in a data file that cannot be used.
    #[error("{}{}{}: {message}", .file.display(), line_suffix(.line), column_suffix(.column))]
    Data {
        /// The file.
        file: PathBuf,
        /// Line in the file, from 1 (the header is line 1).
        line: Option<u64>,
        /// Column name.
        column: Option<String>,
        /// What is wrong and what to do.
        message: String,
    },
    /// A file that is damaged, foreign, or of another version.
    #[error("{}: {message}", .file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}{}", .path.display(), remedy(doing, .source))]
    Io {
        /// What was being done, as a verb phrase: `read`, `create the folder`.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A run stopped because it was asked to. Its checkpoint is written, and it can be resumed.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Steps taken, the resumed ones included.
        step: u64,
    },
    /// A device that cannot be used, or failed.
    #[error("{message}")]
    Device {
        /// What was found, and what to do.
        message: String,
    },
    /// A result that the caller asked for was not reached.
    #[error("{0}")]
    Unmet(String),
    /// Training met an infinite or undefined loss; parameters are those before the step.
    #[error(
        "the loss of task `{task}` is {loss} at step {step}; the first value that is not finite is the output of \
         `{op}`. Lower the learning rate, or look for extreme values in the inputs"
    )]
    NonFinite {
        /// Step, counted from 1.
        step: u64,
        /// The first task whose loss is not finite.
        task: String,
        /// Its loss.
        loss: f64,
        /// The first op in plan order with an output that is not finite.
        op: String,
    },
    /// Training met an infinite or undefined gradient of finite losses; parameters are those before the step.
    #[error(
        "the gradient of `{tensor}` is not finite at step {step}. Lower the learning rate, or look for extreme values \
         in the inputs"
    )]
    NonFiniteGradient {
        /// Step, counted from 1.
        step: u64,
        /// The first tensor with such a gradient.
        tensor: String,
    },
}

/// What to do where the system's words do not say it.
fn remedy(doing: &str, source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{
        AlreadyExists, FileTooLarge, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match source.kind() {
        StorageFull | QuotaExceeded => "; make room there",
        FileTooLarge => "; raise the limit on the size of files (`ulimit -f`)",
        ReadOnlyFilesystem | PermissionDenied if doing != "read" => "; name a place that can be written",
        AlreadyExists | NotADirectory => "; a file is where a folder should be",
        NotFound if doing == "write" => "; the folder was moved or removed, or has not been made",
        _ => "",
    }
}

fn line_suffix(line: &Option<u64>) -> String {
    line.map(|l| format!(":{l}")).unwrap_or_default()
}

fn column_suffix(column: &Option<String>) -> String {
    column.as_ref().map(|c| format!(": column `{c}`")).unwrap_or_default()
}

impl Error {
    /// A graph or plan that does not fit.
    pub fn graph(at: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Graph { at: at.into(), message: message.into() }
    }

    /// A configuration key that cannot be used.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Config { key: key.into(), message: message.into() }
    }

    /// A value in a data file.
    pub fn data(
        file: impl AsRef<Path>,
        line: Option<u64>,
        column: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Error::Data {
            file: file.as_ref().to_path_buf(),
            line,
            column: column.map(str::to_owned),
            message: message.into(),
        }
    }

    /// A damaged or foreign file.
    pub fn format(file: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Format { file: file.as_ref().to_path_buf(), message: message.into() }
    }

    /// An operating system error, for `map_err(Error::io("read", path))`.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { doing, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_error_names_file_line_and_column() {
        let e = Error::data("a.csv", Some(7), Some("age"), "`x` is not a number");
        assert_eq!(e.to_string(), "a.csv:7: column `age`: `x` is not a number");
        let e = Error::data("a.csv", None, None, "the file is empty");
        assert_eq!(e.to_string(), "a.csv: the file is empty");
    }

    #[test]
    fn a_system_error_says_what_to_do() {
        use std::io::ErrorKind::{PermissionDenied, StorageFull};
        let told = |doing, kind: std::io::ErrorKind| Error::io(doing, "run/model")(kind.into()).to_string();
        assert!(told("write", StorageFull).starts_with("run/model: cannot write: "));
        assert!(told("write", StorageFull).ends_with("; make room there"));
        assert!(told("write", PermissionDenied).ends_with("; name a place that can be written"));
        assert!(!told("read", PermissionDenied).contains(';'));
    }
}
