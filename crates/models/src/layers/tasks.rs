//! The end of every model: probabilities and losses of the tasks.

use crate::inputs::Inputs;
use manygate_core::Result;
use manygate_graph::ops::{BceWithLogits, Sigmoid};
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
        if g.is_training() {
            let part = LossPart { name: task.name.clone(), weight: task.weight, over: task.space.into() };
            let loss = g.loss(part)?;
            let logit = g.columns(logits, t, 1)?;
            g.add(format!("loss.{}", task.name), BceWithLogits::new(loss, t, task.space), &[logit])?;
        }
    }
    Ok(())
}
