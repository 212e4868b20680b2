//! Sequences: behaviours id by id, blocks of self-attention among them, and one vector of all.
//!
//! An encoder of sequence s: table `seq.<s>.weight`, places `pos.<s>.weight` [longest, dim], a block
//! `encoder.<s>.{q,k,v,o}.weight` [dim, dim], the mean over the ids. With a hidden width it is a post-norm transformer
//! block. An empty sequence gives zeros.

use super::linear::{bare, linear};
use super::trunk::{Embedding, field_table, own_table};
use crate::inputs::Inputs;
use manygate_core::{Error, Result};
use manygate_graph::ops::{Add, Attention, LayerNorm, PositionEmbedding, SequenceLookup, SequencePool};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::Pooling;

/// ε of layer normalisation.
const EPSILON: f32 = 1e-5;

/// A list of the batch, and the most ids a sample has of it.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Its number.
    pub bag: usize,
    /// Most ids a sample.
    pub longest: usize,
}

/// The sequence `name`, declared as one whose ids have rows of their own, and its table's index among the inputs'; `key`
/// names what asked for it.
///
/// # Errors
/// When there is no such sequence.
pub fn list(g: &mut Graph, inputs: &Inputs, name: &str, key: &str) -> Result<(List, usize)> {
    let Some((bag, field, longest)) = inputs.sequences().find(|(_, field, _)| field.name == name) else {
        return Err(Error::config(key, format!("there is no sequence `{name}`")));
    };
    g.sequence(bag, longest)?;
    Ok((List { bag, longest }, field.table))
}

/// The behaviours of the sequence `name`, in the table that the data gives it, `[ids, dim]`, as a value called `value`.
///
/// # Errors
/// As [`list`].
pub fn behaviours(
    g: &mut Graph,
    inputs: &Inputs,
    embedding: Embedding,
    value: &str,
    name: &str,
    key: &str,
) -> Result<(List, Value)> {
    let (list, table) = list(g, inputs, name, key)?;
    let (table, width) = field_table(g, inputs, embedding, table)?;
    Ok((list, g.add(value, SequenceLookup::new(list.bag, table, width), &[])?))
}

/// The shape of a block: `Y = MHA(X)`, with a residual `Y + X`, with a norm `LN(Y)`; with a hidden width `Y + W2 relu(W1 Y
/// + c1) + c2`, and again `LN` of that with a norm.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlock<'a> {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether X is added to what the heads say.
    pub residual: bool,
    /// Whether layer normalisations `norm1` and `norm2` follow.
    pub norm: bool,
    /// Hidden width of the feed-forward part; 0 for none.
    pub ffn: usize,
    /// What its two layers are called.
    pub ffn_names: [&'a str; 2],
}

/// One block over the ids of a list, `[ids, dim]`: `P.{q,k,v}.weight` [heads · head_dim, dim], `P.o.weight` [dim, heads ·
/// head_dim], no biases. Every id attends to all of its sample.
///
/// # Errors
/// When there is no head, or a name is taken.
pub fn attend(g: &mut Graph, prefix: &str, list: List, block: AttentionBlock<'_>, x: Value) -> Result<Value> {
    let AttentionBlock { heads, head_dim, residual, norm, ffn, ffn_names } = block;
    let (dim, width) = (g.cols(x), heads * head_dim);
    let maps = ["q", "k", "v"].map(|p| format!("{prefix}.{p}"));
    let qkv = bare(g, &format!("{prefix}.qkv"), &maps, x, width)?;
    let [q, k, v] =
        [g.columns(qkv, 0, width)?, g.columns(qkv, width, width)?, g.columns(qkv, 2 * width, width)?];
    let attention = Attention::of_list(list.bag, list.longest, heads, 1.0 / (head_dim as f32).sqrt());
    let mixed = g.add(format!("{prefix}.attention"), attention, &[q, k, v])?;
    let mut y = bare(g, &format!("{prefix}.o"), &[format!("{prefix}.o")], mixed, dim)?;
    if residual {
        y = g.add(format!("{prefix}.residual"), Add::new(2), &[x, y])?;
    }
    if norm {
        y = layer_norm(g, &format!("{prefix}.norm1"), y)?;
    }
    if ffn > 0 {
        let [first, second] = ffn_names.map(|name| format!("{prefix}.{name}"));
        let hidden = linear(g, &first, y, ffn, Activation::Relu)?;
        let out = linear(g, &second, hidden, dim, Activation::Identity)?;
        y = g.add(format!("{prefix}.ffn"), Add::new(2), &[y, out])?;
        if norm {
            y = layer_norm(g, &format!("{prefix}.norm2"), y)?;
        }
    }
    Ok(y)
}

/// LN(x).
fn layer_norm(g: &mut Graph, prefix: &str, x: Value) -> Result<Value> {
    let width = g.cols(x);
    let gamma = Block::vector(format!("{prefix}.weight"), width, Init::Constant(1.0));
    let beta = Block::vector(format!("{prefix}.bias"), width, Init::Constant(0.0));
    let gamma = g.param(ParamSpec::new(vec![gamma])?)?;
    let beta = g.param(ParamSpec::new(vec![beta])?)?;
    g.add(prefix, LayerNorm::new(EPSILON), &[x, gamma, beta])
}

/// x with a learnt vector for each place of a list added, the matrix `block` [longest, dim].
///
/// # Errors
/// When the name is taken.
pub fn with_places(
    g: &mut Graph,
    name: &str,
    block: &str,
    list: List,
    x: Value,
    deviation: f32,
) -> Result<Value> {
    let places = Block::weight(block, list.longest, g.cols(x), Init::Normal(deviation));
    let places = g.param(ParamSpec::new(vec![places])?)?;
    g.add(name, PositionEmbedding::new(list.bag), &[x, places])
}

/// The shape of an encoder.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// Heads of the attention.
    pub heads: usize,
    /// Hidden width of a transformer block; 0 for attention alone.
    pub ffn: usize,
    /// Width and start of the embeddings.
    pub embedding: Embedding,
}

/// One vector `[batch, dim]` for list `bag`, the sequence `name`.
///
/// # Errors
/// When heads do not divide the width, or a name is taken.
pub fn encode(
    g: &mut Graph,
    encoder: Encoder,
    bag: usize,
    name: &str,
    rows: usize,
    longest: usize,
) -> Result<Value> {
    let Encoder { heads, ffn, embedding } = encoder;
    let dim = embedding.dim;
    if heads == 0 || !dim.is_multiple_of(heads) {
        let message = format!("must divide the embedding width {dim}; it is {heads}");
        return Err(Error::config("model.attention_heads", message));
    }
    g.sequence(bag, longest)?;
    let list = List { bag, longest };
    let table = own_table(g, format!("seq.{name}.weight"), rows, dim, embedding)?;
    let ids = g.add(format!("seq.{name}"), SequenceLookup::new(bag, table, dim), &[])?;
    let places = format!("pos.{name}");
    let x = with_places(g, &places, &format!("{places}.weight"), list, ids, embedding.deviation)?;
    let whole = ffn > 0;
    let block = AttentionBlock {
        heads,
        head_dim: dim / heads,
        residual: whole,
        norm: whole,
        ffn,
        ffn_names: ["ffn.0", "ffn.1"],
    };
    let prefix = format!("encoder.{name}");
    let y = attend(g, &prefix, list, block, x)?;
    g.add(format!("{prefix}.pooled"), SequencePool::new(bag, Pooling::Mean), &[y])
}
