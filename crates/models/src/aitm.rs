//! A funnel of events (view, click, order), in which the network of each receives what the one before found, weighed by
//! attention; a later event predicted likelier than an earlier one is punished.
//!
//! D. Xi, Z. Chen, P. Yan, Y. Zhang, Y. Zhu, F. Zhuang, Y. Chen, *Modeling the Sequential Dependence among Audience
//! Multi-step Conversions with Multi-task Learning in Targeted Display Advertising*, KDD 2021.
//!
//! ```text
//! q_t = bottoms.t(x0)                                [batch, k]
//! z_1 = q_1
//! p_t = act(infos.t(z_{t−1}))                        [batch, k]    t ≥ 2
//! s_u = <K u, Q u> / √k                              u = p_t, q_t: each scores itself
//! z_t = w_p V p_t + w_q V q_t                        (w_p, w_q) = softmax(s_p, s_q)
//! y_t = sigmoid(towers.t(z_t))
//! L   = Σ_t w_t BCE(label_t, y_t) + α Σ_{t≥2} mean max(y_t − y_{t−1}, 0)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `bottoms.<task>.<i>.*`, `infos.<task>.{weight,bias}` of the task that receives,
//! `ait.{v,k,q}.weight` of all steps or `ait.<task>.{v,k,q}.weight` (`.bias` as configured), `towers.<task>.<i>.*`. Tasks are
//! the events in order, each trained over all rows. What is handed on is z_{t−1}, not q_{t−1}, which two tasks cannot tell
//! apart. Others sum the penalty over the batch, so that it grows with it, leave it out, or let one query score both.
//!
//! `scenario_heads`: a tower for each task and scenario, `towers.<task>.<scenario>.<i>.*`, of which a row computes its own
//! scenario's.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::concat::concat;
use crate::layers::linear::linear;
use crate::layers::mlp::{MlpInput, mlps};
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Linear, OrderPenalty, SelfScored};
use manygate_graph::{Block, Graph, Init, LossPart, Over, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// What ends the map of what is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum InfoActivation {
    None,
    Relu,
}

