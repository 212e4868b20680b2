//! What a scenario is, and who is in it, generates the weights of two modules: the attention that mixes experts for a
//! task, and a residual tower.
//!
//! Q. Zhang, X. Liao, Q. Liu, J. Xu, B. Zheng, *Leaving No One Behind: A Multi-Scenario Multi-Task Meta Learning Approach
//! for Advertiser Modeling*, WSDM 2022.
//!
//! ```text
//! F     = [pooled sequences ; x0]                  a sequence: embeddings and places, self-attention, mean
//! E_i   = experts.i(F)           [batch, d]        T_t = task_mlp(task_t)  [u]: it does not know the scenario
//! S     = scene_mlp([scene_p ; profile fields])    [batch, ds]
//! Meta  : W = V_w S + v_w, b = V_b S + v_b,  h ← σ(W h + b)    layer by layer, W and b by sample
//! a_ti  = v_t · Meta_t([E_i ; T_t]);  α = softmax over i;  R_t = Σ_i α_ti E_i
//! L     ← σ(Meta_t(L) + L), from L = R_t;          z_t = towers.t(L)
//! loss    as the task's kind says: BCE of sigmoid(z_t), or exp(z_t) − y z_t for counts
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `seq.<s>.weight`, `pos.<s>.weight`, `encoder.<s>.{q,k,v,o}.weight` (with a
//! transformer block also `.norm1`, `.norm2`, `.ffn.0`, `.ffn.1`), `scene.weight`, `task.weight`, `experts.<i>.<l>.*`,
//! `task_mlp.<l>.*`, `scene_mlp.<l>.*`, `meta_attention.<key>.<l>.{w,b}.*`, `v.<key>`, `meta_tower.<key>.<j>.<l>.{w,b}.*`,
//! `towers.<task>.0.*`; key is the task, or `shared`. Generated weights are read row-major as [out, in].
//!
//! Dropout is in the experts alone: a value dropped where weights are generated would be a part of all of them at once, and
//! a task's view exists once a step.
//!
//! A public port lets the samples of a batch attend to each other, mixes experts by raw scores, and activates a tower's
//! layer once, not inside and outside of the sum.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::linear::linear;
use crate::layers::mlp::{MlpInput, MlpStyle, mlp, mlps};
use crate::layers::moe::{Gate, show_gates};
use crate::layers::sequence::{Encoder, encode};
use crate::layers::{concat, scenario, tasks, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Activate, Add, AttachRow, Broadcast, GateCombine, Linear, RowLinear};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Configuration of m2m.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct M2m {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    attention_heads: usize,
    ffn: usize,
    experts: usize,
    expert_units: Vec<usize>,
    scenario_dim: usize,
    scenario_units: Vec<usize>,
    profile_fields: Vec<String>,
    task_dim: usize,
    task_units: Vec<usize>,
    attention_meta: Vec<usize>,
    tower_meta: Vec<usize>,
    tower_layers: usize,
    meta_per_task: bool,
    dropout: f64,
}

impl Default for M2m {
    fn default() -> Self {
        M2m {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::LeakyRelu,
            attention_heads: 2,
            ffn: 0,
            experts: 4,
            expert_units: vec![128, 64],
            scenario_dim: 16,
            scenario_units: vec![16],
            profile_fields: Vec::new(),
            task_dim: 8,
            task_units: vec![16],
            attention_meta: vec![32],
            tower_meta: Vec::new(),
            tower_layers: 1,
            meta_per_task: true,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 15] = [
    Key {
        name: "activation",
        default: "\"leaky_relu\"",
        doc: "relu, leaky_relu, tanh or sigmoid, everywhere",
    },
    Key { name: "attention_heads", default: "2", doc: "heads of the attention inside each sequence" },
    Key { name: "ffn", default: "0", doc: "hidden width of a full transformer block; 0 is attention alone" },
    Key { name: "experts", default: "4", doc: "number of experts" },
    Key { name: "expert_units", default: "[128, 64]", doc: "widths of each expert" },
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key {
        name: "scenario_units",
        default: "[16]",
        doc: "widths of what the scenario's knowledge comes from",
    },
    Key { name: "profile_fields", default: "[]", doc: "categorical features that are part of it" },
    Key { name: "task_dim", default: "8", doc: "width of a task's embedding" },
    Key { name: "task_units", default: "[16]", doc: "widths of a task's view" },
    Key { name: "attention_meta", default: "[32]", doc: "widths of the meta unit that scores experts" },
    Key { name: "tower_meta", default: "[]", doc: "inner widths of a tower's meta units" },
    Key { name: "tower_layers", default: "1", doc: "residual meta layers of a tower" },
    Key { name: "meta_per_task", default: "true", doc: "whether each task generates weights of its own" },
    Key {
        doc: "probability in training of a value after an expert's layer to be dropped, in [0, 1)",
        ..DROPOUT
    },
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "m2m",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "the scenario generates the weights of expert attention and of residual towers; attention over sequences",
    paper: "Q. Zhang et al., \"Leaving No One Behind: A Multi-Scenario Multi-Task Meta Learning Approach for Advertiser Modeling\", WSDM 2022",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(2).0,
    parse: |keys| Ok(Box::new(config::parse::<M2m>(keys)?)),
};

impl Architecture for M2m {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        self.check()?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None);
        let x0 = trunk::trunk_without_sequences(g, inputs, common.embedding)?;
        let encoder = Encoder { heads: self.attention_heads, ffn: self.ffn, embedding: common.embedding };
        let mut features = Vec::new();
        for (bag, field, longest) in inputs.sequences() {
            features.push(encode(g, encoder, bag, &field.name, inputs.tables[field.table].rows, longest)?);
        }
        features.push(x0);
        let features = concat::concat(g, "features", &features)?;
        let prefixes: Vec<String> = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        let style = MlpStyle { dropout: self.dropout, ..common.mlp(&self.expert_units) };
        let experts = mlps(g, &prefixes, MlpInput::Shared(features), style)?;
        let knowledge = self.scenario_knowledge(g, inputs, &common, x0)?;
        let tasks = Block::weight(
            "task.weight",
            inputs.tasks.len(),
            self.task_dim,
            Init::Normal(common.embedding.deviation),
        );
        let tasks = g.param(ParamSpec::new(vec![tasks])?)?;
        let views = mlp(g, "task_mlp", tasks, common.mlp(&self.task_units))?;
        let mut meta = Meta { activation: common.activation, knowledge, generated: Vec::new() };
        let mut logits = Vec::with_capacity(inputs.tasks.len());
        for (t, task) in inputs.tasks.iter().enumerate() {
            let key = if self.meta_per_task { task.name.as_str() } else { "shared" };
            let mixed = self.expert_attention(g, &mut meta, [key, &task.name], [experts, views], t)?;
            let top = self.tower(g, &mut meta, key, &task.name, mixed)?;
            logits.push(linear(g, &format!("towers.{}.0", task.name), top, 1, Activation::Identity)?);
        }
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl M2m {
    fn check(&self) -> Result<()> {
        if self.experts == 0 {
            return Err(Error::config("model.experts", "must be at least 1"));
        }
        let units = [("expert_units", &self.expert_units), ("attention_meta", &self.attention_meta)];
        match units.iter().find(|(_, units)| units.is_empty()) {
            Some((key, _)) => Err(Error::config(format!("model.{key}"), "needs at least one layer")),
            None => Ok(()),
        }
    }

    /// S: what the scenario and the profile say.
    fn scenario_knowledge(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        common: &Common,
        x0: Value,
    ) -> Result<Value> {
        let mut parts = vec![scenario::embedding(g, inputs, self.scenario_dim, common.embedding.deviation)?];
        for name in &self.profile_fields {
            parts.push(trunk::field(g, inputs, common.embedding, x0, name, "model.profile_fields")?);
        }
        let input = concat::concat(g, "scene_mlp.input", &parts)?;
        mlp(g, "scene_mlp", input, common.mlp(&self.scenario_units))
    }

    /// R_t: experts, mixed by how the meta unit scores them for task number `t`.
    fn expert_attention(
        &self,
        g: &mut Graph,
        meta: &mut Meta,
        [key, task]: [&str; 2],
        [experts, views]: [Value; 2],
        t: usize,
    ) -> Result<Value> {
        let attach = AttachRow::new(self.experts, t, g.cols(views));
        let pairs = g.add(format!("experts_and_task.{t}"), attach, &[experts, views])?;
        let prefix = format!("meta_attention.{key}");
        let hidden = meta.unit(g, &prefix, &self.attention_meta, self.experts, pairs)?;
        let units = g.cols(hidden) / self.experts;
        let v = meta.once(g, &format!("v.{key}"), |g, name| {
            let deviation = (1.0 / units as f32).sqrt();
            let v = Block::vector(name, units, Init::Normal(deviation));
            let v = g.param(ParamSpec::new(vec![v])?)?;
            g.add(format!("{name}.rows"), Broadcast::vector(), &[v])
        })?;
        let scores = RowLinear::new(self.experts, 1, false, Activation::Identity);
        let scores = g.add(format!("scores.{t}"), scores, &[hidden, v])?;
        let gate = Gate::new(format!("meta_attention.{task}"), (0..self.experts).collect());
        let names: Vec<String> = (0..self.experts).map(|e| format!("experts.{e}")).collect();
        show_gates(g, &[&gate], &names, [scores, experts], 0)?;
        g.add(format!("mixture.{t}"), GateCombine::new(1, self.experts), &[scores, experts])
    }

    fn tower(&self, g: &mut Graph, meta: &mut Meta, key: &str, task: &str, input: Value) -> Result<Value> {
        let (mut top, width) = (input, g.cols(input));
        let units: Vec<usize> = self.tower_meta.iter().copied().chain([width]).collect();
        for j in 0..self.tower_layers {
            let moved = meta.unit(g, &format!("meta_tower.{key}.{j}"), &units, 1, top)?;
            let sum = g.add(format!("tower.{task}.{j}.sum"), Add::new(2), &[moved, top])?;
            top = g.add(format!("tower.{task}.{j}"), Activate::new(meta.activation, width), &[sum])?;
        }
        Ok(top)
    }
}

/// Meta units: networks whose weights the scenario's knowledge generates.
struct Meta {
    activation: Activation,
    knowledge: Value,
    /// What tasks share, by name: it is generated once.
    generated: Vec<(String, Value)>,
}

impl Meta {
    fn once(
        &mut self,
        g: &mut Graph,
        name: &str,
        make: impl FnOnce(&mut Graph, &str) -> Result<Value>,
    ) -> Result<Value> {
        if let Some((_, value)) = self.generated.iter().find(|(n, _)| n == name) {
            return Ok(*value);
        }
        let value = make(g, name)?;
        self.generated.push((name.to_owned(), value));
        Ok(value)
    }

    /// A unit over each of `groups` equal parts of `input`.
    fn unit(
        &mut self,
        g: &mut Graph,
        prefix: &str,
        units: &[usize],
        groups: usize,
        input: Value,
    ) -> Result<Value> {
        let mut h = input;
        for (i, &out) in units.iter().enumerate() {
            let inner = g.cols(h) / groups;
            let deviation = (1.0 / (inner * g.cols(self.knowledge)) as f32).sqrt();
            let matrix = [Init::Normal(deviation), Init::XavierOf { out, input: inner }];
            let vector = [Init::XavierUniform, Init::Constant(0.0)];
            let weight = self.generate(g, &format!("{prefix}.{i}.w"), out * inner, matrix)?;
            let bias = self.generate(g, &format!("{prefix}.{i}.b"), out, vector)?;
            let layer = RowLinear::new(groups, out, true, self.activation);
            h = g.add(format!("{prefix}.{i}"), layer, &[h, weight, bias])?;
        }
        Ok(h)
    }

    /// V S + v, `[batch, len]`.
    fn generate(&mut self, g: &mut Graph, prefix: &str, len: usize, init: [Init; 2]) -> Result<Value> {
        let knowledge = self.knowledge;
        self.once(g, prefix, |g, prefix| {
            let [of_weight, of_bias] = init;
            let weight = Block::weight(format!("{prefix}.weight"), len, g.cols(knowledge), of_weight);
            let weight = g.param(ParamSpec::new(vec![weight])?)?;
            let bias = Block::vector(format!("{prefix}.bias"), len, of_bias);
            let bias = g.param(ParamSpec::new(vec![bias])?)?;
            g.add(prefix, Linear::new(len, true, Activation::Identity), &[knowledge, weight, bias])
        })
    }
}
