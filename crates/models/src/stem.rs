//! Tables of every task beside the shared ones; gates read all experts, and a task's loss trains its own and the shared
//! ones alone.
//!
//! L. Su, J. Pan, X. Wang, X. Xiao, S. Quan, X. Chen, J. Jiang, *STEM: Unleashing the Power of Embeddings for Multi-Task
//! Recommendation*, AAAI 2024.
//!
//! ```text
//! q_s, q_t                                             at level 0 the trunk of the shared tables, and of task t's
//! a_{t,j} = experts.t.j(q_t)        s_k = experts.shared.k(q_s)                    [batch, d]
//! S_t     = [b_{1,*} .. b_{T,*}, s_*]                  b_{u,j} = a_{u,j} if u = t, else a_{u,j} detached
//! q_t'    = softmax(W_t (q_t + q_s)) S_t
//! q_s'    = softmax(W_s q_s) [a_{1,*} .. a_{T,*}, s_*]                              not at the last level
//! z_t     = towers.t(q_t')          p_t = sigmoid(z_t)             L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `task_embedding.<task>.<f>.weight`, `levels.<l>.experts.<task>.<j>.<i>.*`,
//! `levels.<l>.experts.shared.<k>.<i>.*`, `levels.<l>.gates.{<task>,shared}.weight` (`.bias`, `.hidden.<i>.*` as configured),
//! `towers.<task>.<i>.*`. Tables take T + 1 times the memory. With one level a loss reaches the tables of its task and the
//! shared ones, and no others; with more, every task's lower experts through q_s'. Only the experts' values are detached:
//! gates learn what foreign experts are worth, and pass gradients to q_t and q_s. Others detach the mixture, the shared
//! experts or the shared tables, or select by q_t alone.
//!
//! `scenario_heads`: a gate at each level and a tower for each task and scenario, `levels.<l>.gates.<task>.<scenario>.*` and
//! `towers.<task>.<scenario>.<i>.*`, of which a row computes its own scenario's; the shared gate is that of all.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::{Inputs, Table};
use crate::layers::concat::concat;
use crate::layers::extraction::{Extraction, SHARED};
use crate::layers::mlp::{MlpInput, MlpStyle, mlps};
use crate::layers::moe::{Gate, GateStyle, check_experts, gate_logits, show_gates};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Alias, Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Add, GateCombineSeen, LookupTrunk};
use manygate_graph::{Graph, Value};
use manygate_kernels::gate::Seen;
use serde::{Deserialize, Serialize};

