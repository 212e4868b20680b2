//! One model a scenario: every scenario has a whole network, tables too, which its own rows alone train. What models of
//! many scenarios are to be measured by.
//!
//! Each network is [`shared_bottom`](crate::shared_bottom) over the rows of a scenario, the "separate models" baseline
//! of X.-R. Sheng et al., CIKM 2021.
//!
//! ```text
//! x   = the trunk of the tables of the sample's scenario s
//! h   = bottom_s(x)             [batch, d]    activated to the end
//! z_t = tower_{t,s}(h)          [batch]       p_t = sigmoid(z_t)
//! L   = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<s>.<f>.weight`, `bottom.<s>.<i>.{weight,bias}`, `towers.<task>.<s>.<i>.{weight,bias}`. A row
//! computes its scenario's network alone. All networks are trained in one run and share its steps, so that a scenario
//! moves at those that have rows of it; the best validation is that of the run, not of each scenario.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::mlp::{MlpInput, Networks, mlps};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::Graph;
use manygate_graph::ops::{LookupTrunk, Piece};
use serde::{Deserialize, Serialize};

/// Configuration of single_scenario.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SingleScenario {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    bottom_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
}

impl Default for SingleScenario {
    fn default() -> Self {
        SingleScenario {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            bottom_units: vec![512, 256],
            tower_units: vec![128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 1] = [Key {
    name: "bottom_units",
    default: "[512, 256]",
    doc: "widths of each scenario's network below its towers",
}];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "single_scenario",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::Separate,
    summary: "a whole network per scenario, tables too",
    paper: "the separate models of X.-R. Sheng et al., CIKM 2021",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<SingleScenario>(keys)?)),
};

impl Architecture for SingleScenario {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let scenarios = scenario::scenarios(inputs)?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let mut pieces_of = |s: usize| -> Result<Vec<Piece>> {
            let table = |index: usize| {
                let table = &inputs.tables[index];
                let dim = table.dim.unwrap_or(self.embedding_dim);
                let name = format!("embedding.{s}.{}.weight", table.name);
                Ok((trunk::own_table(g, name, table.rows, dim, common.embedding)?, dim))
            };
            trunk::pieces(inputs, |_| true, table)
        };
        let pieces = (0..scenarios).map(&mut pieces_of).collect::<Result<Vec<_>>>()?;
        let x = g.add("trunk", LookupTrunk::by_scenario(pieces), &[])?;
        let bottoms = scenario::prefixes("bottom", scenarios);
        let bottoms = Networks::by_scenario(&bottoms, scenarios);
        let h = mlps(g, bottoms, MlpInput::Shared(x), common.mlp(&self.bottom_units))?;
        let logits = towers::of_tasks(g, inputs, MlpInput::Shared(h), common.mlp(&self.tower_units), true)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
