//! Dropout after a hidden layer.

use manygate_core::Result;
use manygate_graph::ops::Dropout;
use manygate_graph::{Graph, Value};

/// `layer`, a value called `name`, with values dropped at this rate in training; as it is in evaluation and at a rate of
/// 0. Draws by the layer's name.
///
/// # Errors
/// When the rate is not in [0, 1), or another dropout has this name.
pub fn dropout(g: &mut Graph, name: &str, layer: Value, rate: f64) -> Result<Value> {
    if !g.is_training() || rate == 0.0 {
        return Ok(layer);
    }
    let name = format!("{name}.dropout");
    let op = Dropout::new(&name, rate);
    g.add(name, op, &[layer])
}
