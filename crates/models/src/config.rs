//! Configuration values that several models read.

use crate::layers::mlp::MlpStyle;
use crate::layers::trunk::Embedding;
use manygate_core::{Error, Result};
use manygate_kernels::activation::Activation;
use serde::de::value::MapDeserializer;
use serde::{Deserialize, Serialize};

/// An activation by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationName {
    /// max(x, 0)
    Relu,
    /// x, or 0.01 x where negative
    LeakyRelu,
    /// hyperbolic tangent
    Tanh,
    /// logistic function
    Sigmoid,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Activation {
        match name {
            ActivationName::Relu => Activation::Relu,
            ActivationName::LeakyRelu => Activation::LeakyRelu(0.01),
            ActivationName::Tanh => Activation::Tanh,
            ActivationName::Sigmoid => Activation::Sigmoid,
        }
    }
}

/// Normalisation inside MLPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormName {
    /// none
    None,
    /// batch normalisation before each activation
    Batch,
}

/// A key of a model's configuration, for `manygate models NAME`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Key {
    /// Name under `[model]`.
    pub name: &'static str,
    /// Default, as written in TOML.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// The key of models whose hidden layers may drop values.
pub const DROPOUT: Key = Key {
    name: "dropout",
    default: "0.0",
    doc: "probability in training of a value after a hidden layer's activation to be dropped, in [0, 1)",
};

/// The key of multi-task models that may have towers, and gates, for each task and scenario.
pub const SCENARIO_HEADS: Key = Key {
    name: "scenario_heads",
    default: "false",
    doc: "whether each task has a tower, and a gate of its own, for each scenario; a row computes its scenario's alone",
};

/// Keys that most models have; some have the first of them.
pub const COMMON_KEYS: [Key; 6] = [
    Key { name: "embedding_dim", default: "16", doc: "width of every table that does not state its own" },
    Key {
        name: "embedding_deviation",
        default: "0.01",
        doc: "standard deviation of the initial embedding rows",
    },
    Key {
        name: "activation",
        default: "\"relu\"",
        doc: "relu, leaky_relu, tanh or sigmoid, after every hidden layer",
    },
    Key {
        name: "norm",
        default: "\"none\"",
        doc: "none, or batch: batch normalisation before each activation",
    },
    Key { name: "tower_units", default: "[128, 64]", doc: "hidden widths of each task's tower" },
    DROPOUT,
];

/// What every model's configuration starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// The tables.
    pub embedding: Embedding,
    /// After every hidden layer.
    pub activation: Activation,
    /// Whether MLPs have batch normalisation.
    pub batch_norm: bool,
    /// Rate of dropout after hidden layers.
    pub dropout: f64,
}

impl Common {
    /// From the common keys, without dropout.
    pub fn new(dim: usize, deviation: f64, activation: ActivationName, norm: NormName) -> Common {
        Common {
            embedding: Embedding { dim, deviation: deviation as f32 },
            activation: activation.into(),
            batch_norm: norm == NormName::Batch,
            dropout: 0.0,
        }
    }

    /// With dropout after hidden layers.
    pub fn with_dropout(self, rate: f64) -> Common {
        Common { dropout: rate, ..self }
    }

    /// An MLP in this style.
    pub fn mlp<'a>(&self, units: &'a [usize]) -> MlpStyle<'a> {
        MlpStyle { units, activation: self.activation, batch_norm: self.batch_norm, dropout: self.dropout }
    }
}

/// Reads a model's keys out of the `[model]` table.
///
/// # Errors
/// [`Error::Config`] that names the key and, where there is no such key, lists the ones that exist.
pub fn parse<T: for<'de> Deserialize<'de>>(keys: &toml::Table) -> Result<T> {
    parse_section("model", keys)
}

/// The same for the keys of another section of a configuration.
///
/// # Errors
/// [`Error::Config`] that names the section and the key.
pub fn parse_section<T: for<'de> Deserialize<'de>>(section: &str, keys: &toml::Table) -> Result<T> {
    parse_keys(keys.clone()).map_err(|error| {
        let alone = |keys| parse_keys::<T>(keys).err();
        what_is_wrong(section, keys, &error, &alone)
    })
}

/// By a way that knows of maps alone: the code of a [`toml::Table`]'s own has each structure three times, as a map, as a
/// list and as a date.
fn parse_keys<T: for<'de> Deserialize<'de>>(keys: toml::Table) -> std::result::Result<T, toml::de::Error> {
    T::deserialize(MapDeserializer::new(keys.into_iter()))
}

/// What `error` says of the keys, or, where `alone` says it of one of them, of that.
fn what_is_wrong(
    section: &str,
    keys: &toml::Table,
    error: &toml::de::Error,
    alone: &dyn Fn(toml::Table) -> Option<toml::de::Error>,
) -> Error {
    let message = |error: &toml::de::Error| match error.message().trim() {
        // How the parser says that a value by name is a number, or a list.
        "invalid type: unit variant, expected string only" => "must be a text".to_owned(),
        message => message.to_owned(),
    };
    // What is wrong with a value is told without its key: it is the one that is wrong alone.
    let of_one = |(key, value): (&String, &toml::Value)| {
        let error = alone(toml::Table::from_iter([(key.clone(), value.clone())]))?;
        Some(Error::config(format!("{section}.{key}"), message(&error)))
    };
    keys.iter().find_map(of_one).unwrap_or_else(|| Error::config(section, message(error)))
}

/// That these keys, factors of losses and rates, are numbers from 0 up.
///
/// # Errors
/// [`Error::Config`] with the first that is not.
pub fn check_factors(factors: &[(&str, f64)]) -> Result<()> {
    match factors.iter().find(|(_, factor)| !(factor.is_finite() && *factor >= 0.0)) {
        Some((key, factor)) => {
            let message = format!("must be a number from 0 up; it is {factor}");
            Err(Error::config(format!("model.{key}"), message))
        }
        None => Ok(()),
    }
}
