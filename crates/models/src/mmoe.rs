//! Shared experts, one gate per task: tasks that conflict learn to use different experts.
//!
//! J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. H. Chi, *Modeling Task Relationships in Multi-task Learning with
//! Multi-gate Mixture-of-Experts*, KDD 2018.
//!
//! ```text
//! f_e = experts.e(x0)             [batch, d]    e = 1..E, identical MLPs
//! g^t = softmax(W_t x0)           [batch, E]    W_t [E, |x0|]: no bias, no hidden layer in the paper
//! h_t = Σ_e g^t_e f_e             [batch, d]
//! z_t = towers.t(h_t)             [batch]       p_t = sigmoid(z_t)
//! L   = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `experts.<e>.<i>.{weight,bias}`, `gates.<task>.weight` (`.bias`,
//! `.hidden.<i>.*` as configured), `towers.<task>.<i>.{weight,bias}`. The first layer of all experts and all gates is
//! one product; all gates mix the bank in one pass. Others share one gate by accident (that is OMoE), give it a bias
//! without saying so, or leave experts linear, whose mixture is then one linear map per row.
//!
//! Beyond the paper: `dropout` in experts and towers. `top_k`: a gate's softmax is over its k largest logits, of equal ones
//! the first, and the others weigh 0 (N. Shazeer et al., ICLR 2017, without noise). `gate_dropout` against gates that
//! collapse on one expert: in training each weight is dropped and the rest renormalised, and where all of a gate would be
//! dropped, all stay (Z. Zhao et al., *Recommending What Video to Watch Next*, RecSys 2019); with `top_k`, of the k.
//! Experts that one task alone uses (R. Aoki, F. Tung, G. L. Oliveira, *Heterogeneous Multi-task Learning with Expert
//! Diversity*, 2021, who choose them by chance) are no option here: reserved for tasks by number, they are the customised
//! gate control of H. Tang et al., RecSys 2020.
//!
//! `scenario_heads`: a gate and a tower for each task and scenario, `gates.<task>.<scenario>.*` and
//! `towers.<task>.<scenario>.<i>.*`, of which a row computes its own scenario's.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::{Choice, GateStyle, all_see_all, mixtures_of_all};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of mmoe.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mmoe {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    top_k: usize,
    gate_dropout: f64,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Mmoe {
    fn default() -> Self {
        Mmoe {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            experts: 8,
            expert_units: vec![512, 256],
            gate_bias: false,
            gate_units: Vec::new(),
            top_k: 0,
            gate_dropout: 0.0,
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 7] = [
    Key { name: "experts", default: "8", doc: "number of shared experts" },
    Key { name: "expert_units", default: "[512, 256]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether gates have a bias (the paper's have none)" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of each gate (the paper's have none)" },
    Key {
        name: "top_k",
        default: "0",
        doc: "number of experts that a gate weighs in a row, those with the largest logits; 0 for all",
    },
    Key {
        name: "gate_dropout",
        default: "0.0",
        doc: "probability in training of a gate's weight to be dropped, the others renormalised, in [0, 1)",
    },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "mmoe",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "shared experts, one softmax gate per task, a tower per task",
    paper: "J. Ma et al., \"Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts\", KDD 2018",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Mmoe>(keys)?)),
};

impl Architecture for Mmoe {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        if self.experts == 0 {
            return Err(Error::config("model.experts", "must be at least 1"));
        }
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let experts = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        let gates = inputs.task_names().map(|t| format!("gates.{t}")).collect();
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let choice = Choice { top_k: self.top_k, dropout: self.gate_dropout };
        let scenarios = scenario::of_heads(inputs, self.scenario_heads)?;
        let readers = all_see_all(x0, experts, gates).by_scenario(scenarios);
        let h = mixtures_of_all(g, &readers, common.mlp(&self.expert_units), gate, choice)?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
