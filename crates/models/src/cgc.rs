//! Task-specific experts beside shared ones; a task's gate sees its own and the shared experts. One level of
//! [`ple`](crate::ple).
//!
//! H. Tang, J. Liu, M. Zhao, X. Gong, *Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
//! Personalized Recommendations*, RecSys 2020, section 4.1.
//!
//! ```text
//! a_{t,j} = experts.t.j(x0)             [batch, d]          j = 1..m_t
//! s_k     = experts.shared.k(x0)        [batch, d]          k = 1..m_s
//! w_t     = softmax(W_t x0)             [batch, m_t + m_s]  no bias in the paper
//! h_t     = w_t [a_{t,1} .. a_{t,m_t}, s_1 .. s_{m_s}]      own experts first
//! z_t     = towers.t(h_t)               [batch]             p_t = sigmoid(z_t)
//! L       = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `experts.<task>.<j>.<i>.{weight,bias}`, `experts.shared.<k>.<i>.*`,
//! `gates.<task>.weight` (`.bias`, `.hidden.<i>.*` as configured), `towers.<task>.<i>.*`. The first layer of all experts
//! and gates is one product, and no gate reads an expert that it does not see. Others keep a shared gate, whose
//! parameters get no gradient, or put the shared experts first, which permutes the gates' rows.
//!
//! `scenario_heads`: a gate and a tower for each task and scenario, `gates.<task>.<scenario>.*` and
//! `towers.<task>.<scenario>.<i>.*`, of which a row computes its own scenario's. All experts are those
//! of all scenarios.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::extraction::{Extraction, States};
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::GateStyle;
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of cgc.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cgc {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    task_experts: usize,
    shared_experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Cgc {
    fn default() -> Self {
        Cgc {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            task_experts: 1,
            shared_experts: 1,
            expert_units: vec![256],
            gate_bias: false,
            gate_units: Vec::new(),
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 6] = [
    Key { name: "task_experts", default: "1", doc: "experts of each task" },
    Key { name: "shared_experts", default: "1", doc: "experts of all tasks" },
    Key { name: "expert_units", default: "[256]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether gates have a bias (the paper's have none)" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of each gate (the paper's have none)" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "cgc",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "experts of each task and shared ones, a gate per task over its own and the shared, a tower per task",
    paper: "H. Tang et al., \"Progressive Layered Extraction (PLE)\", RecSys 2020",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Cgc>(keys)?)),
};

impl Architecture for Cgc {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let extraction = Extraction {
            task_experts: self.task_experts,
            shared_experts: self.shared_experts,
            expert: common.mlp(&self.expert_units),
            gate: GateStyle { bias: self.gate_bias, hidden },
            scenario_heads: self.scenario_heads,
        };
        extraction.check(inputs)?;
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let h = extraction.level(g, inputs, "", States::One(x0), false)?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
