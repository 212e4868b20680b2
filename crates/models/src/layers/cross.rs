//! Cross layers: each makes products of one degree more of the columns of x0.
//!
//! ```text
//! vector     x ← x0 (w · x) + b + x                       the bias outside of the product
//! matrix     x ← x0 ⊙ (W x + b) + x                       the bias inside
//! low_rank   x ← x0 ⊙ (U Vᵀ x + b) + x                    U, V [d, r]
//! mixture    x ← x0 ⊙ (Σ_k G_k U_k z_k + b Σ_k G_k) + x   z_k = V_kᵀ x, or with an inner activation g: g(C_k g(V_kᵀ x))
//! ```
//!
//! R. Wang et al., *Deep & Cross Network for Ad Click Predictions*, ADKDD 2017 (vector), and *DCN V2*, WWW 2021. The mixture
//! is one product down to all bottlenecks, `[batch, K · r]`, the gates are multiplied in there, and one product up.
//! Parameters, with prefix P: `P.weight` `[d]` or `[d, d]`, `P.bias` `[d]`, `P.u`, `P.v` `[d, r]` or `[K, d, r]`, `P.c` `[K, r, r]`,
//! gates `<prefix of the gate>.weight` `[K, d]` without a bias.

use manygate_core::Result;
use manygate_graph::ops::{
    Cross, CrossVector, ExpertColumns, GateGroups, GroupedLinear, HardTanh, Linear, LinearTransposed,
    Softmax, WeightPart,
};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// How the experts of a mixture are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Softmax over the experts.
    Softmax,
    /// A number in (0, 1) for each, which do not add up to 1.
    Sigmoid,
    /// 1 for each.
    Constant,
}

/// The activation in the bottleneck of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inner {
    /// None, and no map between two of them.
    None,
    /// max(x, 0)
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// The same in straight pieces: x, limited to [-1, 1].
    HardTanh,
    /// Logistic function.
    Sigmoid,
}

/// The shape of a mixture of low-rank experts.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// Experts.
    pub experts: usize,
    /// Rank of each.
    pub rank: usize,
    /// How they are weighed.
    pub gate: Gate,
    /// The activation in their bottlenecks.
    pub inner: Inner,
}

/// A layer with a vector: `x0 (w · inner) + b + x`. `inner` is x, and in the first layer all are x0, unless fields pass a
/// transformation before they interact.
///
/// # Errors
/// When shapes differ, or a name is taken.
pub fn vector(g: &mut Graph, prefix: &str, x0: Value, inner: Value, x: Value) -> Result<Value> {
    let weight = tensor(g, format!("{prefix}.weight"), &[g.cols(x)], start(g.cols(x)))?;
    let bias = bias(g, prefix, x)?;
    let mut inputs = Vec::with_capacity(5);
    let places = [x0, inner, x].map(|value| {
        inputs.iter().position(|&other| other == value).unwrap_or_else(|| {
            inputs.push(value);
            inputs.len() - 1
        })
    });
    inputs.extend([weight, bias]);
    g.add(prefix, CrossVector::new(places), &inputs)
}

/// A layer with a matrix: `x0 ⊙ (W inner + b) + x`.
///
/// # Errors
/// As [`vector`].
pub fn matrix(g: &mut Graph, prefix: &str, x0: Value, inner: Value, x: Value) -> Result<Value> {
    let width = g.cols(x);
    let weight = tensor(g, format!("{prefix}.weight"), &[width, width], start(width))?;
    let layer = Linear::new(width, true, Activation::Identity);
    let inputs = [inner, weight, bias(g, prefix, x)?];
    let map = g.add(format!("{prefix}.map"), layer, &inputs)?;
    product(g, prefix, x0, map, x)
}

/// A layer with a matrix of low rank.
///
/// # Errors
/// As [`vector`].
pub fn low_rank(g: &mut Graph, prefix: &str, rank: usize, x0: Value, x: Value) -> Result<Value> {
    let width = g.cols(x);
    let [u, v] = maps(g, prefix, None, width, rank)?;
    let low = g.add(format!("{prefix}.low"), LinearTransposed::new(width), &[x, v])?;
    let layer = Linear::new(width, true, Activation::Identity);
    let inputs = [low, u, bias(g, prefix, x)?];
    let map = g.add(format!("{prefix}.map"), layer, &inputs)?;
    product(g, prefix, x0, map, x)
}

