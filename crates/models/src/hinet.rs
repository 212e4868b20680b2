//! Two levels of extraction: what scenarios have in common, the sample's own and the others, weighed by how near they
//! are, and on that experts of the tasks.
//!
//! J. Zhou, X. Cao, W. Li, L. Bo, K. Zhang, C. Luo, Q. Yu, *HiNet: Novel Multi-Scenario & Multi-Task Learning with
//! Hierarchical Information Extraction*, ICDE 2023.
//!
//! ```text
//! SEI(x) = Σ_k softmax(W_g x + b_g)_k Q_k(x)    [batch, u]    sub-experts, MLPs that a gate integrates
//! G      = SEI_shared(x0),  S_m = SEI_m(x0)                   m = 1..S, each for every row
//! A_i    = Σ_{m≠i} softmax over m≠i of (W_a scene_i + b_a)_m S_m      i the sample's scenario; "drop": softmax over
//!                                                             all m, of which i is left out
//! C_i    = [G ; S_i ; A_i]                      [batch, 3u]
//! T_κ    = Σ softmax(W_κ C + b_κ) [experts of κ ; common experts](C)      κ a task, or a task in a scenario
//! p_t    = sigmoid(towers.κ(T_κ)),  L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight` `[S, c]`; `shared.experts.<k>.<l>.*`, `shared.gate.*`;
//! `specific.<m>.experts.<k>.<l>.*`, `specific.<m>.gate.*`; `attention.{weight,bias}` `[S, c]`, `[S]`;
//! `common_experts.<k>.<l>.*`, `task_experts.<κ>.<k>.<l>.*`, `gates.<κ>.*`, `towers.<κ>.<l>.*`; κ is `<task>` or
//! `<task>_<scenario>`.
//!
//! Every sample asks every scenario's experts and moves them, as the paper means it: their first layers and gates are
//! one product. The logits of the attention exist once, a row a scenario. Where tasks have experts, gates and towers in
//! each scenario, a row passes through those of its own alone.
//!
//! In the authors' released code gates pass a ReLU before the softmax, which makes negative logits equal, and the
//! softmax of the second level runs over an axis of length 1, which sums the experts.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::linear::{Head, linear};
use crate::layers::mlp::{MlpInput, MlpStyle, Networks, mlps, mlps_with_heads};
use crate::layers::moe::{Gate, GateStyle, Readers, mixtures};
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{GateCombineSeen, ScenarioAttention};
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::gate::Seen;
use serde::{Deserialize, Serialize};

/// What the weights of the attention sum over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Attention {
    /// The other scenarios.
    Others,
    /// All scenarios; the own one's weight is dropped.
    Drop,
}

/// What has experts, a gate and a tower of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Extraction {
    /// Each task in each scenario.
    ScenarioTask,
    /// Each task.
    Task,
}

/// Configuration of hinet.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HiNet {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    scenario_dim: usize,
    shared_sub_experts: usize,
    sub_experts: usize,
    sub_units: Vec<usize>,
    attention: Attention,
    extraction: Extraction,
    task_experts: usize,
    common_experts: usize,
    expert_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
}

