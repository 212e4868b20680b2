//! The end of every model: predictions and losses of the tasks, each as its kind wants them.
//!
//! | kind | from the model's number z | loss of a row |
//! |---|---|---|
//! | binary | probability 1 / (1 + e^−z) | cross-entropy |
//! | regression | z | (z − y)² |
//! | poisson | rate e^z | e^z − y z |

use crate::inputs::{Inputs, Task, TaskKind};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BceWithLogits, Link, PoissonLoss, Rate, Sigmoid, SquaredError};
use manygate_graph::{Graph, LossPart, Over, Value};

/// Makes the predictions outputs and, in training, adds the loss of each task, from a number a task `[batch, 1]`: the sum
/// over tasks of weight · mean over the rows that count.
///
/// # Errors
/// When two tasks have one name.
pub fn heads(g: &mut Graph, inputs: &Inputs, raw: &[Value]) -> Result<()> {
    for (t, (task, &raw)) in inputs.tasks.iter().zip(raw).enumerate() {
        head(g, task, t, raw, &task.name)?;
    }
    Ok(())
}

/// The same for task number `index`, whose part of the loss is called `part`.
///
/// # Errors
/// When the name is taken.
pub fn head(g: &mut Graph, task: &Task, index: usize, raw: Value, part: &str) -> Result<()> {
    prediction(g, task, raw)?;
    loss(g, task, index, raw, part)
}

/// The prediction of a task as an output.
///
/// # Errors
/// When the name is taken.
pub fn prediction(g: &mut Graph, task: &Task, raw: Value) -> Result<()> {
    let prediction = match task.kind {
        TaskKind::Binary => g.add(format!("probability.{}", task.name), Sigmoid, &[raw])?,
        TaskKind::Regression => raw,
        TaskKind::Poisson => g.add(format!("rate.{}", task.name), Rate, &[raw])?,
    };
    g.output(&task.name, prediction);
    Ok(())
}

/// In training, the loss of task number `index` as the part `name`.
///
/// # Errors
/// When the name is taken.
pub fn loss(g: &mut Graph, task: &Task, index: usize, raw: Value, name: &str) -> Result<()> {
    if !g.is_training() {
        return Ok(());
    }
    let part = g.loss(part(task, name, task.space))?;
    let (name, space) = (format!("loss.{name}"), task.space);
    match task.kind {
        TaskKind::Binary => g.add(name, BceWithLogits::new(part, index, space), &[raw]),
        TaskKind::Regression => g.add(name, SquaredError::new(part, index, space), &[raw]),
        TaskKind::Poisson => g.add(name, PoissonLoss::new(part, index, space), &[raw]),
    }
    .map(|_| ())
}

/// How the number z gives the prediction.
pub fn link(kind: TaskKind) -> Link {
    match kind {
        TaskKind::Binary => Link::Probability,
        TaskKind::Regression => Link::Value,
        TaskKind::Poisson => Link::Rate,
    }
}

/// A part of the loss with the weights of `task`.
pub fn part(task: &Task, name: &str, over: impl Into<Over>) -> LossPart {
    LossPart::new(name, task.weight, over).weighing(&task.scenario_weights)
}

/// That all tasks are binary, for a `model` that multiplies probabilities or differentiates cross-entropy by itself.
///
/// # Errors
/// [`Error::Config`] with the first task that is not.
pub fn all_binary(inputs: &Inputs, model: &str) -> Result<()> {
    match inputs.tasks.iter().position(|task| task.kind != TaskKind::Binary) {
        None => Ok(()),
        Some(t) => {
            let message = format!(
                "{model} predicts probabilities, and `{}` is a {} task; make it binary, or take another model",
                inputs.tasks[t].name, inputs.tasks[t].kind
            );
            Err(Error::config(format!("tasks[{t}].kind"), message))
        }
    }
}

/// That the tasks are a chain of events, in order, each trained over all rows: for a `model` that predicts such chains.
///
/// # Errors
/// [`Error::Config`] with the first task that is not a further link.
pub fn chain(inputs: &Inputs, model: &str) -> Result<()> {
    all_binary(inputs, model)?;
    let tasks = &inputs.tasks;
    if tasks.len() < 2 {
        let message = format!("{model} predicts a chain of events; list at least two, in order");
        return Err(Error::config("tasks", message));
    }
    if let Some(task) = tasks.iter().find(|task| task.space.is_some()) {
        let message =
            format!("{model} trains `{}` over all rows, which is its point: remove `space`", task.name);
        return Err(Error::config("tasks", message));
    }
    if let Some(t) = (0..tasks.len()).find(|&t| tasks[t].after.is_some_and(|after| after + 1 != t)) {
        let message = format!(
            "{model} takes the tasks as a chain, in their order: let `{}` come after the one before it",
            tasks[t].name
        );
        return Err(Error::config(format!("tasks[{t}].after"), message));
    }
    Ok(())
}