/// A layer with a mixture of low-rank experts, whose gate has the weight `gate` unless it is constant.
///
/// # Errors
/// As [`vector`].
pub fn mixture(
    g: &mut Graph,
    prefix: &str,
    style: Mixture,
    gate: Option<Value>,
    x0: Value,
    x: Value,
) -> Result<Value> {
    let (width, Mixture { experts, rank, .. }) = (g.cols(x), style);
    let [u, v] = maps(g, prefix, Some(experts), width, rank)?;
    let down = g.add(format!("{prefix}.down"), WeightPart::new(0, rank, width).transposed(), &[v])?;
    let activation = match style.inner {
        Inner::None | Inner::HardTanh => Activation::Identity,
        Inner::Relu => Activation::Relu,
        Inner::Tanh => Activation::Tanh,
        Inner::Sigmoid => Activation::Sigmoid,
    };
    let low = Linear::new(experts * rank, false, activation);
    let mut z = g.add(format!("{prefix}.low"), low, &[x, down])?;
    if style.inner != Inner::None {
        let inner = tensor(g, format!("{prefix}.c"), &[experts, rank, rank], start(rank))?;
        let inner = g.add(format!("{prefix}.inner_maps"), WeightPart::new(0, rank, rank), &[inner])?;
        z = limited(g, &format!("{prefix}.low_limited"), style.inner, z)?;
        let layer = GroupedLinear::new(experts, rank, false, activation);
        z = g.add(format!("{prefix}.inner"), layer, &[z, inner])?;
        z = limited(g, &format!("{prefix}.inner_limited"), style.inner, z)?;
    }
    let gated = format!("{prefix}.gated");
    z = match gate {
        None => g.add(gated, GateGroups::open(experts), &[z])?,
        Some(weight) => {
            let gates = weigh(g, prefix, style, x, weight)?;
            g.add(gated, GateGroups::new(experts), &[z, gates])?
        }
    };
    let bias = bias(g, prefix, x)?;
    let up = g.add(format!("{prefix}.up"), ExpertColumns, &[u, bias])?;
    let map = g.add(format!("{prefix}.map"), Linear::new(width, false, Activation::Identity), &[z, up])?;
    product(g, prefix, x0, map, x)
}

/// The weight `[K, d]` of a gate, `<prefix>.weight`.
///
/// # Errors
/// When the name is taken.
pub fn gate_weight(g: &mut Graph, prefix: &str, experts: usize, x: Value) -> Result<Value> {
    tensor(g, format!("{prefix}.weight"), &[experts, g.cols(x)], Init::XavierUniform)
}

/// Gates `[batch, K]` of the running vector, not of x0.
fn weigh(g: &mut Graph, prefix: &str, style: Mixture, x: Value, weight: Value) -> Result<Value> {
    let activation = if style.gate == Gate::Sigmoid { Activation::Sigmoid } else { Activation::Identity };
    let layer = Linear::new(style.experts, false, activation);
    let gates = g.add(format!("{prefix}.gate"), layer, &[x, weight])?;
    if style.gate == Gate::Softmax { g.add(format!("{prefix}.gates"), Softmax, &[gates]) } else { Ok(gates) }
}

/// z through the activation that no product can end in.
fn limited(g: &mut Graph, name: &str, inner: Inner, z: Value) -> Result<Value> {
    if inner == Inner::HardTanh { g.add(name, HardTanh, &[z]) } else { Ok(z) }
}

/// `x0 ⊙ map + x`.
fn product(g: &mut Graph, prefix: &str, x0: Value, map: Value, x: Value) -> Result<Value> {
    if x == x0 {
        g.add(prefix, Cross::first(), &[x0, map])
    } else {
        g.add(prefix, Cross::further(), &[x0, map, x])
    }
}

/// U and V, of the same shape; with experts that is theirs, one behind the other.
fn maps(
    g: &mut Graph,
    prefix: &str,
    experts: Option<usize>,
    width: usize,
    rank: usize,
) -> Result<[Value; 2]> {
    let shape: Vec<usize> = experts.into_iter().chain([width, rank]).collect();
    let u = tensor(g, format!("{prefix}.u"), &shape, start(rank))?;
    Ok([u, tensor(g, format!("{prefix}.v"), &shape, start(width))?])
}

/// The start of a map from so many columns, which keeps the variance of what it maps.
fn start(columns: usize) -> Init {
    Init::Normal((1.0 / columns as f32).sqrt())
}

fn bias(g: &mut Graph, prefix: &str, x: Value) -> Result<Value> {
    tensor(g, format!("{prefix}.bias"), &[g.cols(x)], Init::Constant(0.0))
}

fn tensor(g: &mut Graph, name: String, shape: &[usize], init: Init) -> Result<Value> {
    g.param(ParamSpec::new(vec![Block { name, shape: shape.to_vec(), init }])?)
}
