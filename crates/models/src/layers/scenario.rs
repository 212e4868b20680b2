//! What models know of a sample's scenario: its embedding, `scene.weight` `[scenarios, width]`, which learns as dense
//! parameters do.

use super::concat::concat;
use super::trunk::{self, Embedding};
use crate::inputs::Inputs;
use manygate_core::{Error, Result};
use manygate_graph::ops::ScenarioEmbedding;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};

/// The number of scenarios, for a model that needs them.
///
/// # Errors
/// When the data has none.
pub fn scenarios(inputs: &Inputs) -> Result<usize> {
    match inputs.scenarios {
        0 => Err(Error::config(
            "features.scenario",
            "the model needs scenarios; name the column that tells them",
        )),
        count => Ok(count),
    }
}

/// The number of scenarios that have heads of their own, where `scenario_heads` asks for that.
///
/// # Errors
/// When it does and the data has none.
pub fn of_heads(inputs: &Inputs, scenario_heads: bool) -> Result<Option<usize>> {
    if scenario_heads { scenarios(inputs).map(Some) } else { Ok(None) }
}

/// `<prefix>.<scenario>` for each scenario.
pub fn prefixes(prefix: &str, scenarios: usize) -> Vec<String> {
    (0..scenarios).map(|s| format!("{prefix}.{s}")).collect()
}

/// `<family>.<name>_<scenario>` for each name, scenario by scenario.
pub fn prefixes_of_each<'a>(
    family: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    scenarios: usize,
) -> Vec<String> {
    let own = |s: usize| names.clone().map(move |name| format!("{family}.{name}_{s}"));
    (0..scenarios).flat_map(own).collect()
}

/// The scenario's embedding `[batch, width]`.
///
/// # Errors
/// When the data has no scenarios, or a name is taken.
pub fn embedding(g: &mut Graph, inputs: &Inputs, width: usize, deviation: f32) -> Result<Value> {
    own_embedding(g, "scene", inputs, width, deviation)
}

/// The scenario's embedding and the columns of categorical fields in the trunk, side by side: what tells of a scenario.
/// It stands apart from the trunk, so that both may be inputs of one op. `key` names what asked for the fields.
///
/// # Errors
/// When the data has no scenarios, there is no such field, or a name is taken.
pub fn embedding_and_fields(
    g: &mut Graph,
    inputs: &Inputs,
    width: usize,
    tables: Embedding,
    x0: Value,
    fields: &[String],
    key: &str,
) -> Result<Value> {
    let mut parts = vec![embedding(g, inputs, width, tables.deviation)?];
    for name in fields {
        parts.push(trunk::field(g, inputs, tables, x0, name, key)?);
    }
    concat(g, "scenario_and_fields", &parts)
}

/// The scenario's embedding from a matrix `<prefix>.weight` of another name.
///
/// # Errors
/// When the data has no scenarios, or a name is taken.
pub fn own_embedding(
    g: &mut Graph,
    prefix: &str,
    inputs: &Inputs,
    width: usize,
    deviation: f32,
) -> Result<Value> {
    let table = matrix(g, prefix, inputs, width, deviation)?;
    rows(g, inputs, table)
}

/// x and behind it the scenario's embedding, `[batch, |x| + width]`; x alone for a width of 0.
///
/// # Errors
/// As [`embedding`].
pub fn beside(g: &mut Graph, inputs: &Inputs, x: Value, width: usize, deviation: f32) -> Result<Value> {
    if width == 0 {
        return Ok(x);
    }
    let scene = embedding(g, inputs, width, deviation)?;
    concat(g, "trunk.scenario", &[x, scene])
}

/// The matrix `scene.weight` itself, `[scenarios, width]`.
///
/// # Errors
/// When the data has no scenarios, or a name is taken.
pub fn table(g: &mut Graph, inputs: &Inputs, width: usize, deviation: f32) -> Result<Value> {
    matrix(g, "scene", inputs, width, deviation)
}

/// The row of each sample's scenario, of a matrix `[scenarios, width]`: `[batch, width]`.
///
/// # Errors
/// When the matrix has another number of rows.
pub fn rows(g: &mut Graph, inputs: &Inputs, table: Value) -> Result<Value> {
    rows_of(g, "scenario", inputs.scenarios, table)
}

/// The same as a value called `name`, of a matrix that may be computed.
///
/// # Errors
/// When the matrix has another number of rows.
pub fn rows_of(g: &mut Graph, name: &str, scenarios: usize, matrix: Value) -> Result<Value> {
    g.add(name, ScenarioEmbedding::new(scenarios), &[matrix])
}

fn matrix(g: &mut Graph, prefix: &str, inputs: &Inputs, width: usize, deviation: f32) -> Result<Value> {
    let rows = Block::weight(format!("{prefix}.weight"), scenarios(inputs)?, width, Init::Normal(deviation));
    g.param(ParamSpec::new(vec![rows])?)
}
