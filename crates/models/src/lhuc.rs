//! One network whose hidden units count more or less by scenario: an amplitude near 1 for each unit, and nothing else,
//! is learnt of a scenario.
//!
//! P. Swietojanski, S. Renals, *Learning Hidden Unit Contributions for Unsupervised Speaker Adaptation of Neural
//! Network Acoustic Models*, IEEE SLT 2014; P. Swietojanski, J. Li, S. Renals, IEEE/ACM TASLP 24, 2016.
//!
//! ```text
//! h^0     = x0
//! r^l     = scale.l[s]                        vector form, s the sample's scenario
//!         = gates.l(z)                        gate form: an MLP, its last layer linear
//! z       = [scene_s ; gate fields ; sg(x0)]  sg where `gate_general`: no gradient flows back into x0
//! a(r)    = 2 sigmoid(r)                      or e^r, or 1 + r; all are 1 at 0
//! h^{l+1} = a(r^l) ⊙ φ(W_l h^l + b_l)         site "output", the paper's
//!         = φ(W_l (a(r^l) ⊙ h^l) + b_l)       site "input"
//! z_t     = towers.t(h^L)                     [batch], never scaled;  p_t = sigmoid(z_t)
//! L       = Σ_t w_t BCE(y_t, p_t)
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `bottom.<l>.{weight,bias}`, `scale.<l>.weight` `[S, width]` or `scene.weight`
//! and `gates.<l>.<i>.{weight,bias}`, `towers.<task>.<i>.{weight,bias}`. `scale` starts at 0, as the shared network.
//!
//! A row of `scale` without samples in a batch gets no gradient; it is a dense parameter like others, so that a method
//! with moments may still move it. `freeze = ["embedding.*", "bottom.*", "towers.*"]` learns a new scenario and nothing
//! else. Others forget the factor 2, which halves every unit at the start; scale before the activation; scale towers;
//! or let the gate's gradient into the embeddings that it was to be stopped from.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::dropout::dropout;
use crate::layers::linear::{Head, columns_of, linear, side_by_side};
use crate::layers::mlp::{MlpInput, MlpStyle, mlps};
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::Amplify;
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::Amplitude;
use serde::{Deserialize, Serialize};

/// Where amplitudes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// A row of a table for each scenario.
    Vector,
    /// A network that reads the scenario and fields.
    Gate,
}

/// What of a layer is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Site {
    Output,
    Input,
}

/// An amplitude as a function of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    /// 2 sigmoid(r)
    Sigmoid,
    /// e^r
    Exp,
    /// 1 + r
    Linear,
}

/// Configuration of lhuc.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lhuc {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    units: Vec<usize>,
    form: Form,
    site: Site,
    amplitude: Shape,
    scenario_dim: usize,
    gate_units: Vec<usize>,
    gate_fields: Vec<String>,
    gate_general: bool,
    tower_units: Vec<usize>,
    dropout: f64,
}

