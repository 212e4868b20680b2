//! A backbone with small adapters between its layers, whose cores a network that all scenarios share makes for each
//! sample, or for each scenario; their output is normalised by the statistics of the sample's scenario.
//!
//! X. Li, F. Yan, X. Zhao, Y. Wang, B. Chen, H. Guo, R. Tang, *HAMUR: Hyper Adapter for Multi-Domain Recommendation*,
//! CIKM 2023.
//!
//! ```text
//! I    = hyper(x0)                      [k, k] a sample, row-major; an MLP that ends bare, the same I for all adapters;
//!                                      with the condition `scenario`, I_p = hyper(scene_p)
//! h    = φ(bottom.p.l h + b)            p the sample's scenario, or 0 where the backbone is shared
//! z    = sigmoid(((h U1) I) V1 + b1)    U1 [d, k], V1 [k, m], after layer l of width d where that has an adapter
//! r    = ((z U2) I) V2 + b2             U2 [m, k], V2 [k, d]
//! h    ← h + γ_p ⊗ (r − μ_p) / sqrt(v_p + ε) + β_p     μ_p, v_p over the rows of p in the batch, in evaluation their
//!                                                      moving averages
//! z_t  = towers.p.t(h)                  p_t = sigmoid(z_t);  L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! With the condition `scenario` the network runs once a scenario and not once a sample, and a row is multiplied by the
//! core of its scenario, whatever the batch holds.
//!
//! Parameters: `embedding.<f>.weight`, with that condition `scene.weight`, `hyper.<i>.{weight,bias}`,
//! `bottom.<p>.<l>.{weight,bias}` (`.norm.*`), `towers.<p>.<task>.0.*`,
//! `adapters.<l>.{down_u,down_v,down_b,up_u,up_v,up_b}`,
//! `adapters.<l>.norm.{domain_gamma,domain_beta}` `[S, d]`, with state `adapters.<l>.norm.{mean,var}` `[S, d]`.
//! Statistics, γ and β by scenario are our reading of the paper's "domain norm". `up_b` is there because the paper has
//! it: the norm takes it off again in training.
//!
//! The authors' code has one γ, β and the statistics of the batch, so that nothing in an adapter belongs to a scenario
//! and a prediction depends on the others of its batch; it activates I, which is then never negative; and it starts U
//! and V at 1: the units of a bottleneck are then equal and stay so. Others run the hyper-network once for each
//! scenario.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::generated::{Generated, Start};
use crate::layers::linear::{self, Head};
use crate::layers::mlp::{Networks, layer_of_each};
use crate::layers::scenario_norm::{self, Moving, Variance, moments};
use crate::layers::{scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Add, Linear, Normalise, Transpose};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Whose the layers between the adapters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Backbone {
    /// Each scenario has its own.
    Multi,
    /// All have one.
    Shared,
}

/// What the cores of the adapters are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    /// What the backbone reads.
    Input,
    /// The scenario's embedding.
    Scenario,
}

/// Configuration of hamur.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hamur {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    units: Vec<usize>,
    backbone: Backbone,
    adapters: Vec<usize>,
    adapter_width: usize,
    rank: usize,
    condition: Condition,
    scenario_dim: usize,
    hyper_units: Vec<usize>,
    epsilon: f64,
    momentum: f64,
    running_variance: Variance,
    dropout: f64,
}

