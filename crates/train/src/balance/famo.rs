//! Loss weights that make every loss fall at the same relative speed, learnt from two looks at a batch.
//!
//! B. Liu, Y. Feng, P. Stone, Q. Liu, *FAMO: Fast Adaptive Multitask Optimization*, NeurIPS 2023.
//!
//! ```text
//! z     = softmax(w)                         w starts at 0
//! D_t   = max(L_t − L_min,t, 0) + 1e-8
//! L     = k Σ_t z_t log D_t, k = 1 / Σ_t (z_t / D_t) a constant: weights k z_t / D_t, which sum to 1
//! δ_t   = log D_t − log D'_t                 D' of the same batch after the model's step
//! dw    = z ⊗ (δ − <z, δ>) + γ w             w moves by Adam: what fell most loses weight
//! ```
//!
//! One backward pass and one more forward pass a step. As the weights sum to 1, gradients are about T times smaller
//! than those of a plain sum: no matter to Adam, a matter to plain descent. Over losses that the batch has no rows
//! for, z is taken as 0.
//!
//! Easy to get wrong: the second look at the next batch instead of the same one, so that δ is the difference of two
//! batches more than progress; a gradient through k; γ left out, without which w drifts.

use super::adam::{Adam, Decays};
use super::registry::{keys, written};
use super::uncertainty::Likelihood;
use super::{Access, Entry, Method, Seen, Settings, dot, not_negative, wrong};
use manygate_core::Result;
use manygate_models::config::Key;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "famo",
    summary: "weights that let every loss fall at the same relative speed; one more forward pass a step",
    paper: "Liu, Feng, Stone, Liu, FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023",
    own_keys: &[
        Key { name: "rate", default: "0.025", doc: "Adam's rate for the logits of the weights" },
        Key {
            name: "gamma",
            default: "1e-3",
            doc: "pulls the logits to 0: gamma times the logit joins its gradient",
        },
        Key { name: "beta1", default: "0.9", doc: "Adam's decay of the first moment" },
        Key { name: "beta2", default: "0.999", doc: "Adam's decay of the second moment" },
        Key { name: "epsilon", default: "1e-8", doc: "keeps Adam's quotient finite" },
        Key {
            name: "min_losses",
            default: "[]",
            doc: "the lowest value of each loss, in the order of the losses; empty means zeros",
        },
    ],
    parse: |table| Ok(Box::new(keys::<FamoConfig>(table)?)),
};

/// Keeps log D finite.
const LEAST: f64 = 1e-8;

/// The keys of famo.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FamoConfig {
    /// Adam's rate for the logits.
    pub rate: f64,
    /// Decay of the logits, inside their gradient.
    pub gamma: f64,
    /// Adam's decay of the first moment.
    pub beta1: f64,
    /// Adam's decay of the second moment.
    pub beta2: f64,
    /// Keeps Adam's quotient finite.
    pub epsilon: f64,
    /// Lowest value of each loss, in the order of the losses; empty means zeros.
    pub min_losses: Vec<f64>,
}

impl Default for FamoConfig {
    fn default() -> Self {
        let Decays { rate, beta1, beta2, epsilon } = Decays::usual(0.025);
        FamoConfig { rate, gamma: 1e-3, beta1, beta2, epsilon, min_losses: Vec::new() }
    }
}

impl Settings for FamoConfig {
    fn resolved(&self) -> toml::Table {
        written(self)
    }

    fn check(&self) -> Result<()> {
        not_negative("rate", self.rate)?;
        not_negative("gamma", self.gamma)?;
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(wrong(key, format!("is {beta}; it must be at least 0 and below 1")));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return Err(wrong("epsilon", format!("is {}; it must be above 0", self.epsilon)));
        }
        match self.min_losses.iter().find(|loss| !loss.is_finite()) {
            Some(loss) => Err(wrong("min_losses", format!("is {loss}; they must be finite numbers"))),
            None => Ok(()),
        }
    }

    fn method(&self, losses: &[Likelihood], _seed: u64) -> Result<Box<dyn Method>> {
        Ok(Box::new(Famo::new(self, losses.len())?))
    }
}

/// FAMO over T losses.
#[derive(Clone, Debug)]
pub struct Famo {
    gamma: f64,
    min_losses: Vec<f64>,
    logits: Adam,
    /// z
    shares: Vec<f64>,
    /// δ
    progress: Vec<f64>,
    gradient: Vec<f64>,
}

impl Famo {
    /// Over `losses` losses.
    ///
    /// # Errors
    /// [`manygate_core::Error::Config`] when `min_losses` are given and not as many.
    pub fn new(config: &FamoConfig, losses: usize) -> Result<Famo> {
        let min_losses = match config.min_losses.len() {
            0 => vec![0.0; losses],
            given if given == losses => config.min_losses.clone(),
            given => return Err(wrong("min_losses", format!("has {given} values for {losses} losses"))),
        };
        let decays =
            Decays { rate: config.rate, beta1: config.beta1, beta2: config.beta2, epsilon: config.epsilon };
        let zeros = || vec![0.0; losses];
        Ok(Famo {
            gamma: config.gamma,
            min_losses,
            logits: Adam::new(decays, zeros()),
            shares: zeros(),
            progress: zeros(),
            gradient: zeros(),
        })
    }

    /// `k Σ_t z_t log D_t` at `losses` `[T]`, with the logits as they are; 0 when no loss has rows.
    pub fn objective(&mut self, losses: &[f64]) -> f64 {
        let k = self.share(losses);
        let terms = (0..losses.len()).filter(|&t| self.shares[t] > 0.0);
        k * terms.map(|t| self.shares[t] * self.above(t, losses[t]).ln()).sum::<f64>()
    }

