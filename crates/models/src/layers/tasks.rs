//! The end of every model: probabilities and losses of the tasks.

use crate::inputs::{Inputs, Task};
use manygate_core::Result;
use manygate_graph::ops::{BceWithLogits, PoissonLoss, Rate, Sigmoid};
use manygate_graph::{Graph, LossPart, Value};

/// Makes the probabilities outputs and, in training, adds binary cross-entropy from the logits `[batch, tasks]`:
/// the sum over tasks of weight · mean over the rows that count.
///
/// # Errors
/// When two tasks have one name.
pub fn binary_tasks(g: &mut Graph, inputs: &Inputs, logits: Value) -> Result<()> {
    let probabilities = g.add("probabilities", Sigmoid, &[logits])?;
    for (t, task) in inputs.tasks.iter().enumerate() {
        let probability = g.columns(probabilities, t, 1)?;
        g.output(&task.name, probability);
        let logit = g.columns(logits, t, 1)?;
        binary_loss(g, task, t, logit, &task.name)?;
    }
    Ok(())
}

/// The same for one task, number `index`, whose part of the loss has a name of its own.
///
/// # Errors
/// When the name is taken.
pub fn binary_task(g: &mut Graph, task: &Task, index: usize, logit: Value, part: &str) -> Result<()> {
    let probability = g.add("probability", Sigmoid, &[logit])?;
    g.output(&task.name, probability);
    binary_loss(g, task, index, logit, part)
}

/// In training, the binary cross-entropy of task number `index` as the part `name` of the loss.
///
/// # Errors
/// When the name is taken.
pub fn binary_loss(g: &mut Graph, task: &Task, index: usize, logit: Value, name: &str) -> Result<()> {
    if g.is_training() {
        let part = LossPart { name: name.to_owned(), weight: task.weight, over: task.space.into() };
        let loss = g.loss(part)?;
        g.add(format!("loss.{name}"), BceWithLogits::new(loss, index, task.space), &[logit])?;
    }
    Ok(())
}

/// Makes rates outputs and, in training, adds the loss of counts, from a logit `[batch, 1]` a task.
///
/// # Errors
/// When two tasks have one name.
pub fn count_tasks(g: &mut Graph, inputs: &Inputs, logits: &[Value]) -> Result<()> {
    for (t, (task, &logit)) in inputs.tasks.iter().zip(logits).enumerate() {
        let rate = g.add(format!("rate.{}", task.name), Rate, &[logit])?;
        g.output(&task.name, rate);
        if g.is_training() {
            let part = LossPart { name: task.name.clone(), weight: task.weight, over: task.space.into() };
            let loss = g.loss(part)?;
            g.add(format!("loss.{}", task.name), PoissonLoss::new(loss, t, task.space), &[logit])?;
        }
    }
    Ok(())
}
