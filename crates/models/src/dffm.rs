//! The scenario enters where a click model works: every field vector passes a tiny network whose weights belong to the
//! scenario before fields interact, and attention over behaviours has maps made of the target item and the scenario.
//!
//! W. Guo et al., *DFFM: Domain Facilitated Feature Modeling for CTR Prediction*, CIKM 2023.
//!
//! ```text
//! D     e → act(W_k e + b_k), layer by layer     (W, b) = one row a scenario, learnt or linear in its embedding
//! i     interaction of D(e_1) … D(e_F)           inner, bi, vector or matrix cross layers, attention among fields
//! h_1 = dffi([i ; e_1 … e_F ; dense])            raw embeddings beside the interaction
//! Q, K, V = (H W'_h) Eᵀ by head                  E [w, r] = [target ; scenario] read row-major, or linear maps of it
//! h_2 = pool(softmax(Q Kᵀ / √w) V W_out)         over the ids of the history; zero for an empty one
//! p_t = sigmoid(head.t(fusion([h_1 ; h_2])))
//! ```
//!
//! Parameters: `embedding.<f>.weight`, `scene.weight` [S, c], `scene_field.weight` [S, dim], `domain.table.weight` [S, P] or
//! `domain.gen.*`, `inter.*` as the interaction has them, `dffi.<i>.*`, `dfub.{q,k,v}` [heads, dim, r], `dfub.cond_{q,k,v}.*`,
//! `dfub.out.weight`, `fusion.<i>.*`, `head.<task>.*`. The history shares the table of its target's field.
//!
//! A row of generated weights holds W_0, b_0, W_1, b_1 …, row-major. Samples share their scenario's weights: one product
//! for all fields of a tile. (H W') Eᵀ never builds a map a sample. Dropout is in `dffi` and `fusion` alone: a field that
//! interacts is whole.

use crate::config::{self, ActivationName, COMMON_KEYS, Common, DROPOUT, Key, NormName};
use crate::inputs::Inputs;
use crate::layers::interaction::{Interaction, Kind, interaction};
use crate::layers::linear::{bare, linear};
use crate::layers::mlp::mlp;
use crate::layers::sequence::{self, List};
use crate::layers::trunk::Embedding;
use crate::layers::{concat, scenario, tasks, towers, trunk};
use crate::registry::{Architecture, Entry};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Attention, Linear, RowLinear, SequencePool, WeightPart};
use manygate_graph::{Block, GateView, GateWeights, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::Pooling;
use serde::{Deserialize, Serialize};

/// Where a scenario's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum DomainWeights {
    Lookup,
    Linear,
}

/// What attention's maps are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Condition {
    Reshape,
    Linear,
}

/// How behaviours become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Pool {
    Mean,
    Sum,
}

/// Configuration of dffm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dffm {
    embedding_dim: usize,
    embedding_deviation: f64,
    activation: ActivationName,
    scenario_dim: usize,
    scenario_field: bool,
    domain_units: Vec<usize>,
    domain_activation: ActivationName,
    domain_weights: DomainWeights,
    interaction: Kind,
    interaction_layers: usize,
    interaction_heads: usize,
    interaction_head_dim: usize,
    interaction_scale: bool,
    dffi_units: Vec<usize>,
    history: String,
    target: String,
    attention_heads: usize,
    attention_head_dim: usize,
    attention_rank: usize,
    attention_condition: Condition,
    attention_pool: Pool,
    fusion_units: Vec<usize>,
    dropout: f64,
}

