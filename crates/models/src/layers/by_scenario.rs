//! Layers with parameters for each scenario, of which a row uses its own scenario's: they cost a row the same however
//! many scenarios there are.
//!
//! Names are those of [`linear`](super::linear) and [`mlp`](super::mlp), with a prefix for each scenario; batch
//! normalisation is over the rows of a scenario, with `P.<i>.norm.*` of its own. A single prefix is that of all
//! scenarios.

use super::dropout::dropout;
use super::mlp::{EPSILON, Head, MOMENTUM, MlpStyle, bias, layer_name, weight};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BatchMoments, Linear, Normalise, Running};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// `<prefix>.<scenario>` for each scenario.
pub fn prefixes(prefix: &str, scenarios: usize) -> Vec<String> {
    (0..scenarios).map(|s| format!("{prefix}.{s}")).collect()
}

/// act(W_s x + b_s), parameters `<prefix>.{weight,bias}` with a prefix for each scenario: `[batch, out]`.
///
/// # Errors
/// When there is no scenario, `out` is 0 or a name is taken.
pub fn linear(
    g: &mut Graph,
    name: &str,
    prefixes: &[String],
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    let heads: Vec<Vec<Head>> =
        prefixes.iter().map(|prefix| vec![Head { prefix: prefix.clone(), out }]).collect();
    linears(g, name, &heads, x, true, activation)
}

/// Several such layers of one input side by side, as one product. `heads` are those of each scenario, of the same
/// widths: `[batch, Σ out]`.
///
/// # Errors
/// When there is no scenario, a width is 0 or a name is taken.
pub fn linears(
    g: &mut Graph,
    name: &str,
    heads: &[Vec<Head>],
    x: Value,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    let all = || heads.iter().flatten();
    if all().any(|head| head.out == 0) {
        return Err(Error::graph(name, "a layer needs at least 1 unit"));
    }
    let (scenarios, out) = (heads.len(), all().map(|head| head.out).sum::<usize>() / heads.len().max(1));
    let cols = g.cols(x);
    let weights = all().map(|head| weight(&head.prefix, head.out, cols)).collect();
    let mut inputs = vec![x, g.param(ParamSpec::new(weights)?)?];
    if with_bias {
        let biases = all().map(|head| bias(&head.prefix, head.out)).collect();
        inputs.push(g.param(ParamSpec::new(biases)?)?);
    }
    let layer = Linear::new(out, with_bias, activation);
    g.add(name, if scenarios > 1 { layer.by_scenario(scenarios) } else { layer }, &inputs)
}

/// An MLP for each scenario: `[batch, last unit]`; without layers, `x` itself.
///
/// # Errors
/// When there is no scenario, a width is 0 or a name is taken.
pub fn mlp(g: &mut Graph, prefixes: &[String], mut x: Value, style: MlpStyle<'_>) -> Result<Value> {
    for (i, &units) in style.units.iter().enumerate() {
        x = hidden_layer(g, prefixes, i, x, units, style)?;
    }
    Ok(x)
}

/// Layer `index` of such MLPs, with the norm and the dropout of `style`.
///
/// # Errors
/// When there is no scenario, `units` is 0 or a name is taken.
pub fn hidden_layer(
    g: &mut Graph,
    prefixes: &[String],
    index: usize,
    x: Value,
    units: usize,
    style: MlpStyle<'_>,
) -> Result<Value> {
    let names = prefixes.iter().map(|p| format!("{p}.{index}")).collect::<Vec<_>>();
    let name = layer_name(prefixes, index);
    let activation = if style.batch_norm { Activation::Identity } else { style.activation };
    let mut y = linear(g, &name, &names, x, units, activation)?;
    if style.batch_norm {
        y = batch_norm(g, &name, &names, y, style.activation)?;
    }
    dropout(g, &name, y, style.dropout)
}

/// One bare logit on top of an MLP for each scenario, its layer the last index: `[batch, 1]`.
///
/// # Errors
/// When there is no scenario, a width is 0 or a name is taken.
pub fn logit(g: &mut Graph, prefixes: &[String], x: Value, style: MlpStyle<'_>) -> Result<Value> {
    let top = mlp(g, prefixes, x, style)?;
    let last = style.units.len();
    let names: Vec<String> = prefixes.iter().map(|p| format!("{p}.{last}")).collect();
    linear(g, &layer_name(prefixes, last), &names, top, 1, Activation::Identity)
}

fn batch_norm(
    g: &mut Graph,
    name: &str,
    prefixes: &[String],
    x: Value,
    activation: Activation,
) -> Result<Value> {
    let (scenarios, units) = (prefixes.len(), g.cols(x));
    let vectors = |suffix: &str, start: f32| -> Vec<Block> {
        let vector = |p: &String| Block::vector(format!("{p}.norm.{suffix}"), units, Init::Constant(start));
        prefixes.iter().map(vector).collect()
    };
    let gamma = g.param(ParamSpec::new(vectors("weight", 1.0))?)?;
    let beta = g.param(ParamSpec::new(vectors("bias", 0.0))?)?;
    let mut statistics = vectors("running_mean", 0.0);
    statistics.extend(vectors("running_var", 1.0));
    let (running, state) = g.state(ParamSpec::new(statistics)?)?;
    let moments = if g.is_training() {
        let moving = Running { state, momentum: MOMENTUM, unbiased: true };
        let moments = BatchMoments::new(Some(moving));
        let moments = if scenarios > 1 { moments.by_scenario(scenarios) } else { moments };
        g.add(format!("{name}.norm.moments"), moments, &[x])?
    } else {
        running
    };
    let norm = Normalise::new(EPSILON, activation);
    let norm = if scenarios > 1 { norm.by_scenario(scenarios) } else { norm };
    g.add(format!("{name}.norm"), norm, &[x, moments, gamma, beta])
}
