//! A click and a conversion after it, as in [`esmm`](crate::esmm), with a counterfactual risk of the conversion: clicked rows
//! weigh by the inverse of their click's propensity (ips), or the errors of the other rows are imputed (dr).
//!
//! H. Wang, T.-W. Chang, T. Liu, J. Huang, Z. Chen, C. Yu, R. Li, W. Chu, *ESCM²: Entire Space Counterfactual Multi-Task
//! Model for Post-Click Conversion Rate Estimation*, SIGIR 2022.
//!
//! ```text
//! po = σ(towers.ctr(h_ctr))   pr = σ(towers.cvr(h_cvr))       h = x0, or mixtures of experts by a gate each
//! v  = 1 / max(po, least), detached     e = BCE(r, pr)        o, r the labels of click and click-and-conversion
//! ips:  L_cvr = mean o e v                                    over all rows
//! dr:   d     = softplus or σ of towers.imp(h_imp)            the imputed error
//!       L_cvr = mean (d + o (e − d) v) + mean o (e − d)² v    .error, .imputation
//! L = BCE(o, po) + λ_c L_cvr + λ_g BCE(r, po pr)              both over all rows
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `experts.<e>.<i>.*` and `gates.{ctr,cvr,imp}.weight` with experts,
//! `towers.{ctr,cvr,imp}.<i>.*`. Tasks are click and click-and-conversion; pr is an output too. Weights of the tasks multiply
//! their parts, λ those of cvr and of both. With `imputation_gradient = "split"` d is constant in the first mean and e in
//! the second: the in-graph form of the alternating steps of the paper's appendix. In `"joint"` 1 − v < 0 pushes d up on
//! clicked rows. Others let the loss inflate the propensity, divide by the clicked rows, which is another estimator, clip the
//! weighted loss in place of the propensity, or keep the first mean from below 0.
//!
//! `scenario_heads`: a tower, and with experts a gate, for each of ctr, cvr and imp and each scenario,
//! `towers.ctr.<scenario>.<i>.*` and `gates.ctr.<scenario>.*`, of which a row computes its own scenario's.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, Key, NormName, SCENARIO_HEADS};
use crate::inputs::Inputs;
use crate::layers::mlp::{MlpInput, MlpStyle};
use crate::layers::moe::{GateStyle, all_see_all, bank_and_logits_of_all, mix, show_readers};
use crate::layers::{scenario, tasks, towers, trunk};
use crate::registry::{Alias, Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BceOfProduct, CounterfactualRisk, Imputed, Multiply, Risk, Sigmoid};
use manygate_graph::{Graph, LossPart, Over, Value};
use serde::{Deserialize, Serialize};

/// The estimate of the risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Estimate {
    /// Inverse propensity scores.
    Ips,
    /// Doubly robust.
    Dr,
}

/// What the towers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Base {
    /// The trunk.
    None,
    /// Mixtures of experts.
    Mmoe,
}

/// The imputed error of its logit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Imputation {
    Softplus,
    Sigmoid,
}

/// What the terms of the doubly robust risk train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ImputationGradient {
    /// Both networks.
    Joint,
    /// One each.
    Split,
}

/// Configuration of escm2.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Escm2 {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    norm: NormName,
    estimate: Estimate,
    conditional: String,
    base: Base,
    experts: usize,
    expert_units: Vec<usize>,
    gate_bias: bool,
    gate_units: Vec<usize>,
    tower_units: Vec<usize>,
    imputation: Imputation,
    imputation_gradient: ImputationGradient,
    least_propensity: f64,
    propensity_gradient: bool,
    conversion_weight: f64,
    both_weight: f64,
    dropout: f64,
    scenario_heads: bool,
}

impl Default for Escm2 {
    fn default() -> Self {
        Escm2 {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            norm: NormName::None,
            estimate: Estimate::Dr,
            conditional: String::new(),
            base: Base::Mmoe,
            experts: 8,
            expert_units: vec![512, 256],
            gate_bias: false,
            gate_units: Vec::new(),
            tower_units: vec![128, 64],
            imputation: Imputation::Softplus,
            imputation_gradient: ImputationGradient::Joint,
            least_propensity: 0.1,
            propensity_gradient: false,
            conversion_weight: 0.1,
            both_weight: 1.0,
            dropout: 0.0,
            scenario_heads: false,
        }
    }
}

