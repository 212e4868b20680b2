//! `[[optimizer.group]]`: which tensors move in a way of their own, and how.

use super::{DenseConfig, DenseMethod, OptimizerConfig, RowsConfig, RowsMethod, check_values};
use manygate_core::{Error, Result};
use manygate_graph::Plan;
use manygate_graph::plan::matches;
use serde::{Deserialize, Serialize};

/// One `[[optimizer.group]]`. What it leaves out is as in `[optimizer.dense]` for its dense parameters and as in
/// `[optimizer.tables]` for its tables. The first group that fits a tensor has it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Patterns of parameter and table names (`towers.*`, `embedding.user_id.weight`).
    pub names: Vec<String>,
    /// The method; dense parameters know `adam` and `sgd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<RowsMethod>,
    /// Learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Decay of the first moment (adam).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Decay of the second moment (adam).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Keeps the quotient finite (adam, adagrad).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// L2 term: `l2 · w` is added to the gradient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2: Option<f64>,
    /// Decoupled weight decay of dense parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// It moves at every so many steps: at steps 2, 4, 6 … with 2. The gradients of the other steps are left unused,
    /// and bias corrections count its own updates.
    #[serde(default = "each_step")]
    pub every: u64,
}

fn each_step() -> u64 {
    1
}

/// How tensors move, and at which steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moves<C> {
    /// Method and values, every one resolved.
    pub(super) config: C,
    every: u64,
}

impl<C> Moves<C> {
    /// The number of its update, from 1, that falls on step `step`, from 1; [`None`] where it does not move.
    pub(super) fn update(&self, step: u64) -> Option<u64> {
        step.is_multiple_of(self.every).then_some(step / self.every)
    }
}

fn wrong(group: usize, key: &str, message: String) -> Error {
    Error::config(format!("optimizer.group.{group}.{key}"), message)
}

impl GroupConfig {
    /// Checks the ranges of group number `group`.
    pub(super) fn check(&self, group: usize) -> Result<()> {
        if self.names.is_empty() {
            return Err(wrong(group, "names", "name at least one tensor or pattern".to_owned()));
        }
        if self.every == 0 {
            return Err(wrong(group, "every", "must be at least 1".to_owned()));
        }
        let given: Vec<(&str, f64)> = self.given().collect();
        check_values(&format!("group.{group}"), &given)
    }

    /// The values that it gives.
    fn given(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let keys = [
            ("rate", self.rate),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("epsilon", self.epsilon),
            ("l2", self.l2),
            ("weight_decay", self.weight_decay),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }

    /// That `method`, which `name` has, reads every value that is given: one without effect is a mistake.
    fn check_used(&self, group: usize, method: RowsMethod, name: &str) -> Result<()> {
        let unused: &[&str] = match method {
            RowsMethod::Adam => &[],
            RowsMethod::Adagrad => &["beta1", "beta2"],
            RowsMethod::Sgd => &["beta1", "beta2", "epsilon"],
        };
        match self.given().find(|(key, _)| unused.contains(key)) {
            Some((key, _)) => {
                Err(wrong(group, key, format!("the method of `{name}`, {method}, does not read it")))
            }
            None => Ok(()),
        }
    }

    /// How its dense parameter `name` moves.
    fn dense(&self, group: usize, default: &DenseConfig, name: &str) -> Result<DenseConfig> {
        let method = match self.method {
            None => default.method,
            Some(RowsMethod::Adam) => DenseMethod::Adam,
            Some(RowsMethod::Sgd) => DenseMethod::Sgd,
            Some(RowsMethod::Adagrad) => {
                let message =
                    format!("adagrad is for tables, `{name}` is a dense parameter: use adam or sgd");
                return Err(wrong(group, "method", message));
            }
        };
        self.check_used(group, method.into(), name)?;
        Ok(DenseConfig {
            method,
            rate: self.rate.unwrap_or(default.rate),
            beta1: self.beta1.unwrap_or(default.beta1),
            beta2: self.beta2.unwrap_or(default.beta2),
            epsilon: self.epsilon.unwrap_or(default.epsilon),
            l2: self.l2.unwrap_or(default.l2),
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
        })
    }

    /// How its table `name` moves.
    fn rows(&self, group: usize, default: &RowsConfig, name: &str) -> Result<RowsConfig> {
        if self.weight_decay.is_some() {
            let message = format!("is for dense parameters, and `{name}` is a table: use l2");
            return Err(wrong(group, "weight_decay", message));
        }
        let method = self.method.unwrap_or(default.method);
        self.check_used(group, method, name)?;
        Ok(RowsConfig {
            method,
            rate: self.rate.unwrap_or(default.rate),
            beta1: self.beta1.unwrap_or(default.beta1),
            beta2: self.beta2.unwrap_or(default.beta2),
            epsilon: self.epsilon.unwrap_or(default.epsilon),
            l2: self.l2.unwrap_or(default.l2),
        })
    }
}

impl OptimizerConfig {
    /// Checks the groups against the tensors of `plan`.
    ///
    /// # Errors
    /// [`Error::Config`] when a pattern fits no tensor, a group with tables and dense parameters names no method, or a
    /// tensor cannot move as its group says.
    pub fn check_groups(&self, plan: &Plan) -> Result<()> {
        let dense: Vec<&str> = plan.layout().blocks().map(|(block, _)| block.name.as_str()).collect();
        let tables: Vec<&str> = plan.tables().iter().map(|table| table.name.as_str()).collect();
        for (i, group) in self.group.iter().enumerate() {
            let fits = |pattern: &str| dense.iter().chain(&tables).any(|name| matches(pattern, name));
            if let Some(pattern) = group.names.iter().find(|pattern| !fits(pattern)) {
                let message =
                    format!("`{pattern}` fits no parameter; `manygate inspect RUN` lists the names");
                return Err(wrong(i, "names", message));
            }
            let has = |name: &&&str| self.group_of(name) == Some(i);
            let (parameter, table) = (dense.iter().find(has), tables.iter().find(has));
            if let (None, Some(parameter), Some(table)) = (group.method, parameter, table) {
                let message = format!(
                    "the group has the table `{table}` and the dense parameter `{parameter}`: name a method that \
                     both know, adam or sgd"
                );
                return Err(wrong(i, "method", message));
            }
        }
        dense.iter().try_for_each(|name| self.dense_moves(name).map(drop))?;
        tables.iter().try_for_each(|name| self.rows_moves(name).map(drop))
    }

