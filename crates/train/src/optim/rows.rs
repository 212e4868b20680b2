//! The optimisers of embedding tables.

use super::OptimizerConfig;
use super::group::Moves;
use super::method::{Kind, Method};
use manygate_core::Result;
use manygate_embedding::RowOptimizer;
use manygate_graph::Plan;

/// The row optimiser at update number `update` (from 1) of a table, with the rate times `factor`; [`None`] of a method
/// that does not move tables.
fn at_update(moves: &Moves, update: u64, factor: f64) -> Option<RowOptimizer> {
    let config = &moves.config;
    let number = |value: Option<f64>| value.unwrap_or_default() as f32;
    let rate = (config.rate.unwrap_or_default() * factor) as f32;
    let [epsilon, l2] = [config.epsilon, config.l2].map(number);
    Some(match moves.method {
        Method::Adagrad => RowOptimizer::Adagrad { rate, epsilon, l2 },
        Method::Adam => {
            let [beta1, beta2] = [config.beta1, config.beta2].map(number);
            let correction = RowOptimizer::adam_correction(beta1, beta2, update);
            RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 }
        }
        Method::Ftrl => {
            // Weights are computed from α: a smaller one would shrink what is learnt.
            RowOptimizer::Ftrl {
                alpha: number(config.rate),
                beta: number(config.beta),
                l1: number(config.l1),
                l2,
            }
        }
        Method::RowwiseAdagrad => RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 },
        Method::Sgd => RowOptimizer::Sgd { rate, l2 },
        Method::Adamw | Method::Momentum => return None,
    })
}

/// The optimiser of each table of a plan, by its group.
#[derive(Clone, Debug)]
pub struct RowOptimizers {
    moves: Vec<Moves>,
    learns: Vec<bool>,
    now: Vec<Option<RowOptimizer>>,
}

impl RowOptimizers {
    /// For the tables of `plan`; the frozen ones never move.
    ///
    /// # Errors
    /// When a table cannot move as its group says.
    pub fn new(plan: &Plan, config: &OptimizerConfig) -> Result<RowOptimizers> {
        let moves: Result<Vec<_>> =
            plan.tables().iter().map(|t| config.moves(&t.name, Kind::Table)).collect();
        Ok(RowOptimizers {
            moves: moves?,
            learns: plan.tables().iter().map(|t| plan.learns(&t.name)).collect(),
            now: vec![None; plan.tables().len()],
        })
    }

    /// Values of state beside a row of `dim` weights of table `table`: its own method says.
    pub fn state_width(&self, table: usize, dim: usize) -> usize {
        at_update(&self.moves[table], 1, 1.0).map_or(0, |optimizer| optimizer.state_width(dim))
    }

    /// The optimiser of each table at step `step` (from 1), with all rates times `factor`; [`None`] where a table does not
    /// move.
    pub fn at_step(&mut self, step: u64, factor: f64) -> &[Option<RowOptimizer>] {
        for ((now, moves), &learns) in self.now.iter_mut().zip(&self.moves).zip(&self.learns) {
            let update = moves.update(step).filter(|_| learns);
            *now = update.and_then(|update| at_update(moves, update, factor));
        }
        &self.now
    }
}