const OWN_KEYS: [Key; 14] = [
    Key {
        name: "estimate",
        default: "\"dr\"",
        doc: "ips or dr: inverse propensity scores, or doubly robust",
    },
    Key {
        name: "conditional",
        default: "\"\"",
        doc: "name of the conversion's probability given a click; empty for click, buy: buy_given_click",
    },
    Key { name: "base", default: "\"mmoe\"", doc: "none or mmoe: whether towers read mixtures of experts" },
    Key { name: "experts", default: "8", doc: "number of shared experts" },
    Key { name: "expert_units", default: "[512, 256]", doc: "widths of each expert" },
    Key { name: "gate_bias", default: "false", doc: "whether gates have a bias" },
    Key { name: "gate_units", default: "[]", doc: "hidden widths of each gate" },
    Key {
        name: "imputation",
        default: "\"softplus\"",
        doc: "softplus or sigmoid: the imputed error is from 0 up, or in (0, 1)",
    },
    Key {
        name: "imputation_gradient",
        default: "\"joint\"",
        doc: "joint or split: whether each term of dr trains both networks, or one each",
    },
    Key {
        name: "least_propensity",
        default: "0.1",
        doc: "the propensity that a smaller one counts as, above 0 and at most 1",
    },
    Key {
        name: "propensity_gradient",
        default: "false",
        doc: "whether the conversion's risk trains the propensity (not in the paper)",
    },
    Key { name: "conversion_weight", default: "0.1", doc: "λ_c, the weight of the conversion's risk" },
    Key { name: "both_weight", default: "1.0", doc: "λ_g, the weight of the loss of click and conversion" },
    SCENARIO_HEADS,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "escm2",
    aliases: &[Alias {
        name: "escm",
        summary: "ESCM², written without its square",
        paper: "H. Wang et al., \"ESCM²: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation\", SIGIR 2022",
        preset: None,
    }],
    relation: Relation::Cascade,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "a click and a conversion after it, with a risk of the conversion over all rows by inverse propensity",
    paper: "H. Wang et al., \"ESCM²: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation\", SIGIR 2022",
    own_keys: &OWN_KEYS,
    common_keys: &COMMON_KEYS,
    parse: |keys| Ok(Box::new(config::parse::<Escm2>(keys)?)),
};

impl Architecture for Escm2 {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let conditional = self.check(inputs)?;
        let common = Common::new(self.embedding_dim, self.embedding_deviation, self.activation, self.norm)
            .with_dropout(self.dropout);
        let x0 = trunk::trunk(g, inputs, common.embedding)?;
        let [served, imputed] = self.bases(g, inputs, &common, x0)?;
        let style = common.mlp(&self.tower_units);
        let served_towers = ["towers.ctr".into(), "towers.cvr".into()];
        let mut heads = towers::named(g, inputs, &served_towers, served, style, self.scenario_heads)?;
        let (click, conversion) = (heads[0], heads[1]);
        if self.estimate == Estimate::Dr {
            // Apart from the others, so that a plan which serves computes nothing for it.
            let tower = ["towers.imp".into()];
            heads.extend(towers::named(g, inputs, &tower, imputed, style, self.scenario_heads)?);
        }
        let [first, both] = &inputs.tasks[..] else { return Err(two_tasks()) };
        let p = g.add(format!("probability.{}", first.name), Sigmoid, &[click])?;
        let q = g.add(format!("probability.{conditional}"), Sigmoid, &[conversion])?;
        let reached = g.add(format!("probability.{}", both.name), Multiply, &[p, q])?;
        g.output(&first.name, p);
        g.output(&both.name, reached);
        g.output(&conditional, q);
        tasks::loss(g, first, 0, click, &first.name)?;
        if !g.is_training() {
            return Ok(());
        }
        let part = tasks::part(both, &both.name, Over::Rows);
        let part = g.loss(LossPart { weight: part.weight * self.both_weight as f32, ..part })?;
        g.add(format!("loss.{}", both.name), BceOfProduct::new(part, 0..2), &[click, conversion])?;
        if !self.propensity_gradient {
            heads[0] = g.stop_gradient(click);
        }
        self.risk(g, inputs, &conditional, &heads)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

fn two_tasks() -> Error {
    Error::config("tasks", "escm2 predicts a click and a click with a conversion; list these two, in order")
}

impl Escm2 {
    /// The name of the conditional probability.
    fn check(&self, inputs: &Inputs) -> Result<String> {
        tasks::chain(inputs, ENTRY.name)?;
        let [click, both] = &inputs.tasks[..] else { return Err(two_tasks()) };
        if !(self.least_propensity > 0.0 && self.least_propensity <= 1.0) {
            let message = format!("must lie in (0, 1]; it is {}", self.least_propensity);
            return Err(Error::config("model.least_propensity", message));
        }
        config::check_factors(&[
            ("conversion_weight", self.conversion_weight),
            ("both_weight", self.both_weight),
        ])?;
        if self.base == Base::Mmoe && self.experts == 0 {
            return Err(Error::config("model.experts", "must be at least 1"));
        }
        if self.conditional.is_empty() {
            return Ok(format!("{}_given_{}", both.name, click.name));
        }
        if [&click.name, &both.name].contains(&&self.conditional) {
            let message = format!("`{}` is the name of another output: choose another", self.conditional);
            return Err(Error::config("model.conditional", message));
        }
        Ok(self.conditional.clone())
    }

