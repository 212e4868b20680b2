//! The trunk: every field's row, every pooled bag, every number, side by side.

use crate::inputs::Inputs;
use manygate_core::{Error, Result};
use manygate_graph::ops::{LookupTrunk, Piece};
use manygate_graph::{Graph, Init, TableSpec, Value};
use serde::{Deserialize, Serialize};

/// Embedding options that every model has.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Embedding {
    /// Width of a table that does not state its own.
    pub dim: usize,
    /// Standard deviation of the initial rows. 0.01 is worth more than most architectures: 1, a common default,
    /// costs several hundredths of AUC.
    pub deviation: f32,
}

/// x0 `[batch, Σ dims + dense]`: fields in order, then bags pooled, then numbers as they are.
///
/// # Errors
/// When there is nothing to read.
pub fn trunk(g: &mut Graph, inputs: &Inputs, embedding: Embedding) -> Result<Value> {
    let mut tables = Vec::with_capacity(inputs.tables.len());
    for table in &inputs.tables {
        let dim = table.dim.unwrap_or(embedding.dim);
        if dim == 0 {
            return Err(Error::config("model.embedding_dim", "must be at least 1"));
        }
        let spec = TableSpec {
            name: format!("embedding.{}.weight", table.name),
            rows: table.rows,
            dim,
            init: Init::Normal(embedding.deviation),
        };
        tables.push((g.table(spec)?, dim));
    }
    let mut pieces = Vec::new();
    for (field, f) in inputs.fields.iter().enumerate() {
        let (table, dim) = tables[f.table];
        pieces.push(Piece::Field { field, table, dim });
    }
    for (bag, b) in inputs.bags.iter().enumerate() {
        let (table, dim) = tables[b.table];
        pieces.push(Piece::Bag { bag, table, dim, pooling: b.pooling });
    }
    if inputs.dense > 0 {
        pieces.push(Piece::Dense { width: inputs.dense });
    }
    if pieces.is_empty() {
        return Err(Error::config("features", "the model has no inputs; list at least one feature"));
    }
    g.add("trunk", LookupTrunk::new(pieces), &[])
}
