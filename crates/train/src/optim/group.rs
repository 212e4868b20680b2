//! How tensors move: the keys of a method, and which tensors have which.

use super::OptimizerConfig;
use super::method::{Kind, Method};
use manygate_core::{Error, Result};
use manygate_graph::Plan;
use manygate_graph::plan::matches;
use serde::{Deserialize, Serialize};

/// How some tensors move: those of `[optimizer.dense]`, `[optimizer.tables]`, or of one `[[optimizer.group]]`.
///
/// The first group that fits a tensor has it; the two sections have what no group names. A group that names a method
/// has that method's defaults for what it leaves out, one that names none has the method and the values of its section.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Of a group: patterns of parameter and table names (`towers.*`, `embedding.user_id.weight`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The method; adam where a section names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// They move at every so many steps: at steps 2, 4, 6 … with 2, at each one with 1, the default. The gradients of
    /// the other steps are left unused, and bias corrections count the updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Learning rate; of ftrl, α.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Share of the velocity that is kept (momentum).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Whether the gradient counts as if it were taken one step ahead (momentum).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// β of ftrl: damps the first steps of a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Decay of the first moment (adam, adamw).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Decay of the second moment (adam, adamw).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Keeps the quotient finite (adam, adamw, adagrad, rowwise_adagrad).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// λ₁ of ftrl: weights that matter little become exactly 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1: Option<f64>,
    /// L2 term: `l2 · w` is added to the gradient, of tables at the rows that a batch looks up alone. Of ftrl, λ₂.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<f64>,
    /// Decoupled weight decay: `rate · weight_decay · w` is subtracted (adamw, momentum).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// How a tensor moves, every value resolved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moves {
    /// The method.
    pub(super) method: Method,
    /// Values: all that the method reads are there.
    pub(super) config: GroupConfig,
    every: u64,
}

impl Moves {
    /// The number of its update, from 1, that falls on step `step`, from 1; [`None`] where it does not move.
    pub(super) fn update(&self, step: u64) -> Option<u64> {
        step.is_multiple_of(self.every).then_some(step / self.every)
    }
}

impl GroupConfig {
    /// A section that names its method.
    pub(super) fn of(method: Method) -> GroupConfig {
        GroupConfig { method: Some(method), ..GroupConfig::default() }
    }