    /// What the towers of click and conversion read, and that of the imputed error.
    fn bases(&self, g: &mut Graph, inputs: &Inputs, common: &Common, x0: Value) -> Result<[MlpInput; 2]> {
        if self.base == Base::None {
            return Ok([MlpInput::Shared(x0); 2]);
        }
        let heads = if self.estimate == Estimate::Dr { &["ctr", "cvr", "imp"][..] } else { &["ctr", "cvr"] };
        let experts = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        let gates = heads.iter().map(|head| format!("gates.{head}")).collect();
        let hidden = MlpStyle { batch_norm: false, dropout: 0.0, ..common.mlp(&self.gate_units) };
        let gate = GateStyle { bias: self.gate_bias, hidden };
        let scenarios = scenario::of_heads(inputs, self.scenario_heads)?;
        let readers = [all_see_all(x0, experts, gates).by_scenario(scenarios)];
        let (bank, logits) = bank_and_logits_of_all(g, &readers, common.mlp(&self.expert_units), gate)?;
        show_readers(g, &readers, [logits, bank])?;
        let mut mixtures = |from: usize, gates: usize| {
            let logits = g.columns(logits, from * self.experts, gates * self.experts)?;
            let sees: Vec<Vec<usize>> = vec![(0..self.experts).collect(); gates];
            Ok(MlpInput::Each(mix(g, logits, bank, self.experts, &sees)?))
        };
        let served = mixtures(0, 2)?;
        Ok([served, if heads.len() > 2 { mixtures(2, 1)? } else { served }])
    }

    /// The losses of the conversion, from the logits of click, conversion and imputed error.
    fn risk(&self, g: &mut Graph, inputs: &Inputs, name: &str, heads: &[Value]) -> Result<()> {
        let both = &inputs.tasks[1];
        let add = |g: &mut Graph, name: String, risk: Risk, heads: &[Value]| {
            // Its weight is λ_c, its scenarios count as those of the conversion.
            let part = tasks::part(both, &name, Over::Rows);
            let part = g.loss(LossPart { weight: self.conversion_weight as f32, ..part })?;
            let op = CounterfactualRisk::new(part, risk, [0, 1], self.least_propensity);
            g.add(format!("loss.{name}"), op, heads).map(|_| ())
        };
        let &[click, conversion, imputed] = heads else {
            return add(g, name.to_owned(), Risk::Inverse, heads);
        };
        let kind = match self.imputation {
            Imputation::Softplus => Imputed::Softplus,
            Imputation::Sigmoid => Imputed::Sigmoid,
        };
        let (mut constant, mut known) = (imputed, conversion);
        if self.imputation_gradient == ImputationGradient::Split {
            (constant, known) = (g.stop_gradient(imputed), g.stop_gradient(conversion));
        }
        add(g, format!("{name}.error"), Risk::Error(kind), &[click, conversion, constant])?;
        add(g, format!("{name}.imputation"), Risk::Imputation(kind), &[click, known, imputed])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Task;

    fn check(keys: &str, tasks: &[&str]) -> std::result::Result<String, String> {
        let tasks = tasks.iter().map(|name| Task::binary(*name)).collect();
        let model: Escm2 = config::parse(&keys.parse().unwrap()).unwrap();
        model.check(&Inputs { tasks, ..Inputs::default() }).map_err(|e| e.to_string())
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let events = ["click", "buy"];
        assert_eq!(check("", &events).unwrap(), "buy_given_click");
        assert_eq!(check("conditional = \"cvr\"", &events).unwrap(), "cvr");
        for (keys, told) in [
            ("least_propensity = 0.0", "model.least_propensity: must lie in (0, 1]"),
            ("least_propensity = 1.5", "model.least_propensity: must lie in (0, 1]"),
            ("conversion_weight = -1.0", "model.conversion_weight: must be a number from 0 up"),
            ("both_weight = -1.0", "model.both_weight: must be a number from 0 up"),
            ("experts = 0", "model.experts: must be at least 1"),
            ("conditional = \"buy\"", "model.conditional: `buy` is the name of another output"),
        ] {
            let message = check(keys, &events).unwrap_err();
            assert!(message.contains(told), "{message}");
        }
        assert!(check("", &["click"]).unwrap_err().contains("list at least two"));
        assert!(check("", &["view", "click", "buy"]).unwrap_err().contains("list these two, in order"));
    }
}
