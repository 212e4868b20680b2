//! Fully connected layers: `P.weight` `[out, in]` and `P.bias` `[out]`. Several that read one value are one product, their
//! parameters stacked under their own names.

use manygate_core::{Error, Result};
use manygate_graph::ops::Linear;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// One of several layers that read the same value.
#[derive(Clone, Debug)]
pub struct Head {
    /// Prefix of its parameters: `P.weight` and, with a bias, `P.bias`.
    pub prefix: String,
    /// Width.
    pub out: usize,
}

impl Head {
    /// One a prefix, all of the same width.
    pub fn of_each(prefixes: &[String], out: usize) -> Vec<Head> {
        prefixes.iter().map(|prefix| Head { prefix: prefix.clone(), out }).collect()
    }
}

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
    let weight = g.param(ParamSpec::new(vec![weight(prefix, out, g.cols(input))])?)?;
    let bias = g.param(ParamSpec::new(vec![bias(prefix, out)])?)?;
    let output = g.add(prefix, op, &[input, weight, bias])?;
    Ok(Layer { weight, bias, input, output })
}

/// act(W x + b) for each head, side by side: `[batch, Σ out]`; [`columns_of`] divides it.
///
/// # Errors
/// When there is none, a width is 0 or a name is taken.
pub fn side_by_side(
    g: &mut Graph,
    name: &str,
    heads: &[Head],
    x: Value,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    by_scenario(g, name, heads, 1, x, with_bias, activation)
}

/// The same where each of `scenarios` scenarios has its own, of which a row is multiplied by those of its scenario alone.
/// `heads` are those of one scenario behind those of another, of the same widths.
///
/// # Errors
/// As [`side_by_side`].
pub fn by_scenario(
    g: &mut Graph,
    name: &str,
    heads: &[Head],
    scenarios: usize,
    x: Value,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    if heads.iter().any(|head| head.out == 0) {
        return Err(Error::graph(name, "a layer needs at least 1 unit"));
    }
    let (cols, out) = (g.cols(x), heads.iter().map(|head| head.out).sum::<usize>() / scenarios.max(1));
    let weights = heads.iter().map(|head| weight(&head.prefix, head.out, cols)).collect();
    let mut inputs = vec![x, g.param(ParamSpec::new(weights)?)?];
    if with_bias {
        let biases = heads.iter().map(|head| bias(&head.prefix, head.out)).collect();
        inputs.push(g.param(ParamSpec::new(biases)?)?);
    }
    let layer = Linear::new(out, with_bias, activation);
    g.add(name, if scenarios > 1 { layer.by_scenario(scenarios) } else { layer }, &inputs)
}

/// What each head of [`side_by_side`] gave, `[batch, out]` each.
///
/// # Errors
/// When the widths are others.
pub fn columns_of(g: &mut Graph, all: Value, heads: &[Head]) -> Result<Vec<Value>> {
    let mut from = 0;
    let own = |head: &Head| {
        from += head.out;
        g.columns(all, from - head.out, head.out)
    };
    heads.iter().map(own).collect()
}

/// Maps without biases side by side, `<prefix>.weight` each: `[batch, prefixes · out]`.
///
/// # Errors
/// When `out` is 0 or a name is taken.
pub fn bare(g: &mut Graph, name: &str, prefixes: &[String], x: Value, out: usize) -> Result<Value> {
    side_by_side(g, name, &Head::of_each(prefixes, out), x, false, Activation::Identity)
}

/// The weight `<prefix>.weight` of a layer.
pub(super) fn weight(prefix: &str, out: usize, input: usize) -> Block {
    Block::weight(format!("{prefix}.weight"), out, input, Init::XavierUniform)
}

/// The bias `<prefix>.bias` of a layer.
pub(super) fn bias(prefix: &str, out: usize) -> Block {
    Block::vector(format!("{prefix}.bias"), out, Init::Constant(0.0))
}
