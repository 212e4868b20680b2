//! Experts of all, of each domain and of each task over a representation of the domain, fused by four learnt numbers.
//!
//! Z. Zhang, S. Liu, J. Yu, Q. Cai, X. Zhao, C. Zhang, Z. Liu, Q. Liu, H. Zhao, L. Hu, P. Jiang, K. Gai, *M3oE:
//! Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework*, SIGIR 2024.
//!
//! ```text
//! h     = W_c ((W ⊗ W_d) x0 + b + b_d) + b_c + agnostic(x0)    [batch, w]    d the sample's scenario
//! f(h)  = φ(LayerNorm(W h + b))                                [batch, n]    every expert
//! S_t   = Σ_e softmax(gates.t_d(h))_e experts.e(h)
//! D     = β_d f_d + (1 − β_d)/(S − 1) Σ_{d'≠d} f_d'            the domains' experts; f_d where there is one scenario
//! T_t   = β_t f_t + (1 − β_t)/(T − 1) Σ_{t'≠t} f_t'            the tasks' experts; f_t where there is one task
//! p_t   = sigmoid(towers.t_d(S_t + α_d D + α_t T_t))           α, β the logistic function of a number each
//! L     = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`; `extract.weight` `[star, |x0|]`, `.bias`, `.domain_weight` `[S, star, |x0|]`,
//! `.domain_bias`; `project.*`; `agnostic.<l>.*`; `experts.<e>.{linear,norm}.*`, `domain_experts.<d>.…`,
//! `task_experts.<task>.…`; `gates.<task>_<d>.*`; `towers.<task>_<d>.<l>.*`; `alpha_d`, `alpha_t`, `beta_d`, `beta_t`
//! `[1]`.
//!
//! Every sample asks the experts of all domains and tasks, which are one product; gates and towers are those of its own
//! scenario alone. The paper trains the four numbers by turns with the rest, one step of theirs an epoch: an optimiser
//! group over their names with a rate and a cadence of its own. Equation 7 in print has α_d and α_t the other way round
//! than its text.
//!
//! The released code has a layer normalisation in the towers as well, multiplies by β where there is one task, cuts the
//! gradient of the gates at h, trains the numbers by both optimisers, and passes every sample through all towers.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::dropout::dropout;
use crate::layers::linear::{self, Head, linear, side_by_side};
use crate::layers::mlp::{MlpInput, mlp};
use crate::layers::star::{Parts, star_layer};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Activate, Add, GateCombine, LayerNorm, LevelFusion};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// ε of layer normalisation.
const EPSILON: f32 = 1e-5;

/// Configuration of m3oe.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct M3oe {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    star_width: usize,
    width: usize,
    agnostic_units: Vec<usize>,
    experts: usize,
    expert_width: usize,
    layer_norm: bool,
    gate_detach: bool,
    fusion_start: f64,
    tower_units: Vec<usize>,
    dropout: f64,
}

