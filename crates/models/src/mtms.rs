//! Nothing is shared: every scenario and task has tables and towers of its own, first trained by themselves; then all
//! tables are frozen, all their rows of a sample are joined, and new towers learn from them.
//!
//! S. Tan, M. Li, W. Zhao, Y. Zheng, X. Pei, P. Li, *Multi-Task and Multi-Scene Unified Ranking Model for Online
//! Advertising*, IEEE Big Data 2021.
//!
//! ```text
//! e(i; s, t)                       rows of the sample's ids in the tables of scenario s and task t, side by side
//! represent, ctcvr:  x_t = [e(i; s_i, t) ; dense]      z_t = pre_head_{s_i,t}(pre_{s_i,t}(x_t))
//! finetune:          x   = [e(i; 0, a) ; e(i; 0, b) ; e(i; 1, a) … ; dense], a constant
//!                                                      z_t = head_{s_i,t}(tower_{s_i,t}(x))
//! p_t     = sigmoid(z_t)                               a a click, b a conversion after it
//! L_ctr   = Σ_s mean over rows of s of BCE(p_a, y_a)
//! L_cvr   = Σ_s mean over clicked rows of s of BCE(p_b, y_b)
//! L_ctcvr = Σ_s mean over rows of s of BCE(p_a p_b, y_a & y_b)
//! L       = represent: L_ctr + L_cvr;  ctcvr: L_ctcvr;  finetune: all three
//! ```
//!
//! Parameters: `embed.<s>.<task>.<table>.weight`, `pre.<s>.<task>.<i>.{weight,bias}`, `pre_head.<s>.<task>.*`,
//! `tower.<s>.<task>.<i>.*`, `head.<s>.<task>.*`, all of them in every stage. Train it in stages that set `stage`; the
//! last, `finetune`, is what is served. `warm_start` begins it at exactly the predictions of the stage before: a tower
//! takes over its `pre`, and columns of foreign rows begin at 0. The paper leaves that open, as it does the weights of the
//! three losses (1 here) and the order of the join.
//!
//! One mean over the batch lets large scenarios set the step of all others; a conversion loss over unclicked rows
//! learns p_a p_b under the name of p_b; a learning rate of 0 does not freeze a table whose moments still move.

use crate::config::{self, COMMON_KEYS, DROPOUT, Key};
use crate::inputs::{Inputs, Task};
use crate::layers::dropout::dropout;
use crate::layers::trunk::{self, Embedding};
use crate::layers::{scenario, tasks};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{BceOfProduct, BceWithLogits, Linear, LookupTrunk, Multiply, Piece, Sigmoid};
use manygate_graph::{Block, Graph, Init, LossPart, Over, ParamSpec, Parameters, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// Tables and first towers, each task on its own labels.
    Represent,
    /// The same through the product of both probabilities.
    Ctcvr,
    /// The final towers, on frozen tables.
    Finetune,
}

/// Configuration of mtms.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mtms {
    embedding_dim: usize,
    embedding_deviation: f64,
    stage: Stage,
    tower_units: Vec<usize>,
    warm_start: bool,
    dropout: f64,
}

