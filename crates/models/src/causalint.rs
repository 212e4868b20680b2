//! What a sample says is split into a part that is the same in every scenario and one that is not; the other scenarios'
//! experts are asked, but not moved, by a sample: a simulated intervention on its scenario.
//!
//! Y. Wang, H. Guo, B. Chen, W. Liu, Z. Liu, Q. Zhang, Z. He, H. Zheng, W. Yao, M. Zhang, Z. Dong, R. Tang, *CausalInt:
//! Causal Inspired Intervention for Multi-Scenario Recommendation*, KDD 2022.
//!
//! ```text
//! h = invariant(x0), u = specific(x0)        [batch, k]   two MLPs;  q = softmax(scenario(u))  [batch, S]
//! L_general = BCE(general(h)), L_scenario = CE(scenario(u), s), L_joint = BCE(joint([h ; u]))
//! L_orth = mean (ĝ1 · ĝ2)²                                g1 = dL_general/dx0, g2 = dL_scenario/dx0, rows of length 1
//! h' = h − α dL_general/dh                   [batch, k]   or invariant(x0) with θ − α dL_general/dθ
//! T = q_s E_s + Σ_{p≠s} q_p stop(E_p)        [batch, m, m]   E_p = φ(experts.p(u))
//! p = sigmoid(towers.s(φ(project(h') T)))    L_specific = BCE
//! L_conflict = ½ Σ_d |g_d − c_d|²                         g_d = Σ dL_specific/dh' over scenario d's rows, c orthogonal
//! L = L_general + L_scenario + L_joint + w_o L_orth + L_specific + w_c L_conflict
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `invariant.<i>.*`, `specific.<i>.*`, `general.*` [1, k], `scenario.*` [S, k],
//! `joint.*` [1, 2k], `project.*` [m, k], `experts.<p>.*` [m·m, k], `towers.<d>.*` [1, m].
//!
//! With an activation that is linear in pieces, gradients inside the loss are products with transposed weights and
//! constant masks: ordinary values, through which the one backward pass goes. The sign of `p − y` cancels in L_orth and
//! is left out of g1. Weights of the task and of its scenarios weigh losses, not the gradients inside of them. In
//! evaluation there is no label and so no inner step: towers read h. A public port leaves the
//! orthogonality, the conflict and the inner step out of its training, and has dropout in the two networks. There is none
//! here: gradients inside the loss go back through the same layers, and are those of the whole networks.

use crate::config::{self, COMMON_KEYS, Key};
use crate::inputs::Inputs;
use crate::layers::linear::{Layer, layer};
use crate::layers::trunk::Embedding;
use crate::layers::{concat, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{
    ActMask, Activate, Add, AddScaled, BceResidual, Broadcast, Descend, GradientConflict, Linear,
    LinearTransposed, MeanSquare, RowDot, RowLinear, RowNormalise, ScaleRows, ScenarioCrossEntropy,
    ScenarioEmbedding, ScenarioResidual, ScenarioSums, Softmax, TransferMixture, WeightGradient,
};
use manygate_graph::{Block, Graph, Init, LossId, LossPart, Over, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// What the inner step moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Meta {
    None,
    Representation,
    Parameter,
}

/// Configuration of causalint.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CausalInt {
    embedding_dim: usize,
    embedding_deviation: f64,
    units: Vec<usize>,
    transfer: usize,
    slope: f64,
    orthogonality_weight: f64,
    conflict_weight: f64,
    meta: Meta,
    inner_rate: f64,
    first_order: bool,
    basis_fixed: bool,
}

impl Default for CausalInt {
    fn default() -> Self {
        CausalInt {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            units: vec![256, 128, 64],
            transfer: 16,
            slope: 0.2,
            orthogonality_weight: 1.0,
            conflict_weight: 1.0,
            meta: Meta::Representation,
            inner_rate: 1e-3,
            first_order: false,
            basis_fixed: false,
        }
    }
}

