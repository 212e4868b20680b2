//! Levels of task-specific and shared experts: every task keeps a state of its own, a shared state is carried beside them,
//! and what they know is separated level by level.
//!
//! H. Tang, J. Liu, M. Zhao, X. Gong, *Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
//! Personalized Recommendations*, RecSys 2020.
//!
//! ```text
//! q_t, q_s                                             the states; at level 0 all of them are x0
//! a_{t,j} = experts.t.j(q_t)        [batch, d_l]       j = 1..m_t
//! s_k     = experts.shared.k(q_s)   [batch, d_l]       k = 1..m_s
//! q_t'    = softmax(W_t q_t) [a_{t,1} .. a_{t,m_t}, s_1 .. s_{m_s}]
//! q_s'    = softmax(W_s q_s) [a_{1,1} .. a_{T,m_T}, s_1 .. s_{m_s}]    not at the last level
//! z_t     = towers.t(q_t')          [batch]            p_t = sigmoid(z_t)
//! L       = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `levels.<l>.experts.<task>.<j>.<i>.{weight,bias}`,
//! `levels.<l>.experts.shared.<k>.<i>.*`, `levels.<l>.gates.<task>.weight`, `levels.<l>.gates.shared.weight` (`.bias`,
//! `.hidden.<i>.*` as configured), `towers.<task>.<i>.*`. The paper's task weights change with the epoch; here they are
//! the configuration's. Others feed upper gates with x0, let the shared gate see the shared experts alone, keep it at
//! the last level, where it gets no gradient, or overwrite a state that other modules of the level still read.
//!
//! `scenario_heads`: a gate and a tower for each task and scenario, `levels.<l>.gates.<task>.<scenario>.*` and
//! `towers.<task>.<scenario>.<i>.*`, of which a row computes its own scenario's. The shared gate and all
//! experts are those of all scenarios.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::extraction::{Extraction, States};
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::GateStyle;
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Widths of experts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "`expert_units` must be a list of widths, or a list of such lists, one a level"
)]
enum ExpertUnits {
    /// The same at every level.
    Alike(Vec<usize>),
    /// A list a level.
    ByLevel(Vec<Vec<usize>>),
}

/// Configuration of ple.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ple {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    levels: usize,
    task_experts: usize,
    shared_experts: usize,
    expert_units: ExpertUnits,
    gate_bias: bool,
    gate_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Ple {
    fn default() -> Self {
        Ple {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            levels: 2,
            task_experts: 1,
            shared_experts: 1,
            expert_units: ExpertUnits::Alike(vec![256]),
            gate_bias: false,
            gate_units: Vec::new(),
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 7] = [
    Key { name: "levels", default: "2", doc: "number of levels; with 1 it is cgc" },
    Key { name: "task_experts", default: "1", doc: "experts of each task at every level" },
    Key { name: "shared_experts", default: "1", doc: "experts of all tasks at every level" },
    Key {
        name: "expert_units",
        default: "[256]",
        doc: "widths of each expert; or a list of widths a level, as in [[256, 128], [64]]",
    },
    Key { name: "gate_bias", default: "false", doc: "whether gates have a bias (the paper's have none)" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of each gate (the paper's have none)" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "ple",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "levels of task-specific and shared experts with gates, a tower per task",
    paper: "H. Tang et al., \"Progressive Layered Extraction (PLE)\", RecSys 2020",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Ple>(keys)?)),
};

impl Ple {
    /// Widths of the experts, level by level.
    fn units(&self) -> Result<Vec<&[usize]>> {
        match &self.expert_units {
            _ if self.levels == 0 => Err(Error::config("model.levels", "must be at least 1")),
            ExpertUnits::Alike(units) => Ok(vec![units; self.levels]),
            ExpertUnits::ByLevel(units) if units.len() == self.levels => {
                Ok(units.iter().map(Vec::as_slice).collect())
            }
            ExpertUnits::ByLevel(units) => {
                let message = format!(
                    "has {} lists of widths for {} levels: give one a level",
                    units.len(),
                    self.levels
                );
                Err(Error::config("model.expert_units", message))
            }
        }
    }
}

impl Architecture for Ple {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let mut states = States::One(trunk::trunk(g, inputs, common.embedding)?);
        for (l, units) in self.units()?.into_iter().enumerate() {
            let extraction = Extraction {
                task_experts: self.task_experts,
                shared_experts: self.shared_experts,
                expert: common.mlp(units),
                gate,
                scenario_heads: self.scenario_heads,
            };
            extraction.check(inputs)?;
            let prefix = format!("levels.{l}.");
            states = States::Each(extraction.level(g, inputs, &prefix, states, l + 1 < self.levels)?);
        }
        let (States::One(h) | States::Each(h)) = states;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(keys: &str) -> std::result::Result<Vec<Vec<usize>>, String> {
        let ple: Ple = config::parse(&keys.parse().unwrap()).map_err(|e| e.to_string())?;
        let units = ple.units().map_err(|e| e.to_string())?;
        Ok(units.into_iter().map(<[usize]>::to_vec).collect())
    }

    #[test]
    fn widths_are_one_list_or_one_a_level() {
        assert_eq!(units("expert_units = [8, 4]"), Ok(vec![vec![8, 4]; 2]));
        assert_eq!(units("levels = 3\nexpert_units = [[8, 4], [6], [2]]").unwrap()[1..], [vec![6], vec![2]]);
        let message = units("expert_units = [[8], [6], [2]]").unwrap_err();
        assert!(message.contains("model.expert_units: has 3 lists of widths for 2 levels"), "{message}");
        let message = units("expert_units = \"wide\"").unwrap_err();
        assert!(message.contains("must be a list of widths, or a list of such lists"), "{message}");
        assert!(units("levels = 0").unwrap_err().contains("model.levels: must be at least 1"));
    }
}
