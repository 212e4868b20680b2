//! One network over the features and a user's behaviours, which attention turns into one vector.
//!
//! din: G. Zhou, X. Zhu, C. Song, Y. Fan, H. Zhu, X. Ma, Y. Yan, J. Jin, H. Li, K. Gai, *Deep Interest Network for
//! Click-Through Rate Prediction*, KDD 2018. target (mhta), self (self_attention): A. Vaswani, N. Shazeer, N. Parmar,
//! J. Uszkoreit, L. Jones, A. N. Gomez, Ł. Kaiser, I. Polosukhin, *Attention Is All You Need*, NeurIPS 2017.
//!
//! ```text
//! E = [e_1 … e_L]     the behaviours' embeddings           t    the candidate item's, of the field `target`
//! din     a_l = unit_out(unit([t ; e_l ; t − e_l ; t ⊙ e_l]));  u = Σ_l a_l e_l, or with softmax Σ_l softmax_l(a) e_l
//! target  u = O [heads of softmax_l(q · k_l / √w) v_l],  q = Q t, k = K E, v = V E        one query
//! self    `layers` blocks: Y = MHA(E) (+ E, LN, feed-forward, LN);  u = their mean, or sum, over l
//! h = deep([x0 ; u]);   z_t = head.t(h);   p_t = sigmoid(z_t), or as the task's kind says
//! ```
//!
//! Parameters: `embedding.<f>.weight`; `unit.<i>.*` with prelu `unit.act<i>.weight`, `unit_out.{weight,bias}`;
//! `block.{q,k,v}.weight` `[heads · w, d]`, `block.o.weight` `[d, heads · w]`; `blocks.<n>.{q,k,v,o}.weight`, `.norm1.*`,
//! `.ffn1.*`, `.ffn2.*`, `.norm2.*`; `position` `[longest, d]`; `deep.<i>.*`, `deep.act<i>.*`, with dice state
//! `deep.act<i>.bn.{running_mean,running_var}`; `head.<task>.*`. The history looks up the table that the data gives it,
//! most often the target's own.
//!
//! Behaviours are a ragged list: no padding takes part, so no mask is needed, and a history without ids gives zeros (a
//! masked softmax over padding alone gives each place 1/L). din and target stream over the list, one query a sample; self
//! has a row of scores at a time, never `[L, L]`. The paper's din does not normalise: the size of u says how much interest
//! there is. A public port takes no mask, so that padding has weight, and its dice standardises rows, by a sum in place of
//! the variance, with one random slope.

use crate::config::{self, COMMON_KEYS, DROPOUT, Key};
use crate::inputs::Inputs;
use crate::layers::learning::{LearningActivation, LearningStyle, mlp};
use crate::layers::linear::{bare, linear};
use crate::layers::sequence::{self, AttentionBlock, List, behaviours, with_places};
use crate::layers::trunk::Embedding;
use crate::layers::{concat, tasks, towers, trunk};
use crate::registry::{Alias, Architecture, Entry, Preset};
use crate::taxonomy::{Method, Relation, Structure};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Compare, SequencePool, SequenceSoftmax, TargetAttention, WeightedPool};
use manygate_graph::{Graph, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::Pooling;
use serde::{Deserialize, Serialize};

/// How behaviours become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A small network weighs each behaviour by the target.
    Din,
    /// The target attends to the behaviours.
    Target,
    /// The behaviours attend to each other.
    #[serde(rename = "self")]
    SelfAttention,
}

/// How behaviours that attended to each other are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Pool {
    Mean,
    Sum,
}

/// Configuration of attention.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceAttention {
    embedding_dim: usize,
    embedding_deviation: f64,
    kind: Kind,
    history: String,
    target: String,
    unit_units: Vec<usize>,
    unit_activation: LearningActivation,
    softmax: bool,
    attention_heads: usize,
    attention_head_dim: usize,
    attention_residual: bool,
    attention_norm: bool,
    ffn: usize,
    layers: usize,
    position: bool,
    attention_pool: Pool,
    units: Vec<usize>,
    activation: LearningActivation,
    dropout: f64,
}

impl Default for SequenceAttention {
    fn default() -> Self {
        SequenceAttention {
            embedding_dim: 16,
            embedding_deviation: 0.01,
            kind: Kind::Din,
            history: String::new(),
            target: String::new(),
            unit_units: vec![80, 40],
            unit_activation: LearningActivation::Sigmoid,
            softmax: false,
            attention_heads: 2,
            attention_head_dim: 8,
            attention_residual: false,
            attention_norm: false,
            ffn: 0,
            layers: 1,
            position: false,
            attention_pool: Pool::Mean,
            units: vec![200, 80],
            activation: LearningActivation::Dice,
            dropout: 0.0,
        }
    }
}