const OWN_KEYS: [Key; 9] = [
    Key {
        name: "units",
        default: "[256, 128, 64]",
        doc: "widths of the invariant and of the specific network",
    },
    Key { name: "transfer", default: "16", doc: "width of the transfer between scenarios" },
    Key { name: "slope", default: "0.2", doc: "slope of every activation where it is negative" },
    Key {
        name: "orthogonality_weight",
        default: "1.0",
        doc: "weight of the two parts' common gradient direction",
    },
    Key {
        name: "conflict_weight",
        default: "1.0",
        doc: "weight of the conflict between scenarios' gradients",
    },
    Key {
        name: "meta",
        default: "\"representation\"",
        doc: "none, representation or parameter: what the inner step moves",
    },
    Key { name: "inner_rate", default: "0.001", doc: "rate of the inner step" },
    Key { name: "first_order", default: "false", doc: "whether the inner step's gradient is a constant" },
    Key { name: "basis_fixed", default: "false", doc: "whether the gradients compared with are constants" },
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "causalint",
    aliases: &[],
    relation: Relation::Single,
    structure: Structure::MultiTower,
    method: Method::NegativeTransfer,
    summary: "invariant and scenario-aware representations, an inner step, transfer from the other scenarios' experts",
    paper: "Y. Wang et al., \"CausalInt: Causal Inspired Intervention for Multi-Scenario Recommendation\", KDD 2022",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(2).0,
    parse: |keys| Ok(Box::new(config::parse::<CausalInt>(keys)?)),
};

impl Architecture for CausalInt {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let [task] = &inputs.tasks[..] else {
            return Err(Error::config("tasks", "causalint predicts one task; list one"));
        };
        tasks::all_binary(inputs, ENTRY.name)?;
        if self.units.is_empty() {
            return Err(Error::config("model.units", "needs at least one layer"));
        }
        if self.transfer == 0 {
            return Err(Error::config("model.transfer", "must be at least 1"));
        }
        config::check_factors(&[
            ("orthogonality_weight", self.orthogonality_weight),
            ("conflict_weight", self.conflict_weight),
            ("inner_rate", self.inner_rate),
        ])?;
        let scenarios = scenario::scenarios(inputs)?;
        let embedding = Embedding { dim: self.embedding_dim, deviation: self.embedding_deviation as f32 };
        let x0 = trunk::trunk(g, inputs, embedding)?;
        let invariant = self.extractor(g, "invariant", x0)?;
        let specific = self.extractor(g, "specific", x0)?;
        let (h, u) = (last(&invariant), last(&specific));
        let general = layer(g, "general", h, 1, Activation::Identity)?;
        let scenario = layer(g, "scenario", u, scenarios, Activation::Identity)?;
        let q = g.add("scenario.probabilities", Softmax, &[scenario.output])?;
        let both = concat::concat(g, "joint.input", &[h, u])?;
        let joint = layer(g, "joint", both, 1, Activation::Identity)?;
        let moved = if g.is_training() { self.inner_step(g, x0, &invariant, &general)? } else { h };
        let transfer = self.transfer(g, scenarios, moved, u, q)?;
        if g.is_training() {
            tasks::loss(g, task, 0, general.output, "general")?;
            tasks::loss(g, task, 0, joint.output, "joint")?;
            let loss = part(g, "scenario", 1.0, Over::Rows)?;
            g.add("loss.scenario", ScenarioCrossEntropy::new(loss, scenarios), &[scenario.output])?;
            if self.orthogonality_weight != 0.0 {
                self.orthogonality(g, scenarios, [&invariant, &specific], [&general, &scenario])?;
            }
            if self.conflict_weight != 0.0 {
                self.conflict(g, scenarios, &transfer)?;
            }
        }
        tasks::head(g, task, 0, transfer.logit, "specific")
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// The values between h' and the logit that the conflict goes back through.
struct Transfer {
    project: Layer,
    /// T, `[batch, m·m]`.
    matrix: Value,
    /// φ(r T), `[batch, m]`.
    activated: Value,
    /// The weight of the tower of the row's scenario, `[batch, m]`.
    tower: Value,
    logit: Value,
}

impl CausalInt {
    fn activation(&self) -> Activation {
        Activation::LeakyRelu(self.slope as f32)
    }

