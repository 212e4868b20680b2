//! Run folders of models that were trained in memory.

use crate::trainer::{Options, Trainer};
use manygate_core::{Error, Result, write_atomically};
use manygate_features::{ID_SEPARATOR, ListKind, Schema};
use manygate_models::Architecture;
use manygate_runtime::{CONFIG_FILE, MODEL_FILE, VOCAB_FOLDER};
use manygate_train::Config;
use manygate_train::balance::Balance;
use manygate_train::checkpoint::{CHECKPOINT_FILE, write_model};
use std::path::Path;
use toml::{Table, Value};

/// First line of the configuration: its `data` names no files.
const ORIGIN: &str = "# Trained in memory, from arrays: `data` names no files.\n";

impl Trainer {
    /// Leaves a run folder that [`Model::open`](crate::Model::open) and the commands `manygate predict`, `eval` and
    /// `inspect` read: `config.toml`, `vocab/`, `model.safetensors`. In files that those read, ids are the integers that
    /// they are in arrays. What is there from an earlier call is replaced, each file whole or not at all. A model of the
    /// caller's own architecture opens with [`Model::open_as`](crate::Model::open_as).
    ///
    /// # Errors
    /// When the file system refuses, or the folder holds a run of `manygate train`.
    pub fn save(&self, folder: &Path) -> Result<()> {
        if folder.join(CHECKPOINT_FILE).exists() {
            return Err(Error::format(folder, "holds a run of `manygate train`; give another folder"));
        }
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        write_atomically(&folder.join(CONFIG_FILE), text(&self.config)?.as_bytes())?;
        self.encoder.save(&folder.join(VOCAB_FOLDER))?;
        write_model(&folder.join(MODEL_FILE), &self.learner)
    }
}

/// The configuration of a trainer, as far as one of files has words for it.
///
/// # Errors
/// When a number is more than TOML holds.
pub(crate) fn config(
    name: &str,
    architecture: &dyn Architecture,
    schema: &Schema,
    options: &Options,
    balance: Option<&Balance>,
) -> Result<Config> {
    let whole = |key: &str, number: u64| {
        let most = i64::MAX;
        let value = i64::try_from(number).map(Value::Integer);
        value.map_err(|_| Error::config(format!("options.{key}"), format!("{number} is more than {most}")))
    };
    let mut model = Table::from_iter([("name".to_owned(), Value::from(name))]);
    model.extend(architecture.resolved());
    let mut data = Table::new();
    data.insert("train".into(), Value::Array(Vec::new()));
    data.insert("valid".into(), Table::from_iter([("last_fraction".to_owned(), 0.1.into())]).into());
    data.extend(schema.scenario_column.as_deref().map(|column| ("scenario".to_owned(), Value::from(column))));
    let mut train = Table::new();
    train.insert("epochs".into(), whole("epochs", options.epochs)?);
    train.insert("batch_size".into(), whole("batch_size", options.batch_size as u64)?);
    let mut config = Table::new();
    config.insert("seed".into(), whole("seed", options.seed)?);
    config.insert("data".into(), data.into());
    config.insert("model".into(), model.into());
    config.insert("train".into(), train.into());
    let optimizer = Value::try_from(&options.optimizer).map_err(|e| unwritable(&e))?;
    config.insert("optimizer".into(), optimizer);
    config.extend(balance.map(|balance| ("balance".to_owned(), Value::Table(balance.resolved()))));
    config.insert("features".into(), features(schema).into());
    config.insert("tasks".into(), tasks(schema).into());
    Config::try_from(config).map_err(|e| unwritable(&e))
}

/// A configuration with every default written out.
///
/// # Errors
/// None that is known.
fn text(config: &Config) -> Result<String> {
    Ok(ORIGIN.to_owned() + &toml::to_string(config).map_err(|e| unwritable(&e))?)
}

fn unwritable(e: &dyn std::fmt::Display) -> Error {
    Error::config("config", format!("cannot be written: {e}"))
}

/// `[[features]]` of a schema without vocabularies.
fn features(schema: &Schema) -> Vec<Value> {
    let feature = |kind: &str, column: &str| {
        let mut feature = Table::new();
        feature.insert("kind".into(), kind.into());
        feature.insert("columns".into(), Value::Array(vec![column.into()]));
        feature
    };
    // A number beyond what TOML holds is beyond every limit.
    let number = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let fields = schema.fields.iter().map(|field| {
        let mut table = feature("categorical", &field.name);
        table.insert("ids".into(), number(field.rows.saturating_sub(1)));
        table.insert("table".into(), field.table.as_str().into());
        table.extend(field.dim.map(|dim| ("dim".to_owned(), number(dim))));
        table
    });
    let lists = schema.bags.iter().map(|bag| {
        let kind = if bag.kind == ListKind::Sequence { "sequence" } else { "bag" };
        let mut table = feature(kind, &bag.name);
        table.insert("separator".into(), ID_SEPARATOR.into());
        table.insert("table".into(), bag.table.as_str().into());
        table.extend(Value::try_from(bag.pooling).map(|pooling| ("pooling".to_owned(), pooling)));
        table.extend(bag.max_length.map(|length| ("max_length".to_owned(), number(length))));
        table
    });
    let numbers = schema.dense.iter().map(|name| feature("numeric", name));
    fields.chain(lists).chain(numbers).map(Value::Table).collect()
}

/// `[[tasks]]` of a schema.
fn tasks(schema: &Schema) -> Vec<Value> {
    let task = |task: &manygate_features::Task| {
        let mut table = Table::new();
        table.insert("name".into(), task.name.as_str().into());
        table.insert("weight".into(), f64::from(task.weight).into());
        table.extend(Value::try_from(task.kind).map(|kind| ("kind".to_owned(), kind)));
        table.extend(Value::try_from(task.role).map(|role| ("role".to_owned(), role)));
        for (key, other) in [("space", task.space), ("after", task.after)] {
            let other = other.and_then(|other| schema.tasks.get(other));
            table.extend(other.map(|other| (key.to_owned(), Value::from(other.name.as_str()))));
        }
        let weights = schema.scenarios.iter().zip(&task.scenario_weights);
        let weights: Table =
            weights.map(|(name, &weight)| (name.clone(), f64::from(weight).into())).collect();
        if !weights.is_empty() {
            table.insert("scenario_weights".into(), weights.into());
        }
        Value::Table(table)
    };
    schema.tasks.iter().map(task).collect()
}
