//! Optimisers: which exist, and their keys.

pub mod dense;
pub mod rows;

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[optimizer]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Of everything but tables.
    pub dense: DenseConfig,
    /// Of embedding tables: only rows that a batch looks up move.
    pub tables: RowsConfig,
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
    /// Lazy Adam: moments of the rows that a batch looks up move, with the bias correction of the global step.
    Adam,
    /// Row-wise Adagrad: one accumulator a row.
    Adagrad,
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
    /// When a rate, decay or ε is out of its range.
    pub fn check(&self) -> Result<()> {
        let DenseConfig { rate, beta1, beta2, epsilon, l2, weight_decay, .. } = self.dense;
        check("dense", rate, beta1, beta2, epsilon, &[("l2", l2), ("weight_decay", weight_decay)])?;
        let RowsConfig { rate, beta1, beta2, epsilon, l2, .. } = self.tables;
        check("tables", rate, beta1, beta2, epsilon, &[("l2", l2)])
    }
}

fn check(part: &str, rate: f64, beta1: f64, beta2: f64, epsilon: f64, others: &[(&str, f64)]) -> Result<()> {
    let wrong = |key: &str, message: &str| Err(Error::config(format!("optimizer.{part}.{key}"), message));
    if !(rate.is_finite() && rate >= 0.0) {
        return wrong("rate", "must be a number of at least 0");
    }
    for (key, beta) in [("beta1", beta1), ("beta2", beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return wrong(key, "must be at least 0 and below 1");
        }
    }
    if !(epsilon.is_finite() && epsilon > 0.0) {
        return wrong("epsilon", "must be above 0");
    }
    for (key, value) in others {
        if !(value.is_finite() && *value >= 0.0) {
            return wrong(key, "must be a number of at least 0");
        }
    }
    Ok(())
}
