//! Experts under all tasks, mixed by one gate that all of them share (OMoE).
//!
//! R. A. Jacobs, M. I. Jordan, S. J. Nowlan, G. E. Hinton, *Adaptive Mixtures of Local Experts*, Neural Computation 3,
//! 1991; for several tasks the "OMoE" baseline of J. Ma et al., *Modeling Task Relationships in Multi-task Learning with
//! Multi-gate Mixture-of-Experts*, KDD 2018.
//!
//! ```text
//! f_e = experts.e(x0)           [batch, d]    e = 1..E, identical MLPs
//! g   = softmax(W x0)           [batch, E]    one gate for all tasks: no bias, no hidden layer in the paper
//! h   = Σ_e g_e f_e             [batch, d]
//! z_t = towers.t(h)             [batch]       p_t = sigmoid(z_t)
//! L   = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `experts.<e>.<i>.{weight,bias}`, `gate.weight` `[E, |x0|]` (`.bias`,
//! `.hidden.<i>.*` as configured), `towers.<task>.<i>.{weight,bias}`. The loss is that of the mixture, under which experts
//! cooperate; the paper of 1991 mixes likelihoods, under which they compete for samples. Others take the softmax over
//! the wrong axis of stacked experts, or let the gate read something else than x0; both train.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::{GateStyle, all_see_all, mixtures};
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of moe.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moe {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
}

impl Default for Moe {
    fn default() -> Self {
        Moe {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            experts: 8,
            expert_units: vec![512, 256],
            gate_bias: false,
            gate_units: Vec::new(),
            tower_units: vec![128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 4] = [
    Key { name: "experts", default: "8", doc: "number of experts" },
    Key { name: "expert_units", default: "[512, 256]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether the gate has a bias (the paper's has none)" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of the gate (the paper's has none)" },
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "moe",
    aliases: &["omoe"],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "experts, one softmax gate for all tasks, a tower per task",
    paper: "R. A. Jacobs et al., \"Adaptive Mixtures of Local Experts\", Neural Computation 3, 1991",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Moe>(keys)?)),
};

impl Architecture for Moe {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        if self.experts == 0 {
            return Err(Error::config("model.experts", "must be at least 1"));
        }
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let experts = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let readers = [all_see_all(x0, experts, vec!["gate".to_owned()])];
        let h = mixtures(g, &readers, common.mlp(&self.expert_units), gate)?;
        let logits = towers::towers(g, inputs, MlpInput::Shared(h), common.mlp(&self.tower_units))?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
