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
//! `.hidden.<i>.*` as configured), `towers.<task>.<i>.{weight,bias}`. Others take the softmax over the wrong axis of stacked
//! experts, or let the gate read something else than x0; both train.
//!
//! `top_k`: the softmax is over the k largest logits, of equal ones the first, and the other experts weigh 0 (N. Shazeer et
//! al., ICLR 2017, without noise).
//!
//! The loss above is that of the mixture, under which experts cooperate. `jacobs1991` is the paper's own, for one
//! regression target y, under which they compete for samples: expert e ends in a number o_e (the last layer of
//! `experts.<e>`, without activation), there are no towers, and the prediction is the mean of the mixture.
//!
//! ```text
//! L = mean of −log Σ_e g_e exp(−(y − o_e)² / 2)        p = Σ_e g_e o_e
//! ```
//!
//! `scenario_heads`: a tower for each task and scenario, `towers.<task>.<scenario>.<i>.*`, under the one gate.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::{Inputs, TaskKind};
use crate::layers::mlp::{MlpInput, MlpStyle, linears};
use crate::layers::moe::{
    Choice, Gate, GateStyle, all_see_all, bank_and_logits, mixtures_of_all, show_gates,
};
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Alias, Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{GateCombine, MixtureLikelihood};
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;
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
    top_k: usize,
    jacobs1991: bool,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
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
            top_k: 0,
            jacobs1991: false,
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 7] = [
    Key { name: "experts", default: "8", doc: "number of experts" },
    Key { name: "expert_units", default: "[512, 256]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether the gate has a bias (the paper's has none)" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of the gate (the paper's has none)" },
    Key {
        name: "top_k",
        default: "0",
        doc: "number of experts that the gate weighs in a row, those with the largest logits; 0 for all",
    },
    Key {
        name: "jacobs1991",
        default: "false",
        doc: "experts that compete for the samples of one regression task, in place of towers",
    },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "moe",
    aliases: &[Alias {
        name: "omoe",
        summary: "the one-gate mixture of experts that MMoE is compared with",
        paper: "J. Ma et al., \"Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts\", KDD 2018",
        preset: None,
    }],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "experts, one softmax gate for all tasks, a tower per task",
    paper: "R. A. Jacobs et al., \"Adaptive Mixtures of Local Experts\", Neural Computation 3, 1991",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Moe>(keys)?)),
};

impl Moe {
    /// The loss of the paper of 1991.
    fn competing(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        x0: Value,
        experts: Vec<String>,
        expert: MlpStyle<'_>,
        gate: GateStyle<'_>,
    ) -> Result<()> {
        let [task] = &inputs.tasks[..] else {
            let message = format!("is for one regression task, there are {} tasks", inputs.tasks.len());
            return Err(Error::config("model.jacobs1991", message));
        };
        if task.kind != TaskKind::Regression {
            let message = format!("is for a regression task, `{}` is a {} one", task.name, task.kind);
            return Err(Error::config("model.jacobs1991", message));
        }
        if self.top_k > 0 {
            return Err(Error::config("model.top_k", "has no place where experts compete: leave it out"));
        }
        if self.scenario_heads {
            let message = "has no place where experts take the place of towers: leave it out";
            return Err(Error::config("model.scenario_heads", message));
        }
        let readers = all_see_all(x0, experts, vec!["gate".to_owned()]);
        let (bank, logits) = bank_and_logits(g, &readers, expert, gate)?;
        let layer = expert.units.len();
        let ends = linears(g, &readers.experts, layer, bank, 1, true, Activation::Identity)?;
        let gates: Vec<&Gate> = readers.gates.iter().collect();
        show_gates(g, &gates, &readers.experts, [logits[0], ends], 0)?;
        let mean = g.add("mean", GateCombine::new(1, self.experts), &[logits[0], ends])?;
        g.output(&task.name, mean);
        if g.is_training() {
            let part = g.loss(tasks::part(task, &task.name, task.space))?;
            let loss = MixtureLikelihood::new(part, 0, task.space);
            g.add(format!("loss.{}", task.name), loss, &[logits[0], ends])?;
        }
        Ok(())
    }
}

impl Architecture for Moe {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        if self.experts == 0 {
            return Err(Error::config("model.experts", "must be at least 1"));
        }
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let experts: Vec<String> = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let expert = common.mlp(&self.expert_units);
        if self.jacobs1991 {
            return self.competing(g, inputs, x0, experts, expert, gate);
        }
        let choice = Choice { top_k: self.top_k, ..Choice::default() };
        let readers = all_see_all(x0, experts, vec!["gate".to_owned()]);
        let h = mixtures_of_all(g, &readers, expert, gate, choice)?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Shared(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
