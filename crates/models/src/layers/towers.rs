//! Towers: an MLP a task that ends in one bare logit.
//!
//! With prefix `towers.<task>`: hidden layers from index 0, then the logit layer `[1, last unit]` as the last index.
//! With a tower for each task and scenario the prefix is `towers.<task>.<scenario>`, and a row computes those of its
//! own.

use super::mlp::{MlpInput, MlpStyle, linears, mlps};
use super::{by_scenario, scenario};
use crate::inputs::Inputs;
use manygate_core::Result;
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;

/// [`towers`] or, with `scenario_heads`, a tower for each task and scenario: how a multi-task model that knows no
/// scenarios otherwise takes them.
///
/// # Errors
/// As [`towers`], and when the data has no scenarios that heads could be of.
pub fn heads(
    g: &mut Graph,
    inputs: &Inputs,
    input: MlpInput,
    style: MlpStyle<'_>,
    scenario_heads: bool,
) -> Result<Vec<Value>> {
    if !scenario_heads {
        return towers(g, inputs, input, style);
    }
    let prefixes: Vec<String> = inputs.task_names().map(|task| format!("towers.{task}")).collect();
    heads_named(g, inputs, &prefixes, input, style, true)
}

/// The same for any prefixes: a logit `[batch, 1]` each.
///
/// # Errors
/// As [`heads`].
pub fn heads_named(
    g: &mut Graph,
    inputs: &Inputs,
    prefixes: &[String],
    input: MlpInput,
    style: MlpStyle<'_>,
    scenario_heads: bool,
) -> Result<Vec<Value>> {
    let Some(scenarios) = scenario::of_heads(inputs, scenario_heads)? else {
        let logits = logits(g, prefixes, input, style)?;
        return (0..prefixes.len()).map(|t| g.columns(logits, t, 1)).collect();
    };
    let mut logits = Vec::with_capacity(prefixes.len());
    for (t, prefix) in prefixes.iter().enumerate() {
        let x = match input {
            MlpInput::Shared(x) => x,
            MlpInput::Each(x) => {
                let width = g.cols(x) / prefixes.len();
                g.columns(x, t * width, width)?
            }
        };
        logits.push(by_scenario::logit(g, &by_scenario::prefixes(prefix, scenarios), x, style)?);
    }
    Ok(logits)
}

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
    let mut all = Vec::with_capacity(inputs.tasks.len());
    // Tasks that are not served stand apart, so that a plan which serves computes nothing for them.
    for side_by_side in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
        let input = match input {
            MlpInput::Shared(x) => MlpInput::Shared(x),
            MlpInput::Each(x) => {
                let width = g.cols(x) / inputs.tasks.len();
                MlpInput::Each(g.columns(x, all.len() * width, side_by_side.len() * width)?)
            }
        };
        let prefixes: Vec<String> = side_by_side.iter().map(|t| format!("{family}.{}", t.name)).collect();
        let logits = logits(g, &prefixes, input, style)?;
        for t in 0..side_by_side.len() {
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