/// Configuration of stem.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stem {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    levels: usize,
    task_experts: usize,
    shared_experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Stem {
    fn default() -> Self {
        Stem {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            levels: 1,
            task_experts: 1,
            shared_experts: 1,
            expert_units: vec![512, 256, 128],
            gate_bias: true,
            gate_units: vec![128, 64],
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 7] = [
    Key { name: "levels", default: "1", doc: "number of levels" },
    Key { name: "task_experts", default: "1", doc: "experts of each task at every level" },
    Key { name: "shared_experts", default: "1", doc: "experts of all tasks at every level" },
    Key { name: "expert_units", default: "[512, 256, 128]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "true", doc: "whether gates have a bias" },
    Key { name: "gate_units", default: "[128, 64]", doc: "hidden widths of each gate" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "stem",
    aliases: &[Alias {
        name: "stem_net",
        summary: "the network of the STEM paper, STEM-Net",
        paper: "L. Su et al., \"STEM: Unleashing the Power of Embeddings for Multi-Task Recommendation\", AAAI 2024",
        preset: None,
    }],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "tables and experts per task beside shared ones; a gate reads all and trains its own and the shared",
    paper: "L. Su et al., \"STEM: Unleashing the Power of Embeddings for Multi-Task Recommendation\", AAAI 2024",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Stem>(keys)?)),
};

impl Architecture for Stem {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let expert = common.mlp(&self.expert_units);
        let &Stem { task_experts, shared_experts, scenario_heads, .. } = self;
        let level = Extraction { task_experts, shared_experts, expert, gate, scenario_heads };
        level.check(inputs)?;
        check_experts(expert)?;
        if self.levels == 0 {
            return Err(Error::config("model.levels", "must be at least 1"));
        }
        let mut states = trunks(g, inputs, &common)?;
        let mut mixed = states[0];
        for l in 0..self.levels {
            let shared_gate = l + 1 < self.levels;
            mixed = mixtures(g, inputs, &format!("levels.{l}."), level, &states, shared_gate)?;
            if shared_gate {
                let width = g.cols(mixed) / states.len();
                for (number, state) in states.iter_mut().enumerate() {
                    *state = g.columns(mixed, number * width, width)?;
                }
            }
        }
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(mixed), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// The trunk of each task's tables, then that of the shared ones.
fn trunks(g: &mut Graph, inputs: &Inputs, common: &Common) -> Result<Vec<Value>> {
    let mut trunks = Vec::with_capacity(inputs.tasks.len() + 1);
    for task in inputs.task_names() {
        let table = |index: usize| {
            let Table { name, rows, dim } = &inputs.tables[index];
            let (name, dim) =
                (format!("task_embedding.{task}.{name}.weight"), dim.unwrap_or(common.embedding.dim));
            Ok((trunk::own_table(g, name, *rows, dim, common.embedding)?, dim))
        };
        let pieces = trunk::pieces(inputs, |_| true, table)?;
        trunks.push(g.add(format!("trunk.{task}"), LookupTrunk::new(pieces), &[])?);
    }
    trunks.push(trunk::trunk(g, inputs, common.embedding)?);
    Ok(trunks)
}

/// The next states of the tasks, and the shared one where it has a gate, side by side.
fn mixtures(
    g: &mut Graph,
    inputs: &Inputs,
    prefix: &str,
    level: Extraction<'_>,
    states: &[Value],
    shared_gate: bool,
) -> Result<Value> {
    let scenarios = scenario::of_heads(inputs, level.scenario_heads)?;
    let tasks = inputs.tasks.len();
    let all = tasks * level.task_experts + level.shared_experts;
    let (mut banks, mut logits, mut names, mut gates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, module) in inputs.task_names().chain([SHARED]).enumerate() {
        let is_task = number < tasks;
        let count = if is_task { level.task_experts } else { level.shared_experts };
        let experts: Vec<String> = (0..count).map(|j| format!("{prefix}experts.{module}.{j}")).collect();
        banks.push(mlps(g, &experts, MlpInput::Shared(states[number]), level.expert)?);
        names.extend(experts);
        if is_task || shared_gate {
            let name = format!("{prefix}gates.{module}");
            let selector = match is_task {
                true => g.add(format!("{name}.selector"), Add::new(2), &[states[number], states[tasks]])?,
                false => states[tasks],
            };
            let scenarios = scenarios.filter(|_| is_task);
            let gate = Gate { prefix: name, sees: (0..all).collect(), scenarios };
            logits.extend(gate_logits(g, selector, std::slice::from_ref(&gate), level.gate)?);
            gates.push(gate);
        }
    }
    let bank = concat(g, "bank", &banks)?;
    let logits = concat(g, "gates", &logits)?;
    show_gates(g, &gates.iter().collect::<Vec<_>>(), &names, [logits, bank], 0)?;
    let sees: Vec<Vec<usize>> = gates.iter().map(|gate| gate.sees.clone()).collect();
    // A gate weighs the experts of other tasks and does not train them.
    let foreign = |gate: usize, expert: usize| {
        let owner = expert / level.task_experts;
        gate < tasks && owner < tasks && owner != gate
    };
    let seen =
        Seen::reading_apart(all, &sees, foreign).map_err(|message| Error::graph("mixtures", message))?;
    let mut read = vec![logits, bank];
    if seen.has_apart() {
        read.push(g.stop_gradient(bank));
    }
    g.add("mixtures", GateCombineSeen::new(seen), &read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Task;
    use manygate_graph::Mode;

    #[test]
    fn a_stem_needs_a_level() {
        let stem: Stem = config::parse(&"levels = 0".parse().unwrap()).unwrap();
        let inputs = Inputs { dense: 2, tasks: vec![Task::binary("click")], ..Inputs::default() };
        let message = stem.build(&mut Graph::new(Mode::Training), &inputs).unwrap_err().to_string();
        assert!(message.contains("model.levels: must be at least 1"), "{message}");
    }
}
