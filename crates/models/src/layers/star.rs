//! Layers whose weights are shared ones times a part's own: those of the star topology, by scenario or by another part.
//!
//! With prefix P: `P.weight` `[out, in]`, `P.bias` `[out]`, `P.domain_weight` `[parts, out, in]`, `P.domain_bias`
//! `[parts, out]`. They start as the shared layer.

use super::dropout::dropout;
use super::mlp::MlpStyle;
use manygate_core::Result;
use manygate_graph::ops::{ClusterLinear, Fold, Linear};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// What a row's part is.
#[derive(Clone, Copy, Debug)]
pub enum Parts {
    /// Its scenario, of that many.
    Scenarios(usize),
    /// One of `count` clusters, which `route` `[batch, 1]` names.
    Clusters {
        /// Their number.
        count: usize,
        /// The row's.
        route: Value,
    },
}

/// φ((W ⊗ W_p) x + (b + b_p)): `[batch, out]`.
///
/// # Errors
/// When a name is taken.
pub fn star_layer(
    g: &mut Graph,
    prefix: &str,
    parts: Parts,
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    let (Parts::Scenarios(count) | Parts::Clusters { count, .. }) = parts;
    let input = g.cols(x);
    let mut param = |name: &str, shape: &[usize], init| {
        let block = Block { name: format!("{prefix}.{name}"), shape: shape.to_vec(), init };
        g.param(ParamSpec::new(vec![block])?)
    };
    let weight = param("weight", &[out, input], Init::XavierUniform)?;
    let bias = param("bias", &[out], Init::Constant(0.0))?;
    let own_weight = param("domain_weight", &[count, out, input], Init::Constant(1.0))?;
    let own_bias = param("domain_bias", &[count, out], Init::Constant(0.0))?;
    // Which clusters a batch will have is not known when weights fold.
    let of_parts = |fold: Fold| match parts {
        Parts::Scenarios(_) => fold,
        Parts::Clusters { .. } => fold.of_all(),
    };
    let product = of_parts(Fold::product(count));
    let weight = g.add(format!("{prefix}.folded_weight"), product, &[weight, own_weight])?;
    let sum = of_parts(Fold::sum(count));
    let bias = g.add(format!("{prefix}.folded_bias"), sum, &[bias, own_bias])?;
    match parts {
        Parts::Scenarios(count) => {
            g.add(prefix, Linear::new(out, true, activation).by_scenario(count), &[x, weight, bias])
        }
        Parts::Clusters { count, route } => {
            g.add(prefix, ClusterLinear::new(count, out, activation), &[x, weight, bias, route])
        }
    }
}

/// Layers `<prefix>.0` … of these widths over `x`, and a bare logit behind them: `[batch, 1]`. Dropout after hidden
/// ones.
///
/// # Errors
/// When a name is taken.
pub fn star_network(
    g: &mut Graph,
    prefix: &str,
    parts: Parts,
    x: Value,
    style: MlpStyle<'_>,
) -> Result<Value> {
    let mut h = x;
    for (l, &units) in style.units.iter().enumerate() {
        let name = format!("{prefix}.{l}");
        h = star_layer(g, &name, parts, h, units, style.activation)?;
        h = dropout(g, &name, h, style.dropout)?;
    }
    star_layer(g, &format!("{prefix}.{}", style.units.len()), parts, h, 1, Activation::Identity)
}
