//! A network a task, all of the same shape; after each layer a small learned matrix mixes their activations.
//!
//! I. Misra, A. Shrivastava, A. Gupta, M. Hebert, *Cross-stitch Networks for Multi-task Learning*, CVPR 2016.
//!
//! ```text
//! h_t^0     = x0
//! r_t       = act(W_{t,l} h_t^l + b_{t,l})            [batch, u_l]    nets.t.l
//! h_t^{l+1} = Σ_j A_l[t, j] r_j                       A_l [T, T]: row t makes the input of task t
//!             Σ_j A_l[t, j, :] ⊙ r_j                  per_unit, A_l [T, T, u_l]
//! z_t       = towers.t(h_t^n)         p_t = sigmoid(z_t)         L = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `nets.<task>.<l>.{weight,bias}`, `stitch.<l>`, `towers.<task>.<i>.*`. Every layer is
//! mixed, the last too. A begins convex: `own_weight` for the task's own activations, the rest shared by the others, so that
//! activations keep their size; ones, where others begin, grow them T-fold a layer. The paper trains A a hundred to a
//! thousand times faster than the networks, and weight decay would pull it to zero and not to the identity: give it a group
//! of the optimiser, `names = ["stitch.*"]`. Others transpose A, which does not show while it is symmetric, mix before the
//! activation, or mix in place, task by task.
//!
//! `scenario_heads`: a tower for each task and scenario, `towers.<task>.<scenario>.<i>.*`, of which a row computes its own
//! scenario's.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::mlp::{MlpInput, MlpStyle, layer_of_each, mlps};
use crate::layers::{tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::Stitch;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use serde::{Deserialize, Serialize};

/// Configuration of cross_stitch.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrossStitch {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    units: Vec<usize>,
    per_unit: bool,
    own_weight: f64,
    tower_units: Vec<usize>,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for CrossStitch {
    fn default() -> Self {
        CrossStitch {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            units: vec![512, 256],
            per_unit: false,
            own_weight: 0.9,
            tower_units: vec![128, 64],
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 4] = [
    Key { name: "units", default: "[512, 256]", doc: "widths of each task's network below its tower" },
    Key {
        name: "per_unit",
        default: "false",
        doc: "whether each unit of a layer has mixing weights of its own, in place of one a pair of tasks",
    },
    Key {
        name: "own_weight",
        default: "0.9",
        doc: "weight at the start of a task's own activations, in [0, 1]; the others share the rest",
    },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "cross_stitch",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::SoftSharing,
    summary: "a network per task, whose activations are mixed after every layer by a learned matrix",
    paper: "I. Misra et al., \"Cross-stitch Networks for Multi-task Learning\", CVPR 2016",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<CrossStitch>(keys)?)),
};

impl Architecture for CrossStitch {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let nets: Vec<String> = inputs.task_names().map(|task| format!("nets.{task}")).collect();
        let style = common.mlp(&self.units);
        // All tasks read the same first input: one product.
        let first = MlpStyle { units: &self.units[..1], ..style };
        let mut h = mlps(g, &nets, MlpInput::Shared(x0), first)?;
        for (l, &units) in self.units.iter().enumerate() {
            if l > 0 {
                h = layer_of_each(g, &nets, l, h, units, style)?;
            }
            h = self.stitch(g, inputs.tasks.len(), l, h)?;
        }
        let tower = common.mlp(&self.tower_units);
        let logits = towers::of_tasks(g, inputs, MlpInput::Each(h), tower, self.scenario_heads)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl CrossStitch {
    fn check(&self) -> Result<()> {
        if self.units.is_empty() || self.units.contains(&0) {
            return Err(Error::config("model.units", "needs at least one layer, of at least one unit"));
        }
        if !(0.0..=1.0).contains(&self.own_weight) {
            let message = format!("must lie in [0, 1]; it is {}", self.own_weight);
            return Err(Error::config("model.own_weight", message));
        }
        Ok(())
    }

    /// The activations of layer `l` of all tasks, mixed: `[batch, tasks · unit]`.
    fn stitch(&self, g: &mut Graph, tasks: usize, l: usize, h: Value) -> Result<Value> {
        let (name, units) = (format!("stitch.{l}"), g.cols(h) / tasks);
        let (own, others) = if tasks == 1 {
            (1.0, 0.0)
        } else {
            (self.own_weight, (1.0 - self.own_weight) / (tasks - 1) as f64)
        };
        let width = if self.per_unit { units } else { 1 };
        let init = Init::Diagonal { width, own: own as f32, others: others as f32 };
        let shape = if self.per_unit { vec![tasks, tasks, units] } else { vec![tasks, tasks] };
        let a = g.param(ParamSpec::new(vec![Block { name: name.clone(), shape, init }])?)?;
        g.add(name, Stitch::new(tasks), &[h, a])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_built_is_told() {
        let check = |keys: &str| {
            let model: CrossStitch = config::parse(&keys.parse().unwrap()).unwrap();
            model.check().map_err(|e| e.to_string())
        };
        assert!(check("units = []").unwrap_err().contains("model.units: needs at least one layer"));
        assert!(check("units = [8, 0]").unwrap_err().contains("model.units: needs at least one layer"));
        assert!(check("own_weight = 1.5").unwrap_err().contains("model.own_weight: must lie in [0, 1]"));
        assert_eq!(check("own_weight = 0.5"), Ok(()));
    }
}
