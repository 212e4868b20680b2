//! A run that goes on from a trained one, as a rule with more features: it begins with the predictions of that one.
//!
//! Values that the old run knew keep their rows, numbers their statistics, scenarios their numbers; tensors are taken
//! over by name, and what is new in them starts so that it has no effect ([`Inheritance`]). Optimisers begin anew.
//! How exactly the predictions are those of the old run is measured, not claimed: both predict the first validation
//! rows ([`Beginning`]).

use crate::config::Config;
use crate::learner::Learner;
use crate::stage::Stage;
use manygate_core::{Batch, Error, Executor, Result};
use manygate_features::{Encoder, FeatureConfig, Schema, TaskConfig};
use manygate_graph::{Added, Graph, Inheritance, Mode, Plan, PlanOptions};
use manygate_models::Inputs;
use manygate_runtime::model::check_folder;
use manygate_runtime::predictor::CHUNK_ROWS;
use manygate_runtime::{CONFIG_FILE, Model, Predictor, model_inputs};
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::{Path, PathBuf};

/// The key that names the run.
const KEY: &str = "train.start_from";

/// What the beginning of a run from another one is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// The old run.
    pub folder: PathBuf,
    /// Features that it did not have.
    pub added: Vec<String>,
    /// Validation rows that both predicted.
    pub rows: usize,
    /// The largest difference of two predictions.
    pub difference: f32,
    /// Whether all have the same bits.
    pub is_exact: bool,
}

/// The run to go on from.
pub(crate) struct StartFrom {
    folder: PathBuf,
    model: Model,
}

impl StartFrom {
    /// Opens the run in `folder` and checks that a run of `config` can go on from it.
    ///
    /// # Errors
    /// When there is no trained run, or the configuration has another model, other tasks or scenarios, or lacks or
    /// changes a feature.
    pub(crate) fn open(folder: &Path, config: &Config) -> Result<StartFrom> {
        check_folder(folder).map_err(of_key)?;
        let before = Config::load(&folder.join(CONFIG_FILE), &[])?;
        let name = folder.display().to_string();
        check_model(&config.model, &before.model, &name)?;
        check_tasks(&config.tasks, &before.tasks, &name)?;
        if config.data.scenario != before.data.scenario {
            let column =
                |scenario: &Option<String>| scenario.as_ref().map_or("none".into(), |s| format!("`{s}`"));
            let (now, then) = (column(&config.data.scenario), column(&before.data.scenario));
            let message = format!("is {now}, and was {then} in `{name}`: give the same column");
            return Err(Error::config("data.scenario", message));
        }
        check_features(&config.features, &before.features, &name)?;
        let model = Model::open_to_score(folder).map_err(of_key)?;
        Ok(StartFrom { folder: folder.to_owned(), model })
    }

    /// Its vocabularies, statistics and scenarios.
    pub(crate) fn encoder(&self) -> &Encoder {
        &self.model.encoder
    }

    /// Gives a learner that has taken no step what the old model learnt, and compares both on the first rows of
    /// `valid`.
    ///
    /// # Errors
    /// When a tensor cannot be taken over.
    pub(crate) fn begin(
        &self,
        learner: &mut Learner,
        stages: &[Stage],
        schema: &Schema,
        valid: &Batch,
        exec: &dyn Executor,
    ) -> Result<Beginning> {
        let before = self.encoder().schema();
        check_tables(schema, before, &self.folder)?;
        let inheritance =
            inheritance(stages, &model_inputs(schema)?, &model_inputs(before)?, &added(schema, before))?;
        let weights = self.model.weights();
        inheritance.hand_on(&weights.params, &mut learner.params)?;
        inheritance.hand_on(&weights.state, &mut learner.state)?;
        for table in &mut learner.tables.0 {
            let old = weights.tables.0.iter().find(|old| old.spec().name == table.spec().name);
            match old {
                Some(old) => table.set_weights(&old.weights())?,
                None if inheritance.zero_tables.contains(&table.spec().name) => {
                    table.set_weights(&vec![0.0; table.spec().rows * table.spec().dim])?;
                }
                None => {}
            }
        }
        let (rows, pairs) = self.predictions(learner, stages, schema, valid, exec)?;
        let difference = pairs.iter().map(|(old, new)| (old - new).abs()).fold(0.0, f32::max);
        let is_exact = pairs.iter().all(|(old, new)| old.to_bits() == new.to_bits());
        let added = names_added(schema, before);
        Ok(Beginning { folder: self.folder.clone(), added, rows, difference, is_exact })
    }

