//! Names of files and patterns of names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use manygate_core::{Error, Result};

/// What `*` matches: no leading dot, as in a shell.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files that `names` stand for, in that order; those of a pattern (`*`, `?`, `[a-z]`, `**` for folders) by name. A
/// name that exists is no pattern. `key` is where the names come from.
///
/// # Errors
/// [`Error::Config`] when there are no names, a pattern is malformed or matches no file, or a file is named twice by a
/// pattern and another entry; [`Error::Io`] when a folder cannot be read.
pub(crate) fn expand(key: &str, names: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if names.is_empty() {
        return Err(Error::config(key, "no file is named: give at least one"));
    }
    let mut files = Vec::new();
    let mut patterns = 0;
    for name in names {
        if is_pattern(name) {
            patterns += 1;
            files.extend(matches(key, name)?);
        } else {
            files.push(name.clone());
        }
    }
    let mut seen = HashSet::new();
    match files.iter().find(|file| !seen.insert(file.as_path())) {
        Some(twice) if patterns > 0 => {
            let message = format!("`{}` is named twice: its rows would count twice", twice.display());
            Err(Error::config(key, message))
        }
        _ => Ok(files),
    }
}

fn is_pattern(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.contains(['*', '?', '['])) && !name.exists()
}

fn matches(key: &str, pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let wrong = |message: String| Error::config(key, message);
    if let Err(error) = Pattern::new(&text) {
        return Err(wrong(format!("`{text}` is no pattern of file names: {error}")));
    }
    let found = glob::glob_with(&text, OPTIONS).map_err(|error| wrong(format!("`{text}`: {error}")))?;
    let mut files = Vec::new();
    for entry in found {
        let file = entry.map_err(|error| {
            let path = error.path().to_path_buf();
            Error::io("search", path)(error.into())
        })?;
        if file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(wrong(format!(
            "no file matches `{text}`: correct the pattern, or the folder it starts from"
        )));
    }
    files.sort();
    Ok(files)
}