    fn extractor(&self, g: &mut Graph, prefix: &str, x: Value) -> Result<Vec<Layer>> {
        let mut layers: Vec<Layer> = Vec::with_capacity(self.units.len());
        for (i, &units) in self.units.iter().enumerate() {
            let x = layers.last().map_or(x, |layer| layer.output);
            layers.push(layer(g, &format!("{prefix}.{i}"), x, units, self.activation())?);
        }
        Ok(layers)
    }

    /// h' of the representation, or of the parameters of the invariant network, moved along −dL_general.
    fn inner_step(&self, g: &mut Graph, x0: Value, invariant: &[Layer], general: &Layer) -> Result<Value> {
        let (h, rate) = (last(invariant), self.inner_rate as f32);
        if self.meta == Meta::None {
            return Ok(h);
        }
        let residual = g.add("general.residual", BceResidual::new(0), &[general.output])?;
        let mut gradient =
            g.add("invariant.gradient", LinearTransposed::new(1), &[residual, general.weight])?;
        if self.meta == Meta::Representation {
            if self.first_order {
                gradient = g.stop_gradient(gradient);
            }
            return g.add("invariant.moved", AddScaled::new(-rate), &[h, gradient]);
        }
        let deltas = self.gradients(g, "invariant.gradient", invariant, gradient)?.deltas;
        let mut x = x0;
        for (i, (layer, delta)) in invariant.iter().zip(deltas).enumerate() {
            let name = |what: &str| format!("invariant.moved.{i}.{what}");
            let [weight, bias] = [
                g.add(name("weight_gradient"), WeightGradient::Weight, &[delta, layer.input])?,
                g.add(name("bias_gradient"), WeightGradient::Bias, &[delta])?,
            ]
            .map(|gradient| if self.first_order { g.stop_gradient(gradient) } else { gradient });
            let weight = g.add(name("weight"), Descend::new(rate), &[layer.weight, weight])?;
            let bias = g.add(name("bias"), Descend::new(rate), &[layer.bias, bias])?;
            let units = g.cols(layer.output);
            x = g.add(name("layer"), Linear::new(units, true, self.activation()), &[x, weight, bias])?;
        }
        Ok(x)
    }

    /// The backward pass through layers as forward expressions, from the gradient of the last output.
    fn gradients(&self, g: &mut Graph, name: &str, layers: &[Layer], top: Value) -> Result<Gradients> {
        let (mut deltas, mut gradient) = (Vec::with_capacity(layers.len()), top);
        for (i, layer) in layers.iter().enumerate().rev() {
            let mask = ActMask::new(self.activation());
            let delta = g.add(format!("{name}.{i}.delta"), mask, &[gradient, layer.output])?;
            let product = LinearTransposed::new(g.cols(delta));
            gradient = g.add(format!("{name}.{i}"), product, &[delta, layer.weight])?;
            deltas.push(delta);
        }
        deltas.reverse();
        Ok(Gradients { deltas, input: gradient })
    }

    /// L_orth: how far the gradients of two losses at x0 point along one line.
    fn orthogonality(
        &self,
        g: &mut Graph,
        scenarios: usize,
        [invariant, specific]: [&[Layer]; 2],
        [general, scenario]: [&Layer; 2],
    ) -> Result<()> {
        let top = g.add("orth.general", Broadcast::row(0), &[general.weight])?;
        let one = self.gradients(g, "orth.invariant", invariant, top)?.input;
        let residual = g.add("orth.residual", ScenarioResidual::new(scenarios), &[scenario.output])?;
        let top = g.add("orth.scenario", LinearTransposed::new(scenarios), &[residual, scenario.weight])?;
        let two = self.gradients(g, "orth.specific", specific, top)?.input;
        let one = g.add("orth.invariant.unit", RowNormalise::new(1e-12), &[one])?;
        let two = g.add("orth.specific.unit", RowNormalise::new(1e-12), &[two])?;
        let cosine = g.add("orth.cosine", RowDot, &[one, two])?;
        let loss = part(g, "orth", self.orthogonality_weight, Over::Rows)?;
        g.add("loss.orth", MeanSquare::new(loss), &[cosine]).map(|_| ())
    }

