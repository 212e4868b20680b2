//! Cross layers with a matrix, of full or low rank, or a mixture of low-rank experts, beside or below an MLP.
//!
//! R. Wang, R. Shivanna, D. Z. Cheng, S. Jain, D. Lin, L. Hong, E. H. Chi, *DCN V2: Improved Deep & Cross Network and
//! Practical Lessons for Web-scale Learning to Rank Systems*, WWW 2021.
//!
//! ```text
//! matrix      x_{l+1} = x0 ⊙ (W_l x_l + b_l) + x_l                 W_l [d, d]
//! low_rank    x_{l+1} = x0 ⊙ (U_l V_lᵀ x_l + b_l) + x_l            U_l, V_l [d, r]
//! mixture     x_{l+1} = Σ_k G_k(x_l) E_k(x_l) + x_l                E_k(x) = x0 ⊙ (U_k g(C_k g(V_kᵀ x)) + b_l)
//!             G(x) = softmax(M x), or sigmoid(M x), or 1           without g: E_k(x) = x0 ⊙ (U_k V_kᵀ x + b_l)
//! h           as in dcn                                            p_t = sigmoid(v_t · h + a_t)
//! ```
//!
//! Parameters: `cross.<l>.weight` `[d, d]`, `cross.<l>.bias` `[d]`; `cross.<l>.u`, `.v` `[d, r]` or `[K, d, r]`, `.c` `[K, r, r]`; the gate
//! `cross.gate.weight` `[K, d]` of all layers or `cross.<l>.gate.weight`; the rest as in [`dcn`](crate::dcn).
//!
//! The gates are multiplied into the bottleneck, so no `[batch, K, d]` exists, and the bias is b Σ_k G_k: it belongs inside the
//! product and to every expert. Others add it outside, take the gate of x0, divide gates that are not a softmax by their
//! sum, or transpose the roles of U and V. The paper's table counts the total rank, K · r.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::cross::{Gate, Inner, Mixture};
use crate::layers::deep_cross::{DeepCross, Structure};
use crate::layers::{cross, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy;
use manygate_core::{Error, Result};
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Which cross layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Matrix,
    LowRank,
    Mixture,
}

/// Configuration of dcn_v2.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DcnV2 {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    cross: Kind,
    cross_layers: usize,
    rank: usize,
    experts: usize,
    gate: Gate,
    gate_shared: bool,
    inner: Inner,
    structure: Structure,
    deep_units: Vec<usize>,
    scenario_dim: usize,
    dropout: f64,
}

impl Default for DcnV2 {
    fn default() -> Self {
        DcnV2 {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            cross: Kind::Matrix,
            cross_layers: 3,
            rank: 64,
            experts: 4,
            gate: Gate::Softmax,
            gate_shared: true,
            inner: Inner::Tanh,
            structure: Structure::Parallel,
            deep_units: vec![256, 128, 64],
            scenario_dim: 0,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 11] = [
    Key { name: "cross", default: "\"matrix\"", doc: "matrix, low_rank, or mixture: of low-rank experts" },
    Key { name: "cross_layers", default: "3", doc: "number of cross layers" },
    Key { name: "rank", default: "64", doc: "rank of low_rank, and of each expert of a mixture" },
    Key { name: "experts", default: "4", doc: "number of experts of a mixture" },
    Key {
        name: "gate",
        default: "\"softmax\"",
        doc: "softmax, sigmoid or constant: how experts are weighed",
    },
    Key { name: "gate_shared", default: "true", doc: "whether all layers have one gate" },
    Key {
        name: "inner",
        default: "\"tanh\"",
        doc: "tanh, hard_tanh, relu or sigmoid, twice in an expert's bottleneck with a map between; or none",
    },
    Key {
        name: "structure",
        default: "\"parallel\"",
        doc: "parallel, stacked (the MLP on the cross layers) or cross_only",
    },
    Key { name: "deep_units", default: "[256, 128, 64]", doc: "widths of the MLP" },
    Key {
        name: "scenario_dim",
        default: "0",
        doc: "width of the scenario's embedding among the inputs; 0 for none",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "dcn_v2",
    aliases: &[],
    relation: taxonomy::Relation::Parallel,
    structure: taxonomy::Structure::None,
    method: taxonomy::Method::HardSharing,
    summary: "cross layers with a matrix, of low rank, or mixtures of low-rank experts, and an MLP",
    paper: "R. Wang et al., \"DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems\", WWW 2021",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<DcnV2>(keys)?)),
};

impl Architecture for DcnV2 {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let x0 = scenario::beside(g, inputs, x0, self.scenario_dim, common.embedding.deviation)?;
        let net = DeepCross {
            structure: self.structure,
            layers: self.cross_layers,
            deep: common.mlp(&self.deep_units),
        };
        let (rank, experts) = (self.rank, self.experts);
        let gated = self.cross == Kind::Mixture && self.gate != Gate::Constant;
        let shared = gated && self.gate_shared;
        let shared = shared.then(|| cross::gate_weight(g, "cross.gate", experts, x0)).transpose()?;
        let style = Mixture { experts, rank, gate: self.gate, inner: self.inner };
        let mut layer = |g: &mut Graph, prefix: &str, x0, x| match self.cross {
            Kind::Matrix => cross::matrix(g, prefix, x0, x, x),
            Kind::LowRank => cross::low_rank(g, prefix, rank, x0, x),
            Kind::Mixture => {
                let own = gated && shared.is_none();
                let own = own.then(|| cross::gate_weight(g, &format!("{prefix}.gate"), experts, x));
                cross::mixture(g, prefix, style, own.transpose()?.or(shared), x0, x)
            }
        };
        let logits = net.logits(g, inputs, "", x0, &mut layer)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl DcnV2 {
    fn check(&self) -> Result<()> {
        for (key, count) in [("rank", self.rank), ("experts", self.experts)] {
            if count == 0 {
                return Err(Error::config(format!("model.{key}"), "must be at least 1"));
            }
        }
        Ok(())
    }
}
