//! Multi-layer perceptrons, one or several of the same shape side by side.
//!
//! With prefix P: `P.<i>.weight` `[u_i, u_{i-1}]`, `P.<i>.bias` `[u_i]`; the activation follows every layer, the last
//! included. With batch normalisation a layer is linear, norm, activation; the norm is `P.<i>.norm.{weight,bias}`
//! with state `P.<i>.norm.{running_mean,running_var}`. Dropout, if any, comes after the activation.
//!
//! Several MLPs are one product a layer: of one shared input a wide one, of an input each a grouped one. Their
//! parameters are stacked and keep their own names.

use super::dropout::dropout;
use manygate_core::{Error, Result};
use manygate_graph::ops::{BatchMoments, GroupedLinear, Linear, Normalise, Running, Segment};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// ε of batch normalisation.
pub(super) const EPSILON: f32 = 1e-5;
/// Weight of the new value in running statistics.
pub(super) const MOMENTUM: f32 = 0.1;

/// The shape of an MLP.
#[derive(Clone, Copy, Debug)]
pub struct MlpStyle<'a> {
    /// Widths, layer by layer.
    pub units: &'a [usize],
    /// After every layer.
    pub activation: Activation,
    /// Whether a batch normalisation stands before each activation.
    pub batch_norm: bool,
    /// Probability in training of a value after an activation to be dropped.
    pub dropout: f64,
}

/// What several MLPs read.
#[derive(Clone, Copy, Debug)]
pub enum MlpInput {
    /// All the same value.
    Shared(Value),
    /// Each its own range of columns, of equal width.
    Each(Value),
}

/// A bare linear head, without activation, that reads the shared input beside the first layer.
#[derive(Clone, Debug)]
pub struct Head {
    /// Prefix of its parameters: `P.weight` and, with a bias, `P.bias`.
    pub prefix: String,
    /// Width.
    pub out: usize,
}

/// One MLP over `x`: `[batch, last unit]`; without layers, `x` itself.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn mlp(g: &mut Graph, prefix: &str, x: Value, style: MlpStyle<'_>) -> Result<Value> {
    mlps(g, &[prefix.to_owned()], MlpInput::Shared(x), style)
}

/// Several MLPs: `[batch, number · last unit]`. At least one layer is needed when the input is shared by several.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn mlps(g: &mut Graph, prefixes: &[String], input: MlpInput, style: MlpStyle<'_>) -> Result<Value> {
    let (first, rest) = match (input, style.units) {
        (MlpInput::Each(x), units) => (x, units),
        (MlpInput::Shared(x), []) if prefixes.len() == 1 => (x, style.units),
        (MlpInput::Shared(x), _) => {
            (mlps_first_layer(g, prefixes, x, style, &[], false)?.0, &style.units[1..])
        }
    };
    further_layers(g, prefixes, first, style, style.units.len() - rest.len())
}

/// Several MLPs over one shared input, and bare heads of the same input, whose first layer is one wide product.
/// Returns the MLPs `[batch, number · last unit]` and the heads `[batch, Σ out]`.
///
/// # Errors
/// When there is no layer, a width is 0 or a name is taken.
pub fn mlps_with_heads(
    g: &mut Graph,
    prefixes: &[String],
    x: Value,
    style: MlpStyle<'_>,
    heads: &[Head],
    head_bias: bool,
) -> Result<(Value, Value)> {
    let (first, heads) = mlps_first_layer(g, prefixes, x, style, heads, head_bias)?;
    Ok((further_layers(g, prefixes, first, style, 1)?, heads))
}

fn mlps_first_layer(
    g: &mut Graph,
    prefixes: &[String],
    x: Value,
    style: MlpStyle<'_>,
    heads: &[Head],
    head_bias: bool,
) -> Result<(Value, Value)> {
    let Some(&units) = style.units.first().filter(|&&u| u > 0) else {
        return Err(Error::graph(
            &prefixes[0],
            "several networks of one input need a layer of at least 1 unit",
        ));
    };
    let (count, cols) = (prefixes.len(), g.cols(x));
    let mut weights: Vec<Block> = prefixes.iter().map(|p| weight(&format!("{p}.0"), units, cols)).collect();
    let mut biases: Vec<Block> = prefixes.iter().map(|p| bias(&format!("{p}.0"), units)).collect();
    let activation = if style.batch_norm { Activation::Identity } else { style.activation };
    let mut segments = vec![Segment { out: count * units, bias: true, activation }];
    for head in heads {
        weights.push(weight(&head.prefix, head.out, cols));
        if head_bias {
            biases.push(bias(&head.prefix, head.out));
        }
    }
    let head_cols = heads.iter().map(|h| h.out).sum();
    if head_cols > 0 {
        segments.push(Segment { out: head_cols, bias: head_bias, activation: Activation::Identity });
    }
    let w = g.param(ParamSpec::new(weights)?)?;
    let b = g.param(ParamSpec::new(biases)?)?;
    let name = layer_name(prefixes, 0);
    let wide = g.add(name, Linear::segmented(segments), &[x, w, b])?;
    let mut layer = g.columns(wide, 0, count * units)?;
    let heads = g.columns(wide, count * units, head_cols)?;
    if style.batch_norm {
        layer = batch_norm(g, prefixes, 0, layer, units, style.activation)?;
    }
    Ok((dropout(g, &draws_by(prefixes, 0), layer, style.dropout)?, heads))
}