impl Default for M3oe {
    fn default() -> Self {
        M3oe {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            star_width: 512,
            width: 256,
            agnostic_units: vec![512],
            experts: 4,
            expert_width: 64,
            layer_norm: true,
            gate_detach: false,
            fusion_start: 1.0,
            tower_units: vec![64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 10] = [
    Key { name: "star_width", default: "512", doc: "width of the layer whose weights are the domain's" },
    Key { name: "width", default: "256", doc: "width of the representation that experts and gates read" },
    Key {
        name: "agnostic_units",
        default: "[512]",
        doc: "hidden widths of the network that knows no domain",
    },
    Key { name: "experts", default: "4", doc: "experts of all domains and tasks" },
    Key { name: "expert_width", default: "64", doc: "width of each expert" },
    Key {
        name: "layer_norm",
        default: "true",
        doc: "whether experts are normalised before their activation",
    },
    Key {
        name: "gate_detach",
        default: "false",
        doc: "whether gates leave the representation that they read unmoved",
    },
    Key {
        name: "fusion_start",
        default: "1.0",
        doc: "what the four numbers of the fusion start at, before the logistic function",
    },
    Key {
        name: "tower_units",
        default: "[64]",
        doc: "hidden widths of the tower of each task in each scenario",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "m3oe",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::SoftSharing,
    summary: "experts of all, of each domain and of each task, fused by learnt weights, a tower for each pair",
    paper: "Z. Zhang et al., \"M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework\", SIGIR 2024",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<M3oe>(keys)?)),
};

impl Architecture for M3oe {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let scenarios = scenario::scenarios(inputs)?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let h = self.representation(g, &common, scenarios, x0)?;
        let bank = self.bank(g, inputs, &common, h)?;
        let read = if self.gate_detach { g.stop_gradient(h) } else { h };
        let gates = scenario::prefixes_of_each("gates", inputs.task_names(), scenarios);
        let gates = Head::of_each(&gates, self.experts);
        let gates = linear::by_scenario(g, "gates", &gates, scenarios, read, true, Activation::Identity)?;
        let count = inputs.tasks.len();
        let (shared, width) = (self.experts, self.expert_width);
        let part = |g: &mut Graph, from: usize, count: usize| g.columns(bank, from * width, count * width);
        let [shared, domains, tasks] =
            [part(g, 0, shared)?, part(g, shared, scenarios)?, part(g, shared + scenarios, count)?];
        let mixed = g.add("shared", GateCombine::new(count, self.experts), &[gates, shared])?;
        let number = |name: &str| Block::vector(name, 1, Init::Constant(self.fusion_start as f32));
        let numbers = ["alpha_d", "alpha_t", "beta_d", "beta_t"].map(number).to_vec();
        let numbers = g.param(ParamSpec::new(numbers)?)?;
        let fusion = LevelFusion::new(scenarios, count);
        let states = g.add("fusion", fusion, &[mixed, domains, tasks, numbers])?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_scenarios(g, inputs, MlpInput::Each(states), tower)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl M3oe {
    fn check(&self) -> Result<()> {
        let counts = [
            ("star_width", self.star_width),
            ("width", self.width),
            ("experts", self.experts),
            ("expert_width", self.expert_width),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::config(format!("model.{key}"), "must be at least 1"));
        }
        if !self.fusion_start.is_finite() {
            let message = format!("{} is no number to start at; 0 weighs by one half", self.fusion_start);
            return Err(Error::config("model.fusion_start", message));
        }
        Ok(())
    }

    /// h, `[batch, width]`.
    fn representation(&self, g: &mut Graph, common: &Common, scenarios: usize, x0: Value) -> Result<Value> {
        let parts = Parts::Scenarios(scenarios);
        let domain = star_layer(g, "extract", parts, x0, self.star_width, Activation::Identity)?;
        let domain = linear(g, "project", domain, self.width, Activation::Identity)?;
        let units: Vec<usize> = self.agnostic_units.iter().copied().chain([self.width]).collect();
        let agnostic = mlp(g, "agnostic", x0, common.mlp(&units))?;
        g.add("representation", Add::new(2), &[domain, agnostic])
    }

    /// Every expert, `[batch, experts · n]`: those of all, of the domains, of the tasks.
    fn bank(&self, g: &mut Graph, inputs: &Inputs, common: &Common, h: Value) -> Result<Value> {
        let domains = (0..inputs.scenarios).map(|d| format!("domain_experts.{d}"));
        let of_tasks = inputs.task_names().map(|task| format!("task_experts.{task}"));
        let shared = (0..self.experts).map(|e| format!("experts.{e}"));
        let experts: Vec<String> = shared.chain(domains).chain(of_tasks).collect();
        let maps: Vec<String> = experts.iter().map(|expert| format!("{expert}.linear")).collect();
        let width = self.expert_width;
        let maps = Head::of_each(&maps, width);
        if !self.layer_norm {
            let bank = side_by_side(g, "bank", &maps, h, true, common.activation)?;
            return dropout(g, "bank", bank, common.dropout);
        }
        let bank = side_by_side(g, "bank.linear", &maps, h, true, Activation::Identity)?;
        let vectors = |name: &str, start: f32| {
            let vector = |e: &String| Block::vector(format!("{e}.norm.{name}"), width, Init::Constant(start));
            ParamSpec::new(experts.iter().map(vector).collect())
        };
        let (gamma, beta) = (g.param(vectors("weight", 1.0)?)?, g.param(vectors("bias", 0.0)?)?);
        let norm = LayerNorm::new(EPSILON).in_groups(experts.len());
        let normal = g.add("bank.norm", norm, &[bank, gamma, beta])?;
        let bank = g.add("bank", Activate::new(common.activation, experts.len() * width), &[normal])?;
        dropout(g, "bank", bank, common.dropout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        let message = |keys: &str| {
            let m3oe: M3oe = config::parse(&keys.parse().unwrap()).unwrap();
            m3oe.check().unwrap_err().to_string()
        };
        assert!(message("experts = 0").contains("model.experts: must be at least 1"));
        assert!(message("width = 0").contains("model.width: must be at least 1"));
        assert!(message("fusion_start = inf").contains("model.fusion_start: inf is no number to start at"));
    }
}