    fn numbers(&mut self) -> [(&'static str, &mut Option<f64>); 9] {
        [
            ("rate", &mut self.rate),
            ("momentum", &mut self.momentum),
            ("beta", &mut self.beta),
            ("beta1", &mut self.beta1),
            ("beta2", &mut self.beta2),
            ("epsilon", &mut self.epsilon),
            ("l1", &mut self.l1),
            ("l2", &mut self.l2),
            ("weight_decay", &mut self.weight_decay),
        ]
    }

    /// The method of a section.
    fn method_of_section(&self) -> Method {
        self.method.unwrap_or(Method::Adam)
    }

    /// With every default of `method`.
    fn filled(&self, method: Method) -> GroupConfig {
        let mut filled = self.clone();
        filled.method = Some(method);
        filled.every.get_or_insert(1);
        let defaults = method.numbers();
        for (key, value) in filled.numbers() {
            let default = defaults.iter().find(|(name, _)| *name == key).map(|&(_, default)| default);
            *value = value.or(default);
        }
        if method.has_nesterov() {
            filled.nesterov.get_or_insert(false);
        }
        filled
    }

    /// With the values of `section` where it has none.
    fn over(&self, section: &GroupConfig) -> GroupConfig {
        let (mut own, mut theirs) = (self.clone(), section.clone());
        for ((_, value), (_, other)) in own.numbers().into_iter().zip(theirs.numbers()) {
            *value = value.or(*other);
        }
        own.nesterov = own.nesterov.or(section.nesterov);
        own
    }

    /// The section with every default written out.
    pub(super) fn resolved_section(&self) -> GroupConfig {
        self.filled(self.method_of_section())
    }

    /// The group with every default written out that does not come from its section.
    pub(super) fn resolved_group(&self) -> GroupConfig {
        match self.method {
            Some(method) => self.filled(method),
            None => GroupConfig { every: self.every.or(Some(1)), ..self.clone() },
        }
    }

    /// Checks a section `optimizer.<part>`.
    pub(super) fn check_section(&self, part: &str, kind: Kind) -> Result<()> {
        if !self.names.is_empty() {
            let message = "the section has all tensors that no group names; write an [[optimizer.group]]";
            return Err(Error::config(format!("optimizer.{part}.names"), message));
        }
        let method = self.method_of_section();
        let what = if kind == Kind::Dense { "the rest" } else { "each of these" };
        method.check_moves(kind, &format!("optimizer.{part}.method"), what)?;
        self.check_values(part)?;
        self.check_read(part, method)
    }

    /// Checks group number `group` without the tensors.
    pub(super) fn check_group(&self, group: usize) -> Result<()> {
        let part = format!("group.{group}");
        if self.names.is_empty() {
            let message = "name at least one tensor or pattern";
            return Err(Error::config(format!("optimizer.{part}.names"), message));
        }
        self.check_values(&part)?;
        self.method.map_or(Ok(()), |method| self.check_read(&part, method))
    }

    /// Checks the ranges of its values.
    fn check_values(&self, part: &str) -> Result<()> {
        let wrong = |key: &str, message: &str| Err(Error::config(format!("optimizer.{part}.{key}"), message));
        if self.every == Some(0) {
            return wrong("every", "must be at least 1");
        }
        for (key, value) in self.clone().numbers() {
            let Some(value) = *value else { continue };
            let (holds, message) = match key {
                "beta1" | "beta2" | "momentum" => {
                    ((0.0..1.0).contains(&value), "must be at least 0 and below 1")
                }
                "epsilon" | "beta" => (value.is_finite() && value > 0.0, "must be above 0"),
                _ => (value.is_finite() && value >= 0.0, "must be a number of at least 0"),
            };
            if !holds {
                return wrong(key, message);
            }
        }
        Ok(())
    }

    /// That `method` reads every value that is given: one without effect is a mistake.
    fn check_read(&self, part: &str, method: Method) -> Result<()> {
        let reads = |key: &str| method.numbers().iter().any(|(name, _)| *name == key);
        let mut given = self.clone();
        let given = given.numbers();
        let unread = given.iter().find(|(key, value)| value.is_some() && !reads(key)).map(|(key, _)| *key);
        let nesterov = (self.nesterov.is_some() && !method.has_nesterov()).then_some("nesterov");
        match unread.or(nesterov) {
            Some(key) => Err(Error::config(format!("optimizer.{part}.{key}"), method.instead_of(key))),
            None => Ok(()),
        }
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
            let wrong =
                |key: &str, message| Err(Error::config(format!("optimizer.group.{i}.{key}"), message));
            let fits = |pattern: &str| dense.iter().chain(&tables).any(|name| matches(pattern, name));
            if let Some(pattern) = group.names.iter().find(|pattern| !fits(pattern)) {
                let message =
                    format!("`{pattern}` fits no parameter; `manygate inspect RUN` lists the names");
                return wrong("names", message);
            }
            let has = |name: &&&str| self.group_of(name) == Some(i);
            let (parameter, table) = (dense.iter().find(has), tables.iter().find(has));
            if let (None, Some(parameter), Some(table)) = (group.method, parameter, table) {
                let both = Method::names_for(&[Kind::Dense, Kind::Table]);
                let message = format!(
                    "the group has the table `{table}` and the dense parameter `{parameter}`: name a method that \
                     both know, one of: {both}"
                );
                return wrong("method", message);
            }
        }
        dense.iter().try_for_each(|name| self.moves(name, Kind::Dense).map(drop))?;
        tables.iter().try_for_each(|name| self.moves(name, Kind::Table).map(drop))
    }

