//! Sequences: embeddings of the ids and of their places, self-attention among them, the mean over the ids.
//!
//! With sequence s: table `seq.<s>.weight`, places `pos.<s>.weight` [longest, dim], maps `encoder.<s>.{q,k,v,o}.weight`
//! [dim, dim] without biases. With a hidden width it is a post-norm transformer block:
//! `Y = LN(X + MHA(X))`, `Y = LN(Y + W2 relu(W1 Y + b1) + b2)`. An empty sequence gives zeros.

use super::linear::{bare, linear};
use super::trunk::{Embedding, own_table};
use manygate_core::{Error, Result};
use manygate_graph::ops::{Add, Attention, LayerNorm, PositionEmbedding, SequenceLookup, SequencePool};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::embedding::Pooling;

/// ε of layer normalisation.
const EPSILON: f32 = 1e-5;

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
    let table = own_table(g, format!("seq.{name}.weight"), rows, dim, embedding)?;
    let ids = g.add(format!("seq.{name}"), SequenceLookup::new(bag, table, dim), &[])?;
    let places = Block::weight(format!("pos.{name}.weight"), longest, dim, Init::Normal(embedding.deviation));
    let places = g.param(ParamSpec::new(vec![places])?)?;
    let x = g.add(format!("pos.{name}"), PositionEmbedding::new(bag), &[ids, places])?;

    let prefix = format!("encoder.{name}");
    let qkv = bare(g, &format!("{prefix}.qkv"), &["q", "k", "v"].map(|p| format!("{prefix}.{p}")), x, dim)?;
    let [q, k, v] = [g.columns(qkv, 0, dim)?, g.columns(qkv, dim, dim)?, g.columns(qkv, 2 * dim, dim)?];
    let scale = 1.0 / ((dim / heads) as f32).sqrt();
    let attention = Attention::of_list(bag, longest, heads, scale);
    let mixed = g.add(format!("{prefix}.attention"), attention, &[q, k, v])?;
    let mut y = bare(g, &format!("{prefix}.o"), &[format!("{prefix}.o")], mixed, dim)?;
    if ffn > 0 {
        y = normed_sum(g, &format!("{prefix}.norm1"), x, y)?;
        let hidden = linear(g, &format!("{prefix}.ffn.0"), y, ffn, Activation::Relu)?;
        let out = linear(g, &format!("{prefix}.ffn.1"), hidden, dim, Activation::Identity)?;
        y = normed_sum(g, &format!("{prefix}.norm2"), y, out)?;
    }
    g.add(format!("{prefix}.pooled"), SequencePool::new(bag, Pooling::Mean), &[y])
}

/// LN(x + y).
fn normed_sum(g: &mut Graph, prefix: &str, x: Value, y: Value) -> Result<Value> {
    let width = g.cols(x);
    let sum = g.add(format!("{prefix}.sum"), Add::new(2), &[x, y])?;
    let gamma = Block::vector(format!("{prefix}.weight"), width, Init::Constant(1.0));
    let beta = Block::vector(format!("{prefix}.bias"), width, Init::Constant(0.0));
    let gamma = g.param(ParamSpec::new(vec![gamma])?)?;
    let beta = g.param(ParamSpec::new(vec![beta])?)?;
    g.add(prefix, LayerNorm::new(EPSILON), &[sum, gamma, beta])
}
