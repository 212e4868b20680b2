//! Balancing the losses of several tasks: which methods exist, what each may see of a step, and `[balance]`.
//!
//! A step has T losses `L_t` and their gradients `g_t` over the parameters that tasks share. A method gives weights,
//! and the shared parameters move along `Σ_t weights[t] g_t`. That is all a method does here: every one of them, the
//! projections of [`pcgrad`] too, ends in a linear combination of the `g_t`, so none needs the gradients themselves,
//! and what it needs to know of them is their Gram matrix `K[a, b] = <g_a, g_b>` or T norms. Methods are pure
//! mathematics on T numbers in f64; the training step decides how to come by those numbers ([`Access`]).
//!
//! A step calls, in this order: [`Method::weigh`]; then [`Method::learn`] with the same [`Seen`]; then, where
//! [`Method::looks_again`], [`Method::learn_again`] after the parameters have moved. The weights of a step are always
//! those from before its `learn`. Once constructed a method allocates nothing in these three.
//!
//! A loss that no row of the batch counts for is exactly 0, and so is its gradient. It takes no part in that step:
//! what a method has learnt of it stays as it is, and it takes no weight from the others (a mean over losses still
//! counts it).
//!
//! [`uncertainty`], [`gradnorm`] and [`famo`] read the values of losses, whose lowest must be 0 (famo's `min_losses`
//! says otherwise): a likelihood that leaves out its constant and so can fall below 0 has no noise, ratio or
//! logarithm.

mod adam;
pub mod cagrad;
pub mod famo;
pub mod gradnorm;
pub mod pcgrad;
mod registry;
pub mod uncertainty;

pub use registry::{Balance, COMMON_KEYS, Entry, METHODS, Settings, find, keys};

use manygate_core::{Error, Result};
use std::fmt::Debug;

/// What a method must have seen of a step before it gives its weights, and what before it learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `weigh` reads nothing of the step, so that it can come before the forward pass, and the weights can be the
    /// seeds of one ordinary backward pass. `learn` reads [`Seen::losses`].
    Before,
    /// As [`Access::Before`], and `learn` reads [`Seen::layer_norms`] too.
    Layer,
    /// `weigh` reads [`Seen::losses`]: the batch's forward pass comes first, the backward pass is one.
    Losses,
    /// `weigh` reads [`Seen::gram`]: the gradients of all losses exist, one by one, before they are combined.
    Gradients,
}

/// What a step saw. A part that the method's [`Access`] does not name may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The step, counted from 1.
    pub step: u64,
    /// `[T]`: the losses of the batch, finite; exactly 0 where no row counts.
    pub losses: &'a [f64],
    /// `[T, T]`, row-major: `K[a, b] = <g_a, g_b>`, summed in f64 over the shared parameters.
    pub gram: &'a [f64],
    /// `[T]`: `|dL_t/dW|` of the unweighted losses, `W` the parameters of one layer.
    pub layer_norms: &'a [f64],
}

/// A method over T losses, with what it has learnt.
pub trait Method: Debug + Send + Sync {
    /// What it asks of a step.
    fn access(&self) -> Access;

    /// Whether parameters that belong to one task take the weights too (loss weighting: their gradient is that of
    /// `Σ_t w_t L_t`), or the gradient of `Σ_t L_t` (where the weights combine gradients).
    fn weighs_own(&self) -> bool;

    /// Whether the losses are wanted once more, of the same batch, after the parameters have moved.
    fn looks_again(&self) -> bool {
        false
    }

    /// Writes the step's weights `[T]`: the shared gradient is `Σ_t weights[t] g_t`. Their scale is the method's own:
    /// of T equal gradients g, pcgrad, and at their start gradnorm and uncertainty, make T g, famo makes g, and
    /// cagrad (1 + c) g.
    ///
    /// # Panics
    /// When `weights`, or what [`Method::access`] names for this call, has not the shape that [`Seen`] documents.
    fn weigh(&mut self, seen: &Seen<'_>, weights: &mut [f64]);

    /// Learns from the step that `weigh` was called for.
    ///
    /// # Panics
    /// When what [`Method::access`] names has not the shape that [`Seen`] documents.
    fn learn(&mut self, _seen: &Seen<'_>) {}

    /// Learns from the losses `[T]` of one batch before and after the parameters moved.
    ///
    /// # Panics
    /// When there are not T losses each.
    fn learn_again(&mut self, _before: &[f64], _after: &[f64]) {}

    /// What it has learnt, for a checkpoint; its length depends on the method and on T alone.
    fn state(&self) -> Vec<f64>;

    /// Takes over what [`Method::state`] gave.
    ///
    /// # Errors
    /// [`Error::Config`] when the length is not that of this method's state over T losses.
    fn restore(&mut self, state: &[f64]) -> Result<()>;
}

/// The error of [`Method::restore`] unless `state` has `wanted` values.
fn check_state(method: &str, state: &[f64], wanted: usize) -> Result<()> {
    if state.len() == wanted {
        return Ok(());
    }
    let message = format!(
        "the state of `{method}` over these losses has {wanted} values, the stored one {}: it is of another method \
         or of other losses; go on with the configuration that it was stored with",
        state.len()
    );
    Err(Error::config("balance.method", message))
}

/// Key names that start with a method's table, `balance.<key>`, and what is allowed.
fn wrong(key: &str, message: impl Into<String>) -> Error {
    Error::config(format!("balance.{key}"), message)
}

/// Checks a rate, a strength or the like.
fn not_negative(key: &str, value: f64) -> Result<()> {
    let allowed = value.is_finite() && value >= 0.0;
    if allowed { Ok(()) } else { Err(wrong(key, format!("is {value}; it must be a number of at least 0"))) }
}

/// `<row, weights>`.
fn dot(row: &[f64], weights: &[f64]) -> f64 {
    row.iter().zip(weights).map(|(a, b)| a * b).sum()
}

/// `w'Kw`, which rounding must not make negative.
fn quadratic(gram: &[f64], weights: &[f64]) -> f64 {
    gram.chunks_exact(weights.len()).zip(weights).map(|(row, w)| w * dot(row, weights)).sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::dot;

    /// `Σ_t weights[t] g_t`.
    pub(super) fn combine(gradients: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
        let column = |i: usize| gradients.iter().zip(weights).map(|(g, w)| w * g[i]).sum();
        (0..gradients[0].len()).map(column).collect()
    }

    /// K of `gradients`, row-major.
    pub(super) fn gram(gradients: &[Vec<f64>]) -> Vec<f64> {
        gradients.iter().flat_map(|a| gradients.iter().map(|b| dot(a, b))).collect()
    }
}
