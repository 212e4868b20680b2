//! Cross layers with a vector beside an MLP: products of the inputs up to a bounded degree, at a cost linear in their
//! width.
//!
//! R. Wang, B. Fu, G. Fu, M. Wang, *Deep & Cross Network for Ad Click Predictions*, ADKDD 2017.
//!
//! ```text
//! x0        = [fields ; numbers ; scenario]     [batch, d]   the scenario's embedding where scenario_dim > 0
//! x_{l+1}   = x0 (w_l · x_l) + b_l + x_l        w_l, b_l [d]; layer l reaches degree l + 1
//! h         = [x_L ; deep(x0)]                  parallel; stacked: deep(x_L); cross_only: x_L
//! p_t       = sigmoid(v_t · h + a_t)            L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight` `[S, scenario_dim]`, `cross.<l>.{weight,bias}` `[d]`,
//! `deep.<i>.{weight,bias}`, `head.<task>.weight` [1, |h|], `head.<task>.bias`.
//!
//! Others build x0 xᵀ as `[batch, d, d]`, which costs a layer d times as much; take the inner product of x0 instead of the
//! running vector; move the bias into the product, where V2 has it; or lose the rows' axis with a batch of one row. Rows
//! of unit variance explode with the number of layers: keep `embedding_deviation` small.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::deep_cross::{DeepCross, Structure};
use crate::layers::{cross, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy;
use manygate_core::Result;
use manygate_graph::Graph;
use serde::{Deserialize, Serialize};

/// Configuration of dcn.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dcn {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    cross_layers: usize,
    structure: Structure,
    deep_units: Vec<usize>,
    scenario_dim: usize,
    dropout: f64,
}

impl Default for Dcn {
    fn default() -> Self {
        Dcn {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            cross_layers: 3,
            structure: Structure::Parallel,
            deep_units: vec![256, 128, 64],
            scenario_dim: 0,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 5] = [
    Key { name: "cross_layers", default: "3", doc: "number of cross layers" },
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
    name: "dcn",
    aliases: &[],
    relation: taxonomy::Relation::Parallel,
    structure: taxonomy::Structure::None,
    method: taxonomy::Method::HardSharing,
    summary: "cross layers with a vector beside an MLP, a linear head per task",
    paper: "R. Wang et al., \"Deep & Cross Network for Ad Click Predictions\", ADKDD 2017",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<Dcn>(keys)?)),
};

impl Architecture for Dcn {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let x0 = scenario::beside(g, inputs, x0, self.scenario_dim, common.embedding.deviation)?;
        let net = DeepCross {
            structure: self.structure,
            layers: self.cross_layers,
            deep: common.mlp(&self.deep_units),
        };
        let mut layer = |g: &mut Graph, prefix: &str, x0, x| cross::vector(g, prefix, x0, x, x);
        let logits = net.logits(g, inputs, "", x0, &mut layer)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}
