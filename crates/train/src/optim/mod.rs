//! Optimisers: which exist, and their keys.

mod clip;
pub mod dense;
pub mod group;
pub mod method;
pub mod rows;
pub mod schedule;

#[cfg(feature = "cuda")]
pub(crate) use clip::first_non_finite;
pub(crate) use clip::{Clip, Gradients};
pub use group::GroupConfig;
pub use method::Method;
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};

use manygate_core::{Error, Result};
use method::Kind;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Largest norm of the gradient, all values together: a longer one is scaled to it. Absent, it may be of any length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Largest absolute value in the gradient: what is beyond is set to it. In place of `clip_norm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_value: Option<f64>,
    /// Whether the gradients of tables, of the rows that a batch looks up, count and are clipped with those of the dense
    /// parameters.
    pub clip_tables: bool,
    /// How the rates of all groups change over the steps.
    pub schedule: ScheduleConfig,
    /// Of everything but tables.
    pub dense: GroupConfig,
    /// Of embedding tables: only rows that a batch looks up move.
    pub tables: GroupConfig,
    /// Tensors that move in another way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupConfig>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        let adam = || GroupConfig::of(Method::Adam);
        OptimizerConfig {
            clip_norm: None,
            clip_value: None,
            clip_tables: false,
            schedule: ScheduleConfig::default(),
            dense: adam(),
            tables: adam(),
            group: Vec::new(),
        }
    }
}

/// Of TOML text.
impl FromStr for OptimizerConfig {
    type Err = toml::de::Error;

    fn from_str(text: &str) -> std::result::Result<OptimizerConfig, toml::de::Error> {
        toml::from_str(text)
    }
}

impl OptimizerConfig {
    /// Checks what can be checked without the tensors.
    ///
    /// # Errors
    /// When a value is out of its range, or has no effect.
    pub fn check(&self) -> Result<()> {
        self.check_clipping()?;
        self.schedule.check()?;
        self.dense.check_section("dense", Kind::Dense)?;
        self.tables.check_section("tables", Kind::Table)?;
        self.group.iter().enumerate().try_for_each(|(i, group)| group.check_group(i))
    }

    fn check_clipping(&self) -> Result<()> {
        let wrong = |key: &str, message| Err(Error::config(format!("optimizer.{key}"), message));
        for (key, value) in [("clip_norm", self.clip_norm), ("clip_value", self.clip_value)] {
            // The kernels take f32.
            if value.is_some_and(|value| !((value as f32).is_finite() && value as f32 > 0.0)) {
                return wrong(key, "must be a number above 0");
            }
        }
        if self.clip_norm.is_some() && self.clip_value.is_some() {
            return wrong("clip_value", "clip_norm is given as well; give one of them");
        }
        if self.clip_tables && self.clip_norm.is_none() && self.clip_value.is_none() {
            return wrong("clip_tables", "has no effect without clip_norm or clip_value");
        }
        Ok(())
    }

    /// With every default written out.
    pub fn resolved(&self) -> OptimizerConfig {
        OptimizerConfig {
            clip_norm: self.clip_norm,
            clip_value: self.clip_value,
            clip_tables: self.clip_tables,
            schedule: self.schedule.resolved(),
            dense: self.dense.resolved_section(),
            tables: self.tables.resolved_section(),
            group: self.group.iter().map(GroupConfig::resolved_group).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_gradients_that_make_no_sense_are_told() {
        for (text, told) in [
            ("clip_norm = 0", "optimizer.clip_norm: must be a number above 0"),
            ("clip_value = -1.0", "optimizer.clip_value: must be a number above 0"),
            ("clip_norm = inf", "optimizer.clip_norm: must be a number above 0"),
            ("clip_norm = 1\nclip_value = 1", "optimizer.clip_value: clip_norm is given as well"),
            ("clip_tables = true", "optimizer.clip_tables: has no effect without clip_norm or clip_value"),
        ] {
            let config: OptimizerConfig = text.parse().unwrap();
            let found = config.check().unwrap_err().to_string();
            assert!(found.contains(told), "{found}");
        }
    }
}
