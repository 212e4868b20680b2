//! Methods by name: what they move, and which keys they read.

use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How tensors move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Duchi, Hazan and Singer, JMLR 12, 2011: an accumulator for each value.
    Adagrad,
    /// Kingma and Ba, ICLR 2015. Of tables only the rows that a batch looks up move, weights and moments alike (lazy
    /// Adam), with the bias correction of the table's updates.
    Adam,
    /// Loshchilov and Hutter, ICLR 2019: Adam with decoupled weight decay.
    Adamw,
    /// McMahan et al., KDD 2013: FTRL-Proximal, whose `rate` is the paper's α. No schedule applies to it: weights are
    /// computed from sums of gradients and α, and would shrink with it.
    Ftrl,
    /// Polyak's heavy ball, or with `nesterov` Nesterov's accelerated gradient.
    Momentum,
    /// Adagrad with one accumulator a row, of tables.
    RowwiseAdagrad,
    /// Plain gradient descent, without state.
    Sgd,
}

/// A kind of tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dense,
    Table,
}

impl Method {
    /// Every method, by name.
    pub const ALL: [Method; 7] = [
        Method::Adagrad,
        Method::Adam,
        Method::Adamw,
        Method::Ftrl,
        Method::Momentum,
        Method::RowwiseAdagrad,
        Method::Sgd,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Method::Adagrad => "adagrad",
            Method::Adam => "adam",
            Method::Adamw => "adamw",
            Method::Ftrl => "ftrl",
            Method::Momentum => "momentum",
            Method::RowwiseAdagrad => "rowwise_adagrad",
            Method::Sgd => "sgd",
        }
    }

    /// The numbers that it reads, with their defaults.
    pub(super) fn numbers(self) -> &'static [(&'static str, f64)] {
        match self {
            Method::Adagrad | Method::RowwiseAdagrad => &[("rate", 1e-2), ("epsilon", 1e-8), ("l2", 0.0)],
            Method::Adam => {
                &[("rate", 1e-3), ("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8), ("l2", 0.0)]
            }
            Method::Adamw => {
                &[("rate", 1e-3), ("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8), ("weight_decay", 1e-2)]
            }
            Method::Ftrl => &[("rate", 0.1), ("beta", 1.0), ("l1", 0.0), ("l2", 0.0)],
            Method::Momentum => &[("rate", 1e-3), ("momentum", 0.9), ("l2", 0.0), ("weight_decay", 0.0)],
            Method::Sgd => &[("rate", 1e-3), ("l2", 0.0)],
        }
    }

    /// Whether it reads `nesterov`.
    pub(super) fn has_nesterov(self) -> bool {
        self == Method::Momentum
    }

    fn moves(self, kind: Kind) -> bool {
        match self {
            Method::Adagrad | Method::Adam | Method::Sgd => true,
            Method::Adamw | Method::Momentum => kind == Kind::Dense,
            Method::Ftrl | Method::RowwiseAdagrad => kind == Kind::Table,
        }
    }

    /// The names of those that move every one of `kinds`, for messages.
    pub(super) fn names_for(kinds: &[Kind]) -> String {
        let fits = Method::ALL.into_iter().filter(|method| kinds.iter().all(|&kind| method.moves(kind)));
        fits.map(Method::name).collect::<Vec<_>>().join(", ")
    }

    /// Checks that it moves tensors of this kind; `what` is one of them and `key` where the method was named.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the methods which do.
    pub(super) fn check_moves(self, kind: Kind, key: &str, what: &str) -> Result<()> {
        if self.moves(kind) {
            return Ok(());
        }
        let (own, other) = match kind {
            Kind::Dense => ("tables", "dense"),
            Kind::Table => ("dense parameters", "a table"),
        };
        let names = Method::names_for(&[kind]);
        let message = format!("{self} is for {own}, and {what} is {other}; use one of: {names}");
        Err(Error::config(key, message))
    }

    /// What to write in place of a key that it does not read.
    pub(super) fn instead_of(self, key: &str) -> String {
        let mut names: Vec<&str> = self.numbers().iter().map(|&(name, _)| name).collect();
        if self.has_nesterov() {
            names.push("nesterov");
        }
        let hint = match (self, key) {
            (Method::Adam, "weight_decay") => "; decoupled decay is the method adamw",
            (Method::Adamw, "l2") => "; an l2 term in the gradient is the method adam",
            (Method::Sgd, "weight_decay") => "; for it l2 is the same",
            _ => "",
        };
        format!("{self} does not read it, but {}{hint}", names.join(", "))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_configurations() {
        for method in Method::ALL {
            assert_eq!(toml::Value::try_from(method).unwrap().as_str(), Some(method.name()));
        }
        assert!(Method::ALL.is_sorted_by_key(|method| method.name()));
    }
}