    /// Number of the group that has the tensor `name`.
    fn group_of(&self, name: &str) -> Option<usize> {
        self.group.iter().position(|group| group.names.iter().any(|pattern| matches(pattern, name)))
    }

    /// How the dense parameter `name` moves.
    pub(super) fn dense_moves(&self, name: &str) -> Result<Moves<DenseConfig>> {
        let Some(i) = self.group_of(name) else {
            return Ok(Moves { config: self.dense.clone(), every: 1 });
        };
        let group = &self.group[i];
        Ok(Moves { config: group.dense(i, &self.dense, name)?, every: group.every })
    }

    /// How the table `name` moves.
    pub(super) fn rows_moves(&self, name: &str) -> Result<Moves<RowsConfig>> {
        let Some(i) = self.group_of(name) else {
            return Ok(Moves { config: self.tables.clone(), every: 1 });
        };
        let group = &self.group[i];
        Ok(Moves { config: group.rows(i, &self.tables, name)?, every: group.every })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> OptimizerConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_first_group_that_fits_wins_and_the_rest_is_inherited() {
        let config = config(
            "[dense]\nl2 = 0.5\n[tables]\nmethod = \"adagrad\"\n\
             [[group]]\nnames = [\"a.*\"]\nmethod = \"sgd\"\nrate = 0.1\nevery = 2\n[[group]]\nnames = [\"*\"]\nl2 = 0.25",
        );
        config.check().unwrap();
        let moves = config.dense_moves("a.weight").unwrap();
        assert_eq!((moves.config.method, moves.config.rate, moves.config.l2), (DenseMethod::Sgd, 0.1, 0.5));
        assert_eq!([1, 2, 3, 4].map(|step| moves.update(step)), [None, Some(1), None, Some(2)]);
        let moves = config.dense_moves("b").unwrap();
        assert_eq!(
            (moves.config.method, moves.config.rate, moves.config.l2),
            (DenseMethod::Adam, 1e-3, 0.25)
        );
        assert_eq!(moves.update(7), Some(7));
        assert_eq!(config.rows_moves("a.table").unwrap().config.method, RowsMethod::Sgd);
        assert_eq!(config.rows_moves("b.table").unwrap().config.method, RowsMethod::Adagrad);
    }

    #[test]
    fn a_group_is_written_out_as_it_is_read() {
        let config = config("[[group]]\nnames = [\"a\"]\nrate = 0.1");
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("every = 1") && text.contains("[tables]"), "{text}");
        assert_eq!(toml::from_str::<OptimizerConfig>(&text).unwrap(), config);
    }

    #[test]
    fn values_out_of_range_are_told() {
        let told = |keys: &str| config(&format!("[[group]]\n{keys}")).check().unwrap_err().to_string();
        assert!(told("names = []").contains("optimizer.group.0.names: name at least one"));
        assert!(told("names = [\"a\"]\nevery = 0").contains("optimizer.group.0.every: must be at least 1"));
        for (key, value) in [("rate", "-1"), ("beta1", "1"), ("epsilon", "0"), ("weight_decay", "nan")] {
            let told = told(&format!("names = [\"a\"]\n{key} = {value}.0").replace("nan.0", "nan"));
            assert!(told.contains(&format!("optimizer.group.0.{key}: must be ")), "{told}");
        }
    }

    #[test]
    fn values_that_a_tensor_has_no_use_for_are_told() {
        let group = |keys: &str| config(&format!("[[group]]\nnames = [\"a\"]\n{keys}"));
        let dense = |keys: &str| group(keys).dense_moves("a").unwrap_err().to_string();
        let rows = |keys: &str| group(keys).rows_moves("a").unwrap_err().to_string();
        assert!(
            dense("method = \"adagrad\"").contains("group.0.method: adagrad is for tables, `a` is a dense")
        );
        assert!(
            dense("method = \"sgd\"\nbeta1 = 0.5").contains("group.0.beta1: the method of `a`, sgd, does")
        );
        assert!(rows("method = \"adagrad\"\nbeta2 = 0.5").contains("group.0.beta2"));
        assert!(rows("weight_decay = 0.1").contains("group.0.weight_decay: is for dense"));
        assert!(rows("method = \"adagrad\"\nepsilon = 0.1\nweight_decay = 0.1").contains("`a` is a table"));
        assert!(toml::from_str::<OptimizerConfig>("[[group]]\nnames = [\"a\"]\nrates = 1.0").is_err());
    }
}
