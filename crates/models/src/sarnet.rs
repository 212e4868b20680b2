//! Attention by item and by scenario over a user's behaviours, a transformation of the scenario's own, experts of all
//! scenarios beside its own, and networks that take the bias of promoted items upon themselves.
//!
//! Q. Shen, W. Tao, J. Zhang, H. Wen, Z. Chen, Q. Lu, *SAR-Net: A Scenario-Aware Ranking Network for Personalized Fair
//! Recommendation in Hundreds of Travel Scenarios*, CIKM 2021.
//!
//! ```text
//! α  = softmax_n item_attention([q ; e_n ; q − e_n ; q ⊙ e_n])      q the item's embedding, e_n a behaviour's
//! β  = softmax_n scene_attention([c ; c_n ; c − c_n ; c ⊙ c_n])     c the scenario's, c_n that of the behaviour
//! v  = Σ_n α_n β_n e_n                                              not renormalised
//! h  = μ_s ⊙ [v ; x0 ; c] + γ_s                                     s the sample's scenario; it starts as μ = 1, γ = 0
//! m_k = experts k of h, [shared …, own of s …], a number a task;    g_t = softmax(gates.t(h))
//! z_t = Σ_k g_tk (m_kt + b_kt)                                      b_k = bias network k of [f ; c], in training alone
//! L  = Σ_t mean_rows f · ℓ(y_t, z_t)                                f the sample's fairness coefficient, 1 without one
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight` [S, c]; `item_attention.<l>.*`, `scene_attention.<l>.*`;
//! `transform.{weight,bias}` [S, width]; `shared.<k>.<l>.*`, `specific.<s>.<k>.<l>.*`; `shared_bias.<k>.<l>.*`,
//! `specific_bias.<s>.<k>.<l>.*`; `gates.<task>.*`.
//!
//! Behaviours and their scenarios are two sequences side by side, whose last ones are partners. Unknown values are dropped
//! from a sequence, so that what stands before one would be paired with the scenario of its neighbour: give both
//! `keep_unknown`, and the same `max_length`.
//!
//! The fairness coefficient says how much the exposure of an item in a scenario was interfered with. It is computed
//! beforehand and is one of the data's numbers, which the model then reads as nothing else; it must not be standardised
//! (`transform = "raw"`), and serving needs none: an empty cell will do. A sample passes the experts of its own scenario
//! alone. A public port has no behaviours and no bias networks, scores scenarios by the items' unit, and starts the
//! transformation at random numbers; multiplying scores before one softmax is another function.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::{Inputs, TaskKind};
use crate::layers::linear::Head;
use crate::layers::mlp::{MlpInput, MlpStyle, Networks, linears, mlps_with_heads};
use crate::layers::sequence::{List, behaviours, list};
use crate::layers::trunk::{self, Embedding};
use crate::layers::{concat, scenario, tasks, towers};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{
    Add, Compare, GateCombine, RowLoss, RowWeight, ScenarioAffine, ScenarioEmbedding, SequenceSoftmax,
    WeightedLoss, WeightedPool,
};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Configuration of sarnet.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sarnet {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    scenario_dim: usize,
    history: String,
    history_scenarios: String,
    target: String,
    attention_units: Vec<usize>,
    shared_experts: usize,
    scenario_experts: usize,
    expert_units: Vec<usize>,
    fairness: String,
    bias_units: Vec<usize>,
    dropout: f64,
}

impl Default for Sarnet {
    fn default() -> Self {
        Sarnet {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            scenario_dim: 16,
            history: String::new(),
            history_scenarios: String::new(),
            target: String::new(),
            attention_units: vec![80, 40],
            shared_experts: 8,
            scenario_experts: 2,
            expert_units: vec![128, 64],
            fairness: String::new(),
            bias_units: vec![16],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 11] = [
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key {
        name: "history",
        default: "\"\"",
        doc: "the sequence of behaviours; empty for none. Others are pooled",
    },
    Key {
        name: "history_scenarios",
        default: "\"\"",
        doc: "the sequence of the scenarios they happened in, side by side with it, in the table of the scenario's column",
    },
    Key {
        name: "target",
        default: "\"\"",
        doc: "the categorical feature of the item that behaviours are compared with",
    },
    Key { name: "attention_units", default: "[80, 40]", doc: "hidden widths of both attention networks" },
    Key { name: "shared_experts", default: "8", doc: "experts of all scenarios" },
    Key { name: "scenario_experts", default: "2", doc: "experts of each scenario" },
    Key {
        name: "expert_units",
        default: "[128, 64]",
        doc: "hidden widths of an expert, which ends in a number a task",
    },
    Key {
        name: "fairness",
        default: "\"\"",
        doc: "the numeric feature (transform = \"raw\") that weighs rows and that bias networks read; empty for neither",
    },
    Key { name: "bias_units", default: "[16]", doc: "hidden widths of a bias network" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "sarnet",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::MultiTower,
    method: Method::NegativeTransfer,
    summary: "attention by item and scenario, experts of all scenarios and of each, networks that absorb bias",
    paper: "Q. Shen et al., \"SAR-Net: A Scenario-Aware Ranking Network for Personalized Fair Recommendation in \
            Hundreds of Travel Scenarios\", CIKM 2021",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Sarnet>(keys)?)),
};

impl Architecture for Sarnet {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check(inputs)?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let fairness = self.fairness(inputs)?;
        let x0 = trunk::trunk_of(g, inputs, common.embedding, |bag| {
            bag.longest.is_none() || ![&self.history, &self.history_scenarios].contains(&&bag.name)
        })?;
        let scenes = scenario::table(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        let scene = scenario::rows(g, inputs, scenes)?;
        let mut parts = Vec::new();
        if !self.history.is_empty() {
            parts.push(self.interest(g, inputs, common.embedding, x0, [scenes, scene])?);
        }
        // Numbers are the last columns of the trunk.
        let coefficient = fairness.map(|f| g.cols(x0) - f.width + f.column);
        parts.extend(without(g, x0, coefficient)?);
        parts.push(scene);
        let input = concat::concat(g, "experts.input", &parts)?;
        let h = transform(g, inputs.scenarios, input)?;

        let tasks = inputs.tasks.len();
        let (bank, gates) = self.experts(g, inputs, h, common.mlp(&self.expert_units))?;
        let mut numbers = bank;
        if let Some(column) = coefficient {
            let coefficient = g.columns(x0, column, 1)?;
            let input = concat::concat(g, "bias.input", &[coefficient, scene])?;
            // Evaluation has the same parameters, and computes nothing for them.
            let biases = self.bias_networks(g, inputs, input, common.mlp(&self.bias_units))?;
            if g.is_training() {
                numbers = g.add("experts.biased", Add::new(2), &[bank, biases])?;
            }
        }
        let experts = self.shared_experts + self.scenario_experts;
        let mixed = g.add("mixtures", GateCombine::new(tasks, experts), &[gates, numbers])?;
        // Each gate mixes the numbers of all tasks: the diagonal is its own.
        let raw: Result<Vec<Value>> = (0..tasks).map(|t| g.columns(mixed, t * tasks + t, 1)).collect();
        match fairness {
            Some(weight) => weighted_heads(g, inputs, &raw?, weight),
            None => tasks::heads(g, inputs, &raw?),
        }
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl Sarnet {
    fn check(&self, inputs: &Inputs) -> Result<()> {
        scenario::scenarios(inputs)?;
        for (key, count) in [
            ("scenario_dim", self.scenario_dim),
            ("shared_experts", self.shared_experts),
            ("scenario_experts", self.scenario_experts),
        ] {
            if count == 0 {
                return Err(Error::config(format!("model.{key}"), "must be at least 1"));
            }
        }
        if self.expert_units.is_empty() {
            return Err(Error::config("model.expert_units", "an expert needs a hidden layer"));
        }
        Ok(())
    }

    /// The column of the batch's numbers that is the fairness coefficient.
    fn fairness(&self, inputs: &Inputs) -> Result<Option<RowWeight>> {
        if self.fairness.is_empty() {
            return Ok(None);
        }
        let Some(column) = inputs.dense_names.iter().position(|name| *name == self.fairness) else {
            let message = format!("there is no numeric feature `{}`", self.fairness);
            return Err(Error::config("model.fairness", message));
        };
        Ok(Some(RowWeight { column, width: inputs.dense }))
    }

    /// v, `[batch, dim]`.
    fn interest(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        embedding: Embedding,
        x0: Value,
        [scenes, scene]: [Value; 2],
    ) -> Result<Value> {
        let target = trunk::field(g, inputs, embedding, x0, &self.target, "model.target")?;
        let (items, history) = behaviours(g, inputs, embedding, "history", &self.history, "model.history")?;
        if g.cols(target) != g.cols(history) {
            let message =
                format!("`{}` is not as wide as a behaviour: give the sequence its table", self.target);
            return Err(Error::config("model.target", message));
        }
        let (places, table) = list(g, inputs, &self.history_scenarios, "model.history_scenarios")?;
        if inputs.tables[table].rows != inputs.scenarios + 1 {
            let message = format!(
                "its table has {} rows for {} scenarios; give the sequence the table of the scenario's own column, \
                 as a categorical feature without `min_count`, so that both number scenarios alike",
                inputs.tables[table].rows, inputs.scenarios
            );
            return Err(Error::config("model.history_scenarios", message));
        }
        let of_places = ScenarioEmbedding::new(inputs.scenarios).of_list(places.bag);
        let of_places = g.add("history.scenarios", of_places, &[scenes])?;
        let alpha = self.weights(g, "item_attention", items, target, history)?;
        let beta = self.weights(g, "scene_attention", places, scene, of_places)?;
        let pool = WeightedPool::new(items.bag, items.longest).beside(places.bag);
        g.add("interest", pool, &[history, alpha, beta])
    }

    /// How much each id of a list has to do with the query, `[ids, 1]`.
    fn weights(&self, g: &mut Graph, prefix: &str, list: List, query: Value, keys: Value) -> Result<Value> {
        let pairs = g.add(format!("{prefix}.input"), Compare::new(list.bag), &[query, keys])?;
        let style = MlpStyle {
            units: &self.attention_units,
            activation: Activation::Sigmoid,
            batch_norm: false,
            dropout: 0.0,
        };
        let scores = towers::logits(g, &[prefix.to_owned()], MlpInput::Shared(pairs), style)?;
        g.add(format!("{prefix}.softmax"), SequenceSoftmax::new(list.bag), &[scores])
    }

    /// The numbers of all experts, `[batch, experts · tasks]`, and the gates' logits, `[batch, tasks · experts]`.
    fn experts(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        h: Value,
        style: MlpStyle<'_>,
    ) -> Result<(Value, Value)> {
        let out = self.shared_experts + self.scenario_experts;
        let prefixes = self.shared("shared");
        let heads: Vec<Head> =
            inputs.task_names().map(|task| Head { prefix: format!("gates.{task}"), out }).collect();
        let (hidden, gates) = mlps_with_heads(g, &prefixes, h, style, &heads, true)?;
        let (last, tasks) = (style.units.len(), inputs.tasks.len());
        let shared = linears(g, &prefixes, last, hidden, tasks, true, Activation::Identity)?;
        let own = self.own("specific", inputs);
        let own = Networks::by_scenario(&own, inputs.scenarios);
        let own = towers::numbers(g, own, MlpInput::Shared(h), style, tasks)?;
        Ok((concat::concat(g, "experts", &[shared, own])?, gates))
    }

    /// The numbers of all bias networks, in the order of the experts.
    fn bias_networks(&self, g: &mut Graph, inputs: &Inputs, x: Value, style: MlpStyle<'_>) -> Result<Value> {
        let tasks = inputs.tasks.len();
        let shared = towers::numbers(g, &self.shared("shared_bias"), MlpInput::Shared(x), style, tasks)?;
        let own = self.own("specific_bias", inputs);
        let own = Networks::by_scenario(&own, inputs.scenarios);
        let own = towers::numbers(g, own, MlpInput::Shared(x), style, tasks)?;
        concat::concat(g, "biases", &[shared, own])
    }

    fn shared(&self, family: &str) -> Vec<String> {
        (0..self.shared_experts).map(|k| format!("{family}.{k}")).collect()
    }

    /// Networks of each scenario, scenario by scenario.
    fn own(&self, family: &str, inputs: &Inputs) -> Vec<String> {
        let own = |s| (0..self.scenario_experts).map(move |k| format!("{family}.{s}.{k}"));
        (0..inputs.scenarios).flat_map(own).collect()
    }
}

/// μ_s ⊙ x + γ_s.
fn transform(g: &mut Graph, scenarios: usize, x: Value) -> Result<Value> {
    let width = g.cols(x);
    let mut matrix = |name: &str, start| {
        g.param(ParamSpec::new(vec![Block::weight(name, scenarios, width, Init::Constant(start))])?)
    };
    let (weight, bias) = (matrix("transform.weight", 1.0)?, matrix("transform.bias", 0.0)?);
    g.add("transform", ScenarioAffine::new(scenarios), &[x, weight, bias])
}

/// The parts of `x` beside column `at`.
fn without(g: &mut Graph, x: Value, at: Option<usize>) -> Result<Vec<Value>> {
    let width = g.cols(x);
    let Some(at) = at else { return Ok(vec![x]) };
    let sides = [(0, at), (at + 1, width - at - 1)].into_iter().filter(|(_, count)| *count > 0);
    sides.map(|(from, count)| g.columns(x, from, count)).collect()
}

/// As [`tasks::heads`], with every row's loss times its weight.
fn weighted_heads(g: &mut Graph, inputs: &Inputs, raw: &[Value], weight: RowWeight) -> Result<()> {
    for (t, (task, &raw)) in inputs.tasks.iter().zip(raw).enumerate() {
        tasks::prediction(g, task, raw)?;
        if g.is_training() {
            let part = g.loss(tasks::part(task, &task.name, task.space))?;
            let kind = match task.kind {
                TaskKind::Binary => RowLoss::CrossEntropy,
                TaskKind::Regression => RowLoss::Squared,
                TaskKind::Poisson => RowLoss::Poisson,
            };
            let loss = WeightedLoss::new(kind, part, t, task.space, weight);
            g.add(format!("loss.{}", task.name), loss, &[raw])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{BagField, Field, Table, Task};
    use manygate_graph::{Mode, Parameters, Plan, PlanOptions};
    use manygate_kernels::embedding::Pooling;

    const BEHAVIOURS: &str = "history = \"seen\"\nhistory_scenarios = \"where\"\ntarget = \"item\"";

    fn build(keys: &str, rows_of_scenarios: usize) -> Result<Graph> {
        let list = |name: &str, table| BagField {
            name: name.into(),
            table,
            pooling: Pooling::Mean,
            longest: Some(4),
        };
        let inputs = Inputs {
            tables: [("item", 9), ("tab", rows_of_scenarios)]
                .map(|(name, rows)| Table { name: name.into(), rows, dim: None })
                .to_vec(),
            fields: vec![Field { name: "item".into(), table: 0 }],
            bags: vec![list("seen", 0), list("where", 1)],
            dense: 1,
            dense_names: vec!["coefficient".into()],
            scenarios: 3,
            tasks: vec![Task::binary("click")],
        };
        let keys: toml::Table = format!("name = \"sarnet\"\n{keys}").parse().unwrap();
        let (_, architecture) = crate::from_table(&keys)?;
        crate::build(architecture.as_ref(), &inputs, Mode::Training)
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let message = |keys: &str| build(keys, 3).map(|_| ()).unwrap_err().to_string();
        let told = message(BEHAVIOURS);
        assert!(told.contains("model.history_scenarios: its table has 3 rows for 3 scenarios"), "{told}");
        let told = message("fairness = \"price\"");
        assert!(told.contains("model.fairness: there is no numeric feature `price`"), "{told}");
        assert!(message("scenario_experts = 0").contains("model.scenario_experts: must be at least 1"));
        assert!(message("expert_units = []").contains("model.expert_units: an expert needs"));
        assert!(message("history = \"bought\"\ntarget = \"item\"").contains("there is no sequence `bought`"));
    }

    #[test]
    fn the_transformation_starts_as_none() {
        let graph = build(&format!("{BEHAVIOURS}\nfairness = \"coefficient\""), 4).unwrap();
        let plan = Plan::compile(graph, PlanOptions::default()).unwrap();
        let params = Parameters::initial(plan.layout().clone(), 1);
        assert!(params.get("transform.weight").unwrap().iter().all(|&v| v == 1.0));
        assert!(params.get("transform.bias").unwrap().iter().all(|&v| v == 0.0));
        // The coefficient is no input but of the bias networks: behaviours, item and scenario are 16 wide.
        assert_eq!(params.get("transform.weight").unwrap().len(), 3 * 48);
        assert_eq!(params.get("shared_bias.0.0.weight").unwrap().len(), 16 * 17);
    }
}
