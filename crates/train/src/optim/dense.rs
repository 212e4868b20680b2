//! The optimiser of dense parameters: lane gradients are summed, in lane order, inside the update.

use super::DenseConfig;
use manygate_core::{Buffer, Executor, run_parts};
use manygate_graph::{Parameters, Plan};
use manygate_kernels::optim::{AdamStep, adam};
use manygate_kernels::{Isa, Mat};
use std::ops::Range;

/// Values that a thread updates at a time.
const PIECE: usize = 16 * 1024;

/// Adam over every dense parameter that learns.
#[derive(Clone, Debug)]
pub struct DenseAdam {
    config: DenseConfig,
    isa: Isa,
    /// First moments, laid out as the parameters.
    pub first: Buffer,
    /// Second moments, laid out as the parameters.
    pub second: Buffer,
    /// Ranges of parameters that learn.
    pieces: Vec<Range<usize>>,
}

impl DenseAdam {
    /// For the parameters of `plan`; those that do not learn are left out.
    pub fn new(plan: &Plan, config: &DenseConfig) -> DenseAdam {
        let mut pieces = Vec::new();
        for (_, range) in plan.layout().blocks().filter(|(block, _)| plan.learns(&block.name)) {
            pieces.extend(range.clone().step_by(PIECE).map(|from| from..range.end.min(from + PIECE)));
        }
        let moments = || Buffer::zeroed(plan.layout().len());
        DenseAdam { config: config.clone(), isa: plan.isa(), first: moments(), second: moments(), pieces }
    }

    /// Step number `step` (from 1), with gradients `[lanes, parameters]`.
    pub fn apply(&mut self, exec: &dyn Executor, params: &mut Parameters, gradients: Mat<'_>, step: u64) {
        let c = &self.config;
        let adam_step = AdamStep {
            rate: c.rate as f32,
            beta1: c.beta1 as f32,
            beta2: c.beta2 as f32,
            epsilon: c.epsilon as f32,
            correction1: (1.0 - c.beta1.powf(step as f64)) as f32,
            correction2: (1.0 - c.beta2.powf(step as f64)) as f32,
            l2: c.l2 as f32,
            weight_decay: c.weight_decay as f32,
        };
        let (isa, pieces) = (self.isa, &self.pieces);
        let slices = [&mut params.values[..], &mut self.first[..], &mut self.second[..]];
        run_parts(exec, pieces, slices, |i, [weights, first, second]| {
            let gradients = gradients.columns(pieces[i].start, pieces[i].len());
            adam(isa, weights, gradients, first, second, &adam_step);
        });
    }
}
