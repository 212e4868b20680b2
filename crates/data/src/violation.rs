//! Labels that contradict what a task says that it comes after: facts about the data, counted and told.

use std::fmt;
use std::path::{Path, PathBuf};

use manygate_core::Batch;
use manygate_features::Schema;
use serde::Serialize;

/// Rows of a file in which a task's event happened without that of the task which it comes after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The task.
    pub task: String,
    /// The task that it comes after.
    pub after: String,
    /// The file.
    pub file: PathBuf,
    /// Number of such rows.
    pub rows: u64,
    /// The line, from 1, of the first of them.
    pub first_line: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { task, after, file, rows, first_line } = self;
        let s = if *rows == 1 { "row has" } else { "rows have" };
        write!(f, "{}: {rows} {s} `{task}` without `{after}`, first on line {first_line}", file.display())
    }
}

/// Takes note of the row that was labelled last. Any label but 0 is an event.
pub(crate) fn note(all: &mut Vec<Violation>, schema: &Schema, batch: &Batch, file: &Path, line: u64) {
    for (task, labels) in schema.tasks.iter().zip(&batch.labels) {
        let Some(after) = task.after else { continue };
        let last = |labels: &[f32]| labels.last().copied().unwrap_or(0.0);
        if last(labels) == 0.0 || last(&batch.labels[after]) != 0.0 {
            continue;
        }
        match all.iter_mut().find(|v| v.task == task.name && v.file == file) {
            Some(known) => known.rows += 1,
            None => all.push(Violation {
                task: task.name.clone(),
                after: schema.tasks[after].name.clone(),
                file: file.to_path_buf(),
                rows: 1,
                first_line: line,
            }),
        }
    }
}

/// One for each file and task.
pub(crate) fn merged<'a>(parts: impl Iterator<Item = &'a Violation>) -> Vec<Violation> {
    let mut all: Vec<Violation> = Vec::new();
    for part in parts {
        match all.iter_mut().find(|v| v.task == part.task && v.file == part.file) {
            Some(known) => {
                known.rows += part.rows;
                known.first_line = known.first_line.min(part.first_line);
            }
            None => all.push(part.clone()),
        }
    }
    all
}
