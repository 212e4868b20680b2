//! The configuration of a run: one TOML file, with overrides.

use crate::balance::Balance;
use crate::optim::OptimizerConfig;
use crate::selection::Select;
use crate::stage::{self, StageConfig};
use manygate_core::{Error, Result};
use manygate_data::DataConfig;
use manygate_features::{FeatureConfig, TaskConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A whole configuration. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of every random number of the run.
    #[serde(default = "one")]
    pub seed: u64,
    /// Files and roles of columns.
    pub data: DataConfig,
    /// `name` and the keys of the architecture.
    pub model: toml::Table,
    /// How long and on what.
    #[serde(default)]
    pub train: TrainConfig,
    /// Optimisers of dense parameters and of tables.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// `method` and its keys: how the losses of the tasks are weighed against each other. Absent, they are summed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<toml::Table>,
    /// Stages of training, one after the other; none is a single one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<StageConfig>,
    /// What the report compares with.
    #[serde(default)]
    pub report: ReportConfig,
    /// Inputs, in order.
    pub features: Vec<FeatureConfig>,
    /// Tasks, in order.
    pub tasks: Vec<TaskConfig>,
}

fn one() -> u64 {
    1
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the fit rows.
    pub epochs: u64,
    /// Rows a step; the short last batch of an epoch is kept.
    pub batch_size: usize,
    /// Validations an epoch, evenly spaced, the last one at its end.
    pub validations_per_epoch: usize,
    /// By what the checkpoint is chosen, on validation; when left out, `auc` where all tasks that decide are binary,
    /// `loss` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Tasks whose mean decides; empty means all that are served.
    pub select_tasks: Vec<String>,
    /// Patterns of parameter and table names (`experts.0.*`, `embedding.user_id.weight`) that do not learn.
    pub freeze: Vec<String>,
    /// Folder of a trained run to go on from, with the same model and tasks and with all of its features, beside which there
    /// may be new ones: before the first step the predictions are those of that run. Optimisers begin anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            epochs: 3,
            batch_size: 1024,
            validations_per_epoch: 2,
            select: None,
            select_tasks: Vec::new(),
            freeze: Vec::new(),
            start_from: None,
        }
    }
}

/// `[report]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportConfig {
    /// A TOML file of named baselines: `[LR.is_click] all = 0.72, "tab=1" = 0.67`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floors: Option<PathBuf>,
}

/// Of TOML text. Parsing a structure is code of hundreds of functions, which this crate has for all that read one.
impl FromStr for Config {
    type Err = toml::de::Error;

    fn from_str(text: &str) -> std::result::Result<Config, toml::de::Error> {
        toml::from_str(text)
    }
}

impl TryFrom<toml::Table> for Config {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> std::result::Result<Config, toml::de::Error> {
        table.try_into()
    }
}

