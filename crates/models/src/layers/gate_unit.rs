//! Gate units: two layers that say how much each unit of a value counts.
//!
//! J. Chang, C. Zhang, Y. Hui, D. Leng, Y. Niu, Y. Song, K. Gai, *PEPNet: Parameter and Embedding Personalized Network
//! for Infusing with Personalized Prior Information*, KDD 2023.
//!
//! ```text
//! δ = γ sigmoid(W1 relu(W0 z + b0) + b1)      [batch, n], in (0, γ): a gate that knows nothing, with γ = 2, says 1
//! y = δ ⊙ x
//! ```
//!
//! With two prefixes P and Q, for the layers: `P.weight` `[hidden, |z|]`, `P.bias`, `Q.weight` `[n, hidden]`, `Q.bias`.
//! δ is never in memory: a gate hands on what the sigmoid is taken of, and [`apply`] does the rest in one pass.

use super::linear::{Head, columns_of, linear, side_by_side};
use manygate_core::{Error, Result};
use manygate_graph::ops::Amplify;
use manygate_graph::{GateView, GateWeights, Graph, Value};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::Amplitude;

/// A gate.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Prefixes of its two layers.
    pub layers: [String; 2],
    /// Width of its hidden layer.
    pub hidden: usize,
    /// Number of amplitudes.
    pub out: usize,
}

impl Gate {
    /// A gate whose layers are `<prefix>.0` and `<prefix>.1`, with as many hidden units as amplitudes where `hidden`
    /// says nothing.
    pub fn new(prefix: &str, hidden: Option<usize>, out: usize) -> Gate {
        Gate { layers: [0, 1].map(|i| format!("{prefix}.{i}")), hidden: hidden.unwrap_or(out), out }
    }
}

/// What the sigmoid of each gate is taken of, `[batch, out]` each. The first layers of all gates are one product.
///
/// # Errors
/// When a width is 0 or a name is taken.
pub fn gates(g: &mut Graph, name: &str, z: Value, gates: &[Gate]) -> Result<Vec<Value>> {
    let first = |gate: &Gate| Head { prefix: gate.layers[0].clone(), out: gate.hidden };
    let first: Vec<Head> = gates.iter().map(first).collect();
    let hidden = side_by_side(g, name, &first, z, true, Activation::Relu)?;
    let hidden = columns_of(g, hidden, &first)?;
    hidden.iter().for_each(|&units| g.exchangeable(units));
    let second =
        |(gate, hidden): (&Gate, Value)| linear(g, &gate.layers[1], hidden, gate.out, Activation::Identity);
    gates.iter().zip(hidden).map(second).collect()
}

/// Tells of a gate over the `fields` of the trunk, from what [`gates`] said: r has an amplitude for each of their units, or
/// one for each of them.
///
/// # Errors
/// When γ is not above 0, or another gate has the name.
pub fn show(g: &mut Graph, name: &str, gamma: f64, r: Value, fields: Vec<(String, usize)>) -> Result<()> {
    let by_field = g.cols(r) == fields.len();
    let (of, widths): (Vec<String>, Vec<usize>) = fields.into_iter().unzip();
    let widths = if by_field { vec![1; of.len()] } else { widths };
    let weights = GateWeights::Factors { arguments: r, amplitude: amplitude(gamma)?, widths };
    g.show_gate(GateView { name: name.to_owned(), of, weights })
}

/// `γ sigmoid(r) ⊙ x`, from what [`gates`] said: an amplitude for each unit of x.
///
/// # Errors
/// When γ is not above 0, or the widths differ.
pub fn apply(g: &mut Graph, name: &str, gamma: f64, r: Value, x: Value) -> Result<Value> {
    g.add(name, Amplify::new(amplitude(gamma)?), &[x, r])
}

/// The same with an amplitude for all units of a part, of which `parts` tells the numbers of units, in order.
///
/// # Errors
/// When γ is not above 0, or the widths do not fit.
pub fn apply_to_parts(
    g: &mut Graph,
    name: &str,
    gamma: f64,
    r: Value,
    x: Value,
    parts: Vec<usize>,
) -> Result<Value> {
    g.add(name, Amplify::new(amplitude(gamma)?).over_parts(parts), &[x, r])
}

/// The same for each of `copies` copies of x side by side, as the inputs of several towers: r and y have as many times
/// the columns of x.
///
/// # Errors
/// When γ is not above 0, or the widths do not fit.
pub fn apply_to_copies(
    g: &mut Graph,
    name: &str,
    gamma: f64,
    r: Value,
    x: Value,
    copies: usize,
) -> Result<Value> {
    g.add(name, Amplify::new(amplitude(gamma)?).copies(copies), &[x, r])
}

/// γ·sigmoid.
///
/// # Errors
/// [`Error::Config`] when γ is not above 0.
fn amplitude(gamma: f64) -> Result<Amplitude> {
    if gamma.is_finite() && gamma > 0.0 {
        return Ok(Amplitude::Sigmoid(gamma as f32));
    }
    let message = format!(
        "{gamma} is no largest amplitude; give a number above 0, as 2, at which a gate starts near 1"
    );
    Err(Error::config("model.gamma", message))
}
