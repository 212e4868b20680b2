//! Optimisers: which exist, and their keys.

pub mod dense;
pub mod group;
pub mod rows;

pub use group::GroupConfig;

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `[optimizer]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Of everything but tables.
    pub dense: DenseConfig,
    /// Of embedding tables: only rows that a batch looks up move.
    pub tables: RowsConfig,
    /// Tensors that move in another way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupConfig>,
}

/// `[optimizer.dense]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DenseConfig {
    /// The method.
    pub method: DenseMethod,
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Keeps the quotient finite.
    pub epsilon: f64,
    /// L2 term: `l2 · w` is added to the gradient.
    pub l2: f64,
    /// Decoupled weight decay: `rate · weight_decay · w` is subtracted.
    pub weight_decay: f64,
}

/// Method for dense parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DenseMethod {
    /// Kingma and Ba, ICLR 2015.
    Adam,
    /// Plain gradient descent, without state.
    Sgd,
}

/// `[optimizer.tables]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowsConfig {
    /// The method.
    pub method: RowsMethod,
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first moment (adam).
    pub beta1: f64,
    /// Decay of the second moment (adam).
    pub beta2: f64,
    /// Keeps the quotient finite.
    pub epsilon: f64,
    /// L2 term of the rows that a batch looks up.
    pub l2: f64,
}

/// Method for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowsMethod {
    /// Lazy Adam: moments of the rows that a batch looks up move, with the bias correction of the table's updates.
    Adam,
    /// Row-wise Adagrad: one accumulator a row.
    Adagrad,
    /// Plain gradient descent, without state.
    Sgd,
}

impl fmt::Display for RowsMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RowsMethod::Adam => "adam",
            RowsMethod::Adagrad => "adagrad",
            RowsMethod::Sgd => "sgd",
        })
    }
}

impl From<DenseMethod> for RowsMethod {
    fn from(method: DenseMethod) -> RowsMethod {
        match method {
            DenseMethod::Adam => RowsMethod::Adam,
            DenseMethod::Sgd => RowsMethod::Sgd,
        }
    }
}

impl Default for DenseConfig {
    fn default() -> Self {
        let method = DenseMethod::Adam;
        DenseConfig {
            method,
            rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            l2: 0.0,
            weight_decay: 0.0,
        }
    }
}

impl Default for RowsConfig {
    fn default() -> Self {
        RowsConfig { method: RowsMethod::Adam, rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, l2: 0.0 }
    }
}

impl OptimizerConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// When a rate, decay, ε or cadence is out of its range.
    pub fn check(&self) -> Result<()> {
        let DenseConfig { rate, beta1, beta2, epsilon, l2, weight_decay, .. } = self.dense;
        let common = |rate, beta1, beta2, epsilon, l2| {
            [("rate", rate), ("beta1", beta1), ("beta2", beta2), ("epsilon", epsilon), ("l2", l2)]
        };
        check_values("dense", &common(rate, beta1, beta2, epsilon, l2))?;
        check_values("dense", &[("weight_decay", weight_decay)])?;
        let RowsConfig { rate, beta1, beta2, epsilon, l2, .. } = self.tables;
        check_values("tables", &common(rate, beta1, beta2, epsilon, l2))?;
        self.group.iter().enumerate().try_for_each(|(i, group)| group.check(i))
    }
}

/// Checks values of the section `optimizer.<part>` by their keys.
fn check_values(part: &str, values: &[(&str, f64)]) -> Result<()> {
    for &(key, value) in values {
        let (holds, message) = match key {
            "beta1" | "beta2" => ((0.0..1.0).contains(&value), "must be at least 0 and below 1"),
            "epsilon" => (value.is_finite() && value > 0.0, "must be above 0"),
            _ => (value.is_finite() && value >= 0.0, "must be a number of at least 0"),
        };
        if !holds {
            return Err(Error::config(format!("optimizer.{part}.{key}"), message));
        }
    }
    Ok(())
}
