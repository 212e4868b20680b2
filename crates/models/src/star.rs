//! One network for many scenarios: a scenario's weights are shared ones times its own, its normalisation has statistics
//! of its own, and a small auxiliary network lets the scenario act on the logit directly.
//!
//! X.-R. Sheng, L. Zhao, G. Zhou, X. Ding, B. Dai, Q. Luo, S. Yang, J. Lv, C. Zhang, H. Deng, X. Zhu, *One Model to Serve
//! All: Star Topology Adaptive Recommender for Multi-Domain CTR Prediction*, CIKM 2021.
//!
//! ```text
//! z   = (γ ⊗ γ_p) ⊗ (x0 − μ_p) / sqrt(v_p + ε) + (β + β_p)    p the sample's scenario; μ_p, v_p over its rows in the
//!                                                             batch, in evaluation their running averages
//! h   = φ((W ⊗ W_p) h + (b + b_p))                            every layer from z on; the last one, of width 1, bare
//! s_a = aux([scene_p ; x0])                                   an MLP that ends in a bare logit
//! p   = sigmoid(h + s_a)
//! L   = Σ_t w_t BCE(y_t, p_t)                                 a star and an auxiliary network a task, one norm for all
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `pn.{gamma,beta}` `[w]`, `pn.{domain_gamma,domain_beta}` `[S, w]`, with state
//! `pn.{mean,var}` `[S, w]`; `star.<task>.<l>.weight` `[out, in]`, `.bias` `[out]`, `.domain_weight` `[S, out, in]`,
//! `.domain_bias` `[S, out]`; `scene.weight`, `aux.<task>.<l>.{weight,bias}`. It starts as the shared network.
//!
//! Folded weights exist once a step, for the scenarios in the batch, and a row is multiplied by one of them. A public
//! port passes every row through every scenario's layers, normalises by the statistics of the whole batch, and activates
//! the logit; another adds the weights instead of multiplying them.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::mlp::MlpInput;
use crate::layers::scenario_norm::{self, Moving, Variance, moments};
use crate::layers::star::{Parts, star_network};
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::Result;
use manygate_graph::ops::{Add, Fold, Normalise};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// What the auxiliary network reads beside the scenario's embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Auxiliary {
    /// There is none.
    None,
    /// The trunk.
    Raw,
    /// The normalised trunk.
    Normalized,
}

/// Configuration of star.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Star {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    units: Vec<usize>,
    partitioned_norm: bool,
    epsilon: f64,
    momentum: f64,
    running_variance: Variance,
    auxiliary: Auxiliary,
    auxiliary_units: Vec<usize>,
    scenario_dim: usize,
    dropout: f64,
}

impl Default for Star {
    fn default() -> Self {
        Star {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            units: vec![128, 64],
            partitioned_norm: true,
            epsilon: 1e-5,
            momentum: 0.1,
            running_variance: Variance::Biased,
            auxiliary: Auxiliary::Raw,
            auxiliary_units: vec![32],
            scenario_dim: 16,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 9] = [
    Key { name: "units", default: "[128, 64]", doc: "hidden widths of each task's star network" },
    Key { name: "partitioned_norm", default: "true", doc: "whether the trunk is normalised by scenario" },
    Key { name: "epsilon", default: "1e-5", doc: "added to the variance" },
    Key { name: "momentum", default: "0.1", doc: "weight of the new value in running statistics" },
    Key {
        name: "running_variance",
        default: "\"biased\"",
        doc: "biased, or unbiased: which variance the running average takes in",
    },
    Key {
        name: "auxiliary",
        default: "\"raw\"",
        doc: "none, raw or normalized: the trunk that the auxiliary network reads",
    },
    Key { name: "auxiliary_units", default: "[32]", doc: "hidden widths of each task's auxiliary network" },
    Key {
        name: "scenario_dim",
        default: "16",
        doc: "width of the scenario's embedding in the auxiliary network",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "star",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::ParameterSharing,
    summary: "weights of a scenario are shared ones times its own, normalisation by scenario, an auxiliary network",
    paper: "X.-R. Sheng et al., \"One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR Prediction\", CIKM 2021",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Star>(keys)?)),
};

impl Architecture for Star {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let scenarios = scenario::scenarios(inputs)?;
        scenario_norm::check(self.epsilon, self.momentum)?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let z = if self.partitioned_norm { self.partitioned_norm(g, scenarios, x0)? } else { x0 };
        let mut stars = Vec::with_capacity(inputs.tasks.len());
        for task in inputs.task_names() {
            let (prefix, parts) = (format!("star.{task}"), Parts::Scenarios(scenarios));
            stars.push(star_network(g, &prefix, parts, z, common.mlp(&self.units))?);
        }
        let logits = match self.auxiliary {
            Auxiliary::None => stars,
            Auxiliary::Raw => self.with_auxiliary(g, inputs, &common, x0, &stars)?,
            Auxiliary::Normalized => self.with_auxiliary(g, inputs, &common, z, &stars)?,
        };
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Star {
    fn partitioned_norm(&self, g: &mut Graph, scenarios: usize, x: Value) -> Result<Value> {
        let width = g.cols(x);
        let shared =
            |name: &str, start| ParamSpec::new(vec![Block::vector(name, width, Init::Constant(start))]);
        let own = |name: &str, start| Block::weight(name, scenarios, width, Init::Constant(start));
        let (gamma, beta) = (g.param(shared("pn.gamma", 1.0)?)?, g.param(shared("pn.beta", 0.0)?)?);
        let own_gamma = g.param(ParamSpec::new(vec![own("pn.domain_gamma", 1.0)])?)?;
        let own_beta = g.param(ParamSpec::new(vec![own("pn.domain_beta", 0.0)])?)?;
        let gamma = g.add("pn.folded_gamma", Fold::product(scenarios), &[gamma, own_gamma])?;
        let beta = g.add("pn.folded_beta", Fold::sum(scenarios), &[beta, own_beta])?;
        let moving = Moving { momentum: self.momentum, variance: self.running_variance };
        let moments = moments(g, "pn", scenarios, x, moving)?;
        let norm = Normalise::new(self.epsilon as f32, Activation::Identity).by_scenario(scenarios);
        g.add("pn", norm, &[x, moments, gamma, beta])
    }

    fn with_auxiliary(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        common: &Common,
        x: Value,
        stars: &[Value],
    ) -> Result<Vec<Value>> {
        let scene = scenario::embedding(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        let input = concat::concat(g, "aux.input", &[scene, x])?;
        let style = common.mlp(&self.auxiliary_units);
        let auxiliary = towers::family(g, "aux", inputs, MlpInput::Shared(input), style)?;
        let pairs = inputs.task_names().zip(stars.iter().zip(auxiliary));
        pairs.map(|(task, (&star, aux))| g.add(format!("logit.{task}"), Add::new(2), &[star, aux])).collect()
    }
}