    /// What both predict of the first rows of `valid`, and their number. The model is that of the last stage: what is
    /// served.
    fn predictions(
        &self,
        learner: &Learner,
        stages: &[Stage],
        schema: &Schema,
        valid: &Batch,
        exec: &dyn Executor,
    ) -> Result<(usize, Vec<(f32, f32)>)> {
        let rows: Vec<u32> = (0..valid.rows.min(CHUNK_ROWS) as u32).collect();
        let (Some(last), false) = (stages.last(), rows.is_empty()) else { return Ok((0, Vec::new())) };
        let mut batch = Batch::empty_like(valid);
        batch.gather(valid, &rows);
        let plan =
            Plan::compile(last.graph(&model_inputs(schema)?, Mode::Evaluation)?, PlanOptions::default())?;
        let Learner { params, state, tables, .. } = learner;
        let new =
            Predictor::new(&plan, params, state, tables, exec, rows.len())?.predict_all(exec, &batch)?;
        let as_before = as_before(batch, schema, self.encoder().schema());
        let old = self.model.predictor(exec, rows.len())?.predict_all(exec, &as_before)?;
        let pairs = old.into_iter().zip(new).flat_map(|(old, new)| old.into_iter().zip(new));
        Ok((rows.len(), pairs.collect()))
    }
}

/// The old run is named by this key.
fn of_key(error: Error) -> Error {
    match error {
        Error::Config { message, .. } => Error::config(KEY, message),
        other => other,
    }
}

fn check_model(now: &toml::Table, then: &toml::Table, folder: &str) -> Result<()> {
    let ((now_is, now), (then_is, then)) =
        (manygate_models::from_table(now)?, manygate_models::from_table(then)?);
    if now_is.name != then_is.name {
        let message = format!("is {}, and {} in `{folder}`: give the same model", now_is.name, then_is.name);
        return Err(Error::config("model.name", message));
    }
    let (now, then) = (now.resolved(), then.resolved());
    match now.iter().find(|(key, value)| then.get(*key) != Some(value)) {
        None => Ok(()),
        Some((key, value)) => {
            let then = then.get(key).map_or("nothing".to_owned(), toml::Value::to_string);
            let message =
                format!("is {value}, and {then} in `{folder}`: all keys of the model must be as there");
            Err(Error::config(format!("model.{key}"), message))
        }
    }
}

/// Weights may be others.
fn check_tasks(now: &[TaskConfig], then: &[TaskConfig], folder: &str) -> Result<()> {
    let unweighed = |tasks: &[TaskConfig]| -> Vec<TaskConfig> {
        let one =
            |task: &TaskConfig| TaskConfig { weight: 1.0, scenario_weights: BTreeMap::new(), ..task.clone() };
        tasks.iter().map(one).collect()
    };
    if unweighed(now) != unweighed(then) {
        let message =
            format!("are not those of `{folder}`: give the same ones, in the same order; weights may differ");
        return Err(Error::config("tasks", message));
    }
    Ok(())
}

