//! Loss weights that even out gradient norms: losses that have fallen less are given larger gradients.
//!
//! Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich, *GradNorm: Gradient Normalization for Adaptive Loss
//! Balancing in Deep Multitask Networks*, ICML 2018.
//!
//! ```text
//! n_t      = |dL_t/dW|, N_t = w_t n_t          W one layer, the last that all losses share
//! r_t      = (L_t / L_t(0)) / mean_u (L_u / L_u(0))
//! target_t = mean_u(N_u) r_t^α                 a constant: nothing flows through it
//! L_grad   = Σ_t |N_t − target_t|, so dL_grad/dw_t = sign(N_t − target_t) n_t
//! w        ← w − rate · dL_grad/dw, then w ← T w / Σ w; the model's step took the w from before
//! ```
//!
//! `L_t(0)` is the first loss seen. A weight that its step would take to zero or below stops at 0.001 before the
//! weights are scaled to their sum T: a negative weight would ascend its loss, and one of 0 has no norm to come back
//! by.
//!
//! Public code raises the mean of the ratios to α, the same number for all losses, so that nothing is balanced; or
//! learns the logits of a softmax instead of w. Easy to get wrong besides: a gradient through the target, norms of
//! gradients that are weighted already, `L(0)` lost at a restart (it is part of the state).

use super::registry::{keys, written};
use super::uncertainty::Likelihood;
use super::{Access, Entry, Method, Seen, Settings, check_state, not_negative};
use manygate_core::Result;
use manygate_models::config::Key;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "gradnorm",
    summary: "weights that bring the losses' gradient norms at one layer to targets by training rate",
    paper: "Chen, Badrinarayanan, Lee, Rabinovich, GradNorm: Gradient Normalization for Adaptive Loss Balancing in \
            Deep Multitask Networks, ICML 2018",
    own_keys: &[
        Key {
            name: "alpha",
            default: "1.5",
            doc: "how strongly losses that have fallen less are favoured; 0: equal norms",
        },
        Key { name: "rate", default: "0.025", doc: "rate of the weights' own gradient descent" },
        Key {
            name: "layer",
            default: "[]",
            doc: "names, with `*`, of the parameters whose gradient norms count; empty means the last shared layer",
        },
    ],
    parse: |table| Ok(Box::new(keys::<GradNormConfig>(table)?)),
};

/// Smallest weight before the weights are scaled to their sum.
const LEAST: f64 = 1e-3;

/// The keys of gradnorm.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradNormConfig {
    /// Exponent of the relative training rate.
    pub alpha: f64,
    /// Rate of the weights' own gradient descent.
    pub rate: f64,
    /// Patterns of the parameters whose gradient norms count; empty leaves the choice to the caller.
    pub layer: Vec<String>,
}

impl Default for GradNormConfig {
    fn default() -> Self {
        GradNormConfig { alpha: 1.5, rate: 0.025, layer: Vec::new() }
    }
}

impl Settings for GradNormConfig {
    fn resolved(&self) -> toml::Table {
        written(self)
    }

    fn check(&self) -> Result<()> {
        not_negative("alpha", self.alpha)?;
        not_negative("rate", self.rate)
    }

    fn method(&self, losses: &[Likelihood], _seed: u64) -> Result<Box<dyn Method>> {
        Ok(Box::new(GradNorm::new(self, losses.len())))
    }

    fn layer(&self) -> &[String] {
        &self.layer
    }
}

/// GradNorm over T losses.
#[derive(Clone, Debug)]
pub struct GradNorm {
    alpha: f64,
    rate: f64,
    weights: Vec<f64>,
    /// L_t(0); 0 until the loss has been seen.
    initial: Vec<f64>,
    norms: Vec<f64>,
    targets: Vec<f64>,
    gradient: Vec<f64>,
}

impl GradNorm {
    /// Over `losses` losses, of weight 1 each.
    pub fn new(config: &GradNormConfig, losses: usize) -> GradNorm {
        let zeros = || vec![0.0; losses];
        GradNorm {
            alpha: config.alpha,
            rate: config.rate,
            weights: vec![1.0; losses],
            initial: zeros(),
            norms: zeros(),
            targets: zeros(),
            gradient: zeros(),
        }
    }

    /// `[T]`: weight times norm, of the last step learnt from.
    pub fn norms(&self) -> &[f64] {
        &self.norms
    }

    /// `[T]`: what these norms should have been.
    pub fn targets(&self) -> &[f64] {
        &self.targets
    }

    /// How far they were off, summed.
    pub fn distance(&self) -> f64 {
        self.norms.iter().zip(&self.targets).map(|(norm, target)| (norm - target).abs()).sum()
    }

    /// `[T]`: the gradient of that distance with respect to the weights.
    pub fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// Norms, targets and gradient of a step; zeros for losses without rows.
    fn look(&mut self, losses: &[f64], layer_norms: &[f64]) {
        let (mut present, mut ratios, mut norms) = (0.0, 0.0, 0.0);
        for (t, &loss) in losses.iter().enumerate() {
            if loss != 0.0 {
                if self.initial[t] == 0.0 {
                    self.initial[t] = loss;
                }
                self.norms[t] = self.weights[t] * layer_norms[t];
                present += 1.0;
                ratios += loss / self.initial[t];
                norms += self.norms[t];
            }
        }
        for (t, &loss) in losses.iter().enumerate() {
            if loss == 0.0 {
                (self.norms[t], self.targets[t], self.gradient[t]) = (0.0, 0.0, 0.0);
                continue;
            }
            let relative = (loss / self.initial[t]) / (ratios / present);
            self.targets[t] = norms / present * relative.powf(self.alpha);
            let above = self.norms[t] - self.targets[t];
            // Rust's signum of 0 is 1; a norm on its target stays there.
            self.gradient[t] = if above == 0.0 { 0.0 } else { above.signum() * layer_norms[t] };
        }
    }
}

