//! The optimisers of embedding tables.

use super::group::Moves;
use super::{OptimizerConfig, RowsConfig, RowsMethod};
use manygate_core::Result;
use manygate_embedding::RowOptimizer;
use manygate_graph::Plan;

impl RowsConfig {
    /// The row optimiser at its update number `update` (from 1).
    pub fn at_update(&self, update: u64) -> RowOptimizer {
        let (rate, epsilon, l2) = (self.rate as f32, self.epsilon as f32, self.l2 as f32);
        match self.method {
            RowsMethod::Adam => {
                let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
                let correction = RowOptimizer::adam_correction(beta1, beta2, update);
                RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 }
            }
            RowsMethod::Adagrad => RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 },
            RowsMethod::Sgd => RowOptimizer::Sgd { rate, l2 },
        }
    }
}

/// The optimiser of each table of a plan, by its group.
#[derive(Clone, Debug)]
pub struct RowOptimizers {
    moves: Vec<Moves<RowsConfig>>,
    learns: Vec<bool>,
    now: Vec<Option<RowOptimizer>>,
}

impl RowOptimizers {
    /// For the tables of `plan`; the frozen ones never move.
    ///
    /// # Errors
    /// When a table cannot move as its group says.
    pub fn new(plan: &Plan, config: &OptimizerConfig) -> Result<RowOptimizers> {
        let moves: Result<Vec<_>> = plan.tables().iter().map(|t| config.rows_moves(&t.name)).collect();
        Ok(RowOptimizers {
            moves: moves?,
            learns: plan.tables().iter().map(|t| plan.learns(&t.name)).collect(),
            now: vec![None; plan.tables().len()],
        })
    }

    /// Values of state beside a row of `dim` weights of table `table`: its own method says.
    pub fn state_width(&self, table: usize, dim: usize) -> usize {
        self.moves[table].config.at_update(1).state_width(dim)
    }

    /// The optimiser of each table at step `step` (from 1); [`None`] where a table does not move.
    pub fn at_step(&mut self, step: u64) -> &[Option<RowOptimizer>] {
        for ((now, moves), &learns) in self.now.iter_mut().zip(&self.moves).zip(&self.learns) {
            let update = moves.update(step).filter(|_| learns);
            *now = update.map(|update| moves.config.at_update(update));
        }
        &self.now
    }
}