    /// `[T]`: the gradient with respect to the logits, of the last step learnt from.
    pub fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// D_t
    fn above(&self, t: usize, loss: f64) -> f64 {
        (loss - self.min_losses[t]).max(0.0) + LEAST
    }

    /// Sets z over the losses with rows, and returns k (0 when there are none).
    fn share(&mut self, losses: &[f64]) -> f64 {
        assert_eq!(losses.len(), self.shares.len(), "losses");
        let logits = &self.logits.values;
        let present = || logits.iter().zip(losses).filter(|(_, loss)| **loss != 0.0).map(|(w, _)| *w);
        let largest = present().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = present().map(|w| (w - largest).exp()).sum();
        for (t, share) in self.shares.iter_mut().enumerate() {
            *share = if losses[t] == 0.0 { 0.0 } else { (logits[t] - largest).exp() / sum };
        }
        let total: f64 = (0..losses.len()).map(|t| self.shares[t] / self.above(t, losses[t])).sum();
        if total > 0.0 { 1.0 / total } else { 0.0 }
    }
}

impl Method for Famo {
    fn access(&self) -> Access {
        Access::Losses
    }

    fn weighs_own(&self) -> bool {
        true
    }

    fn looks_again(&self) -> bool {
        true
    }

    fn weigh(&mut self, seen: &Seen<'_>, weights: &mut [f64]) {
        assert_eq!(weights.len(), self.shares.len(), "weights");
        let k = self.share(seen.losses);
        for (t, weight) in weights.iter_mut().enumerate() {
            *weight = k * self.shares[t] / self.above(t, seen.losses[t]);
        }
    }

    fn learn_again(&mut self, before: &[f64], after: &[f64]) {
        assert_eq!(after.len(), self.shares.len(), "losses");
        self.share(before);
        for t in 0..before.len() {
            self.progress[t] = self.above(t, before[t]).ln() - self.above(t, after[t]).ln();
        }
        // The next step stops at losses that are not finite; what was learnt until here stays usable.
        if after.iter().any(|loss| !loss.is_finite()) {
            return;
        }
        let mean = dot(&self.shares, &self.progress);
        for (t, gradient) in self.gradient.iter_mut().enumerate() {
            let decay = self.gamma * self.logits.values[t];
            *gradient = self.shares[t] * (self.progress[t] - mean) + decay;
        }
        self.logits.update(&self.gradient);
    }

    /// Logits, first and second moments `[T]` each, number of updates.
    fn state(&self) -> Vec<f64> {
        self.logits.state()
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        self.logits.restore(ENTRY.name, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn famo(losses: usize) -> Famo {
        Famo::new(&FamoConfig::default(), losses).unwrap()
    }

    fn weights(method: &mut Famo, losses: &[f64]) -> Vec<f64> {
        let mut weights = vec![0.0; losses.len()];
        method.weigh(&Seen { step: 1, losses, ..Seen::default() }, &mut weights);
        weights
    }

    #[test]
    fn what_falls_most_loses_weight() {
        let mut method = famo(2);
        let even = weights(&mut method, &[0.5, 0.5]);
        assert!((even[0] - 0.5).abs() < 1e-12);
        for _ in 0..10 {
            method.learn_again(&[0.5, 0.5], &[0.3, 0.49]);
        }
        let later = weights(&mut method, &[0.5, 0.5]);
        assert!(later[0] < 0.45 && later[1] > 0.55, "{later:?}");
    }

    #[test]
    fn a_loss_without_rows_takes_nothing_from_the_others() {
        let (mut pair, mut three) = (famo(2), famo(3));
        let (all, two) = (weights(&mut three, &[0.5, 0.0, 0.1]), weights(&mut pair, &[0.5, 0.1]));
        assert_eq!(all, [two[0], 0.0, two[1]]);
        three.learn_again(&[0.5, 0.0, 0.1], &[0.4, 0.0, 0.1]);
        assert_eq!(three.state()[1], 0.0);
        assert_eq!(weights(&mut three, &[0.0; 3]), [0.0; 3]);
        assert_eq!(three.objective(&[0.0; 3]), 0.0);
    }

    #[test]
    fn a_broken_step_is_not_learnt_from() {
        let mut method = famo(2);
        let before = method.state();
        method.learn_again(&[0.5, 0.5], &[f64::NAN, 0.5]);
        method.learn_again(&[0.5, 0.5], &[f64::INFINITY, 0.5]);
        assert_eq!(method.state(), before);
    }

    #[test]
    fn losses_below_their_minimum_are_at_it() {
        let config = FamoConfig { min_losses: vec![0.4, 0.0], ..FamoConfig::default() };
        let weights = weights(&mut Famo::new(&config, 2).unwrap(), &[0.3, 0.5]);
        assert!(weights[0] > 0.999 && weights.iter().all(|w| w.is_finite()), "{weights:?}");
    }

    proptest! {
        #[test]
        fn weights_sum_to_one_and_follow_the_objective(
            losses in prop::collection::vec(0.01..3.0, 1..6),
            logits in prop::collection::vec(-30.0..30.0, 6),
        ) {
            let mut method = famo(losses.len());
            let mut state = method.state();
            state[..losses.len()].copy_from_slice(&logits[..losses.len()]);
            method.restore(&state).unwrap();
            let weights = weights(&mut method, &losses);
            prop_assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(weights.iter().all(|&w| w >= 0.0));
            method.learn_again(&losses, &losses.iter().map(|l| l * l).collect::<Vec<f64>>());
            let pulled: f64 = method.gradient().iter().zip(&logits).map(|(g, w)| g - 1e-3 * w).sum();
            prop_assert!(pulled.abs() < 1e-9, "the gradient through a softmax sums to 0, not {pulled}");
        }
    }
}