    /// Number of the group that has the tensor `name`.
    fn group_of(&self, name: &str) -> Option<usize> {
        self.group.iter().position(|group| group.names.iter().any(|pattern| matches(pattern, name)))
    }

    /// How the tensor `name` moves.
    ///
    /// # Errors
    /// When its group's method does not move tensors of this kind or does not read a value of the group.
    pub(super) fn moves(&self, name: &str, kind: Kind) -> Result<Moves> {
        let (section, own) = match kind {
            Kind::Dense => (&self.dense, "dense"),
            Kind::Table => (&self.tables, "tables"),
        };
        let (config, method, part) = match self.group_of(name) {
            None => (section.clone(), section.method_of_section(), own.to_owned()),
            Some(i) => {
                let (group, part) = (&self.group[i], format!("group.{i}"));
                let method = group.method.unwrap_or_else(|| section.method_of_section());
                method.check_moves(kind, &format!("optimizer.{part}.method"), &format!("`{name}`"))?;
                group.check_read(&part, method)?;
                let inherits = group.method.is_none();
                (if inherits { group.over(section) } else { group.clone() }, method, part)
            }
        };
        let config = config.filled(method);
        if method == Method::Ftrl && config.rate == Some(0.0) {
            let message = "must be above 0: ftrl divides by it; train.freeze keeps tensors as they are";
            return Err(Error::config(format!("optimizer.{part}.rate"), message));
        }
        Ok(Moves { method, every: config.every.unwrap_or(1), config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> OptimizerConfig {
        text.parse().unwrap()
    }

    fn dense(config: &OptimizerConfig, name: &str) -> Moves {
        config.moves(name, Kind::Dense).unwrap()
    }

    #[test]
    fn the_first_group_that_fits_wins() {
        let config = config(
            "[dense]\nl2 = 0.5\nrate = 0.25\n[tables]\nmethod = \"rowwise_adagrad\"\n\
             [[group]]\nnames = [\"a.*\"]\nmethod = \"sgd\"\nevery = 2\n[[group]]\nnames = [\"*\"]\nl2 = 0.125",
        );
        config.check().unwrap();
        let moves = dense(&config, "a.weight");
        assert_eq!([1, 2, 3, 4].map(|step| moves.update(step)), [None, Some(1), None, Some(2)]);
        // With a method of its own, it has that method's defaults; without one, the section's values.
        assert_eq!((moves.method, moves.config.rate, moves.config.l2), (Method::Sgd, Some(1e-3), Some(0.0)));
        let moves = dense(&config, "b");
        assert_eq!((moves.method, moves.config.rate), (Method::Adam, Some(0.25)));
        assert_eq!((moves.config.l2, moves.config.beta1, moves.update(7)), (Some(0.125), Some(0.9), Some(7)));
        let table = |name| config.moves(name, Kind::Table).unwrap();
        assert_eq!(table("a.table").method, Method::Sgd);
        let moves = table("b.table");
        assert_eq!((moves.method, moves.config.rate), (Method::RowwiseAdagrad, Some(1e-2)));
    }

    #[test]
    fn defaults_are_written_out_and_mean_the_same() {
        let config = config(
            "[dense]\nmethod = \"momentum\"\nmomentum = 0.5\n[[group]]\nnames = [\"a\"]\nrate = 0.1\n\
             [[group]]\nnames = [\"b\"]\nmethod = \"adamw\"",
        );
        let text = toml::to_string(&config.resolved()).unwrap();
        for line in ["every = 1", "nesterov = false", "[tables]", "beta2 = 0.999", "weight_decay = 0.01"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let read: OptimizerConfig = text.parse().unwrap();
        read.check().unwrap();
        assert_eq!(read.resolved(), read);
        for name in ["a", "b", "c"] {
            let values =
                |config: &OptimizerConfig| GroupConfig { names: vec![], ..dense(config, name).config };
            assert_eq!(values(&read), values(&config));
        }
        assert_eq!(dense(&read, "a").config.momentum, Some(0.5));
    }

    #[test]
    fn values_out_of_range_are_told() {
        let told = |keys: &str| config(&format!("[[group]]\n{keys}")).check().unwrap_err().to_string();
        assert!(told("names = []").contains("optimizer.group.0.names: name at least one"));
        assert!(told("names = [\"a\"]\nevery = 0").contains("optimizer.group.0.every: must be at least 1"));
        for (key, value) in [
            ("rate", "-1"),
            ("beta1", "1"),
            ("momentum", "1"),
            ("epsilon", "0"),
            ("beta", "0"),
            ("l1", "nan"),
        ] {
            let told = told(&format!("names = [\"a\"]\n{key} = {value}.0").replace("nan.0", "nan"));
            assert!(told.contains(&format!("optimizer.group.0.{key}: must be ")), "{told}");
        }
        let section = |text: &str| config(text).check().unwrap_err().to_string();
        assert!(section("[dense]\nevery = 0").contains("optimizer.dense.every: must be at least 1"));
        assert!(section("[tables]\nnames = [\"a\"]").contains("optimizer.tables.names: the section has all"));
    }

    #[test]
    fn values_that_a_method_does_not_read_are_told() {
        let section = |text: &str| config(text).check().unwrap_err().to_string();
        for (keys, told) in [
            (
                "weight_decay = 0.1",
                "weight_decay: adam does not read it, but rate, beta1, beta2, epsilon, l2",
            ),
            ("weight_decay = 0.1", "; decoupled decay is the method adamw"),
            ("method = \"adamw\"\nl2 = 0.1", "; an l2 term in the gradient is the method adam"),
            (
                "method = \"sgd\"\nweight_decay = 0.1",
                "weight_decay: sgd does not read it, but rate, l2; for it",
            ),
            ("method = \"sgd\"\nnesterov = true", "nesterov: sgd does not read it"),
            ("method = \"adagrad\"\nbeta2 = 0.5", "beta2: adagrad does not read it, but rate, epsilon, l2"),
            (
                "method = \"momentum\"\nl1 = 0.5",
                "l1: momentum does not read it, but rate, momentum, l2, weight_decay, nesterov",
            ),
            (
                "method = \"ftrl\"",
                "method: ftrl is for tables, and the rest is dense; use one of: adagrad, adam, adamw",
            ),
        ] {
            let told_here = section(&format!("[dense]\n{keys}"));
            assert!(told_here.contains(told) && told_here.contains("optimizer.dense."), "{told_here}");
        }
        let told = section("[tables]\nmethod = \"momentum\"");
        assert!(
            told.contains("momentum is for dense parameters") && told.contains("ftrl, rowwise_adagrad"),
            "{told}"
        );

        // A group without a method has that of its section.
        let group = config("[[group]]\nnames = [\"a\"]\nmomentum = 0.5");
        group.check().unwrap();
        let told = group.moves("a", Kind::Dense).unwrap_err().to_string();
        assert!(told.contains("optimizer.group.0.momentum: adam does not read it"), "{told}");
        for (text, part) in [("[tables]", "tables"), ("[[group]]\nnames = [\"a\"]", "group.0")] {
            let still = config(&format!("{text}\nmethod = \"ftrl\"\nrate = 0"));
            let told = still.moves("a", Kind::Table).unwrap_err().to_string();
            assert!(
                told.contains(&format!("optimizer.{part}.rate: must be above 0: ftrl divides")),
                "{told}"
            );
        }
        let group = config("[[group]]\nnames = [\"a\"]\nmethod = \"ftrl\"");
        let told = group.moves("a", Kind::Dense).unwrap_err().to_string();
        assert!(told.contains("optimizer.group.0.method: ftrl is for tables, and `a` is dense"), "{told}");
        assert!("[[group]]\nnames = [\"a\"]\nrates = 1.0".parse::<OptimizerConfig>().is_err());
    }
}