fn check_features(now: &[FeatureConfig], then: &[FeatureConfig], folder: &str) -> Result<()> {
    let wrong = |message: String| Err(Error::config("features", message));
    let by_column = |all: &[FeatureConfig]| all.iter().flat_map(FeatureConfig::by_column).collect::<Vec<_>>();
    let (now, then) = (by_column(now), by_column(then));
    let mut before = None;
    for feature in &then {
        let column = &feature.columns()[0];
        let of_column = |other: &&FeatureConfig| other.columns() == feature.columns();
        let same = |other: &FeatureConfig| {
            other.columns() == feature.columns() && discriminant(other) == discriminant(feature)
        };
        let Some(at) = now.iter().position(same) else {
            return wrong(match now.iter().find(of_column) {
                Some(_) => format!(
                    "`{column}` is of another kind than in `{folder}`: leave it as it was, and list the other kind beside it"
                ),
                None => {
                    format!("`{column}`, which `{folder}` has, is missing: a model keeps all its features")
                }
            });
        };
        if now[at] != *feature {
            return wrong(format!("`{column}` has other keys than in `{folder}`: leave it as it was"));
        }
        if before.is_some_and(|before| at < before) {
            return wrong(format!(
                "`{column}` stands before what it followed in `{folder}`: keep the order of its features"
            ));
        }
        before = Some(at);
    }
    Ok(())
}

/// The table of a feature may have another name because of a feature that was added.
fn check_tables(now: &Schema, then: &Schema, folder: &Path) -> Result<()> {
    let fields = then.fields.iter().map(|f| (&f.name, &f.table));
    let lists = then.bags.iter().map(|b| (&b.name, &b.table));
    let has = |name: &str, table: &str| {
        let mut all = now
            .fields
            .iter()
            .map(|f| (&f.name, &f.table))
            .chain(now.bags.iter().map(|b| (&b.name, &b.table)));
        all.any(|(other, of)| other == name && of == table)
    };
    match fields.chain(lists).find(|(name, table)| !has(name, table)) {
        None => Ok(()),
        Some((name, table)) => {
            let folder = folder.display();
            let message = format!(
                "`{name}` has no longer the table `{table}` that it has in `{folder}`: name another `table` for what is added"
            );
            Err(Error::config("features", message))
        }
    }
}

fn added(now: &Schema, then: &Schema) -> Added {
    let number = |name: &String| !then.dense.contains(name);
    Added {
        fields: now.fields.iter().map(|f| then.field_index(&f.name).is_none()).collect(),
        bags: now.bags.iter().map(|b| !then.bags.iter().any(|before| before.name == b.name)).collect(),
        dense: now.dense.iter().map(number).collect(),
    }
}

fn names_added(now: &Schema, then: &Schema) -> Vec<String> {
    let Added { fields, bags, dense } = added(now, then);
    let fields = now.fields.iter().map(|f| &f.name).zip(fields);
    let bags = now.bags.iter().map(|b| &b.name).zip(bags);
    let all = fields.chain(bags).chain(now.dense.iter().zip(dense));
    all.filter(|(_, added)| *added).map(|(name, _)| name.clone()).collect()
}

/// By what the graphs of all stages say, for training and for evaluation.
fn inheritance(stages: &[Stage], now: &Inputs, then: &Inputs, added: &Added) -> Result<Inheritance> {
    let mut graphs: Vec<[Graph; 2]> = Vec::new();
    for stage in stages {
        for mode in [Mode::Training, Mode::Evaluation] {
            graphs.push([stage.graph(now, mode)?, stage.graph(then, mode)?]);
        }
    }
    let pairs: Vec<(&Graph, &Graph)> = graphs.iter().map(|[now, then]| (now, then)).collect();
    Inheritance::new(&pairs, added)
}

/// The rows without what was added.
fn as_before(batch: Batch, now: &Schema, then: &Schema) -> Batch {
    let Added { fields, bags, dense } = added(now, then);
    fn kept<T>(all: Vec<T>, added: &[bool]) -> Vec<T> {
        all.into_iter().zip(added).filter(|(_, added)| !**added).map(|(one, _)| one).collect()
    }
    let numbers = batch.dense.chunks(batch.dense_width.max(1));
    let numbers =
        numbers.flat_map(|row| row.iter().zip(&dense).filter(|(_, added)| !**added).map(|(v, _)| *v));
    Batch {
        dense: numbers.collect(),
        dense_width: then.dense.len(),
        ids: kept(batch.ids, &fields),
        bags: kept(batch.bags, &bags),
        ..batch
    }
}