impl Default for Hamur {
    fn default() -> Self {
        Hamur {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            units: vec![128, 64],
            backbone: Backbone::Multi,
            adapters: vec![1],
            adapter_width: 32,
            rank: 35,
            condition: Condition::Input,
            scenario_dim: 16,
            hyper_units: vec![64],
            epsilon: 1e-5,
            momentum: 0.1,
            running_variance: Variance::Biased,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 12] = [
    Key { name: "units", default: "[128, 64]", doc: "widths of the backbone" },
    Key {
        name: "backbone",
        default: "\"multi\"",
        doc: "multi or shared: whether each scenario has a backbone and output layers of its own",
    },
    Key { name: "adapters", default: "[1]", doc: "layers, from 0, that an adapter follows" },
    Key { name: "adapter_width", default: "32", doc: "units of an adapter's bottleneck" },
    Key { name: "rank", default: "35", doc: "width of the square core that is made for each sample" },
    Key {
        name: "condition",
        default: "\"input\"",
        doc: "input or scenario: a core for each sample from what the backbone reads, or one for each scenario",
    },
    Key {
        name: "scenario_dim",
        default: "16",
        doc: "width of the scenario's embedding, of the condition `scenario`",
    },
    Key { name: "hyper_units", default: "[64]", doc: "hidden widths of the network that makes it" },
    Key { name: "epsilon", default: "1e-5", doc: "added to the variance of an adapter's norm" },
    Key { name: "momentum", default: "0.1", doc: "weight of the new value in its moving averages" },
    Key {
        name: "running_variance",
        default: "\"biased\"",
        doc: "biased, or unbiased: which variance the moving average takes in",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "hamur",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "adapters between layers, their cores made by sample or by scenario, normalised by scenario; a backbone by scenario or one",
    paper: "X. Li et al., \"HAMUR: Hyper Adapter for Multi-Domain Recommendation\", CIKM 2023",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<Hamur>(keys)?)),
};

impl Architecture for Hamur {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let scenarios = scenario::scenarios(inputs)?;
        self.check()?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let start = Start { weight: Init::XavierUniform, bias: Init::Constant(0.0) };
        let (hidden, cores) = (common.mlp(&self.hyper_units), self.rank * self.rank);
        let condition = match self.condition {
            Condition::Input => x0,
            Condition::Scenario => scenario::table(g, inputs, self.scenario_dim, common.embedding.deviation)?,
        };
        let core = Generated::new(g, "hyper", condition, hidden, cores, start)?;
        let backbones = match self.backbone {
            Backbone::Multi => scenarios,
            Backbone::Shared => 1,
        };
        let bottoms = scenario::prefixes("bottom", backbones);
        let bottoms = Networks::by_scenario(&bottoms, backbones);
        let mut h = x0;
        for (l, &units) in self.units.iter().enumerate() {
            h = layer_of_each(g, bottoms, l, h, units, common.mlp(&[]))?;
            if self.adapters.contains(&l) {
                h = self.adapter(g, &format!("adapters.{l}"), scenarios, core, h)?;
            }
        }
        let logits = logits(g, inputs, backbones, h)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// A bare logit a task, of each scenario's backbone: `[batch, 1]` each.
fn logits(g: &mut Graph, inputs: &Inputs, backbones: usize, h: Value) -> Result<Vec<Value>> {
    let mut all = Vec::with_capacity(inputs.tasks.len());
    // Tasks that are not served stand apart, so that a plan which serves computes nothing for them.
    for side_by_side in inputs.tasks.chunk_by(|a, b| a.auxiliary == b.auxiliary) {
        let of_backbone =
            |p: usize| side_by_side.iter().map(move |task| format!("towers.{p}.{}.0", task.name));
        let prefixes: Vec<String> = (0..backbones).flat_map(of_backbone).collect();
        let heads = Head::of_each(&prefixes, 1);
        let name = format!("towers.*.{}", all.len());
        let logits = linear::by_scenario(g, &name, &heads, backbones, h, true, Activation::Identity)?;
        for t in 0..side_by_side.len() {
            all.push(g.columns(logits, t, 1)?);
        }
    }
    Ok(all)
}

impl Hamur {
    fn check(&self) -> Result<()> {
        let wrong = |key: &str, message: String| Err(Error::config(format!("model.{key}"), message));
        if self.units.is_empty() || self.units.contains(&0) {
            return wrong("units", "at least one layer is needed, each of at least one unit".into());
        }
        let sizes =
            [("adapter_width", self.adapter_width), ("rank", self.rank), ("scenario_dim", self.scenario_dim)];
        for (key, value) in sizes {
            if value == 0 {
                return wrong(key, "must be at least 1".into());
            }
        }
        let last = self.units.len() - 1;
        if let Some(layer) = self.adapters.iter().find(|&&layer| layer > last) {
            return wrong(
                "adapters",
                format!("there is no layer {layer} in `units`; the last one is {last}"),
            );
        }
        scenario_norm::check(self.epsilon, self.momentum)?;
        match (1..self.adapters.len()).find(|&i| self.adapters[..i].contains(&self.adapters[i])) {
            Some(i) => wrong("adapters", format!("layer {} is listed twice", self.adapters[i])),
            None => Ok(()),
        }
    }

