//! Towers: an MLP a task that ends in one bare logit.
//!
//! With prefix `towers.<task>`: hidden layers from index 0, then the logit layer `[1, last unit]` as the last index.
//! Where every scenario has towers of its own, the prefix is `towers.<task>_<scenario>`.

use super::mlp::{MlpInput, MlpStyle, linears, mlps};
use super::scenario_mlp;
use crate::inputs::{Inputs, Task};
use manygate_core::Result;
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;

/// A logit `[batch, 1]` a task. `input` is shared by all towers or holds a range of columns for each.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn towers(g: &mut Graph, inputs: &Inputs, input: MlpInput, style: MlpStyle<'_>) -> Result<Vec<Value>> {
    family(g, "towers", inputs, input, style)
}

/// The same with another prefix, `<family>.<task>`.
///
/// # Errors
/// As [`towers`].
pub fn family(
    g: &mut Graph,
    family: &str,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Vec<Value>> {
    side_by_side(g, inputs, input, |g, tasks, input| {
        let prefixes: Vec<String> = tasks.iter().map(|t| format!("{family}.{}", t.name)).collect();
        logits(g, &prefixes, input, style)
    })
}

/// A logit `[batch, 1]` a task, from the tower of the row's scenario.
///
/// # Errors
/// As [`towers`].
pub fn of_scenarios(
    g: &mut Graph,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Vec<Value>> {
    side_by_side(g, inputs, input, |g, tasks, input| {
        let names = tasks.iter().map(|task| task.name.as_str());
        let own = scenario_mlp::named("towers", names, inputs.scenarios);
        scenario_mlp::logits(g, &own, input, style)
    })
}

/// Logits of all tasks. Tasks that are not served stand apart, so that a plan which serves computes nothing for them.
fn side_by_side(
    g: &mut Graph,
    inputs: &Inputs,
    input: MlpInput,
    logits: impl Fn(&mut Graph, &[Task], MlpInput) -> Result<Value>,
) -> Result<Vec<Value>> {
    let mut all = Vec::with_capacity(inputs.tasks.len());
    for tasks in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
        let input = match input {
            MlpInput::Shared(x) => MlpInput::Shared(x),
            MlpInput::Each(x) => {
                let width = g.cols(x) / inputs.tasks.len();
                MlpInput::Each(g.columns(x, all.len() * width, tasks.len() * width)?)
            }
        };
        let logits = logits(g, tasks, input)?;
        for t in 0..tasks.len() {
            all.push(g.columns(logits, t, 1)?);
        }
    }
    Ok(all)
}

/// One bare logit on top of an MLP, for each prefix: `[batch, prefixes]`.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn logits(g: &mut Graph, prefixes: &[String], input: MlpInput, style: MlpStyle<'_>) -> Result<Value> {
    match (input, style.units) {
        // No hidden layer and one input: the logit layers are the first layers.
        (MlpInput::Shared(_), []) => {
            let activation = Activation::Identity;
            let logit = MlpStyle { units: &[1], activation, batch_norm: false, dropout: 0.0 };
            mlps(g, prefixes, input, logit)
        }
        _ => {
            let hidden = mlps(g, prefixes, input, style)?;
            linears(g, prefixes, style.units.len(), hidden, 1, true, Activation::Identity)
        }
    }
}
