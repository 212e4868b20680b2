//! The tasks of a configuration: names, kinds and what depends on another task.

use std::collections::HashSet;

use manygate_core::{Error, Result};

use crate::config::{TaskConfig, TaskKind};
use crate::schema::Task;
use crate::text::did_you_mean;

/// The tasks, and the label column of each.
///
/// # Errors
/// What does not fit, by its key.
pub(crate) fn declare_tasks(tasks: &[TaskConfig]) -> Result<(Vec<Task>, Vec<String>)> {
    if tasks.is_empty() {
        return Err(Error::config("tasks", "at least one [[tasks]] section is needed"));
    }
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    let mut labels = Vec::new();
    for (t, task) in tasks.iter().enumerate() {
        if !seen.insert(task.name.as_str()) {
            let message = format!("`{}` is already the name of a task: choose another", task.name);
            return Err(Error::config(format!("tasks[{t}].name"), message));
        }
        if !(task.weight.is_finite() && task.weight >= 0.0) {
            let message = format!("{} is not a weight: give a finite number from 0", task.weight);
            return Err(Error::config(format!("tasks[{t}].weight"), message));
        }
        if let Some(text) = task.positive.iter().find(|text| text.trim().is_empty()) {
            let message = format!("`{text}` is an empty label, which is always an error: name other texts");
            return Err(Error::config(format!("tasks[{t}].positive"), message));
        }
        if !task.positive.is_empty() && task.kind != TaskKind::Binary {
            let message = "texts stand for the labels of a binary task alone: leave it out, or change `kind`";
            return Err(Error::config(format!("tasks[{t}].positive"), message));
        }
        let other = |key: &str, name: &Option<String>, what: &str| {
            name.as_deref().map(|name| other_binary_task(t, key, name, what, tasks)).transpose()
        };
        resolved.push(Task {
            name: task.name.clone(),
            kind: task.kind,
            weight: task.weight,
            scenario_weights: Vec::new(),
            space: other("space", &task.space, "be its own label space")?,
            after: other("after", &task.after, "come after itself")?,
            role: task.role,
        });
        labels.push(task.column.clone().unwrap_or_else(|| task.name.clone()));
    }
    if resolved.iter().all(Task::is_auxiliary) {
        return Err(Error::config("tasks", "all are auxiliary, so that nothing is served: make one primary"));
    }
    Ok((resolved, labels))
}

/// The number of the task that the key `key` of task `t` names.
fn other_binary_task(t: usize, key: &str, name: &str, what: &str, tasks: &[TaskConfig]) -> Result<usize> {
    let wrong = |message: String| Err(Error::config(format!("tasks[{t}].{key}"), message));
    match tasks.iter().position(|other| other.name == name) {
        Some(other) if other == t => wrong(format!("task `{name}` cannot {what}: name another task")),
        Some(other) if tasks[other].kind != TaskKind::Binary => wrong(format!(
            "task `{name}` is not binary, so that no row tells whether it happened: name one that is"
        )),
        Some(other) => Ok(other),
        None => {
            let hint = did_you_mean(name, tasks.iter().map(|task| task.name.as_str()));
            wrong(format!("there is no task `{name}`{hint}"))
        }
    }
}
