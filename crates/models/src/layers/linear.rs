//! One fully connected layer: `P.weight` `[out, in]` and `P.bias` `[out]`.

use super::mlp::{bias, weight};
use manygate_core::{Error, Result};
use manygate_graph::ops::Linear;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// A layer with the values that its own backward pass needs, for a model that writes that out.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// `[out, in]`.
    pub weight: Value,
    /// `[out, 1]`.
    pub bias: Value,
    /// `[batch, in]`.
    pub input: Value,
    /// `[batch, out]`.
    pub output: Value,
}

/// act(W x + b), `[batch, out]`.
///
/// # Errors
/// When a name is taken.
pub fn linear(g: &mut Graph, prefix: &str, x: Value, out: usize, activation: Activation) -> Result<Value> {
    Ok(layer(g, prefix, x, out, activation)?.output)
}

/// The same over pruned units: where a model is served, a few rows at a time, those that are 0 are skipped.
///
/// # Errors
/// When a name is taken.
pub fn over_pruned(
    g: &mut Graph,
    prefix: &str,
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    let op = Linear::new(out, true, activation);
    let op = if g.is_training() { op } else { op.skipping_zeros() };
    Ok(layer_by(g, prefix, x, out, op)?.output)
}

/// The same with its parts.
///
/// # Errors
/// When a name is taken.
pub fn layer(g: &mut Graph, prefix: &str, input: Value, out: usize, activation: Activation) -> Result<Layer> {
    layer_by(g, prefix, input, out, Linear::new(out, true, activation))
}

fn layer_by(g: &mut Graph, prefix: &str, input: Value, out: usize, op: Linear) -> Result<Layer> {
    let weight = Block::weight(format!("{prefix}.weight"), out, g.cols(input), Init::XavierUniform);
    let bias = Block::vector(format!("{prefix}.bias"), out, Init::Constant(0.0));
    let weight = g.param(ParamSpec::new(vec![weight])?)?;
    let bias = g.param(ParamSpec::new(vec![bias])?)?;
    let output = g.add(prefix, op, &[input, weight, bias])?;
    Ok(Layer { weight, bias, input, output })
}

/// act(W_p x + b_p) for each prefix p, side by side: `[batch, prefixes · out]`.
///
/// # Errors
/// When a name is taken.
pub fn linears(
    g: &mut Graph,
    name: &str,
    prefixes: &[String],
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    let weight = |p: &String| weight(p, out, g.cols(x));
    let weights = ParamSpec::new(prefixes.iter().map(weight).collect())?;
    let biases = ParamSpec::new(prefixes.iter().map(|p| bias(p, out)).collect())?;
    let (weights, biases) = (g.param(weights)?, g.param(biases)?);
    g.add(name, Linear::new(prefixes.len() * out, true, activation), &[x, weights, biases])
}

/// Layers of one input as one product, act(W x + b) for each prefix and width: `[batch, width]` each.
///
/// # Errors
/// When there is none, a width is 0 or a name is taken.
pub fn side_by_side(
    g: &mut Graph,
    name: &str,
    layers: &[(String, usize)],
    x: Value,
    activation: Activation,
) -> Result<Vec<Value>> {
    let (cols, out) = (g.cols(x), layers.iter().map(|(_, width)| width).sum());
    if layers.iter().any(|&(_, width)| width == 0) {
        return Err(Error::graph(name, "a layer needs at least 1 unit"));
    }
    let weight =
        |(p, n): &(String, usize)| Block::weight(format!("{p}.weight"), *n, cols, Init::XavierUniform);
    let bias = |(p, n): &(String, usize)| Block::vector(format!("{p}.bias"), *n, Init::Constant(0.0));
    let weights = g.param(ParamSpec::new(layers.iter().map(weight).collect())?)?;
    let biases = g.param(ParamSpec::new(layers.iter().map(bias).collect())?)?;
    let all = g.add(name, Linear::new(out, true, activation), &[x, weights, biases])?;
    let mut from = 0;
    let own = |&(_, width): &(String, usize)| {
        from += width;
        g.columns(all, from - width, width)
    };
    layers.iter().map(own).collect()
}

/// Maps without biases side by side, `<prefix>.weight` each: `[batch, prefixes · out]`.
///
/// # Errors
/// When a name is taken.
pub fn bare(g: &mut Graph, name: &str, prefixes: &[String], x: Value, out: usize) -> Result<Value> {
    let cols = g.cols(x);
    let weight = |p: &String| Block::weight(format!("{p}.weight"), out, cols, Init::XavierUniform);
    let weights = g.param(ParamSpec::new(prefixes.iter().map(weight).collect())?)?;
    g.add(name, Linear::new(prefixes.len() * out, false, Activation::Identity), &[x, weights])
}
