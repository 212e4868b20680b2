//! A chain of events (view, click, conversion), each trained over all rows through the product of the probabilities up to
//! it: the conversion after a click is never trained on clicked rows alone.
//!
//! X. Ma, L. Zhao, G. Huang, Z. Wang, Z. Hu, X. Zhu, K. Gai, *Entire Space Multi-Task Model: An Effective Approach for
//! Estimating Post-Click Conversion Rate*, SIGIR 2018 (two events).
//!
//! ```text
//! x_j = towers.c_j(x0)                [batch]    one tower a conditional probability, tables shared
//! q_j = sigmoid(x_j)                             event j given event j − 1
//! p_j = q_1 q_2 .. q_j                           event j: the output of task j
//! L   = Σ_j w_j mean BCE(y_1 & .. & y_j, p_j)    over all rows
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `towers.<c_j>.<i>.{weight,bias}`, by the names of the conditional probabilities,
//! which are outputs too. Tasks are the events in order; a label counts as 1 only where all before it do. No q_j but the
//! first has a loss of its own. The paper ends in a softmax of two, which is one logit. Others add a loss of conversion
//! over all rows, which teaches q_j = p_j, take conversions of rows without a click at face value, or multiply rounded
//! probabilities, which loses 1 − p_j where all q are close to 1.
//!
//! `scenario_heads`: a tower for each conditional probability and scenario, `towers.<c_j>.<scenario>.<i>.*`.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::mlp::MlpInput;
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BceOfProduct, Multiply, Sigmoid};
use manygate_graph::{Graph, Over};
use serde::{Deserialize, Serialize};

/// Configuration of esmm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Esmm {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    conditional: Vec<String>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Esmm {
    fn default() -> Self {
        Esmm {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            conditional: Vec::new(),
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 2] = [
    Key {
        name: "conditional",
        default: "[]",
        doc: "names of each task's probability given the one before; [] for click, buy: click, buy_given_click",
    },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "esmm",
    aliases: &[],
    relation: Relation::Cascade,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "a chain of events, a tower per conditional probability, losses of their products over all rows",
    paper: "X. Ma et al., \"Entire Space Multi-Task Model\", SIGIR 2018",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Esmm>(keys)?)),
};

impl Esmm {
    /// The names of the conditional probabilities, one a task.
    fn names(&self, inputs: &Inputs) -> Result<Vec<String>> {
        tasks::chain(inputs, ENTRY.name)?;
        let tasks: Vec<&str> = inputs.task_names().collect();
        if self.conditional.is_empty() {
            let given = tasks.windows(2).map(|pair| format!("{}_given_{}", pair[1], pair[0]));
            return Ok([tasks[0].to_owned()].into_iter().chain(given).collect());
        }
        let wrong = |message: String| Err(Error::config("model.conditional", message));
        if self.conditional.len() != tasks.len() {
            return wrong(format!(
                "has {} names for {} tasks: give one a task",
                self.conditional.len(),
                tasks.len()
            ));
        }
        for (j, name) in self.conditional.iter().enumerate() {
            let taken = self.conditional[..j].contains(name);
            if taken || tasks.iter().enumerate().any(|(t, task)| task == name && (t, j) != (0, 0)) {
                return wrong(format!("`{name}` is the name of another output: choose another"));
            }
        }
        Ok(self.conditional.clone())
    }
}

impl Architecture for Esmm {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let names = self.names(inputs)?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let prefixes: Vec<String> = names.iter().map(|name| format!("towers.{name}")).collect();
        let (x0, tower) = (MlpInput::Shared(x0), common.mlp(&self.tower_units));
        let logits = towers::named(g, inputs, &prefixes, x0, tower, self.scenario_heads)?;
        let mut product = None;
        for (j, (task, name)) in inputs.tasks.iter().zip(&names).enumerate() {
            let given = g.add(format!("probability.{name}"), Sigmoid, &[logits[j]])?;
            let reached = match product {
                None => given,
                Some(before) => g.add(format!("probability.{}", task.name), Multiply, &[before, given])?,
            };
            g.output(&task.name, reached);
            if *name != task.name {
                g.output(name, given);
            }
            product = Some(reached);
            if j == 0 {
                tasks::loss(g, task, 0, logits[0], &task.name)?;
            } else if g.is_training() {
                let part = g.loss(tasks::part(task, &task.name, Over::Rows))?;
                let loss = BceOfProduct::new(part, 0..j + 1);
                g.add(format!("loss.{}", task.name), loss, &logits[..=j])?;
            }
        }
        Ok(())
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Task;

    fn names(keys: &str, tasks: &[&str]) -> std::result::Result<Vec<String>, String> {
        let task = |name: &&str| Task::binary(*name);
        let inputs = Inputs { tasks: tasks.iter().map(task).collect(), ..Inputs::default() };
        let esmm: Esmm = config::parse(&keys.parse().unwrap()).unwrap();
        esmm.names(&inputs).map_err(|e| e.to_string())
    }

    #[test]
    fn conditional_probabilities_have_names_of_their_own() {
        let events = ["view", "click", "buy"];
        assert_eq!(names("", &events).unwrap(), ["view", "click_given_view", "buy_given_click"]);
        let named = "conditional = [\"view\", \"ctr\", \"cvr\"]";
        assert_eq!(names(named, &events).unwrap(), ["view", "ctr", "cvr"]);
        for (keys, told) in [
            ("conditional = [\"ctr\"]", "has 1 names for 3 tasks"),
            ("conditional = [\"a\", \"b\", \"b\"]", "`b` is the name of another output"),
            ("conditional = [\"a\", \"view\", \"b\"]", "`view` is the name of another output"),
            ("conditional = [\"a\", \"click\", \"b\"]", "`click` is the name of another output"),
        ] {
            let message = names(keys, &events).unwrap_err();
            assert!(message.contains("model.conditional: ") && message.contains(told), "{message}");
        }
        assert!(names("", &["click"]).unwrap_err().contains("list at least two"));
    }

    #[test]
    fn every_event_is_trained_over_all_rows() {
        let task = |name: &str, space| Task { space, ..Task::binary(name) };
        let inputs = Inputs { tasks: vec![task("click", None), task("buy", Some(0))], ..Inputs::default() };
        let message = Esmm::default().names(&inputs).unwrap_err().to_string();
        assert!(message.contains("esmm trains `buy` over all rows"), "{message}");
    }
}
