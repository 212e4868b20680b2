//! A gate of the scenario says how much each feature counts, before a Deep & Cross network for all tasks.
//!
//! Li Guangming, *Multi-Task Multi-Scenario Modeling*, Zhuanzhuan technology blog: the embedding gate of J. Chang et al.,
//! *PEPNet*, KDD 2023, in front of R. Wang et al., *Deep & Cross Network*, ADKDD 2017. Published are the parts and that
//! they are trained together; widths, the order of the gate's inputs and the options are reconstructed.
//!
//! ```text
//! x    = [e_1 … e_F ; dense]                            [batch, N]
//! g_in = [scene_s ; scenario fields ; sg(x)]            sg: no gradient flows; without gate_features the last part is left out
//! δ    = γ sigmoid(A1 relu(A0 g_in + a0) + a1)          [batch, N], or by field [batch, F + D]: one for all of a field
//! y    = δ ⊙ x                                          gradients flow into x here, and into the gate through δ
//! p_t  = sigmoid(v_t · [cross(y') ; deep(y')] + a_t)    y' = y, or [y ; scene_s] with scenario_to_dcn
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight` `[S, scenario_dim]`, `domain0.{weight,bias}`, `domain1.{weight,bias}`,
//! `dcn.cross.<l>.{weight,bias}`, `dcn.deep.<i>.{weight,bias}`, `dcn.head.<task>.{weight,bias}`.
//!
//! Only the copy of x in the gate's input is stopped: stopping the one in y would freeze the tables. The scenario fields in
//! the gate's input are not stopped, though the same vectors sit, stopped, in sg(x). x0 of every cross layer is y, never x.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::deep_cross::{DeepCross, Structure};
use crate::layers::gate_unit::{self, Gate};
use crate::layers::{concat, cross, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy;
use manygate_core::{Error, Result};
use manygate_graph::ops::Concat;
use manygate_graph::{Graph, Value};
use serde::{Deserialize, Serialize};

/// What an amplitude multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Granularity {
    Element,
    Field,
}

/// Which cross layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Vector,
    Matrix,
}

/// Configuration of epnet_dcn.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpnetDcn {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    scenario_dim: usize,
    scenario_fields: Vec<String>,
    gate_hidden: usize,
    gamma: f64,
    granularity: Granularity,
    stop_gradient: bool,
    gate_features: bool,
    scenario_to_dcn: bool,
    cross: Kind,
    cross_layers: usize,
    deep_units: Vec<usize>,
    dropout: f64,
}

impl Default for EpnetDcn {
    fn default() -> Self {
        EpnetDcn {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            scenario_dim: 16,
            scenario_fields: Vec::new(),
            gate_hidden: 128,
            gamma: 2.0,
            granularity: Granularity::Element,
            stop_gradient: true,
            gate_features: true,
            scenario_to_dcn: false,
            cross: Kind::Vector,
            cross_layers: 3,
            deep_units: vec![256, 128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 12] = [
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key {
        name: "scenario_fields",
        default: "[]",
        doc: "categorical features that tell of the scenario, beside its embedding in the gate's input",
    },
    Key { name: "gate_hidden", default: "128", doc: "width of the gate's hidden layer" },
    Key { name: "gamma", default: "2.0", doc: "the largest amplitude; with 2 a gate starts near 1" },
    Key {
        name: "granularity",
        default: "\"element\"",
        doc: "element or field: an amplitude for each value, or for all values of a field",
    },
    Key {
        name: "stop_gradient",
        default: "true",
        doc: "whether the gate's input hands no gradient on to the features in it",
    },
    Key { name: "gate_features", default: "true", doc: "whether the gate reads all features" },
    Key {
        name: "scenario_to_dcn",
        default: "false",
        doc: "whether the scenario's embedding is an input of the Deep & Cross network too",
    },
    Key { name: "cross", default: "\"vector\"", doc: "vector or matrix: the cross layers" },
    Key { name: "cross_layers", default: "3", doc: "number of cross layers" },
    Key { name: "deep_units", default: "[256, 128, 64]", doc: "widths of the MLP beside them" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "epnet_dcn",
    aliases: &[],
    relation: taxonomy::Relation::Parallel,
    structure: taxonomy::Structure::SingleTower,
    method: taxonomy::Method::DynamicWeights,
    summary: "a gate of the scenario weighs features, a Deep & Cross network predicts all tasks from them",
    paper: "Li Guangming, \"Multi-Task Multi-Scenario Modeling\", Zhuanzhuan; J. Chang et al., \"PEPNet\", KDD 2023",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<EpnetDcn>(keys)?)),
};

impl Architecture for EpnetDcn {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        for (key, width) in [("scenario_dim", self.scenario_dim), ("gate_hidden", self.gate_hidden)] {
            if width == 0 {
                return Err(Error::config(format!("model.{key}"), "must be at least 1"));
            }
        }
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x = trunk::trunk(g, inputs, common.embedding)?;
        let scene = scenario::embedding(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        let mut y = self.gated(g, inputs, &common, x, scene)?;
        if self.scenario_to_dcn {
            y = concat::concat(g, "dcn.input", &[y, scene])?;
        }
        let net = DeepCross {
            structure: Structure::Parallel,
            layers: self.cross_layers,
            deep: common.mlp(&self.deep_units),
        };
        let layer = if self.cross == Kind::Vector { cross::vector } else { cross::matrix };
        let mut layer = |g: &mut Graph, prefix: &str, x0, x| layer(g, prefix, x0, x, x);
        let logits = net.logits(g, inputs, "dcn.", y, &mut layer)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl EpnetDcn {
    /// δ ⊙ x.
    fn gated(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        common: &Common,
        x: Value,
        scene: Value,
    ) -> Result<Value> {
        let mut parts = vec![scene];
        if !self.scenario_fields.is_empty() {
            let mut fields = Vec::with_capacity(self.scenario_fields.len());
            for name in &self.scenario_fields {
                let key = "model.scenario_fields";
                fields.push(trunk::field(g, inputs, common.embedding, x, name, key)?);
            }
            // A copy: their gradients are not those of the columns of x beside them.
            let widths = fields.iter().map(|&field| g.cols(field)).collect();
            parts.push(g.add("domain.fields", Concat::new(widths), &fields)?);
        }
        if self.gate_features {
            parts.push(if self.stop_gradient { g.stop_gradient(x) } else { x });
        }
        let input = concat::concat(g, "domain.input", &parts)?;
        let fields = trunk::parts(inputs, common.embedding);
        let by_field = fields.iter().map(|(_, width)| *width).collect();
        let out = if self.granularity == Granularity::Field { fields.len() } else { g.cols(x) };
        let layers = ["domain0", "domain1"].map(str::to_owned);
        let gate = Gate { layers, hidden: self.gate_hidden, out };
        let said = gate_unit::gates(g, "domain0", input, &[gate])?;
        gate_unit::show(g, "domain", self.gamma, said[0], fields)?;
        match self.granularity {
            Granularity::Element => gate_unit::apply(g, "gated", self.gamma, said[0], x),
            Granularity::Field => gate_unit::apply_to_parts(g, "gated", self.gamma, said[0], x, by_field),
        }
    }
}
