//! What the keys of a case's `config.json` mean to the engine: its `[model]` table and the model's inputs.
//!
//! A new architecture adds its entry to the file of its family.

mod interaction;
mod multi_scenario;
mod multi_task;

use manygate_kernels::embedding::Pooling;
use manygate_models::{BagField, Field, Inputs, Table, Task, TaskKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the keys of one model's cases are called in the engine.
struct Translation {
    model: &'static str,
    required: &'static [Key],
    /// Absent or null, they are the engine's default, which is the reference's too.
    optional: &'static [Key],
    /// Keys that stand for several of the engine's, or whose absence means something else than its default.
    special: fn(&mut Keys, &mut toml::Table) -> Result<(), String>,
    /// Keys that mean nothing to this model.
    without_effect: &'static [&'static str],
}

/// A key of the reference, and of the engine.
type Key = (&'static str, &'static str);

/// Every model's translation.
fn translations() -> impl Iterator<Item = &'static Translation> {
    [multi_task::TRANSLATIONS, multi_scenario::TRANSLATIONS, interaction::TRANSLATIONS].into_iter().flatten()
}

/// Keys that say how a case was made, not what the model is.
const PROVENANCE: [&str; 3] = ["cascade", "seed", "case"];

/// A case's configuration, in the engine's terms.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `[model]` table.
    pub(crate) model: toml::Table,
    /// One table a field.
    pub(crate) inputs: Inputs,
    /// Rows of the batch.
    pub(crate) rows: usize,
    /// Steps of plain gradient descent that the case also shows.
    pub(crate) update: Option<Update>,
    /// The same in several stages, one after the other, each of the model with another `stage`.
    pub(crate) schedule: Vec<ScheduledStage>,
    /// Whether the model normalises by the statistics of a batch: errors may be larger.
    pub(crate) normalises: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequence {
    name: String,
    vocab: usize,
    length: usize,
    /// The field whose table it looks up, instead of its own.
    shares: Option<String>,
}

/// Plain gradient descent on the same batch.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Update {
    pub(crate) lr: f64,
    pub(crate) steps: usize,
}

/// A stage of a schedule.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduledStage {
    pub(crate) stage: String,
    pub(crate) lr: f64,
    pub(crate) steps: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SparseField {
    name: String,
    vocab: usize,
}

impl Setup {
    /// Translates `config`.
    ///
    /// # Errors
    /// When a key is missing, unknown or of the wrong type.
    pub(crate) fn translate(config: &Map<String, Value>) -> Result<Setup, String> {
        let mut keys = Keys(config.clone());
        let name: String = keys.required("model")?;
        let translation = translations().find(|t| t.model == name);
        let translation = translation.ok_or_else(|| format!("no translation of the keys of `{name}`"))?;
        let mut model = toml::Table::new();
        let mut set = |key: &str, value: Value| match toml::Value::try_from(value) {
            Ok(value) => Ok(model.insert(key.to_owned(), value)),
            Err(e) => Err(format!("config key `{key}`: {e}")),
        };
        set("name", name.into())?;
        set("embedding_dim", keys.required("dim")?)?;
        for (theirs, ours) in translation.required {
            set(ours, keys.required(theirs)?)?;
        }
        for (theirs, ours) in translation.optional {
            if let Some(value) = keys.optional(theirs)? {
                set(ours, value)?;
            }
        }
        (translation.special)(&mut keys, &mut model)?;
        for key in PROVENANCE.iter().chain(translation.without_effect) {
            keys.0.remove(*key);
        }
        let fairness = model.get("fairness").and_then(toml::Value::as_str);
        let (inputs, rows) = (inputs(&mut keys, fairness)?, keys.required("batch")?);
        let update = keys.optional("update")?;
        let schedule = keys.optional("schedule")?.unwrap_or_default();
        match keys.0.keys().next() {
            Some(unknown) => Err(format!("config key `{unknown}` is not known")),
            None => Ok(Setup { update, schedule, ..Setup::of_model(model, inputs, rows) }),
        }
    }
}

impl Setup {
    /// That of a model that no case has.
    pub(crate) fn of_model(model: toml::Table, inputs: Inputs, rows: usize) -> Setup {
        Setup { normalises: normalises(&model), model, inputs, rows, update: None, schedule: Vec::new() }
    }

    /// The setup of a stage of the schedule.
    pub(crate) fn at_stage(&self, stage: &str) -> Setup {
        let mut setup = self.clone();
        setup.model.insert("stage".into(), stage.into());
        setup
    }
}

fn normalises(model: &toml::Table) -> bool {
    let is = |key: &str, value: toml::Value| model.get(key) == Some(&value);
    is("norm", "batch".into())
        || is("partitioned_norm", true.into())
        || is("activation", "dice".into())
        || model.contains_key("adapters")
}

