//! A plain network whose weights a small generator makes from a condition: what the scenario is, who the user is, or
//! what the layer reads. A matrix is of low rank, and only its small core is generated.
//!
//! B. Yan, P. Wang, K. Zhang, F. Li, H. Deng, J. Xu, B. Zheng, *APG: Adaptive Parameter Generation Network for
//! Click-Through Rate Prediction*, NeurIPS 2022.
//!
//! ```text
//! z        = scene_p (group), [scene_p ; fields] (mix), or h (self)      p the sample's scenario
//! generated = layers.l.hyper(z)                 a layer n → m, rank K ≪ n, m; an MLP that ends bare
//! shared:    h ← φ(U (S(z) (V h)) + b)          U [m, K], V [K, n] are trained, S [K, K] is generated
//! low_rank:  h ← φ(U(z) (S(z) (V(z) h)) + b)    all three are generated, in the order U, S, V
//! full:      h ← φ(W(z) h + b)                  W [m, n] is generated
//! U = U_l U_r, V = V_l V_r                      over-parameterised, of an inner width P ≥ K
//! z_t = towers.t(h^L)                           p_t = sigmoid(z_t);  L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight`, `layers.<l>.hyper.<i>.{weight,bias}`, `layers.<l>.{u,v}` or
//! `layers.<l>.{u_l,u_r,v_l,v_r}`, `layers.<l>.bias` `[m]` unless it is generated, then the last m values of the
//! generator; `towers.<task>.0.*`. The generator's last bias starts S with entries of variance 1 / K.
//!
//! With the condition `group` the generator runs over the scenarios and not over the samples, and a row is multiplied
//! by what its scenario has. Products of trained factors exist once: a plan that serves has U and V. Others read S the
//! other way round, put biases and an activation between the three maps, or take a rank from the width.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::dropout::dropout;
use crate::layers::generated::{Generated, Part, Start};
use crate::layers::mlp::MlpInput;
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Activate, Add, Broadcast, Linear, LinearTransposed};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Which matrices are generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Generate {
    /// The core S, between shared U and V.
    Shared,
    /// U, S and V.
    LowRank,
    /// The whole W.
    Full,
}

/// What they are generated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    /// The scenario.
    Group,
    /// The scenario and some fields.
    Mix,
    /// What the layer reads.
    #[serde(rename = "self")]
    Own,
}

/// Configuration of apg.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Apg {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    units: Vec<usize>,
    generate: Generate,
    condition: Condition,
    condition_fields: Vec<String>,
    rank: usize,
    over_rank: usize,
    hyper_units: Vec<usize>,
    generate_bias: bool,
    scenario_dim: usize,
    dropout: f64,
}

impl Default for Apg {
    fn default() -> Self {
        Apg {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            units: vec![128, 64],
            generate: Generate::Shared,
            condition: Condition::Group,
            condition_fields: Vec::new(),
            rank: 8,
            over_rank: 64,
            hyper_units: vec![64, 32],
            generate_bias: false,
            scenario_dim: 16,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 10] = [
    Key { name: "units", default: "[128, 64]", doc: "widths of the layers whose weights are generated" },
    Key {
        name: "generate",
        default: "\"shared\"",
        doc: "shared, low_rank or full: the core alone, all three low-rank factors, or whole matrices",
    },
    Key {
        name: "condition",
        default: "\"group\"",
        doc: "group, mix or self: from the scenario, it and condition_fields, or what a layer reads",
    },
    Key {
        name: "condition_fields",
        default: "[]",
        doc: "categorical features that are part of the condition `mix`",
    },
    Key { name: "rank", default: "8", doc: "width K of the generated core" },
    Key {
        name: "over_rank",
        default: "64",
        doc: "inner width of the shared factors, each trained as a product of two; 0 for one matrix",
    },
    Key { name: "hyper_units", default: "[64, 32]", doc: "hidden widths of each layer's generator" },
    Key { name: "generate_bias", default: "false", doc: "whether biases are generated as well" },
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "apg",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "low-rank weights of a plain network, whose core is generated by scenario or by sample",
    paper: "B. Yan et al., \"APG: Adaptive Parameter Generation Network for Click-Through Rate Prediction\", NeurIPS 2022",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Apg>(keys)?)),
};