impl Default for Lhuc {
    fn default() -> Self {
        Lhuc {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            units: vec![128, 64],
            form: Form::Vector,
            site: Site::Output,
            amplitude: Shape::Sigmoid,
            scenario_dim: 16,
            gate_units: vec![64],
            gate_fields: Vec::new(),
            gate_general: true,
            tower_units: vec![32],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 10] = [
    Key { name: "units", default: "[128, 64]", doc: "widths of the network under all towers" },
    Key {
        name: "form",
        default: "\"vector\"",
        doc: "vector: amplitudes are a row of a table for each scenario; gate: a network tells them",
    },
    Key {
        name: "site",
        default: "\"output\"",
        doc: "output or input: which side of each layer is scaled; the first input is the trunk",
    },
    Key {
        name: "amplitude",
        default: "\"sigmoid\"",
        doc: "sigmoid, exp or linear: 2 sigmoid(r), e^r or 1 + r",
    },
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding in the gate form" },
    Key { name: "gate_units", default: "[64]", doc: "hidden widths of each gate, with relu" },
    Key {
        name: "gate_fields",
        default: "[]",
        doc: "categorical features that gates read beside the scenario",
    },
    Key {
        name: "gate_general",
        default: "true",
        doc: "whether gates read the trunk too, without a gradient into it",
    },
    Key { name: "tower_units", default: "[32]", doc: "hidden widths of each task's tower" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "lhuc",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "one network, an amplitude of the scenario or of a gate for each hidden unit, a tower per task",
    paper: "P. Swietojanski, S. Renals, \"Learning Hidden Unit Contributions for Unsupervised Speaker Adaptation of Neural Network Acoustic Models\", IEEE SLT 2014",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Lhuc>(keys)?)),
};

impl Architecture for Lhuc {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        if self.units.is_empty() || self.units.contains(&0) {
            return Err(Error::config("model.units", "at least one layer of at least one unit is scaled"));
        }
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let scales = match self.form {
            Form::Vector => self.tables(g, inputs, g.cols(x0))?,
            Form::Gate => self.gates(g, inputs, &common, x0)?,
        };
        let mut h = x0;
        for (l, (&units, scale)) in self.units.iter().zip(scales).enumerate() {
            let (layer, scaled) = (format!("bottom.{l}"), format!("scaled.{l}"));
            if self.site == Site::Input {
                h = self.scale(g, inputs, &scaled, h, scale)?;
            }
            h = linear(g, &layer, h, units, common.activation)?;
            if self.site == Site::Output {
                h = self.scale(g, inputs, &scaled, h, scale)?;
            }
            h = dropout(g, &layer, h, common.dropout)?;
        }
        let logits = towers::towers(g, inputs, MlpInput::Shared(h), common.mlp(&self.tower_units))?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Lhuc {
    /// How many units are scaled at each layer.
    fn widths(&self, trunk: usize) -> Vec<usize> {
        match self.site {
            Site::Output => self.units.clone(),
            Site::Input => [trunk].iter().chain(&self.units[..self.units.len() - 1]).copied().collect(),
        }
    }

    /// What amplitudes are taken of, by layer: `[S, width]`, which exist once.
    fn tables(&self, g: &mut Graph, inputs: &Inputs, trunk: usize) -> Result<Vec<Value>> {
        let scenarios = scenario::scenarios(inputs)?;
        let table = |(l, width): (usize, usize)| {
            let rows = Block::weight(format!("scale.{l}.weight"), scenarios, width, Init::Constant(0.0));
            g.param(ParamSpec::new(vec![rows])?)
        };
        self.widths(trunk).into_iter().enumerate().map(table).collect()
    }

    /// The same from gates, `[batch, width]`. All read the same, so that their first layers are one product.
    fn gates(&self, g: &mut Graph, inputs: &Inputs, common: &Common, x0: Value) -> Result<Vec<Value>> {
        let (width, tables) = (self.scenario_dim, common.embedding);
        let key = "model.gate_fields";
        let mut z = scenario::embedding_and_fields(g, inputs, width, tables, x0, &self.gate_fields, key)?;
        if self.gate_general {
            let x0 = g.stop_gradient(x0);
            z = concat::concat(g, "gates.input", &[z, x0])?;
        }
        let widths = self.widths(g.cols(x0));
        let prefixes: Vec<String> = (0..widths.len()).map(|l| format!("gates.{l}")).collect();
        let last = |l: usize| format!("gates.{l}.{}", self.gate_units.len());
        let Some(&hidden) = self.gate_units.last() else {
            let heads = widths.iter().enumerate().map(|(l, &out)| Head { prefix: last(l), out });
            let heads: Vec<Head> = heads.collect();
            let all = side_by_side(g, "gates.*.0", &heads, z, true, Activation::Identity)?;
            return columns_of(g, all, &heads);
        };
        let style = MlpStyle {
            units: &self.gate_units,
            activation: Activation::Relu,
            batch_norm: false,
            dropout: 0.0,
        };
        let all = mlps(g, &prefixes, MlpInput::Shared(z), style)?;
        let gate = |(l, width): (usize, usize)| {
            let own = g.columns(all, l * hidden, hidden)?;
            linear(g, &last(l), own, width, Activation::Identity)
        };
        widths.into_iter().enumerate().map(gate).collect()
    }

    /// a(r) ⊙ h.
    fn scale(&self, g: &mut Graph, inputs: &Inputs, name: &str, h: Value, r: Value) -> Result<Value> {
        let amplify = Amplify::new(match self.amplitude {
            Shape::Sigmoid => Amplitude::Sigmoid(2.0),
            Shape::Exp => Amplitude::Exp,
            Shape::Linear => Amplitude::OnePlus,
        });
        let amplify = match self.form {
            Form::Vector => amplify.by_scenario(inputs.scenarios),
            Form::Gate => amplify,
        };
        g.add(name, amplify, &[h, r])
    }
}