impl Default for Dffm {
    fn default() -> Self {
        Dffm {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            activation: ActivationName::Relu,
            scenario_dim: 16,
            scenario_field: false,
            domain_units: Vec::new(),
            domain_activation: ActivationName::Tanh,
            domain_weights: DomainWeights::Lookup,
            interaction: Kind::Inner,
            interaction_layers: 2,
            interaction_heads: 2,
            interaction_head_dim: 8,
            interaction_scale: false,
            dffi_units: vec![128, 64],
            history: String::new(),
            target: String::new(),
            attention_heads: 2,
            attention_head_dim: 8,
            attention_rank: 4,
            attention_condition: Condition::Reshape,
            attention_pool: Pool::Mean,
            fusion_units: vec![32],
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 20] = [
    Key { name: "scenario_dim", default: "16", doc: "width of the scenario's embedding" },
    Key { name: "scenario_field", default: "false", doc: "whether the scenario is one more field" },
    Key { name: "domain_units", default: "[]", doc: "hidden widths of the network that each field passes" },
    Key {
        name: "domain_activation",
        default: "\"tanh\"",
        doc: "relu, leaky_relu, tanh or sigmoid, after its layers",
    },
    Key {
        name: "domain_weights",
        default: "\"lookup\"",
        doc: "lookup, or linear in the scenario's embedding",
    },
    Key { name: "interaction", default: "\"inner\"", doc: "none, inner, bi, vector, matrix or autoint" },
    Key { name: "interaction_layers", default: "2", doc: "layers of vector, matrix and autoint" },
    Key { name: "interaction_heads", default: "2", doc: "heads of autoint" },
    Key { name: "interaction_head_dim", default: "8", doc: "width of a head of autoint" },
    Key {
        name: "interaction_scale",
        default: "false",
        doc: "whether autoint divides scores by the head's root width",
    },
    Key { name: "dffi_units", default: "[128, 64]", doc: "widths above the interaction" },
    Key { name: "history", default: "\"\"", doc: "the sequence of behaviours; empty for none" },
    Key {
        name: "target",
        default: "\"\"",
        doc: "the categorical feature of the item that behaviours are compared with",
    },
    Key { name: "attention_heads", default: "2", doc: "heads of the attention over behaviours" },
    Key { name: "attention_head_dim", default: "8", doc: "width of such a head" },
    Key { name: "attention_rank", default: "4", doc: "rank of its maps" },
    Key {
        name: "attention_condition",
        default: "\"reshape\"",
        doc: "reshape or linear: target and scenario in its maps",
    },
    Key { name: "attention_pool", default: "\"mean\"", doc: "mean or sum over behaviours" },
    Key { name: "fusion_units", default: "[32]", doc: "widths above both parts" },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "dffm",
    aliases: &[],
    relation: Relation::Parallel,
    structure: Structure::SingleTower,
    method: Method::DynamicWeights,
    summary: "fields and attention over behaviours are transformed by weights of the scenario",
    paper: "W. Guo et al., \"DFFM: Domain Facilitated Feature Modeling for CTR Prediction\", CIKM 2023",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(3).0,
    parse: |keys| Ok(Box::new(config::parse::<Dffm>(keys)?)),
};

impl Architecture for Dffm {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let scenarios = scenario::scenarios(inputs)?;
        let common =
            Common::new(self.embedding_dim, self.embedding_deviation, self.activation, NormName::None)
                .with_dropout(self.dropout);
        let trunk = trunk::trunk_without_sequences(g, inputs, common.embedding)?;
        let (x0, fields) = self.fields(g, inputs, common.embedding, trunk)?;
        let scene = scenario::table(g, inputs, self.scenario_dim, common.embedding.deviation)?;
        let domain = self.domain(g, scenarios, scene)?;
        let style = Interaction {
            kind: self.interaction,
            layers: self.interaction_layers,
            heads: self.interaction_heads,
            head_dim: self.interaction_head_dim,
            scale: self.interaction_scale,
        };
        self.check(&style)?;
        // What becomes of the fields before any interaction.
        let mut shown = false;
        let mut parts = interaction(g, style, x0, [fields, self.embedding_dim], &mut |g, x, groups| {
            let transformed = domain.apply(g, x, groups)?;
            if !std::mem::replace(&mut shown, true) {
                let weights = GateWeights::Gain { before: x, after: transformed };
                g.show_gate(GateView { name: "domain".into(), of: self.field_names(inputs), weights })?;
            }
            Ok(transformed)
        })?;
        parts.push(x0);
        let input = concat::concat(g, "dffi.input", &parts)?;
        let mut top = vec![mlp(g, "dffi", input, common.mlp(&self.dffi_units))?];
        if !self.history.is_empty() {
            top.push(self.behaviours(g, inputs, common.embedding, trunk, scene)?);
        }
        let top = concat::concat(g, "fusion.input", &top)?;
        let top = mlp(g, "fusion", top, common.mlp(&self.fusion_units))?;
        let logits = towers::heads(g, "head", inputs, top)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

/// The network whose weights belong to the scenario.
struct Domain {
    scenarios: usize,
    activation: Activation,
    /// By layer: W `[S · out, in]`, b `[S · out, 1]`, out.
    layers: Vec<(Value, Value, usize)>,
}

impl Domain {
    /// D of each of `groups` vectors side by side.
    fn apply(&self, g: &mut Graph, mut x: Value, groups: usize) -> Result<Value> {
        for (i, &(weight, bias, out)) in self.layers.iter().enumerate() {
            let layer =
                Linear::new(out, true, self.activation).over_groups(groups).by_scenario(self.scenarios);
            x = g.add(format!("domain.{i}"), layer, &[x, weight, bias])?;
        }
        Ok(x)
    }
}

impl Dffm {
    fn check(&self, style: &Interaction) -> Result<()> {
        style.check("interaction_")?;
        // The network of the domain is one for fields and for what a layer of attention makes of them.
        let width = style.heads * style.head_dim;
        if style.kind == Kind::Autoint && style.layers > 1 && width != self.embedding_dim {
            let message = format!(
                "with several layers, interaction_heads · interaction_head_dim, {width}, must be embedding_dim, {}",
                self.embedding_dim
            );
            return Err(Error::config("model.interaction_head_dim", message));
        }
        let of_attention = [
            ("attention_heads", self.attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("attention_rank", self.attention_rank),
        ];
        match of_attention.iter().find(|(_, count)| *count == 0 && !self.history.is_empty()) {
            Some((key, _)) => Err(Error::config(format!("model.{key}"), "must be at least 1")),
            None => Ok(()),
        }
    }

    /// x0 with the scenario's field, and the number of fields.
    fn fields(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        embedding: Embedding,
        trunk: Value,
    ) -> Result<(Value, usize)> {
        let fields = trunk::equal_fields(g, inputs, embedding, trunk, "dffm")?;
        if !self.scenario_field {
            return Ok((trunk, fields));
        }
        let (dim, width) = (embedding.dim, g.cols(trunk) - inputs.dense);
        let field = scenario::own_embedding(g, "scene_field", inputs, dim, embedding.deviation)?;
        let mut parts = vec![g.columns(trunk, 0, width)?, field];
        if inputs.dense > 0 {
            parts.push(g.columns(trunk, width, inputs.dense)?);
        }
        Ok((concat::concat(g, "fields", &parts)?, fields + 1))
    }

    /// Names of the vectors that [`Dffm::fields`] gives, in order.
    fn field_names(&self, inputs: &Inputs) -> Vec<String> {
        let bags = inputs.bags.iter().filter(|bag| bag.longest.is_none()).map(|bag| &bag.name);
        let fields = inputs.fields.iter().map(|field| &field.name).chain(bags).cloned();
        fields.chain(self.scenario_field.then(|| "scene_field".to_owned())).collect()
    }

    fn domain(&self, g: &mut Graph, scenarios: usize, scene: Value) -> Result<Domain> {
        let widths: Vec<usize> = [self.embedding_dim]
            .into_iter()
            .chain(self.domain_units.iter().copied())
            .chain([self.embedding_dim])
            .collect();
        let pairs = || widths.windows(2).map(|w| (w[0], w[1]));
        let len = pairs().map(|(input, out)| out * input + out).sum();
        let start =
            pairs().flat_map(|(input, out)| [(out * input, Init::XavierUniform), (out, Init::Constant(0.0))]);
        let rows = match self.domain_weights {
            DomainWeights::Lookup => {
                let init = Init::Rows(start.collect());
                g.param(ParamSpec::new(vec![Block::weight("domain.table.weight", scenarios, len, init)])?)?
            }
            DomainWeights::Linear => linear(g, "domain.gen", scene, len, Activation::Identity)?,
        };
        let (mut layers, mut at) = (Vec::new(), 0);
        for (i, (input, out)) in pairs().enumerate() {
            let weight = g.add(format!("domain.{i}.weight"), WeightPart::new(at, out, input), &[rows])?;
            let bias =
                g.add(format!("domain.{i}.bias"), WeightPart::new(at + out * input, out, 1), &[rows])?;
            layers.push((weight, bias, out));
            at += out * input + out;
        }
        Ok(Domain { scenarios, activation: self.domain_activation.into(), layers })
    }

    /// DFUB: attention over the history, pooled, `[batch, dim]`.
    fn behaviours(
        &self,
        g: &mut Graph,
        inputs: &Inputs,
        embedding: Embedding,
        trunk: Value,
        scene: Value,
    ) -> Result<Value> {
        let (dim, heads, w, r) =
            (embedding.dim, self.attention_heads, self.attention_head_dim, self.attention_rank);
        let (List { bag, longest }, ids) =
            sequence::behaviours(g, inputs, embedding, "dfub.history", &self.history, "model.history")?;
        let target = trunk::field(g, inputs, embedding, trunk, &self.target, "model.target")?;
        let scene = scenario::rows(g, inputs, scene)?;
        let condition = concat::concat(g, "dfub.condition", &[target, scene])?;
        if self.attention_condition == Condition::Reshape && g.cols(condition) != w * r {
            let message = format!(
                "embedding_dim + scenario_dim, {}, must be attention_head_dim · attention_rank, {}",
                g.cols(condition),
                w * r
            );
            return Err(Error::config("model.scenario_dim", message));
        }
        let mut maps = Vec::with_capacity(3);
        for name in ["q", "k", "v"] {
            let low = Block {
                name: format!("dfub.{name}"),
                shape: vec![heads, dim, r],
                init: Init::XavierOf { out: r, input: dim },
            };
            let low = g.param(ParamSpec::new(vec![low])?)?;
            let low = g.add(format!("dfub.{name}.map"), WeightPart::new(0, r, dim).transposed(), &[low])?;
            let low = g.add(
                format!("dfub.{name}.low"),
                Linear::new(heads * r, false, Activation::Identity),
                &[ids, low],
            )?;
            let high = match self.attention_condition {
                Condition::Reshape => condition,
                Condition::Linear => {
                    linear(g, &format!("dfub.cond_{name}"), condition, w * r, Activation::Identity)?
                }
            };
            let product = RowLinear::new(heads, w, false, Activation::Identity).over_list(bag);
            maps.push(g.add(format!("dfub.{name}"), product, &[low, high])?);
        }
        let attention = Attention::of_list(bag, longest, heads, 1.0 / (w as f32).sqrt());
        let mixed = g.add("dfub.attention", attention, &maps)?;
        let out = bare(g, "dfub.out", &["dfub.out".to_owned()], mixed, dim)?;
        let pooling = if self.attention_pool == Pool::Mean { Pooling::Mean } else { Pooling::Sum };
        g.add("dfub.pooled", SequencePool::new(bag, pooling), &[out])
    }
}