impl Architecture for Apg {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let condition = self.condition(g, inputs, &common, x0)?;
        let mut h = x0;
        for (l, &units) in self.units.iter().enumerate() {
            let prefix = format!("layers.{l}");
            let z = condition.unwrap_or(h);
            h = self.layer(g, &prefix, z, h, units, &common)?;
            h = dropout(g, &prefix, h, common.dropout)?;
        }
        let logits = towers::towers(g, inputs, MlpInput::Shared(h), common.mlp(&[]))?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Apg {
    fn check(&self) -> Result<()> {
        let wrong = |key: &str, message: &str| Err(Error::config(format!("model.{key}"), message));
        if self.units.is_empty() || self.units.contains(&0) {
            return wrong("units", "at least one layer is needed, each of at least one unit");
        }
        if self.rank == 0 && self.generate != Generate::Full {
            return wrong("rank", "must be at least 1");
        }
        if self.generate == Generate::Shared && (1..self.rank).contains(&self.over_rank) {
            return wrong("over_rank", "must be at least `rank`, or 0 for factors that are one matrix each");
        }
        match (self.condition, self.condition_fields.is_empty()) {
            (Condition::Mix, true) => {
                wrong("condition_fields", "name the features that `mix` reads, or take the condition `group`")
            }
            (Condition::Group | Condition::Own, false) => {
                wrong("condition_fields", "is read by the condition `mix` alone: set that, or leave it out")
            }
            _ => Ok(()),
        }
    }

    /// What all layers generate from: `[scenarios, dim]`, `[batch, width]`, or none where each has its own input.
    fn condition(&self, g: &mut Graph, inputs: &Inputs, common: &Common, x0: Value) -> Result<Option<Value>> {
        if self.condition == Condition::Own && inputs.scenarios == 0 {
            return Ok(None);
        }
        // Declared for every condition, so that all of them have the same tensors.
        let table = scenario::table(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        Ok(match self.condition {
            Condition::Own => None,
            Condition::Group => Some(table),
            Condition::Mix => {
                let mut parts = vec![scenario::rows(g, inputs, table)?];
                for name in &self.condition_fields {
                    let key = "model.condition_fields";
                    parts.push(trunk::field(g, inputs, common.embedding, x0, name, key)?);
                }
                Some(concat::concat(g, "condition", &parts)?)
            }
        })
    }

    /// Layer `prefix` of `units` units over `h`, generated from `z`: `[batch, units]`.
    fn layer(
        &self,
        g: &mut Graph,
        prefix: &str,
        z: Value,
        h: Value,
        units: usize,
        common: &Common,
    ) -> Result<Value> {
        let (input, rank) = (g.cols(h), self.rank);
        let xavier = |out: usize, input: usize| Init::XavierOf { out, input };
        let core = (rank * rank, Init::Normal((1.0 / rank as f32).sqrt()));
        let mut pieces = match self.generate {
            Generate::Shared => vec![core],
            Generate::LowRank => {
                vec![(units * rank, xavier(units, rank)), core, (rank * input, xavier(rank, input))]
            }
            Generate::Full => vec![(units * input, xavier(units, input))],
        };
        let matrices: usize = pieces.iter().map(|(len, _)| len).sum();
        let bias = self.generate_bias.then_some(matrices);
        pieces.extend(bias.map(|_| (units, Init::Constant(0.0))));
        let width = self.hyper_units.last().copied().unwrap_or(g.cols(z));
        let inner = if self.generate == Generate::Full { input } else { rank };
        let start = Start {
            weight: Init::Normal((1.0 / (inner * width) as f32).sqrt()),
            bias: Init::Rows(pieces.clone()),
        };
        let len = pieces.iter().map(|(len, _)| len).sum();
        let (hyper, hidden) = (format!("{prefix}.hyper"), common.mlp(&self.hyper_units));
        let generated = Generated::new(g, &hyper, z, hidden, len, start)?;
        let layer = Layer { prefix, units, activation: common.activation, generated, bias };
        match self.generate {
            Generate::Full => layer.end_generated(g, 0, h),
            Generate::LowRank => {
                let (s, v) = (units * rank, units * rank + rank * rank);
                let low = generated.product(g, &format!("{prefix}.vh"), h, Part::bare(v, rank))?;
                let low = generated.product(g, &format!("{prefix}.svh"), low, Part::bare(s, rank))?;
                layer.end_generated(g, 0, low)
            }
            Generate::Shared => {
                let v = self.factor(g, &format!("{prefix}.v"), rank, input)?;
                let low = Linear::new(rank, false, Activation::Identity);
                let low = g.add(format!("{prefix}.vh"), low, &[h, v])?;
                let low = generated.product(g, &format!("{prefix}.svh"), low, Part::bare(0, rank))?;
                let u = self.factor(g, &format!("{prefix}.u"), units, rank)?;
                layer.end_shared(g, u, low)
            }
        }
    }

    /// A shared factor `[out, input]`: one matrix, or the product of two.
    fn factor(&self, g: &mut Graph, name: &str, out: usize, input: usize) -> Result<Value> {
        let matrix = |g: &mut Graph, name: String, out: usize, input: usize| {
            let deviation = (2.0 / (out + input) as f32).sqrt();
            g.param(ParamSpec::new(vec![Block::weight(name, out, input, Init::Normal(deviation))])?)
        };
        if self.over_rank == 0 {
            return matrix(g, name.to_owned(), out, input);
        }
        let left = matrix(g, format!("{name}_l"), out, self.over_rank)?;
        let right = matrix(g, format!("{name}_r"), self.over_rank, input)?;
        g.add(name, LinearTransposed::new(self.over_rank), &[left, right])
    }
}

/// How a layer ends: its last map, bias and activation.
struct Layer<'a> {
    prefix: &'a str,
    units: usize,
    activation: Activation,
    generated: Generated,
    /// Place of the generated bias.
    bias: Option<usize>,
}

impl Layer<'_> {
    /// Over a generated map, whose values begin at place `from`.
    fn end_generated(&self, g: &mut Graph, from: usize, x: Value) -> Result<Value> {
        let Layer { prefix, units: out, activation, .. } = *self;
        if self.bias.is_some() {
            return self.generated.product(g, prefix, x, Part { from, out, bias: self.bias, activation });
        }
        let y = self.generated.product(g, &format!("{prefix}.wh"), x, Part::bare(from, out))?;
        let bias = self.shared_bias(g)?;
        let bias = g.add(format!("{prefix}.bias.rows"), Broadcast::vector(), &[bias])?;
        self.add_and_activate(g, y, bias)
    }