impl Method for GradNorm {
    fn access(&self) -> Access {
        Access::Layer
    }

    fn weighs_own(&self) -> bool {
        true
    }

    fn weigh(&mut self, _seen: &Seen<'_>, weights: &mut [f64]) {
        weights.copy_from_slice(&self.weights);
    }

    fn learn(&mut self, seen: &Seen<'_>) {
        let losses = self.weights.len();
        assert_eq!((seen.losses.len(), seen.layer_norms.len()), (losses, losses), "losses and norms");
        self.look(seen.losses, seen.layer_norms);
        // Norms overflow before losses do, and a loss below 0 has no ratio; the weights must outlive such a step.
        if self.gradient.iter().any(|g| !g.is_finite()) {
            return;
        }
        for (weight, gradient) in self.weights.iter_mut().zip(&self.gradient) {
            *weight = (*weight - self.rate * gradient).max(LEAST);
        }
        let scale = losses as f64 / self.weights.iter().sum::<f64>();
        self.weights.iter_mut().for_each(|weight| *weight *= scale);
    }

    /// Weights `[T]`, initial losses `[T]` (0 until seen).
    fn state(&self) -> Vec<f64> {
        [&self.weights[..], &self.initial].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        let losses = self.weights.len();
        check_state(ENTRY.name, state, 2 * losses)?;
        self.weights.copy_from_slice(&state[..losses]);
        self.initial.copy_from_slice(&state[losses..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(method: &mut GradNorm, losses: &[f64], layer_norms: &[f64]) -> Vec<f64> {
        method.learn(&Seen { step: 1, losses, layer_norms, gram: &[] });
        method.weights.clone()
    }

    #[test]
    fn equal_norms_stay_and_the_larger_falls() {
        let mut method = GradNorm::new(&GradNormConfig::default(), 2);
        assert_eq!(step(&mut method, &[0.7, 0.1], &[2.0, 2.0]), [1.0, 1.0], "on target at the first step");
        let weights = step(&mut method, &[0.7, 0.1], &[4.0, 1.0]);
        assert!(weights[0] < 1.0 && weights[1] > 1.0, "{weights:?}");
    }

    #[test]
    fn the_loss_that_fell_less_gains() {
        let mut method = GradNorm::new(&GradNormConfig::default(), 2);
        step(&mut method, &[1.0, 1.0], &[1.0, 1.0]);
        let weights = step(&mut method, &[0.9, 0.3], &[1.0, 1.0]);
        assert!(weights[0] > 1.0 && weights[1] < 1.0, "{weights:?}");
        assert!((method.targets()[0] - 1.5f64.powf(1.5)).abs() < 1e-12, "{:?}", method.targets());
        assert!(method.distance() > 0.8);
    }

    #[test]
    fn a_loss_without_rows_takes_no_part() {
        let (mut pair, mut three) =
            (GradNorm::new(&GradNormConfig::default(), 2), GradNorm::new(&GradNormConfig::default(), 3));
        pair.learn(&Seen { losses: &[0.5, 0.2], layer_norms: &[3.0, 1.0], ..Seen::default() });
        three.learn(&Seen { losses: &[0.5, 0.0, 0.2], layer_norms: &[3.0, 0.0, 1.0], ..Seen::default() });
        assert_eq!([three.gradient()[0], three.gradient()[2]], pair.gradient());
        assert_eq!((three.gradient()[1], three.initial[1]), (0.0, 0.0));
        step(&mut three, &[0.4, 0.9, 0.2], &[1.0; 3]);
        assert_eq!(three.initial, [0.5, 0.9, 0.2], "its first loss is its first with rows");
        step(&mut three, &[0.0; 3], &[0.0; 3]);
        assert!(three.weights.iter().all(|w| w.is_finite()));
    }

    proptest! {
        #[test]
        fn weights_are_positive_and_sum_to_their_number(
            steps in prop::collection::vec(prop::collection::vec((0.0..5.0, 0.0..1e4), 4), 1..20),
            alpha in 0.0..3.0,
        ) {
            let mut method = GradNorm::new(&GradNormConfig { alpha, ..GradNormConfig::default() }, 4);
            for pairs in steps {
                let (losses, norms): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
                let weights = step(&mut method, &losses, &norms);
                prop_assert!((weights.iter().sum::<f64>() - 4.0).abs() < 1e-9);
                prop_assert!(weights.iter().all(|&w| w > 0.0), "{weights:?}");
            }
        }
    }

    #[test]
    fn an_infinite_norm_leaves_the_weights() {
        let mut method = GradNorm::new(&GradNormConfig::default(), 2);
        assert_eq!(step(&mut method, &[0.5, 0.5], &[f64::INFINITY, 1.0]), [1.0, 1.0]);
    }
}
