//! The optimiser of dense parameters: lane gradients are summed, in lane order, inside the update.

use super::OptimizerConfig;
use super::group::Moves;
use super::method::{Kind, Method};
use manygate_core::{Buffer, Executor, Result, run_parts};
use manygate_graph::{Parameters, Plan};
use manygate_kernels::optim::{AdagradStep, AdamStep, MomentumStep, SgdStep, adagrad, adam, momentum, sgd};
use manygate_kernels::{Isa, Mat};
use std::ops::Range;

/// Values that a thread updates at a time.
const PIECE: usize = 16 * 1024;

/// Moves every dense parameter that learns, each by the method, the values and at the steps of its group.
#[derive(Clone, Debug)]
pub struct DenseOptimizer {
    isa: Isa,
    /// First moments, or velocities, laid out as the parameters; zero where the method has none.
    pub first: Buffer,
    /// Second moments, or sums of squares, laid out as the parameters; zero where the method has none.
    pub second: Buffer,
    groups: Vec<Moves>,
    /// What each group does at the step that is being taken; [`None`] where it does not move.
    now: Vec<Option<DenseStep>>,
    /// Ranges of parameters that learn, cut at names.
    pieces: Vec<Range<usize>>,
    /// Group of each piece.
    group_of: Vec<usize>,
}

/// The parameters of `plan` that learn, cut at names and into pieces for threads: name and range of each.
pub(super) fn pieces(plan: &Plan) -> impl Iterator<Item = (&str, Range<usize>)> {
    let learning = plan.layout().blocks().filter(|(block, _)| plan.learns(&block.name));
    learning.flat_map(|(block, range)| {
        let end = range.end;
        range.step_by(PIECE).map(move |from| (block.name.as_str(), from..end.min(from + PIECE)))
    })
}

/// The constants of a group's update.
#[derive(Clone, Copy, Debug)]
enum DenseStep {
    Adagrad(AdagradStep),
    Adam(AdamStep),
    Momentum(MomentumStep),
    Sgd(SgdStep),
}

impl DenseStep {
    /// The constants of update number `update` (from 1), with the rate times `factor`; [`None`] of a method that does not
    /// move dense parameters.
    fn at_update(moves: &Moves, update: u64, factor: f64) -> Option<DenseStep> {
        let config = &moves.config;
        let number = |value: Option<f64>| value.unwrap_or_default();
        let rate = (number(config.rate) * factor) as f32;
        let [epsilon, l2, weight_decay] =
            [config.epsilon, config.l2, config.weight_decay].map(|value| number(value) as f32);
        let correction = |beta: Option<f64>| (1.0 - number(beta).powf(update as f64)) as f32;
        Some(match moves.method {
            Method::Adagrad => DenseStep::Adagrad(AdagradStep { rate, epsilon, l2 }),
            Method::Adam | Method::Adamw => DenseStep::Adam(AdamStep {
                rate,
                beta1: number(config.beta1) as f32,
                beta2: number(config.beta2) as f32,
                epsilon,
                correction1: correction(config.beta1),
                correction2: correction(config.beta2),
                l2,
                weight_decay,
            }),
            Method::Momentum => DenseStep::Momentum(MomentumStep {
                rate,
                momentum: number(config.momentum) as f32,
                nesterov: config.nesterov.unwrap_or_default(),
                l2,
                weight_decay,
            }),
            Method::Sgd => DenseStep::Sgd(SgdStep { rate, l2 }),
            Method::Ftrl | Method::RowwiseAdagrad => return None,
        })
    }
}

impl DenseOptimizer {
    /// For the parameters of `plan`, in the groups of `config`; those that do not learn are left out.
    ///
    /// # Errors
    /// When a parameter cannot move as its group says.
    pub fn new(plan: &Plan, config: &OptimizerConfig) -> Result<DenseOptimizer> {
        let (mut groups, mut pieces, mut group_of) = (Vec::new(), Vec::new(), Vec::new());
        for (name, piece) in self::pieces(plan) {
            let moves = config.moves(name, Kind::Dense)?;
            let group = groups.iter().position(|known| *known == moves).unwrap_or_else(|| {
                groups.push(moves);
                groups.len() - 1
            });
            pieces.push(piece);
            group_of.push(group);
        }
        let moments = || Buffer::zeroed(plan.layout().len());
        let (first, second, now) = (moments(), moments(), vec![None; groups.len()]);
        Ok(DenseOptimizer { isa: plan.isa(), first, second, groups, now, pieces, group_of })
    }

    /// The ranges that move, with the group of each, and the number of groups.
    #[cfg(feature = "cuda")]
    pub(crate) fn groups(&self) -> (Vec<(Range<usize>, usize)>, usize) {
        let pieces = self.pieces.iter().cloned().zip(self.group_of.iter().copied());
        (pieces.collect(), self.groups.len())
    }

    /// What each group does at step number `step` (from 1), with all rates times `factor`.
    #[cfg(feature = "cuda")]
    pub(crate) fn constants_at(&self, step: u64, factor: f64, into: &mut Vec<manygate_cuda::optim::Step>) {
        use manygate_cuda::optim::Step;
        into.clear();
        into.extend(self.groups.iter().map(|group| {
            let now = group.update(step).and_then(|update| DenseStep::at_update(group, update, factor));
            match now {
                Some(DenseStep::Adagrad(step)) => Step::Adagrad(step),
                Some(DenseStep::Adam(step)) => Step::Adam(step),
                Some(DenseStep::Momentum(step)) => Step::Momentum(step),
                Some(DenseStep::Sgd(step)) => Step::Sgd(step),
                None => Step::Still,
            }
        }));
    }

    /// Step number `step` (from 1), with gradients `[lanes, parameters]` and all rates times `factor`.
    pub fn apply(
        &mut self,
        exec: &dyn Executor,
        params: &mut Parameters,
        gradients: Mat<'_>,
        step: u64,
        factor: f64,
    ) {
        for (now, group) in self.now.iter_mut().zip(&self.groups) {
            *now = group.update(step).and_then(|update| DenseStep::at_update(group, update, factor));
        }
        let (isa, pieces) = (self.isa, &self.pieces);
        let (now, group_of) = (&self.now, &self.group_of);
        let slices = [&mut params.values[..], &mut self.first[..], &mut self.second[..]];
        run_parts(exec, pieces, slices, |i, [weights, first, second]| {
            let gradients = gradients.columns(pieces[i].start, pieces[i].len());
            match &now[group_of[i]] {
                Some(DenseStep::Adagrad(step)) => adagrad(isa, weights, gradients, second, step),
                Some(DenseStep::Adam(step)) => adam(isa, weights, gradients, first, second, step),
                Some(DenseStep::Momentum(step)) => momentum(isa, weights, gradients, first, step),
                Some(DenseStep::Sgd(step)) => sgd(isa, weights, gradients, step),
                None => {}
            }
        });
    }
}
