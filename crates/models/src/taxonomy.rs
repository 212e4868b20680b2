//! Where an architecture stands among multi-task and multi-scenario models: the axes of surveys of the field.

use serde::Serialize;
use std::fmt;

/// What its tasks are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It predicts one task.
    Single,
    /// None implies another: a like, a comment.
    Parallel,
    /// Each implies the one before: a click, a conversion.
    Cascade,
}

/// How it treats scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Structure {
    /// It knows none, beyond what a field tells.
    None,
    /// One network, which the scenario modulates.
    SingleTower,
    /// Parameters are selected by the scenario.
    MultiTower,
}

/// What it does about tasks or scenarios that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Nothing is shared.
    Separate,
    /// Tasks have one network, or one set of tables.
    HardSharing,
    /// Tasks mix experts, or exchange activations.
    SoftSharing,
    /// Parameters of all scenarios beside those of each.
    ParameterSharing,
    /// What one scenario learns is kept from harming another.
    NegativeTransfer,
    /// The scenario generates or rescales weights.
    DynamicWeights,
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Relation::Single => "single",
            Relation::Parallel => "parallel",
            Relation::Cascade => "cascade",
        })
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Structure::None => "none",
            Structure::SingleTower => "single-tower",
            Structure::MultiTower => "multi-tower",
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::Separate => "separate",
            Method::HardSharing => "hard sharing",
            Method::SoftSharing => "soft sharing",
            Method::ParameterSharing => "parameter sharing",
            Method::NegativeTransfer => "against negative transfer",
            Method::DynamicWeights => "dynamic weights",
        })
    }
}