const OWN_KEYS: [Key; 17] = [
    Key {
        name: "kind",
        default: "\"din\"",
        doc: "din, target or self: a network that weighs, one query, or a query a behaviour",
    },
    Key {
        name: "history",
        default: "\"\"",
        doc: "the sequence of behaviours; empty for none. Others are pooled",
    },
    Key {
        name: "target",
        default: "\"\"",
        doc: "the categorical feature of the item that behaviours are compared with (din, target)",
    },
    Key { name: "unit_units", default: "[80, 40]", doc: "din: hidden widths of the network that weighs" },
    Key {
        name: "unit_activation",
        default: "\"sigmoid\"",
        doc: "din: relu, leaky_relu, tanh, sigmoid, prelu or dice, after its layers",
    },
    Key { name: "softmax", default: "false", doc: "din: whether weights are normalised over behaviours" },
    Key { name: "attention_heads", default: "2", doc: "target, self: heads of the attention" },
    Key { name: "attention_head_dim", default: "8", doc: "target, self: width of such a head" },
    Key {
        name: "attention_residual",
        default: "false",
        doc: "self: whether behaviours are added to what heads say",
    },
    Key { name: "attention_norm", default: "false", doc: "self: whether layer normalisations follow" },
    Key { name: "ffn", default: "0", doc: "self: hidden width of a block's feed-forward part; 0 for none" },
    Key { name: "layers", default: "1", doc: "self: blocks" },
    Key { name: "position", default: "false", doc: "self: whether a vector for each place is learnt" },
    Key { name: "attention_pool", default: "\"mean\"", doc: "self: mean or sum over behaviours" },
    Key { name: "units", default: "[200, 80]", doc: "widths of the network over features and behaviours" },
    Key {
        name: "activation",
        default: "\"dice\"",
        doc: "relu, leaky_relu, tanh, sigmoid, prelu or dice, after its layers",
    },
    DROPOUT,
];

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: "attention",
    aliases: &[
        Alias {
            name: "din",
            summary: "a small network compares each behaviour with the candidate item",
            paper: "G. Zhou et al., \"Deep Interest Network for Click-Through Rate Prediction\", KDD 2018",
            preset: Some(Preset { key: "kind", value: "din" }),
        },
        Alias {
            name: "mhta",
            summary: "multi-head attention whose one query is the candidate item",
            paper: "A. Vaswani et al., \"Attention Is All You Need\", NeurIPS 2017",
            preset: Some(Preset { key: "kind", value: "target" }),
        },
        Alias {
            name: "self_attention",
            summary: "multi-head attention of behaviours among themselves",
            paper: "A. Vaswani et al., \"Attention Is All You Need\", NeurIPS 2017",
            preset: Some(Preset { key: "kind", value: "self" }),
        },
    ],
    relation: Relation::Parallel,
    structure: Structure::None,
    method: Method::HardSharing,
    summary: "behaviours become one vector by attention: of a small network, of the target, or among themselves",
    paper: "G. Zhou et al., \"Deep Interest Network for Click-Through Rate Prediction\", KDD 2018; \
            A. Vaswani et al., \"Attention Is All You Need\", NeurIPS 2017",
    own_keys: &OWN_KEYS,
    common_keys: COMMON_KEYS.split_at(2).0,
    parse: |keys| Ok(Box::new(config::parse::<SequenceAttention>(keys)?)),
};

impl Architecture for SequenceAttention {
    fn build(&self, g: &mut Graph, inputs: &Inputs) -> Result<()> {
        let embedding = Embedding { dim: self.embedding_dim, deviation: self.embedding_deviation as f32 };
        let x0 =
            trunk::trunk_of(g, inputs, embedding, |bag| bag.longest.is_none() || bag.name != self.history)?;
        let mut parts = vec![x0];
        if !self.history.is_empty() {
            parts.push(self.interest(g, inputs, embedding, x0)?);
        }
        let input = concat::concat(g, "deep.input", &parts)?;
        let style = LearningStyle {
            units: &self.units,
            activation: self.activation,
            dropout: self.dropout,
            list: None,
        };
        let h = mlp(g, "deep", input, style)?;
        let logits = towers::heads(g, "head", inputs, h)?;
        tasks::heads(g, inputs, &logits)
    }

    fn resolved(&self) -> toml::Table {
        toml::Table::try_from(self).unwrap_or_default()
    }
}

