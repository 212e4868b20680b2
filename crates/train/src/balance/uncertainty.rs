//! Loss weights from the losses' own noise: a log variance for each loss, learnt beside the model.
//!
//! A. Kendall, Y. Gal, R. Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
//! Semantics*, CVPR 2018.
//!
//! ```text
//! s_t    = log σ_t²
//! L      = Σ_t exp(−s_t) L_t + s_t / 2          classification: the likelihood's temperature is σ²
//!          Σ_t exp(−s_t) L_t / 2 + s_t / 2      regression: a Gaussian's variance
//! w_t    = exp(−s_t), or exp(−s_t) / 2
//! dL/ds_t = −w_t L_t + 1/2                      s_t moves by Adam with a rate of its own
//! ```
//!
//! At rest `w_t = 1 / (2 L_t)`: every loss contributes as much, and weights exceed 1 where a loss is below 1/2. The
//! weights are known before the pass, so a step costs what plain training costs.
//!
//! Public code clamps `s_t` at 0, so that no weight can exceed 1 (with log losses below 1/2 the method then does
//! nothing), drops the 1/2 of the second term, which doubles every loss's share at rest, or takes the regression form
//! for all losses. `s_t` must not take the model's weight decay.

use super::adam::{Adam, Decays};
use super::registry::{keys, written};
use super::{Access, Entry, Method, Seen, Settings, not_negative, wrong};
use manygate_core::Result;
use manygate_models::config::Key;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "uncertainty",
    summary: "a log variance a loss, learnt beside the model",
    paper: "Kendall, Gal, Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and \
            Semantics, CVPR 2018",
    own_keys: &[
        Key { name: "rate", default: "1e-3", doc: "Adam's rate for the log variances" },
        Key { name: "initial", default: "0.0", doc: "log variances at the start" },
    ],
    parse: |table| Ok(Box::new(keys::<UncertaintyConfig>(table)?)),
};

/// The keys of uncertainty weighting.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UncertaintyConfig {
    /// Adam's rate for the log variances.
    pub rate: f64,
    /// Log variances at the start, from -20 to 20.
    pub initial: f64,
}

impl Default for UncertaintyConfig {
    fn default() -> Self {
        UncertaintyConfig { rate: 1e-3, initial: 0.0 }
    }
}

impl Settings for UncertaintyConfig {
    fn resolved(&self) -> toml::Table {
        written(self)
    }

    fn check(&self) -> Result<()> {
        not_negative("rate", self.rate)?;
        if !(-20.0..=20.0).contains(&self.initial) {
            return Err(wrong("initial", format!("is {}; it must be from -20 to 20", self.initial)));
        }
        Ok(())
    }

    fn method(&self, losses: &[Likelihood], _seed: u64) -> Result<Box<dyn Method>> {
        Ok(Box::new(Uncertainty::new(self, losses.to_vec())))
    }
}

/// What a loss is the negative logarithm of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Likelihood {
    /// A softened distribution over classes: `exp(−s) L + s / 2`.
    Classification,
    /// A Gaussian, L the mean square, as that of a regression task is: `exp(−s) L / 2 + s / 2`.
    Regression,
}

impl Likelihood {
    /// The loss's weight at log variance `s`.
    pub fn weight(self, s: f64) -> f64 {
        match self {
            Likelihood::Classification => (-s).exp(),
            Likelihood::Regression => (-s).exp() / 2.0,
        }
    }
}

/// Uncertainty weighting over T losses.
#[derive(Clone, Debug)]
pub struct Uncertainty {
    likelihoods: Vec<Likelihood>,
    log_variances: Adam,
    gradient: Vec<f64>,
}

impl Uncertainty {
    /// Over one loss for each of `likelihoods`.
    pub fn new(config: &UncertaintyConfig, likelihoods: Vec<Likelihood>) -> Uncertainty {
        let losses = likelihoods.len();
        Uncertainty {
            likelihoods,
            log_variances: Adam::new(Decays::usual(config.rate), vec![config.initial; losses]),
            gradient: vec![0.0; losses],
        }
    }

