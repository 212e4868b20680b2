//! Adam on the few numbers that a method learns.
//!
//! D. P. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, ICLR 2015.

use manygate_core::Result;

/// Rate and decays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decays {
    pub(super) rate: f64,
    pub(super) beta1: f64,
    pub(super) beta2: f64,
    pub(super) epsilon: f64,
}

impl Decays {
    /// The usual decays.
    pub(super) fn usual(rate: f64) -> Decays {
        Decays { rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// Values with their moments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Adam {
    decays: Decays,
    /// `[T]`
    pub(super) values: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    /// Updates so far; a number, because it travels with the state.
    updates: f64,
}

impl Adam {
    pub(super) fn new(decays: Decays, values: Vec<f64>) -> Adam {
        let zeros = vec![0.0; values.len()];
        Adam { decays, first: zeros.clone(), second: zeros, values, updates: 0.0 }
    }

    /// One update with `gradient` `[T]`.
    pub(super) fn update(&mut self, gradient: &[f64]) {
        let Decays { rate, beta1, beta2, epsilon } = self.decays;
        self.updates += 1.0;
        let (correction1, correction2) = (1.0 - beta1.powf(self.updates), 1.0 - beta2.powf(self.updates));
        for (t, &g) in gradient.iter().enumerate() {
            self.first[t] = beta1 * self.first[t] + (1.0 - beta1) * g;
            self.second[t] = beta2 * self.second[t] + (1.0 - beta2) * g * g;
            let deviation = (self.second[t] / correction2).sqrt() + epsilon;
            self.values[t] -= rate * (self.first[t] / correction1) / deviation;
        }
    }

    /// Values, first moments, second moments, number of updates: 3 T + 1 values.
    pub(super) fn state(&self) -> Vec<f64> {
        let parts = [&self.values[..], &self.first, &self.second, &[self.updates]];
        parts.concat()
    }

    pub(super) fn restore(&mut self, method: &str, state: &[f64]) -> Result<()> {
        let losses = self.values.len();
        super::check_state(method, state, 3 * losses + 1)?;
        self.values.copy_from_slice(&state[..losses]);
        self.first.copy_from_slice(&state[losses..2 * losses]);
        self.second.copy_from_slice(&state[2 * losses..3 * losses]);
        self.updates = state[3 * losses];
        Ok(())
    }
}
