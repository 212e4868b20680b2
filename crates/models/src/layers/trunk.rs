//! The trunk: every field's row, every pooled bag, every number, side by side.

use crate::inputs::{BagField, Field, Inputs};
use manygate_core::{Error, Result};
use manygate_graph::ops::{LookupTrunk, Piece};
use manygate_graph::{Graph, Init, TableSpec, Value};
use manygate_kernels::embedding::MAX_DIM;
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

/// Most values of all tables together, without the optimiser's state: 32 GiB.
const MAX_TABLE_VALUES: u128 = 1 << 33;

/// x0 `[batch, Σ dims + dense]`: fields in order, then bags and sequences pooled, then numbers as they are.
///
/// # Errors
/// When there is nothing to read.
pub fn trunk(g: &mut Graph, inputs: &Inputs, embedding: Embedding) -> Result<Value> {
    trunk_of(g, inputs, embedding, |_| true)
}

/// The same without sequences, for a model that reads them id by id.
///
/// # Errors
/// When there is nothing to read.
pub fn trunk_without_sequences(g: &mut Graph, inputs: &Inputs, embedding: Embedding) -> Result<Value> {
    trunk_of(g, inputs, embedding, |bag| bag.longest.is_none())
}

/// The same with those bags and sequences alone that `pools` accepts.
///
/// # Errors
/// When there is nothing to read.
pub fn trunk_of(
    g: &mut Graph,
    inputs: &Inputs,
    embedding: Embedding,
    pools: impl Fn(&BagField) -> bool,
) -> Result<Value> {
    let pieces = pieces(inputs, pools, |index| field_table(g, inputs, embedding, index))?;
    g.add("trunk", LookupTrunk::new(pieces), &[])
}

/// Name and width of what stands side by side in the trunk: fields, bags and sequences, and each number, by its position
/// where it has no name.
pub fn parts(inputs: &Inputs, embedding: Embedding) -> Vec<(String, usize)> {
    let width = |table: usize| inputs.tables[table].dim.unwrap_or(embedding.dim);
    let fields = inputs.fields.iter().map(|field| (field.name.clone(), width(field.table)));
    let bags = inputs.bags.iter().map(|bag| (bag.name.clone(), width(bag.table)));
    let number = |i: usize| inputs.dense_names.get(i).cloned().unwrap_or_else(|| format!("number {i}"));
    fields.chain(bags).chain((0..inputs.dense).map(|i| (number(i), 1))).collect()
}

/// The pieces of a trunk whose tables, by their index among the inputs', and widths `table` tells.
///
/// # Errors
/// When there is nothing to read, or `table` fails.
pub fn pieces(
    inputs: &Inputs,
    pools: impl Fn(&BagField) -> bool,
    mut table_of: impl FnMut(usize) -> Result<(usize, usize)>,
) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (field, f) in inputs.fields.iter().enumerate() {
        let (table, dim) = table_of(f.table)?;
        pieces.push(Piece::Field { field, table, dim });
    }
    for (bag, b) in inputs.bags.iter().enumerate().filter(|(_, b)| pools(b)) {
        let (table, dim) = table_of(b.table)?;
        pieces.push(Piece::Bag { bag, table, dim, pooling: b.pooling });
    }
    if inputs.dense > 0 {
        pieces.push(Piece::Dense { width: inputs.dense });
    }
    if pieces.is_empty() {
        return Err(Error::config("features", "the model has no inputs; list at least one feature"));
    }
    Ok(pieces)
}

/// The table number `index` of the inputs, `embedding.<name>.weight`, and its width.
///
/// # Errors
/// As [`own_table`].
pub fn field_table(
    g: &mut Graph,
    inputs: &Inputs,
    embedding: Embedding,
    index: usize,
) -> Result<(usize, usize)> {
    let table = &inputs.tables[index];
    let dim = table.dim.unwrap_or(embedding.dim);
    let name = format!("embedding.{}.weight", table.name);
    Ok((own_table(g, name, table.rows, dim, embedding)?, dim))
}

/// A table of any name.
///
/// # Errors
/// When its width is 0 or above [`MAX_DIM`], or all tables together have too many values.
pub fn own_table(
    g: &mut Graph,
    name: String,
    rows: usize,
    dim: usize,
    embedding: Embedding,
) -> Result<usize> {
    let wrong = |message: String| Err(Error::config("model.embedding_dim", message));
    if dim == 0 {
        return wrong("must be at least 1".to_owned());
    }
    if dim > MAX_DIM {
        return wrong(format!("{dim} is more than {MAX_DIM}, the widest row of a table (`{name}`)"));
    }
    let others = g.tables().iter().filter(|table| table.name != name);
    let values: u128 = others.map(|t| t.rows as u128 * t.dim as u128).sum();
    let values = values + rows as u128 * dim as u128;
    if values > MAX_TABLE_VALUES {
        let message = format!(
            "with `{name}`, {rows} rows of {dim}, the tables have {values} values, more than {MAX_TABLE_VALUES}: \
             lower its `ids` or `hash`, raise its `min_count`, or lower `dim` or `model.embedding_dim`"
        );
        return Err(Error::config("features", message));
    }
    g.table(TableSpec { name, rows, dim, init: Init::Normal(embedding.deviation) })
}

/// The columns of field `name` in the trunk, `[batch, dim]`.
///
/// # Errors
/// When there is no such field; `key` names what asked for it.
pub fn field(
    g: &mut Graph,
    inputs: &Inputs,
    embedding: Embedding,
    x0: Value,
    name: &str,
    key: &str,
) -> Result<Value> {
    let width = |f: &Field| inputs.tables[f.table].dim.unwrap_or(embedding.dim);
    let Some(position) = inputs.fields.iter().position(|f| f.name == name) else {
        return Err(Error::config(key, format!("there is no categorical feature `{name}`")));
    };
    let before = inputs.fields[..position].iter().map(width).sum();
    g.columns(x0, before, width(&inputs.fields[position]))
}

/// How many vectors `embedding.dim` wide stand side by side in the trunk, before its numbers.
///
/// # Errors
/// When a table has another width than the model's, which `model` names.
pub fn equal_fields(
    g: &Graph,
    inputs: &Inputs,
    embedding: Embedding,
    x0: Value,
    model: &str,
) -> Result<usize> {
    let dim = embedding.dim;
    if inputs.tables.iter().any(|t| t.dim.is_some_and(|d| d != dim)) {
        let message = format!("{model} needs all tables as wide as the model's embeddings: {dim}");
        return Err(Error::config("model.embedding_dim", message));
    }
    Ok((g.cols(x0) - inputs.dense) / dim)
}
