//! Networks that each scenario has for itself, side by side: a row passes those of its own scenario alone.
//!
//! With family F: `F.<s>.<k>.<l>.{weight,bias}`, layer l of network k of scenario s. The last layer is bare.

use super::concat::concat;
use super::dropout::dropout;
use super::mlp::MlpStyle;
use manygate_core::{Error, Result};
use manygate_graph::ops::Linear;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use std::ops::Range;

/// How many networks there are.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Scenarios.
    pub scenarios: usize,
    /// Networks of each.
    pub each: usize,
}

/// All networks of a row's scenario over `x`, which end in `out` bare values: `[batch, each · out]`. Their first layer is
/// one product. There is no batch normalisation.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn networks(
    g: &mut Graph,
    family: &str,
    count: Count,
    x: Value,
    style: MlpStyle<'_>,
    out: usize,
) -> Result<Value> {
    let widths = style.units.iter().map(|&units| (units, style.activation));
    let mut h = Vec::new();
    for (l, (units, activation)) in widths.chain([(out, Activation::Identity)]).enumerate() {
        if units == 0 {
            return Err(Error::graph(family, "a layer needs at least 1 unit"));
        }
        let mut layers = if l == 0 {
            let all = layer(g, family, count.scenarios, 0..count.each, l, x, (units, activation))?;
            (0..count.each).map(|k| g.columns(all, k * units, units)).collect::<Result<Vec<Value>>>()?
        } else {
            let one = |(k, x)| layer(g, family, count.scenarios, k..k + 1, l, x, (units, activation));
            h.into_iter().enumerate().map(one).collect::<Result<_>>()?
        };
        if l < style.units.len() {
            for (k, value) in layers.iter_mut().enumerate() {
                *value = dropout(g, &format!("{family}.*.{k}.{l}"), *value, style.dropout)?;
            }
        }
        h = layers;
    }
    concat(g, family, &h)
}

/// Layer `l` of networks `networks` of every scenario, all of which read `x`.
fn layer(
    g: &mut Graph,
    family: &str,
    scenarios: usize,
    networks: Range<usize>,
    l: usize,
    x: Value,
    (units, activation): (usize, Activation),
) -> Result<Value> {
    let (first, each, cols) = (networks.start, networks.len(), g.cols(x));
    let names = || {
        let networks = networks.clone();
        (0..scenarios).flat_map(move |s| networks.clone().map(move |k| format!("{family}.{s}.{k}.{l}")))
    };
    let weight = |p: String| Block::weight(format!("{p}.weight"), units, cols, Init::XavierUniform);
    let bias = |p: String| Block::vector(format!("{p}.bias"), units, Init::Constant(0.0));
    let weights = g.param(ParamSpec::new(names().map(weight).collect())?)?;
    let biases = g.param(ParamSpec::new(names().map(bias).collect())?)?;
    let linear = Linear::new(each * units, true, activation).by_scenario(scenarios);
    g.add(format!("{family}.*.{first}.{l}"), linear, &[x, weights, biases])
}
