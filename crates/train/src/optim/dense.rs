//! The optimiser of dense parameters: lane gradients are summed, in lane order, inside the update.

use super::group::Moves;
use super::{DenseConfig, DenseMethod, OptimizerConfig};
use manygate_core::{Buffer, Executor, Result, run_parts};
use manygate_graph::{Parameters, Plan};
use manygate_kernels::optim::{AdamStep, SgdStep, adam, sgd};
use manygate_kernels::{Isa, Mat};
use std::ops::Range;

/// Values that a thread updates at a time.
const PIECE: usize = 16 * 1024;

/// Moves every dense parameter that learns, each by the method, the values and at the steps of its group.
#[derive(Clone, Debug)]
pub struct DenseOptimizer {
    isa: Isa,
    /// First moments, laid out as the parameters; zero where the method has none.
    pub first: Buffer,
    /// Second moments, laid out as the parameters; zero where the method has none.
    pub second: Buffer,
    groups: Vec<Moves<DenseConfig>>,
    /// What each group does at the step that is being taken; [`None`] where it does not move.
    now: Vec<Option<DenseStep>>,
    /// Ranges of parameters that learn, cut at names.
    pieces: Vec<Range<usize>>,
    /// Group of each piece.
    group_of: Vec<usize>,
}

/// The constants of a group's update.
#[derive(Clone, Copy, Debug)]
enum DenseStep {
    Adam(AdamStep),
    Sgd(SgdStep),
}

impl DenseConfig {
    /// The constants of update number `update` (from 1).
    fn at_update(&self, update: u64) -> DenseStep {
        let (rate, l2, weight_decay) = (self.rate as f32, self.l2 as f32, self.weight_decay as f32);
        let correction = |beta: f64| (1.0 - beta.powf(update as f64)) as f32;
        match self.method {
            DenseMethod::Adam => DenseStep::Adam(AdamStep {
                rate,
                beta1: self.beta1 as f32,
                beta2: self.beta2 as f32,
                epsilon: self.epsilon as f32,
                correction1: correction(self.beta1),
                correction2: correction(self.beta2),
                l2,
                weight_decay,
            }),
            DenseMethod::Sgd => DenseStep::Sgd(SgdStep { rate, l2, weight_decay }),
        }
    }
}

impl DenseOptimizer {
    /// For the parameters of `plan`, in the groups of `config`; those that do not learn are left out.
    ///
    /// # Errors
    /// When a parameter cannot move as its group says.
    pub fn new(plan: &Plan, config: &OptimizerConfig) -> Result<DenseOptimizer> {
        let (mut groups, mut pieces, mut group_of) = (Vec::new(), Vec::new(), Vec::new());
        for (block, range) in plan.layout().blocks().filter(|(block, _)| plan.learns(&block.name)) {
            let moves = config.dense_moves(&block.name)?;
            let group = groups.iter().position(|known| *known == moves).unwrap_or_else(|| {
                groups.push(moves);
                groups.len() - 1
            });
            pieces.extend(range.clone().step_by(PIECE).map(|from| from..range.end.min(from + PIECE)));
            group_of.resize(pieces.len(), group);
        }
        let moments = || Buffer::zeroed(plan.layout().len());
        let (first, second, now) = (moments(), moments(), vec![None; groups.len()]);
        Ok(DenseOptimizer { isa: plan.isa(), first, second, groups, now, pieces, group_of })
    }

    /// Step number `step` (from 1), with gradients `[lanes, parameters]`.
    pub fn apply(&mut self, exec: &dyn Executor, params: &mut Parameters, gradients: Mat<'_>, step: u64) {
        for (now, group) in self.now.iter_mut().zip(&self.groups) {
            *now = group.update(step).map(|update| group.config.at_update(update));
        }
        let (isa, pieces) = (self.isa, &self.pieces);
        let (now, group_of) = (&self.now, &self.group_of);
        let slices = [&mut params.values[..], &mut self.first[..], &mut self.second[..]];
        run_parts(exec, pieces, slices, |i, [weights, first, second]| {
            let gradients = gradients.columns(pieces[i].start, pieces[i].len());
            match &now[group_of[i]] {
                Some(DenseStep::Adam(step)) => adam(isa, weights, gradients, first, second, step),
                Some(DenseStep::Sgd(step)) => sgd(isa, weights, gradients, step),
                None => {}
            }
        });
    }
}