impl Default for HiNet {
    fn default() -> Self {
        HiNet {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            scenario_dim: 64,
            shared_sub_experts: 5,
            sub_experts: 5,
            sub_units: vec![128, 64],
            attention: Attention::Others,
            extraction: Extraction::ScenarioTask,
            task_experts: 2,
            common_experts: 2,
            expert_units: vec![128, 64],
            tower_units: vec![128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 11] = [
    Key {
        name: "scenario_dim",
        default: "64",
        doc: "width of the scenario's embedding, which the attention reads",
    },
    Key { name: "shared_sub_experts", default: "5", doc: "sub-experts of all scenarios" },
    Key { name: "sub_experts", default: "5", doc: "sub-experts of each scenario" },
    Key { name: "sub_units", default: "[128, 64]", doc: "widths of each sub-expert" },
    Key {
        name: "attention",
        default: "\"others\"",
        doc: "others: weights over the other scenarios; drop: over all, of which the own one's is left out",
    },
    Key {
        name: "extraction",
        default: "\"scenario_task\"",
        doc: "scenario_task or task: what has experts, a gate and a tower of its own",
    },
    Key { name: "task_experts", default: "2", doc: "experts of each of these" },
    Key { name: "common_experts", default: "2", doc: "experts that all of them see" },
    Key { name: "expert_units", default: "[128, 64]", doc: "widths of each expert" },
    Key { name: "tower_units", default: "[128, 64]", doc: "hidden widths of each tower" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "hinet",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::SoftSharing,
    summary: "experts of all scenarios, of the own one and, by attention, of the others; on them experts of the tasks",
    paper: "J. Zhou et al., \"HiNet: Novel Multi-Scenario & Multi-Task Learning with Hierarchical Information Extraction\", ICDE 2023",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<HiNet>(keys)?)),
};

impl Architecture for HiNet {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let scenarios = scenario::scenarios(inputs)?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let gate = GateStyle { bias: true, hidden: common.mlp(&[]) };
        let c = self.scenario_level(g, inputs, &common, x0, gate)?;
        let expert = common.mlp(&self.expert_units);
        let tower = common.mlp(&self.tower_units);
        let logits = match self.extraction {
            Extraction::Task => {
                let states = mixtures(g, &[self.readers_of_tasks(inputs, c)], expert, gate)?;
                towers::towers(g, inputs, MlpInput::Each(states), tower)?
            }
            Extraction::ScenarioTask => {
                let states = self.scenario_task_level(g, inputs, scenarios, c, expert)?;
                towers::of_scenarios(g, inputs, MlpInput::Each(states), tower)?
            }
        };
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl HiNet {
    fn check(&self) -> Result<()> {
        let counts = [
            ("scenario_dim", self.scenario_dim),
            ("shared_sub_experts", self.shared_sub_experts),
            ("sub_experts", self.sub_experts),
            ("task_experts", self.task_experts),
            ("common_experts", self.common_experts),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::config(format!("model.{key}"), "must be at least 1"));
        }
        let units = [("sub_units", &self.sub_units), ("expert_units", &self.expert_units)];
        match units.iter().find(|(_, units)| units.is_empty()) {
            Some((key, _)) => Err(Error::config(format!("model.{key}"), "experts need at least one layer")),
            None => Ok(()),
        }
    }

    /// C, `[batch, 3u]`.
    fn scenario_level(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        common: &Common,
        x0: Value,
        gate: GateStyle<'_>,
    ) -> Result<Value> {
        let scenarios = inputs.scenarios;
        let (mut experts, mut gates) = (Vec::new(), Vec::new());
        let specific = (0..scenarios).map(|m| (format!("specific.{m}"), self.sub_experts));
        for (prefix, count) in [("shared".to_owned(), self.shared_sub_experts)].into_iter().chain(specific) {
            let sees = (experts.len()..experts.len() + count).collect();
            gates.push(Gate::new(format!("{prefix}.gate"), sees));
            experts.extend((0..count).map(|k| format!("{prefix}.experts.{k}")));
        }
        let readers = Readers { input: x0, experts, gates };
        let groups = mixtures(g, &[readers], common.mlp(&self.sub_units), gate)?;
        let width = g.cols(groups) / (1 + scenarios);
        let shared = g.columns(groups, 0, width)?;
        let specific = g.columns(groups, width, scenarios * width)?;
        let scene = scenario::table(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        let logits = linear(g, "attention", scene, scenarios, Activation::Identity)?;
        let attention = match self.attention {
            Attention::Others => ScenarioAttention::new(scenarios),
            Attention::Drop => ScenarioAttention::new(scenarios).dropping(),
        };
        let own_and_others = g.add("own_and_others", attention, &[logits, specific])?;
        concat::concat(g, "scenario_level", &[shared, own_and_others])
    }

    /// The common experts, by name.
    fn common_experts(&self) -> impl Iterator<Item = String> {
        (0..self.common_experts).map(|k| format!("common_experts.{k}"))
    }

    /// What the gate of task number `t` sees: its own experts, then the common ones, behind those of all tasks.
    fn sees(&self, inputs: &Inputs, t: usize) -> Vec<usize> {
        let (own, all) = (self.task_experts, inputs.tasks.len() * self.task_experts);
        (t * own..(t + 1) * own).chain(all..all + self.common_experts).collect()
    }

    /// Experts and gates of the tasks, which are those of all scenarios.
    fn readers_of_tasks(&self, inputs: &Inputs, input: Value) -> Readers {
        let own = |task| (0..self.task_experts).map(move |k| format!("task_experts.{task}.{k}"));
        let experts = inputs.task_names().flat_map(own).chain(self.common_experts()).collect();
        let gates = inputs.task_names().enumerate();
        let gates = gates.map(|(t, task)| Gate::new(format!("gates.{task}"), self.sees(inputs, t)));
        Readers { input, experts, gates: gates.collect() }
    }

    /// The states of the tasks in the row's scenario, `[batch, tasks · d]`.
    fn scenario_task_level(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        scenarios: usize,
        c: Value,
        expert: MlpStyle<'_>,
    ) -> Result<Value> {
        let seen: Vec<Vec<usize>> = (0..inputs.tasks.len()).map(|t| self.sees(inputs, t)).collect();
        let (mut own, mut heads) = (Vec::new(), Vec::new());
        for s in 0..scenarios {
            for (task, sees) in inputs.task_names().zip(&seen) {
                own.extend((0..self.task_experts).map(|k| format!("task_experts.{task}_{s}.{k}")));
                heads.push(Head { prefix: format!("gates.{task}_{s}"), out: sees.len() });
            }
        }
        let own = Networks::by_scenario(&own, scenarios);
        let (experts, gates) = mlps_with_heads(g, own, c, expert, &heads, true)?;
        let common: Vec<String> = self.common_experts().collect();
        let common = mlps(g, &common, MlpInput::Shared(c), expert)?;
        let bank = concat::concat(g, "task_level.bank", &[experts, common])?;
        let experts = inputs.tasks.len() * self.task_experts + self.common_experts;
        let seen = Seen::new(experts, &seen).map_err(|message| Error::graph("task_level", message))?;
        g.add("task_level", GateCombineSeen::new(seen), &[gates, bank])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Task;

    #[test]
    fn what_cannot_be_built_is_told() {
        let message = |keys: &str| {
            let hinet: HiNet = config::parse(&keys.parse().unwrap()).unwrap();
            hinet.check().unwrap_err().to_string()
        };
        assert!(message("sub_experts = 0").contains("model.sub_experts: must be at least 1"));
        assert!(message("common_experts = 0").contains("model.common_experts: must be at least 1"));
        assert!(message("expert_units = []").contains("model.expert_units: experts need at least one layer"));
        let inputs = Inputs { tasks: vec![Task::binary("click")], ..Inputs::default() };
        let none = HiNet::default().build(&mut Graph::new(manygate_graph::Mode::Training), &inputs);
        assert!(none.unwrap_err().to_string().contains("the model needs scenarios"));
    }

    #[test]
    fn a_task_sees_its_own_experts_and_the_common_ones() {
        let hinet = HiNet { task_experts: 2, common_experts: 1, ..HiNet::default() };
        let inputs = Inputs { tasks: ["click", "buy"].map(Task::binary).to_vec(), ..Inputs::default() };
        assert_eq!(hinet.sees(&inputs, 0), [0, 1, 4]);
        assert_eq!(hinet.sees(&inputs, 1), [2, 3, 4]);
    }
}