    /// TransNet: the logit of a sample from its scenario's tower over all scenarios' experts.
    fn transfer(
        &self,
        g: &mut Graph,
        scenarios: usize,
        moved: Value,
        u: Value,
        q: Value,
    ) -> Result<Transfer> {
        let (m, k) = (self.transfer, g.cols(u));
        let stacked = |g: &mut Graph, family: &str, out: usize, input: usize| -> Result<[Value; 2]> {
            let prefix = |p: usize| format!("{family}.{p}");
            let weights = (0..scenarios)
                .map(|p| Block::weight(format!("{}.weight", prefix(p)), out, input, Init::XavierUniform));
            let biases = (0..scenarios)
                .map(|p| Block::vector(format!("{}.bias", prefix(p)), out, Init::Constant(0.0)));
            Ok([g.param(ParamSpec::new(weights.collect())?)?, g.param(ParamSpec::new(biases.collect())?)?])
        };
        let [weight, bias] = stacked(g, "experts", m * m, k)?;
        let linear_experts = Linear::new(scenarios * m * m, true, self.activation());
        let experts = g.add("experts", linear_experts, &[u, weight, bias])?;
        let others = g.stop_gradient(experts);
        let matrix = g.add("transfer", TransferMixture::new(scenarios), &[q, experts, others])?;
        let project = layer(g, "project", moved, m, Activation::Identity)?;
        let product = RowLinear::new(1, m, false, Activation::Identity).transposed();
        let o = g.add("transferred", product, &[project.output, matrix])?;
        let activated = g.add("transferred.activated", Activate::new(self.activation(), m), &[o])?;
        let [weight, bias] = stacked(g, "towers", 1, m)?;
        let tower = g.add("towers.weight", ScenarioEmbedding::new(scenarios), &[weight])?;
        let bias = g.add("towers.bias", ScenarioEmbedding::new(scenarios), &[bias])?;
        let product = g.add("towers", RowDot, &[activated, tower])?;
        let logit = g.add("logit", Add::new(2), &[product, bias])?;
        Ok(Transfer { project, matrix, activated, tower, logit })
    }

    /// L_conflict: dL_specific/dh' of each scenario, against those of the scenarios before it.
    fn conflict(&self, g: &mut Graph, scenarios: usize, transfer: &Transfer) -> Result<()> {
        let residual = g.add("conflict.residual", BceResidual::new(0), &[transfer.logit])?;
        let mask = ActMask::new(self.activation());
        let slope = g.add("conflict.slope", mask, &[transfer.tower, transfer.activated])?;
        let at_o = g.add("conflict.o", ScaleRows, &[slope, residual])?;
        let product = RowLinear::new(1, self.transfer, false, Activation::Identity);
        let at_r = g.add("conflict.r", product, &[at_o, transfer.matrix])?;
        let weight = transfer.project.weight;
        let at_h = g.add("conflict.h", LinearTransposed::new(self.transfer), &[at_r, weight])?;
        let sums = g.add("conflict.gradients", ScenarioSums::new(scenarios), &[at_h])?;
        let loss = part(g, "conflict", self.conflict_weight, Over::Once)?;
        g.add("loss.conflict", GradientConflict::new(loss, scenarios, self.basis_fixed), &[sums]).map(|_| ())
    }
}

/// Gradients at every layer's sum, and at the input of the first.
struct Gradients {
    deltas: Vec<Value>,
    input: Value,
}

fn part(g: &mut Graph, name: &str, weight: f64, over: Over) -> Result<LossId> {
    g.loss(LossPart::new(name, weight as f32, over))
}

fn last(layers: &[Layer]) -> Value {
    layers[layers.len() - 1].output
}
