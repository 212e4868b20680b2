//! Multi-layer perceptrons, one or several of the same shape side by side.
//!
//! With prefix P: `P.<i>.weight` `[u_i, u_{i-1}]`, `P.<i>.bias` `[u_i]`; the activation follows every layer, the last
//! included. With batch normalisation a layer is linear, norm, activation; the norm is `P.<i>.norm.{weight,bias}`
//! with state `P.<i>.norm.{running_mean,running_var}`. Dropout, if any, comes after the activation.
//!
//! Several MLPs are one product a layer: of one shared input a wide one, of an input each a grouped one. Their
//! parameters are stacked and keep their own names. Where every scenario has MLPs of its own, a layer is one matrix, a
//! scenario's part below that of the one before, and batch normalisation is over the rows of a scenario. A row passes the
//! MLPs of its scenario alone: it costs the same however many scenarios there are.

use super::dropout::dropout;
use super::linear::{self, Head, bias, weight};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BatchMoments, GroupedLinear, Linear, Normalise, Running, Segment};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// ε of batch normalisation.
const EPSILON: f32 = 1e-5;
/// Weight of the new value in running statistics.
const MOMENTUM: f32 = 0.1;

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

/// The prefixes of networks of one shape that stand side by side.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a> {
    prefixes: &'a [String],
    scenarios: usize,
}

impl<'a> Networks<'a> {
    /// Networks of each of `scenarios` scenarios: `prefixes` are those of one scenario behind those of another.
    pub fn by_scenario(prefixes: &'a [String], scenarios: usize) -> Networks<'a> {
        Networks { prefixes, scenarios: scenarios.max(1) }
    }

    /// Networks that a row passes.
    fn count(self) -> usize {
        self.prefixes.len() / self.scenarios
    }

    /// What `of` makes of the prefix `P.<index>` of each.
    fn layer<T>(self, index: usize, of: impl Fn(String) -> T) -> Vec<T> {
        self.prefixes.iter().map(|prefix| of(format!("{prefix}.{index}"))).collect()
    }
}

/// Networks that all scenarios share.
impl<'a, P: AsRef<[String]> + ?Sized> From<&'a P> for Networks<'a> {
    fn from(prefixes: &'a P) -> Networks<'a> {
        Networks { prefixes: prefixes.as_ref(), scenarios: 1 }
    }
}

/// One MLP over `x`: `[batch, last unit]`; without layers, `x` itself.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn mlp(g: &mut Graph, prefix: &str, x: Value, style: MlpStyle<'_>) -> Result<Value> {
    mlps(g, &[prefix.to_owned()], MlpInput::Shared(x), style)
}

/// Several MLPs: `[batch, number · last unit]`. At least one layer is needed when the input is shared by several; one
/// without layers is `x` itself.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn mlps<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    input: MlpInput,
    style: MlpStyle<'_>,
) -> Result<Value> {
    let networks = networks.into();
    let (first, done) = match (input, style.units) {
        (MlpInput::Each(x), _) => (x, 0),
        (MlpInput::Shared(x), []) if networks.count() == 1 => (x, 0),
        (MlpInput::Shared(x), _) => (first_layer(g, networks, x, style, &[], false)?.0, 1),
    };
    further_layers(g, networks, first, style, done)
}

/// Several MLPs over one shared input, and bare heads of the same input, whose first layer is one wide product.
/// Returns the MLPs `[batch, number · last unit]` and the heads `[batch, Σ out]`. Heads of scenarios are given as
/// [`linear::by_scenario`] takes them.
///
/// # Errors
/// When there is no layer, a width is 0 or a name is taken.
pub fn mlps_with_heads<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    x: Value,
    style: MlpStyle<'_>,
    heads: &[Head],
    head_bias: bool,
) -> Result<(Value, Value)> {
    let networks = networks.into();
    let (first, heads) = first_layer(g, networks, x, style, heads, head_bias)?;
    Ok((further_layers(g, networks, first, style, 1)?, heads))
}

fn first_layer(
    g: &mut Graph,
    networks: Networks<'_>,
    x: Value,
    style: MlpStyle<'_>,
    heads: &[Head],
    head_bias: bool,
) -> Result<(Value, Value)> {
    let name = layer_name(networks, 0);
    let Some(&units) = style.units.first().filter(|&&units| units > 0) else {
        return Err(Error::graph(name, "several networks of one input need a layer of at least 1 unit"));
    };
    let (count, scenarios, cols) = (networks.count(), networks.scenarios, g.cols(x));
    let of_networks = networks.layer(0, |prefix| Head { prefix, out: units });
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for s in 0..scenarios {
        let own = |all: &[Head]| all.len() / scenarios * s..all.len() / scenarios * (s + 1);
        let (layers, heads) = (&of_networks[own(&of_networks)], &heads[own(heads)]);
        weights.extend(layers.iter().chain(heads).map(|head| weight(&head.prefix, head.out, cols)));
        let biased = if head_bias { heads } else { &[] };
        biases.extend(layers.iter().chain(biased).map(|head| bias(&head.prefix, head.out)));
    }
    let activation = if style.batch_norm { Activation::Identity } else { style.activation };
    let mut segments = vec![Segment { out: count * units, bias: true, activation }];
    let head_cols = heads.iter().map(|head| head.out).sum::<usize>() / scenarios;
    if head_cols > 0 {
        segments.push(Segment { out: head_cols, bias: head_bias, activation: Activation::Identity });
    }
    let (w, b) = (g.param(ParamSpec::new(weights)?)?, g.param(ParamSpec::new(biases)?)?);
    let layer = Linear::segmented(segments);
    let layer = if scenarios > 1 { layer.by_scenario(scenarios) } else { layer };
    let wide = g.add(name, layer, &[x, w, b])?;
    let layer = g.columns(wide, 0, count * units)?;
    let heads = g.columns(wide, count * units, head_cols)?;
    Ok((norm_and_dropout(g, networks, 0, layer, style)?, heads))
}