    /// Over a shared map `[units, rank]`.
    fn end_shared(&self, g: &mut Graph, map: Value, x: Value) -> Result<Value> {
        let Layer { prefix, units, activation, .. } = *self;
        let Some(from) = self.bias else {
            let bias = self.shared_bias(g)?;
            return g.add(prefix, Linear::new(units, true, activation), &[x, map, bias]);
        };
        let y = Linear::new(units, false, Activation::Identity);
        let y = g.add(format!("{prefix}.usvh"), y, &[x, map])?;
        let bias = self.generated.vector(g, &format!("{prefix}.bias"), from, units)?;
        self.add_and_activate(g, y, bias)
    }

    fn shared_bias(&self, g: &mut Graph) -> Result<Value> {
        let bias = Block::vector(format!("{}.bias", self.prefix), self.units, Init::Constant(0.0));
        g.param(ParamSpec::new(vec![bias])?)
    }

    fn add_and_activate(&self, g: &mut Graph, y: Value, bias: Value) -> Result<Value> {
        let sum = g.add(format!("{}.sum", self.prefix), Add::new(2), &[y, bias])?;
        g.add(self.prefix, Activate::new(self.activation, self.units), &[sum])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        for (keys, told) in [
            ("units = []", "model.units: at least one layer"),
            ("rank = 0", "model.rank: must be at least 1"),
            ("rank = 8\nover_rank = 4", "model.over_rank: must be at least `rank`"),
            ("condition = \"mix\"", "model.condition_fields: name the features that `mix` reads"),
            ("condition_fields = [\"user\"]", "model.condition_fields: is read by the condition `mix` alone"),
        ] {
            let apg: Apg = config::parse(&keys.parse().unwrap()).unwrap();
            let message = apg.check().unwrap_err().to_string();
            assert!(message.contains(told), "{message}");
        }
        Apg::default().check().unwrap();
    }
}
