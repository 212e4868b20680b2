//! Values side by side.

use manygate_core::Result;
use manygate_graph::ops::Concat;
use manygate_graph::{Graph, Value};

/// All `values` in one, `[batch, Σ widths]`; a single value as it is.
///
/// # Errors
/// When a value has no rows, or two share columns.
pub fn concat(g: &mut Graph, name: &str, values: &[Value]) -> Result<Value> {
    if let [one] = values {
        return Ok(*one);
    }
    let widths = values.iter().map(|&v| g.cols(v)).collect();
    g.add(name, Concat::new(widths), values)
}