/// The numbers of a case are columns without names; behind them stands the fairness coefficient, where the model has one.
fn inputs(keys: &mut Keys, fairness: Option<&str>) -> Result<Inputs, String> {
    let sparse: Vec<SparseField> = keys.required("sparse")?;
    let names: Vec<String> = keys.required("tasks")?;
    let mut weights: BTreeMap<String, f32> = keys.optional("task_weights")?.unwrap_or_default();
    let mut spaces: BTreeMap<String, String> = keys.optional("sample_space")?.unwrap_or_default();
    let kind = match keys.optional::<String>("loss")?.as_deref() {
        None | Some("bce") => TaskKind::Binary,
        Some("poisson") => TaskKind::Poisson,
        Some(other) => return Err(format!("config key `loss`: there is no loss `{other}`")),
    };
    let mut tasks = Vec::with_capacity(names.len());
    for name in &names {
        let space = match spaces.remove(name) {
            None => None,
            Some(within) => match names.iter().position(|n| *n == within) {
                None => return Err(format!("config key `sample_space`: there is no task `{within}`")),
                found => found,
            },
        };
        let weight = weights.remove(name).unwrap_or(1.0);
        tasks.push(Task { kind, weight, space, ..Task::binary(name) });
    }
    if let Some(name) = weights.keys().chain(spaces.keys()).next() {
        return Err(format!("`task_weights` or `sample_space` names a task `{name}` that is not in `tasks`"));
    }
    let mut tables: Vec<Table> =
        sparse.iter().map(|f| Table { name: f.name.clone(), rows: f.vocab, dim: None }).collect();
    let mut bags = Vec::new();
    for sequence in keys.optional::<Vec<Sequence>>("sequences")?.unwrap_or_default() {
        let Sequence { name, vocab, length, shares } = sequence;
        let table = match shares {
            Some(field) => tables.iter().position(|t| t.name == field && t.rows == vocab),
            None => {
                tables.push(Table { name: name.clone(), rows: vocab, dim: None });
                Some(tables.len() - 1)
            }
        };
        let table = table.ok_or_else(|| format!("sequence `{name}` shares the table of no such field"))?;
        bags.push(BagField { name, table, pooling: Pooling::Mean, longest: Some(length) });
    }
    let numbers: usize = keys.optional("dense")?.unwrap_or(0);
    let mut dense_names: Vec<String> = (0..numbers).map(|number| format!("number{number}")).collect();
    dense_names.extend(fairness.map(str::to_owned));
    Ok(Inputs {
        tables,
        bags,
        fields: sparse.into_iter().enumerate().map(|(table, f)| Field { name: f.name, table }).collect(),
        dense: dense_names.len(),
        dense_names,
        scenarios: keys.optional("scenes")?.unwrap_or(0),
        tasks,
    })
}

/// The keys that nobody has read yet.
struct Keys(Map<String, Value>);

impl Keys {
    /// Takes `key` out; null counts as absent.
    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, String> {
        match self.0.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value).map(Some).map_err(|e| format!("config key `{key}`: {e}"))
            }
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, String> {
        self.optional(key)?.ok_or_else(|| format!("config key `{key}` is missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_with_cases_has_a_translation() {
        let with_cases = |name: &str| !super::super::WITHOUT_CASES.contains(&name);
        for entry in manygate_models::MODELS.iter().filter(|entry| with_cases(entry.name)) {
            assert!(translations().any(|t| t.model == entry.name), "{}", entry.name);
        }
    }

    #[test]
    fn keys_become_the_engines() {
        let config = serde_json::json!({
            "model": "mmoe", "sparse": [{"name": "f0", "vocab": 7}], "dim": 4, "dense": 2, "batch": 3,
            "tasks": ["click", "buy"], "act": "tanh", "experts": 3, "expert_units": [6], "gate_bias": true,
            "task_weights": {"buy": 0.5}, "sample_space": {"buy": "click"}, "seed": 5, "cascade": true,
        });
        let setup = Setup::translate(config.as_object().unwrap()).unwrap();
        let expected = "name = 'mmoe'\nembedding_dim = 4\nactivation = 'tanh'\nnorm = 'none'\ntower_units = []\n\
                        experts = 3\nexpert_units = [6]\ngate_bias = true";
        assert_eq!(setup.model, expected.parse().unwrap());
        assert_eq!((setup.rows, setup.normalises, setup.inputs.dense), (3, false, 2));
        assert_eq!((setup.inputs.tables[0].rows, setup.inputs.fields[0].table), (7, 0));
        let click = Task::binary("click");
        assert_eq!(setup.inputs.tasks, [click, Task { weight: 0.5, space: Some(0), ..Task::binary("buy") }]);
    }
}
