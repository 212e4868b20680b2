//! Optimisers: which exist, and their keys.

pub mod dense;
pub mod group;
pub mod method;
pub mod rows;

pub use group::GroupConfig;
pub use method::Method;

use manygate_core::Result;
use method::Kind;
use serde::{Deserialize, Serialize};

/// `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
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
        OptimizerConfig { dense: adam(), tables: adam(), group: Vec::new() }
    }
}

impl OptimizerConfig {
    /// Checks what can be checked without the tensors.
    ///
    /// # Errors
    /// When a value is out of its range, or has no effect.
    pub fn check(&self) -> Result<()> {
        self.dense.check_section("dense", Kind::Dense)?;
        self.tables.check_section("tables", Kind::Table)?;
        self.group.iter().enumerate().try_for_each(|(i, group)| group.check_group(i))
    }

    /// With every default written out.
    pub fn resolved(&self) -> OptimizerConfig {
        OptimizerConfig {
            dense: self.dense.resolved_section(),
            tables: self.tables.resolved_section(),
            group: self.group.iter().map(GroupConfig::resolved_group).collect(),
        }
    }
}
