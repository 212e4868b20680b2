//! Configurations that are written here: the sections that describe data, and the name of a model.

use manygate_core::{Error, Result};
use manygate_features::{FeatureConfig, TaskConfig, TaskKind, TaskRole};
use serde::Serialize;
use std::collections::BTreeMap;

use crate::config::DataConfig;

/// The sections, in the order in which they are written.
#[derive(Serialize)]
pub(crate) struct Sections {
    pub(crate) model: Model,
    pub(crate) data: DataConfig,
    pub(crate) features: Vec<FeatureConfig>,
    pub(crate) tasks: Vec<TaskConfig>,
}

/// `[model]` with its defaults.
#[derive(Serialize)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
}

impl Sections {
    /// The sections as TOML.
    pub(crate) fn toml(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::config("config", format!("cannot be written: {e}")))
    }
}

/// A binary task whose label column has its name.
pub(crate) fn binary_task(name: &str, after: Option<String>) -> TaskConfig {
    TaskConfig {
        name: name.to_owned(),
        column: None,
        kind: TaskKind::Binary,
        weight: 1.0,
        space: None,
        positive: Vec::new(),
        after,
        role: TaskRole::Primary,
        scenario_weights: BTreeMap::new(),
    }
}
