//! Networks of which every scenario has its own: a row passes through those of its scenario, and through no others.
//!
//! With a list of prefixes for each scenario, the networks of a scenario stand side by side as those of
//! [`mlp`](super::mlp) do, with the same parameters. A layer of all of them is one matrix, a scenario's part below that
//! of the one before, and a row is multiplied by one part. They have no batch normalisation.

use super::dropout::dropout;
use super::mlp::{Head, MlpInput, MlpStyle, bias, draws_by, layer_name, weight};
use manygate_core::{Error, Result};
use manygate_graph::ops::{GroupedLinear, Linear, Segment};
use manygate_graph::{Graph, ParamSpec, Value};
use manygate_kernels::activation::Activation;

/// The networks of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Prefixes of the networks.
    pub prefixes: Vec<String>,
    /// Bare linear maps, with biases, of what the networks read.
    pub heads: Vec<Head>,
}

/// Networks named `<family>.<name>_<scenario>`, by scenario.
pub fn named<'a>(family: &str, names: impl Iterator<Item = &'a str> + Clone, scenarios: usize) -> Vec<Own> {
    let prefixes = |s: usize| names.clone().map(|name| format!("{family}.{name}_{s}")).collect();
    (0..scenarios).map(|s| Own { prefixes: prefixes(s), heads: Vec::new() }).collect()
}

/// The MLPs of each row's scenario `[batch, number · last unit]`, and the heads `[batch, Σ out]`, of one shared input:
/// their first layer is one product.
///
/// # Errors
/// When there is no layer, a width is 0 or a name is taken.
pub fn mlps_with_heads(g: &mut Graph, own: &[Own], x: Value, style: MlpStyle<'_>) -> Result<(Value, Value)> {
    let names = all_names(own);
    let (count, cols) = (names.len() / own.len(), g.cols(x));
    let Some(&units) = style.units.first().filter(|&&units| units > 0) else {
        return Err(Error::graph(&names[0], "networks of one input need a layer of at least 1 unit"));
    };
    let (mut weights, mut biases) = (Vec::new(), Vec::new());
    for Own { prefixes, heads } in own {
        let layers = prefixes.iter().map(|p| (format!("{p}.0"), units));
        for (prefix, out) in layers.chain(heads.iter().map(|head| (head.prefix.clone(), head.out))) {
            weights.push(weight(&prefix, out, cols));
            biases.push(bias(&prefix, out));
        }
    }
    let mut segments = vec![Segment { out: count * units, bias: true, activation: style.activation }];
    let head_cols: usize = own[0].heads.iter().map(|head| head.out).sum();
    if head_cols > 0 {
        segments.push(Segment { out: head_cols, bias: true, activation: Activation::Identity });
    }
    let (w, b) = (g.param(ParamSpec::new(weights)?)?, g.param(ParamSpec::new(biases)?)?);
    let name = layer_name(&names, 0);
    let wide = g.add(&name, Linear::segmented(segments).by_scenario(own.len()), &[x, w, b])?;
    let layer = g.columns(wide, 0, count * units)?;
    let heads = g.columns(wide, count * units, head_cols)?;
    let layer = dropout(g, &draws_by(&names, 0), layer, style.dropout)?;
    Ok((further_layers(g, own.len(), &names, layer, style, 1)?, heads))
}

/// One bare logit on top of an MLP, for each network of a row's scenario: `[batch, networks]`.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn logits(g: &mut Graph, own: &[Own], input: MlpInput, style: MlpStyle<'_>) -> Result<Value> {
    let names = all_names(own);
    let hidden = match (input, style.units) {
        (MlpInput::Each(x), _) => further_layers(g, own.len(), &names, x, style, 0)?,
        // No hidden layer and one input: the logit layers are the first layers.
        (MlpInput::Shared(x), []) => {
            let logit = MlpStyle { units: &[1], activation: Activation::Identity, dropout: 0.0, ..style };
            return Ok(mlps_with_heads(g, own, x, logit)?.0);
        }
        (MlpInput::Shared(x), _) => mlps_with_heads(g, own, x, style)?.0,
    };
    layer(g, own.len(), &names, style.units.len(), hidden, 1, Activation::Identity)
}

/// Bare linear maps with biases of the row's scenario, `<family>.<name>_<scenario>`: `[batch, names · out]`.
///
/// # Errors
/// When a name is taken.
pub fn linears<'a>(
    g: &mut Graph,
    family: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    scenarios: usize,
    x: Value,
    out: usize,
) -> Result<Value> {
    let prefixes = all_names(&named(family, names, scenarios));
    let weights = prefixes.iter().map(|p| weight(p, out, g.cols(x))).collect();
    let biases = prefixes.iter().map(|p| bias(p, out)).collect();
    let (w, b) = (g.param(ParamSpec::new(weights)?)?, g.param(ParamSpec::new(biases)?)?);
    let maps = Linear::new(prefixes.len() / scenarios * out, true, Activation::Identity);
    g.add(family, maps.by_scenario(scenarios), &[x, w, b])
}

/// Prefixes of all networks, scenario by scenario.
fn all_names(own: &[Own]) -> Vec<String> {
    own.iter().flat_map(|own| own.prefixes.clone()).collect()
}

fn further_layers(
    g: &mut Graph,
    scenarios: usize,
    names: &[String],
    mut x: Value,
    style: MlpStyle<'_>,
    done: usize,
) -> Result<Value> {
    for (i, &units) in style.units.iter().enumerate().skip(done) {
        x = layer(g, scenarios, names, i, x, units, style.activation)?;
        x = dropout(g, &draws_by(names, i), x, style.dropout)?;
    }
    Ok(x)
}

/// Layer `index` of networks that read a range of columns each.
fn layer(
    g: &mut Graph,
    scenarios: usize,
    names: &[String],
    index: usize,
    x: Value,
    units: usize,
    activation: Activation,
) -> Result<Value> {
    let (name, count) = (layer_name(names, index), names.len() / scenarios);
    if units == 0 {
        return Err(Error::graph(&name, "a layer needs at least 1 unit"));
    }
    let inner = g.cols(x) / count;
    let weights = names.iter().map(|p| weight(&format!("{p}.{index}"), units, inner)).collect();
    let biases = names.iter().map(|p| bias(&format!("{p}.{index}"), units)).collect();
    let (w, b) = (g.param(ParamSpec::new(weights)?)?, g.param(ParamSpec::new(biases)?)?);
    let op = GroupedLinear::new(count, units, true, activation).by_scenario(scenarios);
    g.add(name, op, &[x, w, b])
}
