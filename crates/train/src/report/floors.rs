//! Floors: the AUC that plain baselines reach on the same test rows.

use crate::metrics::Ordered;
use manygate_core::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// Test AUC of named baselines: baseline -> task -> slice -> AUC. In TOML:
///
/// ```toml
/// [LR.is_click]
/// all = 0.7197
/// "tab=1" = 0.6713
///
/// [GBDT.is_click]
/// all = 0.7244
/// ```
///
/// A slice that a baseline was not measured on is left out. Names are those of the evaluation; the order of the
/// file is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Floors {
    baselines: Ordered<Ordered<Ordered<f64>>>,
}

impl Floors {
    /// Reads a file: JSON when its name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it has another shape or an AUC outside
    /// [0, 1].
    pub fn load(path: impl AsRef<Path>) -> Result<Floors> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let parsed = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| e.to_string())
        } else {
            toml::from_str(&text).map_err(|e| e.to_string())
        };
        parsed.map_err(|e| {
            let shape =
                "floors are tables baseline.task with one AUC a slice, as in `[LR.click]` `all = 0.72`";
            Error::format(path, format!("{}; {shape}", e.trim_end()))
        })
    }

    /// Names of the baselines, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.baselines.iter().map(|(name, _)| name)
    }

    /// AUC of baseline `name` for `task` on `slice`, where it was measured.
    pub fn get(&self, name: &str, task: &str, slice: &str) -> Option<f64> {
        self.baselines.get(name)?.get(task)?.get(slice).copied()
    }
}

impl<'de> Deserialize<'de> for Floors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let baselines = Ordered::<Ordered<Ordered<f64>>>::deserialize(deserializer)?;
        for (name, tasks) in baselines.iter() {
            for (task, slices) in tasks.iter() {
                if let Some((slice, auc)) = slices.iter().find(|(_, auc)| !(0.0..=1.0).contains(*auc)) {
                    return Err(serde::de::Error::custom(format!(
                        "the AUC of {name} for {task}, {slice}, is {auc}; it lies in [0, 1]"
                    )));
                }
            }
        }
        Ok(Floors { baselines })
    }
}
