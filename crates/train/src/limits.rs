//! Upper limits of what a configuration asks for: far above what is of use, so that a mistyped value ends in a message
//! and not in an allocation that aborts or a count that overflows.
//!
//! Widths and rows of tables are limited where they are declared (`models/src/layers/trunk.rs`), sizes of layers by
//! the graph.

use crate::config::Config;
use manygate_core::{Error, Result};
use manygate_embedding::sparse::MAX_SOURCES;
use manygate_features::FeatureConfig;
use manygate_graph::Plan;
use manygate_kernels::embedding::MAX_DIM;

/// Most rows a step.
pub const MAX_BATCH: usize = 1 << 20;
/// Most passes over the fit rows.
const MAX_EPOCHS: usize = 1_000_000;
/// Most steps of a stage.
const MAX_STEPS: usize = 1 << 40;
/// Most validations an epoch.
const MAX_VALIDATIONS: usize = 10_000;
/// Most ids of a sequence a row.
const MAX_LENGTH: usize = 16_384;
/// Bits that say in which column and row of a batch an id was looked up.
const POSITION_BITS: u32 = 32;

/// That `value` of `key` is at most `limit`.
///
/// # Errors
/// [`Error::Config`] with all three.
pub fn at_most(key: &str, value: usize, limit: usize) -> Result<()> {
    if value > limit {
        return Err(Error::config(key, format!("{value} is more than {limit}, the most that is possible")));
    }
    Ok(())
}

/// Checks the numbers of `config` that something is made for each of.
///
/// # Errors
/// [`Error::Config`] that names key, value and limit.
pub fn check(config: &Config) -> Result<()> {
    at_most("train.batch_size", config.train.batch_size, MAX_BATCH)?;
    at_most("train.epochs", usize::try_from(config.train.epochs).unwrap_or(usize::MAX), MAX_EPOCHS)?;
    at_most("train.validations_per_epoch", config.train.validations_per_epoch, MAX_VALIDATIONS)?;
    for (i, stage) in config.stage.iter().enumerate() {
        for (key, value, limit) in [("epochs", stage.epochs, MAX_EPOCHS), ("steps", stage.steps, MAX_STEPS)] {
            let value = usize::try_from(value.unwrap_or(0)).unwrap_or(usize::MAX);
            at_most(&format!("stage.{i}.{key}"), value, limit)?;
        }
    }
    for (i, feature) in config.features.iter().enumerate() {
        let (dim, length) = match feature {
            FeatureConfig::Categorical { dim, .. }
            | FeatureConfig::Bucket { dim, .. }
            | FeatureConfig::Bag { dim, .. } => (*dim, None),
            FeatureConfig::Sequence { dim, max_length, .. } => (*dim, Some(*max_length)),
            FeatureConfig::Numeric { .. } | FeatureConfig::Length { .. } => (None, None),
        };
        at_most(&format!("features[{i}].dim"), dim.unwrap_or(0), MAX_DIM)?;
        at_most(&format!("features[{i}].max_length"), length.unwrap_or(0), MAX_LENGTH)?;
    }
    Ok(())
}

/// Checks that every look-up of a batch of `rows` rows has a number of its own.
///
/// # Errors
/// [`Error::Config`] when too many columns share a table, or their look-ups in a batch are too many to number.
pub fn check_lookups(plan: &Plan, rows: usize) -> Result<()> {
    let sources = |t: usize| plan.sparse_sources().iter().filter(|source| source.table == t).count();
    for (t, table) in plan.tables().iter().enumerate() {
        let sources = sources(t);
        if sources > MAX_SOURCES {
            let message = format!("{sources} columns share `{}`, more than {MAX_SOURCES}", table.name);
            return Err(Error::config("features", message));
        }
        let bits = |count: usize| usize::BITS - count.leading_zeros();
        let ids = rows.saturating_mul(plan.rows_a_sample());
        if bits(ids) + bits(sources.saturating_sub(1)) > POSITION_BITS {
            let message = format!(
                "{rows} rows of at most {} ids in each of {sources} columns are more look-ups of `{}` than \
                 2^{POSITION_BITS}: make batches or sequences shorter",
                plan.rows_a_sample(),
                table.name
            );
            return Err(Error::config("train.batch_size", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use manygate_graph::{Mode, PlanOptions};
    use manygate_kernels::embedding::Pooling;
    use manygate_models::{BagField, Field, Inputs, Table, Task};

    fn plan(columns: usize, longest: usize) -> Plan {
        let bag = |i: usize| BagField {
            name: format!("list{i}"),
            table: 0,
            pooling: Pooling::Mean,
            longest: (i == 0).then_some(longest),
        };
        let inputs = Inputs {
            tables: ["item", "user"].map(|name| Table { name: name.into(), rows: 9, dim: None }).to_vec(),
            bags: (0..columns).map(bag).collect(),
            scenarios: 2,
            tasks: vec![Task::binary("click")],
            fields: [("item", 0), ("user", 1)]
                .map(|(name, table)| Field { name: name.into(), table })
                .to_vec(),
            ..Inputs::default()
        };
        let model = "name = \"dffm\"\nembedding_dim = 16\nhistory = \"list0\"\ntarget = \"item\"\nattention_heads = 1";
        let (_, architecture) = manygate_models::from_table(&model.parse().unwrap()).unwrap();
        let graph = manygate_models::build(architecture.as_ref(), &inputs, Mode::Training).unwrap();
        Plan::compile(graph, PlanOptions::default()).unwrap()
    }

    #[test]
    fn look_ups_that_cannot_be_numbered_are_told() {
        let few = plan(1, 16);
        check_lookups(&few, MAX_BATCH).unwrap();
        let told = check_lookups(&plan(1, MAX_LENGTH), MAX_BATCH).unwrap_err().to_string();
        assert!(told.contains("train.batch_size: 1048576 rows of at most 16384 ids"), "{told}");
        let told = check_lookups(&plan(70, 1), 8).unwrap_err().to_string();
        assert!(
            told.contains("features: ")
                && told.contains("columns share `embedding.item.weight`, more than 64"),
            "{told}"
        );
    }
}