/// Configuration of aitm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Aitm {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    bottom_units: Vec<usize>,
    transfer_shared: bool,
    transfer_bias: bool,
    info_activation: InfoActivation,
    calibrator_weight: f64,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Aitm {
    fn default() -> Self {
        Aitm {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            bottom_units: vec![128, 64, 32],
            transfer_shared: true,
            transfer_bias: false,
            info_activation: InfoActivation::Relu,
            calibrator_weight: 0.6,
            tower_units: Vec::new(),
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 8] = [
    Key {
        name: "bottom_units",
        default: "[128, 64, 32]",
        doc: "widths of each task's network below the transfer",
    },
    Key {
        name: "transfer_shared",
        default: "true",
        doc: "whether all steps have the keys, queries and values of one transfer",
    },
    Key { name: "transfer_bias", default: "false", doc: "whether these three maps have biases" },
    Key {
        name: "info_activation",
        default: "\"relu\"",
        doc: "none or relu, after the map of what is handed over",
    },
    Key {
        name: "calibrator_weight",
        default: "0.6",
        doc: "weight of the penalty on a later event that is likelier than the one before; 0 for none",
    },
    Key { name: "tower_units", default: "[]", doc: "hidden widths of each task's tower" },
    DROPOUT,
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "aitm",
    aliases: &[],
    relation: Relation::Cascade,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "a chain of events, each network attends to what the one before found; a penalty on events out of order",
    paper: "D. Xi et al., \"Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task Learning in Targeted Display Advertising\", KDD 2021",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(4).0,
    parse: |keys| Ok(Box::new(config::parse::<Aitm>(keys)?)),
};

impl Architecture for Aitm {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        tasks::chain(inputs, ENTRY.name)?;
        let width = self.width()?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let names: Vec<&str> = inputs.task_names().collect();
        let bottoms: Vec<String> = names.iter().map(|task| format!("bottoms.{task}")).collect();
        let q = mlps(g, &bottoms, MlpInput::Shared(x0), common.mlp(&self.bottom_units))?;
        let mut states = vec![g.columns(q, 0, width)?];
        let mut transfer = None;
        for (t, task) in names.iter().enumerate().skip(1) {
            let own = g.columns(q, t * width, width)?;
            let maps = match transfer.filter(|_| self.transfer_shared) {
                Some(maps) => maps,
                None => self.transfer(g, task, width)?,
            };
            transfer = Some(maps);
            states.push(self.receive(g, task, states[t - 1], own, maps)?);
        }
        let states = concat(g, "states", &states)?;
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(states), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)?;
        if g.is_training() && self.calibrator_weight > 0.0 {
            let part = g.loss(LossPart::new("calibrator", self.calibrator_weight as f32, Over::Rows))?;
            g.add("loss.calibrator", OrderPenalty::new(part, logits.len()), &logits)?;
        }
        Ok(())
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// Keys, queries and values of a transfer: a weight `[3 k, k]` and, as configured, a bias.
#[derive(Clone, Copy)]
struct Transfer {
    weight: Value,
    bias: Option<Value>,
}

impl Aitm {
    /// Width of the states.
    fn width(&self) -> Result<usize> {
        config::check_factors(&[("calibrator_weight", self.calibrator_weight)])?;
        match self.bottom_units.last() {
            Some(&width) if !self.bottom_units.contains(&0) => Ok(width),
            _ => {
                let message = "needs at least one layer, of at least one unit";
                Err(Error::config("model.bottom_units", message))
            }
        }
    }

    fn transfer(&self, g: &mut Graph, task: &str, width: usize) -> Result<Transfer> {
        let name = |map: &str, part: &str| match self.transfer_shared {
            true => format!("ait.{map}.{part}"),
            false => format!("ait.{task}.{map}.{part}"),
        };
        let maps = ["k", "q", "v"];
        let weight = maps.map(|map| Block::weight(name(map, "weight"), width, width, Init::XavierUniform));
        let weight = g.param(ParamSpec::new(weight.to_vec())?)?;
        let bias = match self.transfer_bias {
            false => None,
            true => {
                let bias = maps.map(|map| Block::vector(name(map, "bias"), width, Init::Constant(0.0)));
                Some(g.param(ParamSpec::new(bias.to_vec())?)?)
            }
        };
        Ok(Transfer { weight, bias })
    }

    /// The state of `task`, `[batch, k]`, of the one before it and of what it found by itself.
    fn receive(&self, g: &mut Graph, task: &str, before: Value, own: Value, maps: Transfer) -> Result<Value> {
        let width = g.cols(own);
        let activation = match self.info_activation {
            InfoActivation::None => Activation::Identity,
            InfoActivation::Relu => Activation::Relu,
        };
        let handed = linear(g, &format!("infos.{task}"), before, width, activation)?;
        let sources = concat(g, &format!("sources.{task}"), &[handed, own])?;
        let map = Linear::new(3 * width, maps.bias.is_some(), Activation::Identity).over_groups(2);
        let inputs: Vec<Value> = [sources, maps.weight].into_iter().chain(maps.bias).collect();
        let kqv = g.add(format!("ait.{task}"), map, &inputs)?;
        let scale = 1.0 / (width as f32).sqrt();
        g.add(format!("transfer.{task}"), SelfScored::new(2, scale), &[kqv])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        let width = |keys: &str| {
            let model: Aitm = config::parse(&keys.parse().unwrap()).unwrap();
            model.width().map_err(|e| e.to_string())
        };
        assert_eq!(width("bottom_units = [8, 4]"), Ok(4));
        for units in ["[]", "[8, 0]", "[0, 8]"] {
            let message = width(&format!("bottom_units = {units}")).unwrap_err();
            assert!(message.contains("model.bottom_units: needs at least one layer"), "{message}");
        }
        let message = width("calibrator_weight = -1.0").unwrap_err();
        assert!(message.contains("model.calibrator_weight: must be a number from 0 up"), "{message}");
    }
}
