//! MLPs whose activations may learn.
//!
//! With prefix P: `P.<i>.{weight,bias}` as in [`mlp`](super::mlp); behind layer i, prelu has a slope a unit,
//! `P.act<i>.weight` `[u_i]`, and dice `P.act<i>.alpha` `[u_i]` with state `P.act<i>.bn.{running_mean,running_var}`. The
//! rows that dice standardises over are those of the batch, or the ids of a list: nothing is padded, so nothing but ids
//! counts.

use super::dropout::dropout;
use super::linear::linear;
use manygate_core::Result;
use manygate_graph::ops::{BatchMoments, Dice, Prelu, Running};
use manygate_graph::{Block, Graph, Init, ParamSpec, Value};
use manygate_kernels::activation::Activation;
use serde::{Deserialize, Serialize};

/// ε of dice's standardisation.
const EPSILON: f32 = 1e-8;
/// Weight of the new value in running statistics.
const MOMENTUM: f32 = 0.1;

/// An activation by name, those that learn included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningActivation {
    /// max(x, 0)
    Relu,
    /// x, or 0.01 x where negative
    LeakyRelu,
    /// hyperbolic tangent
    Tanh,
    /// logistic function
    Sigmoid,
    /// x, or a learnt share of x where negative
    Prelu,
    /// between x and a learnt share of x, by where x stands in the batch
    Dice,
}

impl LearningActivation {
    /// The activation that the layer itself ends in.
    fn of_layer(self) -> Activation {
        match self {
            LearningActivation::Relu => Activation::Relu,
            LearningActivation::LeakyRelu => Activation::LeakyRelu(0.01),
            LearningActivation::Tanh => Activation::Tanh,
            LearningActivation::Sigmoid => Activation::Sigmoid,
            LearningActivation::Prelu | LearningActivation::Dice => Activation::Identity,
        }
    }
}

/// The shape of such an MLP.
#[derive(Clone, Copy, Debug)]
pub struct LearningStyle<'a> {
    /// Widths, layer by layer.
    pub units: &'a [usize],
    /// After every layer.
    pub activation: LearningActivation,
    /// Probability in training of a value after an activation to be dropped; 0 over a list.
    pub dropout: f64,
    /// The list with whose ids its values have rows.
    pub list: Option<usize>,
}

/// One MLP over `x`: a row of `x` gives one of the last unit's width; without layers, `x` itself.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn mlp(g: &mut Graph, prefix: &str, mut x: Value, style: LearningStyle<'_>) -> Result<Value> {
    for (i, &units) in style.units.iter().enumerate() {
        let (name, act) = (format!("{prefix}.{i}"), format!("{prefix}.act{i}"));
        x = linear(g, &name, x, units, style.activation.of_layer())?;
        x = match style.activation {
            LearningActivation::Prelu => {
                let slopes = vector(g, &format!("{act}.weight"), units, 0.25)?;
                g.add(act, Prelu, &[x, slopes])?
            }
            LearningActivation::Dice => dice(g, &act, x, units, style.list)?,
            _ => x,
        };
        x = dropout(g, &name, x, style.dropout)?;
    }
    Ok(x)
}

fn dice(g: &mut Graph, prefix: &str, x: Value, units: usize, list: Option<usize>) -> Result<Value> {
    let slopes = vector(g, &format!("{prefix}.alpha"), units, 0.0)?;
    let running =
        |name: &str, start| Block::vector(format!("{prefix}.bn.{name}"), units, Init::Constant(start));
    let running = ParamSpec::new(vec![running("running_mean", 0.0), running("running_var", 1.0)])?;
    let (running, state) = g.state(running)?;
    let moments = if g.is_training() {
        let mut moments = BatchMoments::new(Some(Running { state, momentum: MOMENTUM, unbiased: true }));
        if let Some(bag) = list {
            moments = moments.over_list(bag);
        }
        g.add(format!("{prefix}.moments"), moments, &[x])?
    } else {
        running
    };
    g.add(prefix, Dice::new(EPSILON), &[x, moments, slopes])
}

fn vector(g: &mut Graph, name: &str, len: usize, start: f32) -> Result<Value> {
    g.param(ParamSpec::new(vec![Block::vector(name, len, Init::Constant(start))])?)
}