impl SequenceAttention {
    /// u, `[batch, dim]`.
    fn interest(&self, g: &mut Graph, inputs: &Inputs, embedding: Embedding, x0: Value) -> Result<Value> {
        let (list, history) = behaviours(g, inputs, embedding, "history", &self.history, "model.history")?;
        if self.kind != Kind::Din && self.attention_heads * self.attention_head_dim == 0 {
            let message = "attention needs a head of at least 1 value; raise it and `attention_head_dim`";
            return Err(Error::config("model.attention_heads", message));
        }
        if self.kind == Kind::SelfAttention {
            return self.among_themselves(g, embedding, list, history);
        }
        let target = trunk::field(g, inputs, embedding, x0, &self.target, "model.target")?;
        match self.kind {
            Kind::Target => self.one_query(g, list, target, history),
            _ => self.weighed_by_a_network(g, list, target, history),
        }
    }

    fn weighed_by_a_network(
        &self,
        g: &mut Graph,
        list: List,
        target: Value,
        history: Value,
    ) -> Result<Value> {
        let widths = (g.cols(target), g.cols(history));
        if widths.0 != widths.1 {
            let message = format!(
                "`{}` has {} values and a behaviour of `{}` {}: give the sequence the table of the target",
                self.target, widths.0, self.history, widths.1
            );
            return Err(Error::config("model.target", message));
        }
        let pairs = g.add("unit.input", Compare::new(list.bag), &[target, history])?;
        let style = LearningStyle {
            units: &self.unit_units,
            activation: self.unit_activation,
            dropout: 0.0,
            list: Some(list.bag),
        };
        let hidden = mlp(g, "unit", pairs, style)?;
        let mut weights = linear(g, "unit_out", hidden, 1, Activation::Identity)?;
        if self.softmax {
            weights = g.add("unit.softmax", SequenceSoftmax::new(list.bag), &[weights])?;
        }
        g.add("interest", WeightedPool::new(list.bag, list.longest), &[history, weights])
    }

    fn one_query(&self, g: &mut Graph, list: List, target: Value, history: Value) -> Result<Value> {
        let (heads, w) = (self.attention_heads, self.attention_head_dim);
        let q = bare(g, "block.q", &["block.q".to_owned()], target, heads * w)?;
        let kv = bare(g, "block.kv", &["block.k", "block.v"].map(str::to_owned), history, heads * w)?;
        let [k, v] = [g.columns(kv, 0, heads * w)?, g.columns(kv, heads * w, heads * w)?];
        let attention = TargetAttention::new(list.bag, list.longest, heads, 1.0 / (w as f32).sqrt());
        let mixed = g.add("block.attention", attention, &[q, k, v])?;
        let dim = g.cols(history);
        bare(g, "block.o", &["block.o".to_owned()], mixed, dim)
    }

    fn among_themselves(
        &self,
        g: &mut Graph,
        embedding: Embedding,
        list: List,
        history: Value,
    ) -> Result<Value> {
        let mut y = history;
        if self.position {
            y = with_places(g, "history.places", "position", list, y, embedding.deviation)?;
        }
        let block = AttentionBlock {
            heads: self.attention_heads,
            head_dim: self.attention_head_dim,
            residual: self.attention_residual,
            norm: self.attention_norm,
            ffn: self.ffn,
            ffn_names: ["ffn1", "ffn2"],
        };
        for n in 0..self.layers {
            y = sequence::attend(g, &format!("blocks.{n}"), list, block, y)?;
        }
        let pooling = if self.attention_pool == Pool::Mean { Pooling::Mean } else { Pooling::Sum };
        g.add("interest", SequencePool::new(list.bag, pooling), &[y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{BagField, Field, Table, Task};
    use manygate_graph::Mode;

    fn message(keys: &str) -> String {
        let table = |name: &str, dim| Table { name: name.into(), rows: 5, dim };
        let inputs = Inputs {
            tables: vec![table("item", None), table("seen", Some(3))],
            fields: vec![Field { name: "item".into(), table: 0 }],
            bags: vec![BagField { name: "seen".into(), table: 1, pooling: Pooling::Mean, longest: Some(4) }],
            tasks: vec![Task::binary("click")],
            ..Inputs::default()
        };
        let keys: toml::Table = format!("name = \"attention\"\n{keys}").parse().unwrap();
        let (_, architecture) = crate::from_table(&keys).unwrap();
        let built = crate::build(architecture.as_ref(), &inputs, Mode::Training);
        built.map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let told = message("history = \"bought\"");
        assert!(told.contains("model.history: there is no sequence `bought`"), "{told}");
        let told = message("history = \"seen\"");
        assert!(told.contains("model.target: there is no categorical feature ``"), "{told}");
        let told = message("history = \"seen\"\ntarget = \"item\"");
        assert!(told.contains("`item` has 16 values and a behaviour of `seen` 3"), "{told}");
        let told = message("history = \"seen\"\nkind = \"self\"\nattention_heads = 0");
        assert!(told.contains("model.attention_heads: attention needs a head"), "{told}");
    }
}
