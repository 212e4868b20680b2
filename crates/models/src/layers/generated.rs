//! Weights that a small network generates from a condition: for each scenario once, or for each sample.
//!
//! A condition z `[scenarios, width]` exists once, and so do the weights: a row is multiplied by those of its scenario.
//! A condition `[batch, width]` gives every row weights of its own. With prefix P the generator is
//! `P.<i>.{weight,bias}`: activated hidden layers, and a bare last one, whose values are read in parts, each row-major
//! `[out, in]`.

use super::mlp::{MlpStyle, mlp};
use super::scenario::rows_of;
use manygate_core::Result;
use manygate_graph::ops::{Linear, RowLinear, WeightPart};
use manygate_graph::{Block, Graph, Init, ParamSpec, Space, Value};
use manygate_kernels::activation::Activation;

/// What a generator gave.
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// `[scenarios, len]` or `[batch, len]`.
    values: Value,
    scenarios: Option<usize>,
}

/// How the last layer of a generator starts.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its weight.
    pub weight: Init,
    /// Its bias: what is generated before anything is learnt.
    pub bias: Init,
}

/// A layer over generated weights.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Place of the first weight.
    pub from: usize,
    /// Units.
    pub out: usize,
    /// Place of the first bias, where biases are generated as well.
    pub bias: Option<usize>,
    /// What it ends in.
    pub activation: Activation,
}

impl Part {
    /// `out` units of weights from place `from` on, without a bias and an activation.
    pub fn bare(from: usize, out: usize) -> Part {
        Part { from, out, bias: None, activation: Activation::Identity }
    }
}

impl Generated {
    /// `len` values of condition `z`. Nothing is dropped inside: a value would be missing in many weights at once.
    ///
    /// # Errors
    /// When a width is 0 or a name is taken.
    pub fn new(
        g: &mut Graph,
        prefix: &str,
        z: Value,
        hidden: MlpStyle<'_>,
        len: usize,
        start: Start,
    ) -> Result<Generated> {
        let shape = g.shape(z);
        let scenarios = (shape.space == Space::Once).then_some(shape.rows);
        let top = mlp(g, prefix, z, MlpStyle { batch_norm: false, dropout: 0.0, ..hidden })?;
        let last = format!("{prefix}.{}", hidden.units.len());
        let weight = Block::weight(format!("{last}.weight"), len, g.cols(top), start.weight);
        let weight = g.param(ParamSpec::new(vec![weight])?)?;
        let bias = g.param(ParamSpec::new(vec![Block::vector(format!("{last}.bias"), len, start.bias)])?)?;
        let values = g.add(last, Linear::new(len, true, Activation::Identity), &[top, weight, bias])?;
        Ok(Generated { values, scenarios })
    }

    /// act(W x + b) of generated W `[part.out, width of x]` and b: `[batch, part.out]`.
    ///
    /// # Errors
    /// When there are fewer values, or a name is taken.
    pub fn product(&self, g: &mut Graph, name: &str, x: Value, part: Part) -> Result<Value> {
        let Part { from, out, bias, activation } = part;
        let input = g.cols(x);
        if let Some(scenarios) = self.scenarios {
            let layer = Linear::new(out, bias.is_some(), activation).by_scenario(scenarios);
            let weight = WeightPart::new(from, out, input);
            let mut inputs = vec![x, g.add(format!("{name}.weight"), weight, &[self.values])?];
            if let Some(from) = bias {
                inputs.push(g.add(format!("{name}.bias"), WeightPart::new(from, out, 1), &[self.values])?);
            }
            return g.add(name, layer, &inputs);
        }
        let mut inputs = vec![x, g.columns(self.values, from, out * input)?];
        if let Some(from) = bias {
            inputs.push(g.columns(self.values, from, out)?);
        }
        g.add(name, RowLinear::new(1, out, bias.is_some(), activation), &inputs)
    }

    /// x M of a generated M `[width of x, out]` by sample, as papers with rows for vectors write it: `[batch, out]`.
    ///
    /// # Errors
    /// When the condition is not of samples, there are fewer values, or the name is taken.
    pub fn product_from_left(&self, g: &mut Graph, name: &str, x: Value, out: usize) -> Result<Value> {
        let product = RowLinear::new(1, out, false, Activation::Identity).transposed();
        let matrix = g.columns(self.values, 0, out * g.cols(x))?;
        g.add(name, product, &[x, matrix])
    }

    /// The values from place `from` on, for each row: `[batch, len]`.
    ///
    /// # Errors
    /// When there are fewer values, or the name is taken.
    pub fn vector(&self, g: &mut Graph, name: &str, from: usize, len: usize) -> Result<Value> {
        match self.scenarios {
            Some(scenarios) => {
                let of_scenarios =
                    g.add(format!("{name}.part"), WeightPart::new(from, 1, len), &[self.values])?;
                rows_of(g, name, scenarios, of_scenarios)
            }
            None => g.columns(self.values, from, len),
        }
    }
}
