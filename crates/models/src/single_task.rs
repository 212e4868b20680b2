//! Nothing is shared: every task has a whole network, tables too. What the others are to be measured by.
//!
//! Each network is [`shared_bottom`](crate::shared_bottom) with one task, the "single-task" baseline of J. Ma et al.,
//! KDD 2018, and H. Tang et al., RecSys 2020.
//!
//! ```text
//! x_t = the trunk of task t's own tables
//! h_t = bottom_t(x_t)           [batch, d]    activated to the end
//! z_t = tower_t(h_t)            [batch]       p_t = sigmoid(z_t)
//! L   = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `<task>.embedding.<f>.weight`, `<task>.bottom.<i>.{weight,bias}`, `<task>.tower.<i>.{weight,bias}`. All
//! networks are trained in one run, and each takes the weights of its own best validation: one common step would be a
//! compromise that no task needs here, and the comparison with models that share would be unfair.
//!
//! `scenario_heads`: in each task's network a tower for each scenario, `<task>.tower.<scenario>.<i>.*`. A network for
//! each scenario is [`single_scenario`](crate::single_scenario).

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::{Inputs, Table};
use crate::layers::mlp::{MlpInput, mlp};
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::Graph;
use manygate_graph::ops::LookupTrunk;
use serde::{Deserialize, Serialize};

/// Configuration of single_task.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SingleTask {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    bottom_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for SingleTask {
    fn default() -> Self {
        SingleTask {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            bottom_units: vec![512, 256],
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 2] = [
    Key { name: "bottom_units", default: "[512, 256]", doc: "widths of each task's network below its tower" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "single_task",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::Separate,
    summary: "a whole network per task, tables too, each with its own best validation",
    paper: "the single-task baseline of J. Ma et al., KDD 2018, and H. Tang et al., RecSys 2020",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<SingleTask>(keys)?)),
};

impl Architecture for SingleTask {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        for (t, task) in inputs.tasks.iter().enumerate() {
            let prefix = own_prefix(&task.name);
            let table = |index: usize| {
                let Table { name, rows, dim } = &inputs.tables[index];
                let (name, dim) =
                    (format!("{prefix}embedding.{name}.weight"), dim.unwrap_or(self.embedding_dim));
                Ok((trunk::own_table(g, name, *rows, dim, common.embedding)?, dim))
            };
            let pieces = trunk::pieces(inputs, |_| true, table)?;
            let x = g.add(format!("{prefix}trunk"), LookupTrunk::new(pieces), &[])?;
            let h = mlp(g, &format!("{prefix}bottom"), x, common.mlp(&self.bottom_units))?;
            let (prefix, h, tower) =
                ([format!("{prefix}tower")], MlpInput::Shared(h), common.mlp(&self.tower_units));
            let logit = towers::named(g, inputs, &prefix, h, tower, self.scenario_heads)?[0];
            tasks::head(g, task, t, logit, &task.name)?;
        }
        Ok(())
    }

    fn own_prefix(&self, task: &str) -> Option<String> {
        Some(own_prefix(task))
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// What the names of everything that belongs to a task begin with.
fn own_prefix(task: &str) -> String {
    format!("{task}.")
}
