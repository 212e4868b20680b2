//! Interactions between fields, each of which may first pass a transformation (DFFM's domain network).
//!
//! inner: products of all pairs (Y. Qu et al., ICDM 2016). bi: their element-wise sum (X. He, T.-S. Chua, SIGIR 2017).
//! vector, matrix: cross layers, see [`cross`]. autoint: attention among fields with a residual map (W. Song et al., CIKM
//! 2019).
//! Parameters: `inter.cross.<l>.{weight,bias}`, `inter.<l>.{q,k,v,res}.weight`.

use super::concat::concat;
use super::cross;
use manygate_core::{Error, Result};
use manygate_graph::ops::{Activate, Add, Attention, BiInteraction, Linear, PairProducts};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// Which interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None.
    None,
    /// Inner products of pairs.
    Inner,
    /// Bi-interaction pooling.
    Bi,
    /// Cross layers with a vector.
    Vector,
    /// Cross layers with a matrix.
    Matrix,
    /// Attention among fields.
    Autoint,
}

/// The shape of an interaction.
#[derive(Clone, Copy, Debug)]
pub struct Interaction {
    /// Which one.
    pub kind: Kind,
    /// Layers of cross layers and of attention.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether scores are divided by the root of that width.
    pub scale: bool,
}

impl Interaction {
    /// That there is at least one of what the kind reads: the keys `<prefix>layers`, `<prefix>heads`, `<prefix>head_dim`.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of which there is none.
    pub fn check(&self, prefix: &str) -> Result<()> {
        let keys = [("layers", self.layers), ("heads", self.heads), ("head_dim", self.head_dim)];
        let read = match self.kind {
            Kind::None | Kind::Inner | Kind::Bi => 0,
            Kind::Vector | Kind::Matrix => 1,
            Kind::Autoint => 3,
        };
        match keys[..read].iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(Error::config(format!("model.{prefix}{key}"), "must be at least 1")),
            None => Ok(()),
        }
    }
}

/// What field vectors pass before they interact: a value with so many of them side by side.
/// One that returns what it is given is none.
pub type Transform<'a> = &'a mut dyn FnMut(&mut Graph, Value, usize) -> Result<Value>;

/// The interaction of the first `fields` vectors, `dim` wide, of x0 `[batch, fields · dim + dense]`: one value, or none.
///
/// # Errors
/// When there are too few fields, widths do not fit, or a name is taken.
pub fn interaction(
    g: &mut Graph,
    style: Interaction,
    x0: Value,
    [fields, dim]: [usize; 2],
    transform: Transform<'_>,
) -> Result<Vec<Value>> {
    let needed = match style.kind {
        Kind::None | Kind::Vector | Kind::Matrix => 0,
        Kind::Bi | Kind::Autoint => 1,
        Kind::Inner => 2,
    };
    if fields < needed {
        let message =
            format!("the interaction needs {needed} categorical features at least, there are {fields}");
        return Err(Error::config("features", message));
    }
    let width = g.cols(x0);
    let e = g.columns(x0, 0, fields * dim)?;
    Ok(match style.kind {
        Kind::None => Vec::new(),
        Kind::Inner => {
            let e = transform(g, e, fields)?;
            vec![g.add("inter.inner", PairProducts::new(fields), &[e])?]
        }
        Kind::Bi => {
            let e = transform(g, e, fields)?;
            vec![g.add("inter.bi", BiInteraction::new(fields), &[e])?]
        }
        Kind::Vector | Kind::Matrix => {
            let mut whole = |g: &mut Graph, x: Value| {
                let plain = g.columns(x, 0, fields * dim)?;
                let e = transform(g, plain, fields)?;
                if e == plain {
                    return Ok(x);
                }
                if fields * dim == width {
                    return Ok(e);
                }
                let dense = g.columns(x, fields * dim, width - fields * dim)?;
                concat(g, "inter.transformed", &[e, dense])
            };
            let factor = whole(g, x0)?;
            let mut x = x0;
            for l in 0..style.layers {
                let inner = if l == 0 { factor } else { whole(g, x)? };
                let layer = if style.kind == Kind::Vector { cross::vector } else { cross::matrix };
                x = layer(g, &format!("inter.cross.{l}"), factor, inner, x)?;
            }
            vec![x]
        }
        Kind::Autoint => {
            let mut e = e;
            for l in 0..style.layers {
                let transformed = transform(g, e, fields)?;
                e = attend(g, style, l, fields, transformed, e)?;
            }
            vec![e]
        }
    })
}

/// One layer of attention among fields: relu of the heads side by side and a map of the untransformed fields.
fn attend(
    g: &mut Graph,
    style: Interaction,
    l: usize,
    fields: usize,
    transformed: Value,
    e: Value,
) -> Result<Value> {
    let width = style.heads * style.head_dim;
    let map = |g: &mut Graph, name: &str, x: Value| {
        let name = format!("inter.{l}.{name}");
        let weight = Block::weight(format!("{name}.weight"), width, g.cols(x) / fields, Init::XavierUniform);
        let weight = g.param(ParamSpec::new(vec![weight])?)?;
        let layer = Linear::new(width, false, Activation::Identity).over_groups(fields);
        g.add(name, layer, &[x, weight])
    };
    let qkv = [map(g, "q", transformed)?, map(g, "k", transformed)?, map(g, "v", transformed)?];
    let residual = map(g, "res", e)?;
    let scale = if style.scale { 1.0 / (style.head_dim as f32).sqrt() } else { 1.0 };
    let mixed =
        g.add(format!("inter.{l}.attention"), Attention::of_columns(fields, style.heads, scale), &qkv)?;
    let sum = g.add(format!("inter.{l}.sum"), Add::new(2), &[mixed, residual])?;
    let cols = g.cols(sum);
    g.add(format!("inter.{l}"), Activate::new(Activation::Relu, cols), &[sum])
}
