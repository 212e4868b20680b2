//! The optimiser of embedding tables.

use super::{RowsConfig, RowsMethod};
use manygate_embedding::RowOptimizer;

impl RowsConfig {
    /// The row optimiser at step `step` (from 1).
    pub fn at_step(&self, step: u64) -> RowOptimizer {
        let (rate, epsilon, l2) = (self.rate as f32, self.epsilon as f32, self.l2 as f32);
        match self.method {
            RowsMethod::Adam => {
                let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
                let correction = RowOptimizer::adam_correction(beta1, beta2, step);
                RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 }
            }
            RowsMethod::Adagrad => RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 },
        }
    }

    /// Values of state beside a row of `dim` weights.
    pub fn state_width(&self, dim: usize) -> usize {
        self.at_step(1).state_width(dim)
    }
}