    /// The whole objective at `losses` `[T]`: weighted losses and their halves of `s`.
    pub fn objective(&self, losses: &[f64]) -> f64 {
        let terms = self.weighted().zip(losses).map(|((weight, s), loss)| weight * loss + s / 2.0);
        terms.sum()
    }

    /// `[T]`: the objective's gradient with respect to the log variances, of the last step learnt from.
    pub fn gradient(&self) -> &[f64] {
        &self.gradient
    }

    /// Weight and log variance of each loss.
    fn weighted(&self) -> impl Iterator<Item = (f64, f64)> {
        self.likelihoods.iter().zip(&self.log_variances.values).map(|(l, &s)| (l.weight(s), s))
    }
}

impl Method for Uncertainty {
    fn access(&self) -> Access {
        Access::Before
    }

    fn weighs_own(&self) -> bool {
        true
    }

    fn weigh(&mut self, _seen: &Seen<'_>, weights: &mut [f64]) {
        assert_eq!(weights.len(), self.likelihoods.len(), "weights");
        for (weight, (w, _)) in weights.iter_mut().zip(self.weighted()) {
            *weight = w;
        }
    }

    fn learn(&mut self, seen: &Seen<'_>) {
        assert_eq!(seen.losses.len(), self.likelihoods.len(), "losses");
        for (t, &loss) in seen.losses.iter().enumerate() {
            let weight = self.likelihoods[t].weight(self.log_variances.values[t]);
            // A loss without rows says nothing of its noise: without this, each such step would raise its weight.
            self.gradient[t] = if loss == 0.0 { 0.0 } else { 0.5 - weight * loss };
        }
        self.log_variances.update(&self.gradient);
    }

    /// Log variances, first and second moments `[T]` each, number of updates.
    fn state(&self) -> Vec<f64> {
        self.log_variances.state()
    }

    fn restore(&mut self, state: &[f64]) -> Result<()> {
        self.log_variances.restore(ENTRY.name, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(likelihoods: &[Likelihood], rate: f64) -> Uncertainty {
        Uncertainty::new(&UncertaintyConfig { rate, initial: 0.0 }, likelihoods.to_vec())
    }

    #[test]
    fn at_rest_every_loss_contributes_a_half() {
        let mut method = over(&[Likelihood::Classification, Likelihood::Regression], 0.02);
        let losses = [0.1, 3.0];
        for step in 1..4000 {
            method.learn(&Seen { step, losses: &losses, ..Seen::default() });
        }
        let mut weights = [0.0; 2];
        method.weigh(&Seen::default(), &mut weights);
        for (weight, loss) in weights.iter().zip(losses) {
            assert!((weight * loss - 0.5).abs() < 1e-6, "{weight} x {loss}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_objective() {
        let mut method = over(&[Likelihood::Classification, Likelihood::Regression], 0.0);
        let (losses, at, h) = ([0.3, 1.7], [0.4, -0.9], 1e-6);
        let mut state = method.state();
        state[..2].copy_from_slice(&at);
        method.restore(&state).unwrap();
        method.learn(&Seen { step: 1, losses: &losses, ..Seen::default() });
        for t in 0..2 {
            let mut objective = |s: f64| {
                let mut moved = state.clone();
                moved[t] = s;
                method.restore(&moved).unwrap();
                method.objective(&losses)
            };
            let slope = (objective(at[t] + h) - objective(at[t] - h)) / (2.0 * h);
            assert!((slope - method.gradient()[t]).abs() < 1e-8);
        }
    }

    #[test]
    fn the_first_update_of_adam_is_one_rate_long() {
        let mut method = over(&[Likelihood::Classification; 3], 0.01);
        method.learn(&Seen { step: 1, losses: &[0.9, 0.1, 0.0], ..Seen::default() });
        let s = &method.state()[..3];
        assert!((s[0] - 0.01).abs() < 1e-6 && (s[1] + 0.01).abs() < 1e-6, "{s:?}");
        assert_eq!(s[2], 0.0, "a loss without rows leaves its variance");
    }
}
