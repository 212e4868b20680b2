//! From the schema of the data to what a model is given.

use manygate_core::{Error, Result};
use manygate_features::{Pooling, Schema, TaskKind};
use manygate_kernels::embedding::Pooling as KernelPooling;
use manygate_models::{BagField, Field, Inputs, Table, Task, TaskKind as ModelKind};

/// The inputs of a model over data of this schema.
///
/// # Errors
/// When a field or bag names a table that the schema does not have.
pub fn model_inputs(schema: &Schema) -> Result<Inputs> {
    let table = |name: &str, of: &str| {
        schema.table_index(name).ok_or_else(|| {
            Error::config("schema", format!("`{of}` uses the table `{name}`, which does not exist"))
        })
    };
    let mut inputs = Inputs {
        dense: schema.dense.len(),
        dense_names: schema.dense.clone(),
        scenarios: schema.scenarios.len(),
        ..Inputs::default()
    };
    for t in &schema.tables {
        inputs.tables.push(Table { name: t.name.clone(), rows: t.rows, dim: t.dim });
    }
    for f in &schema.fields {
        inputs.fields.push(Field { name: f.name.clone(), table: table(&f.table, &f.name)? });
    }
    for b in &schema.bags {
        let pooling = match b.pooling {
            Pooling::Mean => KernelPooling::Mean,
            Pooling::Sum => KernelPooling::Sum,
        };
        inputs.bags.push(BagField {
            name: b.name.clone(),
            table: table(&b.table, &b.name)?,
            pooling,
            longest: b.max_length,
        });
    }
    for t in &schema.tasks {
        inputs.tasks.push(Task {
            name: t.name.clone(),
            kind: match t.kind {
                TaskKind::Binary => ModelKind::Binary,
                TaskKind::Regression => ModelKind::Regression,
                TaskKind::Poisson => ModelKind::Poisson,
            },
            weight: t.weight,
            scenario_weights: t.scenario_weights.clone(),
            space: t.space,
            after: t.after,
            auxiliary: t.is_auxiliary(),
        });
    }
    Ok(inputs)
}
