//! Experts and the gates that mix them.
//!
//! Experts: MLPs `experts.<e>`. A gate with prefix G: softmax over the experts of `G.weight` x (+ `G.bias`), or of
//! the last layer of a hidden MLP `G.hidden.<i>` of x.

use super::mlp::{Head, MlpInput, MlpStyle, linears_named, mlps, mlps_with_heads};
use manygate_core::Result;
use manygate_graph::ops::GateCombine;
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;

/// How gates see their input.
#[derive(Clone, Copy, Debug)]
pub struct GateStyle<'a> {
    /// Whether the last map has a bias.
    pub bias: bool,
    /// Hidden MLP of each gate; none is the papers' bare linear map.
    pub hidden: MlpStyle<'a>,
}

/// A bank of experts over `x`, mixed by each gate: `[batch, gates · last unit]`.
///
/// # Errors
/// When the experts have no layer, a width is 0 or a name is taken.
pub fn mixtures(
    g: &mut Graph,
    experts: &[String],
    gates: &[String],
    x: Value,
    expert: MlpStyle<'_>,
    gate: GateStyle<'_>,
) -> Result<Value> {
    let count = experts.len();
    let (bank, logits) = if gate.hidden.units.is_empty() {
        let heads: Vec<Head> = gates.iter().map(|p| Head { prefix: p.clone(), out: count }).collect();
        mlps_with_heads(g, experts, x, expert, &heads, gate.bias)?
    } else {
        let bank = mlps(g, experts, MlpInput::Shared(x), expert)?;
        let hidden: Vec<String> = gates.iter().map(|p| format!("{p}.hidden")).collect();
        let hidden = mlps(g, &hidden, MlpInput::Shared(x), gate.hidden)?;
        (bank, linears_named(g, "gates", gates, hidden, count, gate.bias, Activation::Identity)?)
    };
    g.add("mixtures", GateCombine::new(gates.len(), count), &[logits, bank])
}