impl Default for Mtms {
    fn default() -> Self {
        Mtms {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            stage: Stage::Finetune,
            tower_units: vec![128, 64],
            warm_start: true,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 4] = [
    Key { name: "stage", default: "\"finetune\"", doc: "represent, ctcvr or finetune: what is trained" },
    Key { name: "tower_units", default: "[128, 64]", doc: "hidden widths of every tower, in all stages" },
    Key { name: "warm_start", default: "true", doc: "whether finetune begins at the predictions before it" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "mtms",
    aliases: &[],
    relation: Relation::Cascade,
    structure: Structure::MultiTower,
    method: Method::NegativeTransfer,
    summary: "tables and towers of each scenario and task; trained apart, then joined and frozen under new towers",
    paper: "S. Tan et al., \"Multi-Task and Multi-Scene Unified Ranking Model for Online Advertising\", IEEE Big Data 2021",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(2).0,
    parse: |keys| Ok(Box::new(config::parse::<Mtms>(keys)?)),
};

impl Architecture for Mtms {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let names: Vec<&str> = inputs.task_names().collect();
        let &[click, conversion] = &names[..] else {
            return Err(Error::config("tasks", "mtms predicts a click and a conversion after it; list two"));
        };
        tasks::all_binary(inputs, ENTRY.name)?;
        if self.tower_units.contains(&0) {
            return Err(Error::config("model.tower_units", "every layer needs at least one unit"));
        }
        let scenarios = scenario::scenarios(inputs)?;
        // Every stage declares all of them: parameters pass from one to the next by name.
        let pieces = self.pieces(g, inputs)?;
        let (own, joined) = widths(&pieces, inputs.dense);
        let first = [click, conversion].map(|task| self.towers(g, FIRST, task, scenarios, own));
        let last = [click, conversion].map(|task| self.towers(g, LAST, task, scenarios, joined));
        let mut logits = Vec::with_capacity(2);
        if self.stage == Stage::Finetune {
            let x = join(g, &pieces, inputs.dense)?;
            for towers in last {
                logits.push(self.logit(g, scenarios, x, &towers?)?);
            }
        } else {
            for (t, towers) in first.into_iter().enumerate() {
                let own: Vec<Vec<Piece>> = pieces.iter().map(|tasks| tasks[t].clone()).collect();
                let x = g.add(format!("trunk.{}", names[t]), LookupTrunk::by_scenario(own), &[])?;
                logits.push(self.logit(g, scenarios, x, &towers?)?);
            }
        }
        self.outputs_and_losses(g, inputs, [logits[0], logits[1]])
    }

    fn begin_stage(&self, inputs: &Inputs, params: &mut Parameters) -> Result<()> {
        if self.stage != Stage::Finetune || !self.warm_start {
            return Ok(());
        }
        for (pair, l) in
            (0..2 * inputs.scenarios).flat_map(|pair| (0..=self.tower_units.len()).map(move |l| (pair, l)))
        {
            let (s, task) = (pair / 2, &inputs.tasks[pair % 2].name);
            let [from, to] = [FIRST, LAST].map(|families| self.layer(families, s, task, l));
            let [weight, bias] = ["weight", "bias"].map(|part| params.get(&format!("{from}.{part}")));
            let (mut weight, bias) = (weight?.to_vec(), bias?.to_vec());
            if l == 0 {
                let wide = params.get(&format!("{to}.weight"))?.len() / bias.len();
                weight = widen(&weight, bias.len(), wide, pair, inputs.dense);
            }
            params.set(&format!("{to}.weight"), &weight)?;
            params.set(&format!("{to}.bias"), &bias)?;
        }
        Ok(())
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// Names of hidden layers and of the layer of the logit, before the join and after it.
const FIRST: [&str; 2] = ["pre", "pre_head"];
const LAST: [&str; 2] = ["tower", "head"];

/// A layer of the towers of one task in all scenarios.
struct TowerLayer {
    name: String,
    out: usize,
    /// `[scenarios · out, in]`.
    weight: Value,
    /// `[scenarios · out]`.
    bias: Value,
}

impl Mtms {
    /// What layer number `l` is called, that of the logit the last.
    fn layer(&self, [hidden, head]: [&str; 2], scenario: impl Display, task: &str, l: usize) -> String {
        if l < self.tower_units.len() {
            format!("{hidden}.{scenario}.{task}.{l}")
        } else {
            format!("{head}.{scenario}.{task}")
        }
    }

    /// What a sample looks up in the tables of each scenario and task.
    fn pieces(&self, g: &mut Graph, inputs: &Inputs) -> Result<Vec<[Vec<Piece>; 2]>> {
        let embedding = Embedding { dim: self.embedding_dim, deviation: self.embedding_deviation as f32 };
        let mut of = |s: usize, t: usize| {
            trunk::pieces(
                inputs,
                |_| true,
                |index| {
                    let (table, task) = (&inputs.tables[index], &inputs.tasks[t].name);
                    let name = format!("embed.{s}.{task}.{}.weight", table.name);
                    let dim = table.dim.unwrap_or(self.embedding_dim);
                    Ok((trunk::own_table(g, name, table.rows, dim, embedding)?, dim))
                },
            )
        };
        (0..inputs.scenarios).map(|s| Ok([of(s, 0)?, of(s, 1)?])).collect()
    }

    fn towers(
        &self,
        g: &mut Graph,
        families: [&str; 2],
        task: &str,
        scenarios: usize,
        input: usize,
    ) -> Result<Vec<TowerLayer>> {
        let mut towers = Vec::with_capacity(self.tower_units.len() + 1);
        let mut width = input;
        for (l, out) in self.tower_units.iter().copied().chain([1]).enumerate() {
            let name = |s: usize, part: &str| format!("{}.{part}", self.layer(families, s, task, l));
            let weight = |s| Block::weight(name(s, "weight"), out, width, Init::XavierUniform);
            let bias = |s| Block::vector(name(s, "bias"), out, Init::Constant(0.0));
            let weight = g.param(ParamSpec::new((0..scenarios).map(weight).collect())?)?;
            let bias = g.param(ParamSpec::new((0..scenarios).map(bias).collect())?)?;
            towers.push(TowerLayer { name: self.layer(families, "*", task, l), out, weight, bias });
            width = out;
        }
        Ok(towers)
    }

    /// relu, and dropout, after every layer but the last: `[batch, 1]`.
    fn logit(&self, g: &mut Graph, scenarios: usize, x: Value, towers: &[TowerLayer]) -> Result<Value> {
        let mut h = x;
        for (l, layer) in towers.iter().enumerate() {
            let is_hidden = l < self.tower_units.len();
            let activation = if is_hidden { Activation::Relu } else { Activation::Identity };
            let linear = Linear::new(layer.out, true, activation).by_scenario(scenarios);
            h = g.add(&layer.name, linear, &[h, layer.weight, layer.bias])?;
            if is_hidden {
                h = dropout(g, &layer.name, h, self.dropout)?;
            }
        }
        Ok(h)
    }

    fn outputs_and_losses(&self, g: &mut Graph, inputs: &Inputs, logits: [Value; 2]) -> Result<()> {
        let [click, conversion] = &inputs.tasks[..] else {
            return Err(Error::config("tasks", "two are needed"));
        };
        let p = g.add("probability.click", Sigmoid, &[logits[0]])?;
        let q = g.add("probability.conversion", Sigmoid, &[logits[1]])?;
        g.output(&click.name, p);
        g.output(&conversion.name, q);
        let both = g.add("probability.both", Multiply, &[p, q])?;
        g.output("ctcvr", both);
        if !g.is_training() {
            return Ok(());
        }
        let (apart, through) = match self.stage {
            Stage::Represent => (true, false),
            Stage::Ctcvr => (false, true),
            Stage::Finetune => (true, true),
        };
        // A part that a stage leaves out is computed, for whoever watches it, and moves nothing.
        let of = |g: &mut Graph, counts: bool| match counts {
            true => logits,
            false => logits.map(|logit| g.stop_gradient(logit)),
        };
        let part = |g: &mut Graph, name: &str, task: &Task, weight: f32, labelled| {
            let over = Over::EachScenario { scenarios: inputs.scenarios, labelled };
            g.loss(LossPart { weight, ..tasks::part(task, name, over) })
        };
        let [z, u] = of(g, apart);
        let weight = |counts: bool, weight: f32| if counts { weight } else { 0.0 };
        let loss = part(g, "ctr", click, weight(apart, click.weight), None)?;
        g.add("loss.ctr", BceWithLogits::new(loss, 0, None), &[z])?;
        let loss = part(g, "cvr", conversion, weight(apart, conversion.weight), Some(0))?;
        g.add("loss.cvr", BceWithLogits::new(loss, 1, Some(0)), &[u])?;
        let [z, u] = of(g, through);
        // Its weight is 1, its scenarios count as those of the conversion.
        let loss = part(g, "ctcvr", conversion, weight(through, 1.0), None)?;
        g.add("loss.ctcvr", BceOfProduct::new(loss, 0..2), &[z, u]).map(|_| ())
    }
}

/// The first layer of a tower, `[out, wide]`, from that of its `pre`: the columns of its own block and those of the
/// numbers, 0 elsewhere.
fn widen(pre: &[f32], out: usize, wide: usize, pair: usize, dense: usize) -> Vec<f32> {
    let narrow = pre.len() / out;
    let block = narrow - dense;
    let mut tower = vec![0.0; out * wide];
    for (to, from) in tower.chunks_exact_mut(wide).zip(pre.chunks_exact(narrow)) {
        to[pair * block..][..block].copy_from_slice(&from[..block]);
        to[wide - dense..].copy_from_slice(&from[block..]);
    }
    tower
}

/// Width of what a tower reads before the join, and after it.
fn widths(pieces: &[[Vec<Piece>; 2]], dense: usize) -> (usize, usize) {
    let width = |pieces: &[Piece]| pieces.iter().map(Piece::width).sum::<usize>();
    let own = pieces.first().map_or(0, |[click, _]| width(click));
    (own, 2 * pieces.len() * (own - dense) + dense)
}

/// The rows of all tables, scenario by scenario and task by task, then the numbers. Nothing of it learns.
fn join(g: &mut Graph, pieces: &[[Vec<Piece>; 2]], dense: usize) -> Result<Value> {
    let is_number = |piece: &&Piece| matches!(piece, Piece::Dense { .. });
    let mut all: Vec<Piece> = pieces.iter().flatten().flatten().filter(|p| !is_number(p)).copied().collect();
    if dense > 0 {
        all.push(Piece::Dense { width: dense });
    }
    let joined = g.add("trunk", LookupTrunk::new(all), &[])?;
    Ok(g.stop_gradient(joined))
}
