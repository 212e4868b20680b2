//! The real distributions need not be the scenarios that data names: each sample goes to the nearest of a few clusters,
//! whose centres follow the samples, and through that cluster's star network.
//!
//! J. Li, H. Zheng, Y. Liu, M. Lu, L. Wu, H. Hu, *AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain
//! CTR Prediction*, 2022.
//!
//! ```text
//! x   = stop(x0)                                    [batch, w]
//! r   = softmax(x Cᵀ),  C ← unit rows of β C + (1 − β) rᵀ x    in training, `routing` times; rᵀ x a sum over the batch
//! k   = argmax_k x C_kᵀ                             of the moved centres in training, of the kept ones in evaluation
//! h   = φ((W ⊗ W_k) h + (b + b_k))                  every layer from x0 on; the last one, of width 1, bare
//! p_t = sigmoid(h),  L = Σ_t w_t BCE(y_t, p_t)      a star network a task
//! ```
//!
//! Parameters: `embedding.<f>.weight`; `star.<task>.<l>.weight` `[out, in]`, `.bias` `[out]`, `.domain_weight`
//! `[K, out, in]`, `.domain_bias` `[K, out]`; state `centers` `[K, w]`, of rows that start with a length of about 1.
//! The networks start as the shared ones.
//!
//! A row costs one cluster's network. Since rᵀ x is a sum and not a mean, centres follow a large batch almost at once,
//! whatever β; and scores of long x saturate the softmax. The scenario is not read. A public port never adds its
//! biases, and its centres are not part of what it saves.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::star::{Parts, star_network};
use crate::layers::{tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Linear, MoveCenters, Route, Softmax, WeightGradient};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Most rounds: each is a pass over the batch that all threads wait for.
const MOST_ROUNDS: usize = 16;

/// Configuration of adaptdhm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptDhm {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    clusters: usize,
    routing: usize,
    beta: f64,
    units: Vec<usize>,
    dropout: f64,
}

impl Default for AdaptDhm {
    fn default() -> Self {
        AdaptDhm {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            clusters: 3,
            routing: 3,
            beta: 0.9,
            units: vec![128, 64],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 5] = [
    Key { name: "clusters", default: "3", doc: "number of clusters" },
    Key { name: "routing", default: "3", doc: "how often centres move in a training step, 1 to 16" },
    Key { name: "beta", default: "0.9", doc: "share of the old centre in the new one, in [0, 1]" },
    Key { name: "units", default: "[128, 64]", doc: "hidden widths of each task's star network" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "adaptdhm",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::ParameterSharing,
    summary: "star networks of clusters that samples are routed to, in place of scenarios",
    paper: "J. Li et al., \"AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR Prediction\", 2022",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<AdaptDhm>(keys)?)),
};

impl Architecture for AdaptDhm {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let parts = Parts::Clusters { count: self.clusters, route: self.route(g, x0)? };
        let star = |task| star_network(g, &format!("star.{task}"), parts, x0, common.mlp(&self.units));
        let logits: Vec<Value> = inputs.task_names().map(star).collect::<Result<_>>()?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl AdaptDhm {
    fn check(&self) -> Result<()> {
        if self.clusters == 0 {
            return Err(Error::config("model.clusters", "must be at least 1"));
        }
        if !(1..=MOST_ROUNDS).contains(&self.routing) {
            let message = format!("must be between 1 and {MOST_ROUNDS}; it is {}", self.routing);
            return Err(Error::config("model.routing", message));
        }
        if !(0.0..=1.0).contains(&self.beta) {
            let message = format!("is a share between 0 and 1; it is {}", self.beta);
            return Err(Error::config("model.beta", message));
        }
        Ok(())
    }

    /// The cluster of each row, `[batch, 1]`, by the centres after the step's moves.
    fn route(&self, g: &mut Graph, x0: Value) -> Result<Value> {
        let (x, width) = (g.stop_gradient(x0), g.cols(x0));
        let start = Init::Normal((width as f32).sqrt().recip());
        let centers = Block::weight("centers", self.clusters, width, start);
        let (mut centers, state) = g.state(ParamSpec::new(vec![centers])?)?;
        let rounds = if g.is_training() { self.routing } else { 0 };
        for round in 0..rounds {
            let name = |what: &str| format!("routing.{round}.{what}");
            let scores = self.scores(g, &name("scores"), x, centers)?;
            let shares = g.add(name("shares"), Softmax, &[scores])?;
            let pull = g.add(name("pull"), WeightGradient::Weight, &[shares, x])?;
            let mut moved = MoveCenters::new(self.beta as f32);
            if round + 1 == rounds {
                moved = moved.becoming(state);
            }
            centers = g.add(name("centers"), moved, &[centers, pull])?;
        }
        let scores = self.scores(g, "scores", x, centers)?;
        g.add("route", Route, &[scores])
    }

    /// x Cᵀ.
    fn scores(&self, g: &mut Graph, name: &str, x: Value, centers: Value) -> Result<Value> {
        g.add(name, Linear::new(self.clusters, false, Activation::Identity), &[x, centers])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        let message = |keys: &str| {
            let model: AdaptDhm = config::parse(&keys.parse().unwrap()).unwrap();
            model.check().unwrap_err().to_string()
        };
        assert!(message("clusters = 0").contains("model.clusters: must be at least 1"));
        assert!(message("routing = 0").contains("model.routing: must be between 1 and 16; it is 0"));
        assert!(message("beta = 1.5").contains("model.beta: is a share between 0 and 1; it is 1.5"));
    }
}
