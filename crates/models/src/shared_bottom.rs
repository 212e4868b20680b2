//! Hard parameter sharing: one network under all tasks, a small tower per task on top.
//!
//! R. Caruana, *Multitask Learning*, Machine Learning 28, 1997.
//!
//! ```text
//! h   = bottom(x0)       [batch, d]    activated to the end
//! z_t = towers.t(h)      [batch]       p_t = sigmoid(z_t)
//! L   = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `bottom.<i>.{weight,bias}`, `towers.<task>.<i>.{weight,bias}`. The bottom runs
//! backward once, on the sum of the towers' gradients. Others leave the last bottom layer linear, or start all towers
//! equal; here both bottoms end activated and each tower has its own random numbers.
//!
//! `scenario_heads`: a tower for each task and scenario, `towers.<task>.<scenario>.<i>.*`, of which a row computes its
//! own scenario's. Without it a scenario is what its column tells as a feature.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::{mlp, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of shared_bottom.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharedBottom {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    bottom_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for SharedBottom {
    fn default() -> Self {
        SharedBottom {
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
    Key { name: "bottom_units", default: "[512, 256]", doc: "widths of the shared network" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "shared_bottom",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "one network under all tasks, a tower per task",
    paper: "R. Caruana, \"Multitask Learning\", Machine Learning 28, 1997",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<SharedBottom>(keys)?)),
};

impl Architecture for SharedBottom {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let h = mlp::mlp(g, "bottom", x0, common.mlp(&self.bottom_units))?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, mlp::MlpInput::Shared(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