fn further_layers(
    g: &mut Graph,
    networks: Networks<'_>,
    mut x: Value,
    style: MlpStyle<'_>,
    done: usize,
) -> Result<Value> {
    for (i, &units) in style.units.iter().enumerate().skip(done) {
        x = layer_of_each(g, networks, i, x, units, style)?;
    }
    Ok(x)
}

/// Layer `index`, of `units` units, of several MLPs that read a range of columns each, for a model that does something
/// between layers: `[batch, number · units]`.
///
/// # Errors
/// When the width is 0 or a name is taken.
pub fn layer_of_each<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    index: usize,
    x: Value,
    units: usize,
    style: MlpStyle<'_>,
) -> Result<Value> {
    let networks = networks.into();
    let activation = if style.batch_norm { Activation::Identity } else { style.activation };
    let layer = linears(g, networks, index, x, units, true, activation)?;
    norm_and_dropout(g, networks, index, layer, style)
}

/// Layer `index` of several networks that read a range of columns each: `[batch, number · units]`.
///
/// # Errors
/// When `units` is 0 or a name is taken.
pub fn linears<'a>(
    g: &mut Graph,
    networks: impl Into<Networks<'a>>,
    index: usize,
    x: Value,
    units: usize,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    let networks = networks.into();
    let layers = networks.layer(index, |prefix| prefix);
    let layers = Networks { prefixes: &layers, ..networks };
    linears_named(g, &layer_name(networks, index), layers, x, units, with_bias, activation)
}

/// Linear layers whose parameters are `<prefix>.weight` and `<prefix>.bias`, each over its own range of columns:
/// `[batch, number · units]`.
///
/// # Errors
/// When `units` is 0 or a name is taken.
pub fn linears_named<'a>(
    g: &mut Graph,
    name: &str,
    networks: impl Into<Networks<'a>>,
    x: Value,
    units: usize,
    with_bias: bool,
    activation: Activation,
) -> Result<Value> {
    let networks = networks.into();
    let heads = Head::of_each(networks.prefixes, units);
    let (count, scenarios) = (networks.count(), networks.scenarios);
    if count == 1 {
        return linear::by_scenario(g, name, &heads, scenarios, x, with_bias, activation);
    }
    if units == 0 {
        return Err(Error::graph(name, "a layer needs at least 1 unit"));
    }
    let inner = g.cols(x) / count;
    let weights = heads.iter().map(|head| weight(&head.prefix, units, inner)).collect();
    let mut inputs = vec![x, g.param(ParamSpec::new(weights)?)?];
    if with_bias {
        let biases = heads.iter().map(|head| bias(&head.prefix, units)).collect();
        inputs.push(g.param(ParamSpec::new(biases)?)?);
    }
    let layer = GroupedLinear::new(count, units, with_bias, activation);
    g.add(name, if scenarios > 1 { layer.by_scenario(scenarios) } else { layer }, &inputs)
}

/// What follows the products of layer `index`.
fn norm_and_dropout(
    g: &mut Graph,
    networks: Networks<'_>,
    index: usize,
    mut x: Value,
    style: MlpStyle<'_>,
) -> Result<Value> {
    if style.batch_norm {
        x = batch_norm(g, networks, index, x, style.activation)?;
    }
    // By the layer of the first network, whose name no other has.
    dropout(g, &format!("{}.{index}", networks.prefixes[0]), x, style.dropout)
}

/// Batch normalisation of layer `index` of several networks side by side: column by column, so it is one op for all.
fn batch_norm(
    g: &mut Graph,
    networks: Networks<'_>,
    index: usize,
    x: Value,
    activation: Activation,
) -> Result<Value> {
    let (scenarios, units) = (networks.scenarios, g.cols(x) / networks.count());
    let vectors = |suffix: &str, start: f32| -> Vec<Block> {
        let vector = |p: String| Block::vector(format!("{p}.norm.{suffix}"), units, Init::Constant(start));
        networks.layer(index, vector)
    };
    let gamma = g.param(ParamSpec::new(vectors("weight", 1.0))?)?;
    let beta = g.param(ParamSpec::new(vectors("bias", 0.0))?)?;
    let mut statistics = vectors("running_mean", 0.0);
    statistics.extend(vectors("running_var", 1.0));
    let (running, state) = g.state(ParamSpec::new(statistics)?)?;
    let name = layer_name(networks, index);
    let moments = if g.is_training() {
        let moments = BatchMoments::new(Some(Running { state, momentum: MOMENTUM, unbiased: true }));
        let moments = if scenarios > 1 { moments.by_scenario(scenarios) } else { moments };
        g.add(format!("{name}.norm.moments"), moments, &[x])?
    } else {
        running
    };
    let norm = Normalise::new(EPSILON, activation);
    let norm = if scenarios > 1 { norm.by_scenario(scenarios) } else { norm };
    g.add(format!("{name}.norm"), norm, &[x, moments, gamma, beta])
}

/// `experts.*.0` for several networks, `bottom.0` for one: what all names begin with.
fn layer_name(networks: Networks<'_>, index: usize) -> String {
    let [first, rest @ ..] = networks.prefixes else { return index.to_string() };
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