impl Config {
    /// Reads a file and applies overrides `key.path=value`; a value is TOML, or a text where it is not.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has an unknown or wrong key: with line, column and the keys that
    /// exist.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read the configuration", path))?;
        let unreadable =
            |e: toml::de::Error| Error::config(path.display().to_string(), e.to_string().trim_end());
        let file: Config = text.parse().map_err(unreadable)?;
        let config = if overrides.is_empty() {
            file
        } else {
            let mut table: toml::Table = text.parse().map_err(unreadable)?;
            for text in overrides {
                set(&mut table, text)?;
            }
            let wrong =
                |e: toml::de::Error| Error::config(format!("--set {}", overrides.join(" ")), e.to_string());
            Config::try_from(table).map_err(wrong)?
        };
        config.check()?;
        Ok(config)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// When a number is out of its range, or a name does not exist.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [
            ("train.epochs", self.train.epochs as usize),
            ("train.batch_size", self.train.batch_size),
            ("train.validations_per_epoch", self.train.validations_per_epoch),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                return Err(Error::config(key, "must be at least 1"));
            }
        }
        crate::limits::check(self)?;
        let names: Vec<&str> = self.tasks.iter().map(|t| t.name.as_str()).collect();
        if let Some(other) = self.train.select_tasks.iter().find(|t| !names.contains(&t.as_str())) {
            let message = format!("there is no task `{other}`; the tasks are: {}", names.join(", "));
            return Err(Error::config("train.select_tasks", message));
        }
        self.check_selection()?;
        self.optimizer.check()?;
        let (entry, architecture) = manygate_models::from_table(&self.model)?;
        let by_task = names.iter().any(|task| architecture.own_prefix(task).is_some());
        if by_task && !self.train.select_tasks.is_empty() {
            let message =
                format!("{} chooses the weights of each task by that task alone: remove the key", entry.name);
            return Err(Error::config("train.select_tasks", message));
        }
        self.balance.as_ref().map(Balance::from_table).transpose()?;
        stage::check(self)
    }

    /// The configuration with every default written out, as TOML.
    ///
    /// # Errors
    /// When the model's keys are wrong.
    pub fn resolved(&self) -> Result<String> {
        let mut all = self.clone();
        let (entry, architecture) = manygate_models::from_table(&self.model)?;
        all.model = toml::Table::from_iter([("name".to_owned(), toml::Value::from(entry.name))]);
        all.model.extend(architecture.resolved());
        all.train.select = Some(self.selection());
        all.balance = self.balance.as_ref().map(Balance::from_table).transpose()?.map(|b| b.resolved());
        all.optimizer = self.optimizer.resolved();
        for stage in &mut all.stage {
            stage.optimizer = stage.optimizer.as_ref().map(OptimizerConfig::resolved);
        }
        toml::to_string(&all).map_err(|e| Error::config("config", format!("cannot be written: {e}")))
    }
}

/// Applies one override.
fn set(table: &mut toml::Table, text: &str) -> Result<()> {
    let wrong = |message: String| Error::config(format!("--set {text}"), message);
    let Some((path, value)) = text.split_once('=') else {
        return Err(wrong("needs the form key.path=value, as in model.experts=8".into()));
    };
    let value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| toml::Value::from(value));
    let keys: Vec<&str> = path.trim().split('.').collect();
    let (last, parents) = keys.split_last().expect("split gives at least one part");
    let mut at = table.entry(keys[0]).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if parents.is_empty() {
        *at = value;
        return Ok(());
    }
    for key in parents.iter().skip(1).chain([last]) {
        at = match at {
            toml::Value::Table(t) => t.entry(*key).or_insert_with(|| toml::Value::Table(toml::Table::new())),
            toml::Value::Array(list) => {
                let length = list.len();
                let index = key.parse::<usize>().ok().filter(|&i| i < length);
                let index =
                    index.ok_or_else(|| wrong(format!("`{key}` must be a number below {length} here")))?;
                &mut list[index]
            }
            other => return Err(wrong(format!("`{key}` is below {other}, which has no keys"))),
        };
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> toml::Table {
        "seed = 1\n[model]\nname = \"mmoe\"\n[[tasks]]\nname = \"a\"\n".parse().unwrap()
    }

    #[test]
    fn overrides_reach_tables_and_lists() {
        let mut t = table();
        for text in [
            "seed=7",
            "model.experts=8",
            "model.tower_units=[4, 2]",
            "tasks.0.weight=2.5",
            "model.activation=tanh",
        ] {
            set(&mut t, text).unwrap();
        }
        assert_eq!(t["seed"].as_integer(), Some(7));
        assert_eq!(t["model"]["experts"].as_integer(), Some(8));
        assert_eq!(t["model"]["tower_units"].as_array().map(Vec::len), Some(2));
        assert_eq!(t["model"]["activation"].as_str(), Some("tanh"));
        assert_eq!(t["tasks"][0]["weight"].as_float(), Some(2.5));
        assert_eq!(t["model"]["name"].as_str(), Some("mmoe"));
    }

    #[test]
    fn wrong_overrides_are_told() {
        let message = |text: &str| set(&mut table(), text).unwrap_err().to_string();
        assert!(message("model.experts").contains("key.path=value"));
        assert!(message("tasks.3.weight=1").contains("must be a number below 1"));
        assert!(message("seed.x=1").contains("has no keys"));
    }
}
