//! Towers: an MLP a task that ends in one bare logit.
//!
//! With prefix `towers.<task>`: hidden layers from index 0, then the logit layer `[1, last unit]` as the last index.

use super::mlp::{MlpInput, MlpStyle, linears, mlps};
use crate::inputs::Inputs;
use manygate_core::Result;
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;

/// Logits `[batch, tasks]`. `input` is shared by all towers or holds a range of columns for each.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn towers(g: &mut Graph, inputs: &Inputs, input: MlpInput, style: MlpStyle<'_>) -> Result<Value> {
    let prefixes: Vec<String> = inputs.task_names().map(|t| format!("towers.{t}")).collect();
    logits(g, &prefixes, input, style)
}

/// One bare logit on top of an MLP, for each prefix: `[batch, prefixes]`.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn logits(g: &mut Graph, prefixes: &[String], input: MlpInput, style: MlpStyle<'_>) -> Result<Value> {
    match (input, style.units) {
        // No hidden layer and one input: the logit layers are the first layers.
        (MlpInput::Shared(_), []) => {
            let logit = MlpStyle { units: &[1], activation: Activation::Identity, batch_norm: false };
            mlps(g, prefixes, input, logit)
        }
        _ => {
            let hidden = mlps(g, prefixes, input, style)?;
            linears(g, prefixes, style.units.len(), hidden, 1, true, Activation::Identity)
        }
    }
}