    /// h + DN(adapter(h)), `[batch, width of h]`.
    fn adapter(
        &self,
        g: &mut Graph,
        prefix: &str,
        scenarios: usize,
        core: Generated,
        h: Value,
    ) -> Result<Value> {
        let (width, rank) = (g.cols(h), self.rank);
        let mut half = |name: &str, x: Value, out: usize, activation| {
            let low = from_left(g, &format!("{prefix}.{name}_u"), None, x, rank, Activation::Identity)?;
            let low = core.product_from_left(g, &format!("{prefix}.{name}_core"), low, rank)?;
            let bias = format!("{prefix}.{name}_b");
            from_left(g, &format!("{prefix}.{name}_v"), Some(bias), low, out, activation)
        };
        let z = half("down", h, self.adapter_width, Activation::Sigmoid)?;
        let r = half("up", z, width, Activation::Identity)?;
        let name = format!("{prefix}.norm");
        let own = |suffix: &str, start| {
            let name = format!("{name}.domain_{suffix}");
            ParamSpec::new(vec![Block::weight(name, scenarios, width, Init::Constant(start))])
        };
        let (gamma, beta) = (g.param(own("gamma", 1.0)?)?, g.param(own("beta", 0.0)?)?);
        let moving = Moving { momentum: self.momentum, variance: self.running_variance };
        let moments = moments(g, &name, scenarios, r, moving)?;
        let norm = Normalise::new(self.epsilon as f32, Activation::Identity).by_scenario(scenarios);
        let normal = g.add(name, norm, &[r, moments, gamma, beta])?;
        g.add(prefix, Add::new(2), &[h, normal])
    }
}

/// act(x M + b), parameters M `[width of x, out]` called `name` and b, where it is named: `[batch, out]`.
fn from_left(
    g: &mut Graph,
    name: &str,
    bias: Option<String>,
    x: Value,
    out: usize,
    activation: Activation,
) -> Result<Value> {
    let matrix = Block::weight(name, g.cols(x), out, Init::XavierUniform);
    let matrix = g.param(ParamSpec::new(vec![matrix])?)?;
    let layer = Linear::new(out, bias.is_some(), activation);
    let mut inputs = vec![x, g.add(format!("{name}.transposed"), Transpose, &[matrix])?];
    if let Some(bias) = bias {
        inputs.push(g.param(ParamSpec::new(vec![Block::vector(bias, out, Init::Constant(0.0))])?)?);
    }
    g.add(format!("{name}.product"), layer, &inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        for (keys, told) in [
            ("units = []", "model.units: at least one layer"),
            ("rank = 0", "model.rank: must be at least 1"),
            ("adapter_width = 0", "model.adapter_width: must be at least 1"),
            ("scenario_dim = 0", "model.scenario_dim: must be at least 1"),
            ("adapters = [2]", "model.adapters: there is no layer 2 in `units`; the last one is 1"),
            ("adapters = [1, 0, 1]", "model.adapters: layer 1 is listed twice"),
        ] {
            let hamur: Hamur = config::parse(&keys.parse().unwrap()).unwrap();
            let message = hamur.check().unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
        Hamur::default().check().unwrap();
    }
}
