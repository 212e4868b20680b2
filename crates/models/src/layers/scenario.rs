//! What models know of a sample's scenario: its embedding, `scene.weight` `[scenarios, width]`, which learns as dense
//! parameters do.

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

/// The scenario's embedding `[batch, width]`.
///
/// # Errors
/// When the data has no scenarios, or a name is taken.
pub fn embedding(g: &mut Graph, inputs: &Inputs, width: usize, deviation: f32) -> Result<Value> {
    let scenarios = scenarios(inputs)?;
    let rows = Block::weight("scene.weight", scenarios, width, Init::Normal(deviation));
    let table = g.param(ParamSpec::new(vec![rows])?)?;
    g.add("scenario", ScenarioEmbedding::new(scenarios), &[table])
}