fn further_layers(
    g: &mut Graph,
    prefixes: &[String],
    mut x: Value,
    style: MlpStyle<'_>,
    done: usize,
) -> Result<Value> {
    for i in done..style.units.len() {
        x = layer_of_each(g, prefixes, i, x, style)?;
    }
    Ok(x)
}

/// Layer `index` of several MLPs that read a range of columns each, for a model that does something between layers:
/// `[batch, number · unit]`.
///
/// # Errors
/// When the width is 0 or a name is taken.
///
/// # Panics
/// When there is no such layer.
pub fn layer_of_each(
    g: &mut Graph,
    prefixes: &[String],
    index: usize,
    x: Value,
    style: MlpStyle<'_>,
) -> Result<Value> {
    let units = style.units[index];
    let activation = if style.batch_norm { Activation::Identity } else { style.activation };
    let mut x = linears(g, prefixes, index, x, units, true, activation)?;
    if style.batch_norm {
        x = batch_norm(g, prefixes, index, x, units, style.activation)?;
    }
    dropout(g, &draws_by(prefixes, index), x, style.dropout)
}

/// Layer `index` of several networks that read a range of columns each: `[batch, number · units]`.
///
/// # Errors
/// When `units` is 0 or a name is taken.
pub fn linears(
    g: &mut Graph,
    prefixes: &[String],
    index: usize,
    x: Value,
    units: usize,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    let names: Vec<String> = prefixes.iter().map(|p| format!("{p}.{index}")).collect();
    linears_named(g, &layer_name(prefixes, index), &names, x, units, with_bias, activation)
}

/// Linear layers whose parameters are `<prefix>.weight` and `<prefix>.bias`, each over its own range of columns:
/// `[batch, number · units]`.
///
/// # Errors
/// When `units` is 0 or a name is taken.
pub fn linears_named(
    g: &mut Graph,
    name: &str,
    prefixes: &[String],
    x: Value,
    units: usize,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    if units == 0 {
        return Err(Error::graph(name, "a layer needs at least 1 unit"));
    }
    let (count, inner) = (prefixes.len(), g.cols(x) / prefixes.len());
    let w = g.param(ParamSpec::new(prefixes.iter().map(|p| weight(p, units, inner)).collect())?)?;
    let mut inputs = vec![x, w];
    if with_bias {
        inputs.push(g.param(ParamSpec::new(prefixes.iter().map(|p| bias(p, units)).collect())?)?);
    }
    if count == 1 {
        g.add(name, Linear::new(units, with_bias, activation), &inputs)
    } else {
        g.add(name, GroupedLinear::new(count, units, with_bias, activation), &inputs)
    }
}

/// Batch normalisation of layer `index` of several networks side by side: column by column, so it is one op for all.
fn batch_norm(
    g: &mut Graph,
    prefixes: &[String],
    index: usize,
    x: Value,
    units: usize,
    activation: Activation,
) -> Result<Value> {
    let vectors = |suffix: &str, start: f32| -> Vec<Block> {
        let name = |p: &String| format!("{p}.{index}.norm.{suffix}");
        prefixes.iter().map(|p| Block::vector(name(p), units, Init::Constant(start))).collect()
    };
    let gamma = g.param(ParamSpec::new(vectors("weight", 1.0))?)?;
    let beta = g.param(ParamSpec::new(vectors("bias", 0.0))?)?;
    let mut statistics = vectors("running_mean", 0.0);
    statistics.extend(vectors("running_var", 1.0));
    let (running, state) = g.state(ParamSpec::new(statistics)?)?;
    let name = layer_name(prefixes, index);
    let moments = if g.is_training() {
        g.add(
            format!("{name}.norm.moments"),
            BatchMoments::new(Some(Running { state, momentum: MOMENTUM, unbiased: true })),
            &[x],
        )?
    } else {
        running
    };
    g.add(format!("{name}.norm"), Normalise::new(EPSILON, activation), &[x, moments, gamma, beta])
}

/// The weight `<prefix>.weight` of a layer.
pub(super) fn weight(prefix: &str, out: usize, input: usize) -> Block {
    Block::weight(format!("{prefix}.weight"), out, input, Init::XavierUniform)
}

/// The bias `<prefix>.bias` of a layer.
pub(super) fn bias(prefix: &str, out: usize) -> Block {
    Block::vector(format!("{prefix}.bias"), out, Init::Constant(0.0))
}

/// What dropout after layer `index` of several networks draws by: their first one's layer, whose name no other has.
pub(super) fn draws_by(prefixes: &[String], index: usize) -> String {
    format!("{}.{index}", prefixes[0])
}

/// `experts.*.0` for several networks, `bottom.0` for one: what all names begin with.
pub(super) fn layer_name(prefixes: &[String], index: usize) -> String {
    let [first, rest @ ..] = prefixes else { return index.to_string() };
    let mut family = first.as_str();
    let is_in = |family: &str, name: &String| name.strip_prefix(family).is_some_and(|n| n.starts_with('.'));
    while !rest.is_empty() && !rest.iter().chain([first]).all(|name| is_in(family, name)) {
        match family.rsplit_once('.') {
            Some((head, _)) => family = head,
            None => return format!("*.{index}"),
        }
    }
    format!("{family}{}.{index}", if rest.is_empty() { "" } else { ".*" })
}
