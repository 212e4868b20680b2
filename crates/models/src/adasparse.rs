//! One network of which each scenario uses a part: small pruners look at the scenario and at a layer, and weigh or
//! remove its units.
//!
//! X. Yang, X. Peng, P. Wei, S. Liu, L. Wang, B. Zheng, *AdaSparse: Learning Adaptively Sparse Structures for
//! Multi-Domain Click-Through Rate Prediction*, CIKM 2022.
//!
//! ```text
//! e       = [scene_s ; domain fields]
//! h^0     = [e ; x0]                          with `prune_input`, x0 pruned first; e itself never is
//! h^{l+1} = π^l ⊙ φ(W_l h^l + b_l)            π^l of z = pruners.l([e ; units]), an MLP, its last layer linear
//! π       = β sigmoid(z)                      "scaling": nothing is removed
//!         = [v > ε],     v = sigmoid(α z)     "binarization"
//!         = v [v > ε],   v = β sigmoid(α z)   "fusion"; the step is a constant factor: ∂π/∂v = [v > ε]
//! z_t     = towers.t.0(h^L)                   one linear layer;  p_t = sigmoid(z_t)
//! R       = (1/L) Σ_l λ_l |r_l − r|           over pruned layers; r_l the share of units removed, over batch and
//!                                             layer; r the middle of [min, max]; λ_l = 0 inside, else λ |r_l − r|,
//!                                             a coefficient without gradient
//! L       = Σ_t w_t BCE(y_t, p_t) + R
//! ```
//!
//! A step has no gradient, and the paper names no estimator. Straight through (ours): ∂π/∂v = 1 in binarization, where
//! without that no pruner learns, and ∂r_l/∂v = −1 / (rows · units) in both.
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight`, `bottom.<l>.{weight,bias}`, `pruners.<k>.<i>.{weight,bias}` (k
//! counts pruned layers, the input first), `towers.<task>.0.{weight,bias}`. α and λ, which the paper lets grow, are
//! keys, so that stages of training may have theirs; a model is evaluated with those of its last.
//!
//! Where a few rows are served, layers skip the weights of units that are removed in all of them.
//!
//! Others keep a sign in place of the step, which negates units where they should be removed; advance α inside the
//! forward pass, evaluation included; and differentiate λ_l, which doubles the gradient.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::dropout::dropout;
use crate::layers::linear::{linear, over_pruned};
use crate::layers::mlp::{MlpInput, MlpStyle, mlp};
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Amplify, PrunedShare, RangePenalty};
use manygate_graph::{Graph, LossPart, Over, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::{Amplitude, Pruning};
use serde::{Deserialize, Serialize};

/// What a pruner does to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// Weighs it.
    Scaling,
    /// Removes it or not.
    Binarization,
    /// Removes or weighs it.
    Fusion,
}

/// Configuration of adasparse.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaSparse {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    units: Vec<usize>,
    scenario_dim: usize,
    domain_fields: Vec<String>,
    form: Form,
    pruner_units: Vec<usize>,
    prune_input: bool,
    alpha: f64,
    beta: f64,
    epsilon: f64,
    straight_through: bool,
    sparsity_weight: f64,
    ratio_min: f64,
    ratio_max: f64,
    dropout: f64,
}

impl Default for AdaSparse {
    fn default() -> Self {
        AdaSparse {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            units: vec![128, 64],
            scenario_dim: 16,
            domain_fields: Vec::new(),
            form: Form::Fusion,
            pruner_units: Vec::new(),
            prune_input: false,
            alpha: 1.0,
            beta: 2.0,
            epsilon: 0.25,
            straight_through: true,
            sparsity_weight: 0.01,
            ratio_min: 0.15,
            ratio_max: 0.25,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 14] = [
    Key { name: "units", default: "[128, 64]", doc: "widths of the network under all logits" },
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key {
        name: "domain_fields",
        default: "[]",
        doc: "categorical features that pruners and the network read beside the scenario",
    },
    Key {
        name: "form",
        default: "\"fusion\"",
        doc: "scaling, binarization or fusion: units are weighed, removed, or both",
    },
    Key { name: "pruner_units", default: "[]", doc: "hidden widths of each pruner" },
    Key { name: "prune_input", default: "false", doc: "whether the trunk is pruned too" },
    Key {
        name: "alpha",
        default: "1.0",
        doc: "steepness of a unit's weight in binarization and fusion; it may grow from stage to stage",
    },
    Key { name: "beta", default: "2.0", doc: "largest weight of a unit in scaling and fusion" },
    Key { name: "epsilon", default: "0.25", doc: "weight that a unit is removed at or below" },
    Key {
        name: "straight_through",
        default: "true",
        doc: "whether gradients pass the step of binarization and of the share of units removed",
    },
    Key {
        name: "sparsity_weight",
        default: "0.01",
        doc: "factor of the loss that draws the share of units removed into its range; 0 for none",
    },
    Key { name: "ratio_min", default: "0.15", doc: "least share of units to remove" },
    Key { name: "ratio_max", default: "0.25", doc: "largest share of units to remove" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "adasparse",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "one network, of whose units pruners that know the scenario weigh or remove some, a logit per task",
    paper: "X. Yang et al., \"AdaSparse: Learning Adaptively Sparse Structures for Multi-Domain Click-Through Rate Prediction\", CIKM 2022",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<AdaSparse>(keys)?)),
};

impl Architecture for AdaSparse {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let (width, tables) = (self.scenario_dim, common.embedding);
        let (fields, key) = (&self.domain_fields, "model.domain_fields");
        let e = scenario::embedding_and_fields(g, inputs, width, tables, x0, fields, key)?;
        let mut pruners = Pruners { config: self, common: &common, e, arguments: Vec::new() };
        let x0 = if self.prune_input { pruners.prune(g, x0)? } else { x0 };
        let mut h = concat::concat(g, "bottom.input", &[e, x0])?;
        for (l, &units) in self.units.iter().enumerate() {
            let layer = format!("bottom.{l}");
            let is_pruned = self.form != Form::Scaling && (l > 0 || self.prune_input);
            let layer_of = if is_pruned { over_pruned } else { linear };
            h = layer_of(g, &layer, h, units, common.activation)?;
            h = pruners.prune(g, h)?;
            h = dropout(g, &layer, h, common.dropout)?;
        }
        let logits = towers::towers(g, inputs, MlpInput::Shared(h), common.mlp(&[]))?;
        self.sparsity(g, &pruners.arguments)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl AdaSparse {
    fn check(&self) -> Result<()> {
        let wrong = |key: &str, message: String| Err(Error::config(format!("model.{key}"), message));
        if self.units.is_empty() || self.units.contains(&0) {
            return wrong("units", "at least one layer of at least one unit is pruned".into());
        }
        for (key, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(key, format!("must be above 0, not {value}"));
            }
        }
        let (scale, epsilon) = (self.pruning().scale, self.epsilon);
        if self.form != Form::Scaling && !(0.0..0.5 * f64::from(scale)).contains(&epsilon) {
            let message = format!(
                "{epsilon} is not in [0, {}), half a unit's largest weight: every unit would be removed at first",
                0.5 * scale
            );
            return wrong("epsilon", message);
        }
        if !(self.sparsity_weight.is_finite() && self.sparsity_weight >= 0.0) {
            return wrong("sparsity_weight", format!("must be at least 0, not {}", self.sparsity_weight));
        }
        let (min, max) = (self.ratio_min, self.ratio_max);
        if !(0.0 <= min && min <= max && max <= 1.0) {
            return wrong("ratio_max", format!("{min} to {max} is no range of shares between 0 and 1"));
        }
        Ok(())
    }

    fn pruning(&self) -> Pruning {
        let scale = if self.form == Form::Binarization { 1.0 } else { self.beta as f32 };
        Pruning { scale, steepness: self.alpha as f32, threshold: self.epsilon as f32 }
    }

    fn amplitude(&self) -> Amplitude {
        let (pruning, straight_through) = (self.pruning(), self.straight_through);
        match self.form {
            Form::Scaling => Amplitude::Sigmoid(pruning.scale),
            Form::Binarization => Amplitude::Mask { pruning, straight_through },
            Form::Fusion => Amplitude::Pruned(pruning),
        }
    }

    /// R, in training. Nothing is removed in scaling.
    fn sparsity(&self, g: &mut Graph, arguments: &[Value]) -> Result<()> {
        if !g.is_training() || self.form == Form::Scaling || self.sparsity_weight == 0.0 {
            return Ok(());
        }
        let units = arguments.iter().map(|&z| g.cols(z)).collect();
        let share = PrunedShare::new(self.pruning(), self.straight_through, units);
        let share = g.add("pruned_share", share, arguments)?;
        let fixed = g.stop_gradient(share);
        let part = g.loss(LossPart::new("sparsity", 1.0, Over::Once))?;
        let penalty = RangePenalty::new(part, self.ratio_min, self.ratio_max, self.sparsity_weight);
        g.add("loss.sparsity", penalty, &[share, fixed]).map(|_| ())
    }
}

/// The pruners so far.
struct Pruners<'a> {
    config: &'a AdaSparse,
    common: &'a Common,
    /// What they know of the scenario.
    e: Value,
    /// What the weights of units are taken of, by pruned layer.
    arguments: Vec<Value>,
}

impl Pruners<'_> {
    /// π ⊙ h, by the next pruner.
    fn prune(&mut self, g: &mut Graph, h: Value) -> Result<Value> {
        let (k, units) = (self.arguments.len(), &self.config.pruner_units);
        let prefix = format!("pruners.{k}");
        let input = concat::concat(g, &format!("{prefix}.input"), &[self.e, h])?;
        let style = MlpStyle { dropout: 0.0, ..self.common.mlp(units) };
        let hidden = mlp(g, &prefix, input, style)?;
        let last = format!("{prefix}.{}", units.len());
        let z = linear(g, &last, hidden, g.cols(h), Activation::Identity)?;
        self.arguments.push(z);
        g.add(format!("pruned.{k}"), Amplify::new(self.config.amplitude()), &[h, z])
    }
}

#[cfg(test)]
mod tests {
    use crate::inputs::{Inputs, Task};
    use manygate_graph::Mode;

    fn error(keys: &str) -> String {
        let table = format!("name = \"adasparse\"\n{keys}").parse().unwrap();
        let (_, architecture) = crate::from_table(&table).unwrap();
        let inputs =
            Inputs { dense: 3, scenarios: 2, tasks: vec![Task::binary("click")], ..Inputs::default() };
        crate::build(architecture.as_ref(), &inputs, Mode::Training).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        for (keys, told) in [
            ("units = []", "model.units: at least one layer"),
            ("alpha = 0.0", "model.alpha: must be above 0"),
            ("beta = nan", "model.beta: must be above 0"),
            ("epsilon = 1.0", "model.epsilon: 1 is not in [0, 1)"),
            ("epsilon = 0.5\nform = \"binarization\"", "model.epsilon: 0.5 is not in [0, 0.5)"),
            ("sparsity_weight = -1.0", "model.sparsity_weight: must be at least 0"),
            ("ratio_min = 0.5", "model.ratio_max: 0.5 to 0.25 is no range"),
            ("domain_fields = [\"hour\"]", "model.domain_fields: there is no categorical feature `hour`"),
        ] {
            assert!(error(keys).contains(told), "{keys}: {}", error(keys));
        }
    }
}
