//! Which experts a gate may weigh in a row: all of them, its best k, or those that gate dropout leaves.
//!
//! - *Best k.* The experts with the k largest logits, of equal ones the first. N. Shazeer, A. Mirhoseini, K. Maziarz, A. Davis,
//!   Q. Le, G. Hinton, J. Dean, *Outrageously Large Neural Networks*, ICLR 2017, section 2.1, without its noise.
//! - *Gate dropout.* Each weight is dropped with the probability p, and the rest is renormalised; where all would be dropped, all
//!   stay. Z. Zhao, L. Hong, L. Wei, J. Chen, A. Nath, S. Andrews, A. Kumthekar, M. Sathiamoorthy, X. Yi, E. Chi, *Recommending
//!   What Video to Watch Next: A Multitask Ranking System*, RecSys 2019, section 5.1.2. With both, of the best k.
//!
//! An expert that is left out has the logit −∞: the softmax over the others is their renormalised weights, its own weight
//! is 0, and so is the gradient of its logit. The fate of expert e of gate t is that of a value in column
//! t · experts + e, see [`dropout`](super::dropout).

use super::dropout::check_rate;
use crate::device::DeviceStep;
use crate::draws::Draws;
use crate::op::Rowset;
use crate::param::name_hash;
use manygate_cuda::random::{Selection, select_experts};
use manygate_cuda::{DeviceMat, Launch};
use manygate_kernels::random::{self, Dropping};
use manygate_kernels::{Mat, MatMut};

/// What each gate may weigh, see the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct GateSelection {
    /// The best k alone.
    pub(super) top_k: Option<usize>,
    /// Key and rate of gate dropout.
    pub(super) dropout: Option<(u64, f64)>,
}

impl GateSelection {
    pub(super) fn drop_by(&mut self, name: &str, rate: f64) {
        self.dropout = Some((name_hash(name), rate));
    }

    pub(super) fn is_all(&self) -> bool {
        self.top_k.is_none() && self.dropout.is_none()
    }

    pub(super) fn check(&self, experts: usize) -> Result<(), String> {
        if let Some(k) = self.top_k.filter(|k| !(1..=experts).contains(k)) {
            return Err(format!("the best {k} of {experts} experts cannot be chosen"));
        }
        self.dropout.map_or(Ok(()), |(_, rate)| check_rate(rate))
    }

    /// Writes to `selected` what `logits` `[rows, gates · experts]` are with −∞ where an expert is left out. `ones` is room
    /// for as many values.
    pub(super) fn select(
        &self,
        at: &Rowset<'_>,
        experts: usize,
        logits: Mat<'_>,
        ones: &mut [f32],
        mut selected: MatMut<'_>,
    ) {
        selected.fill(1.0);
        if let Some((key, rate)) = self.dropout {
            ones.fill(1.0);
            let (key, first_row) = (at.draws.stream(key).key(), at.first_row as u64);
            let (rows, dropping) = (at.draws.caller_rows_of(at.range()), Dropping::new(rate));
            let ones = Mat::new(ones, logits.rows(), logits.cols());
            random::dropout(at.isa, key, first_row, rows, dropping, false, ones, selected.reborrow());
        }
        for r in 0..logits.rows() {
            let gates =
                logits.row(r).chunks_exact(experts).zip(selected.row_mut(r).chunks_exact_mut(experts));
            // Each value of `marks` is 0 where the expert is dropped, until it becomes the logit.
            for (logits, marks) in gates {
                // What is not finite is never left out: it is to be found.
                let left = |e: usize, mark: f32| mark != 0.0 || !logits[e].is_finite();
                let is_any_left = (0..experts).any(|e| self.is_best(logits, e) && left(e, marks[e]));
                for (e, mark) in marks.iter_mut().enumerate() {
                    let stays = self.is_best(logits, e) && (!is_any_left || left(e, *mark));
                    *mark = if stays { logits[e] } else { f32::NEG_INFINITY };
                }
            }
        }
    }

    /// The same as a launch, to `selected` in f32.
    pub(super) fn select_on_device(
        &self,
        step: &DeviceStep<'_>,
        experts: usize,
        logits: DeviceMat,
        selected: DeviceMat,
    ) -> Launch {
        let dropping = self.dropout.map(|(key, rate)| (Dropping::new(rate).threshold, step.draws(key)));
        let best = self.top_k.unwrap_or(experts) as u32;
        let (experts, rows) = (experts as u32, step.caller_rows());
        select_experts(Selection { experts, best, dropping, rows }, logits, selected)
    }

    /// Whether fewer than k logits come before that of expert `e`. None comes before NaN, which stays to be found.
    fn is_best(&self, logits: &[f32], e: usize) -> bool {
        let before = |(i, other): (usize, &f32)| *other > logits[e] || (*other == logits[e] && i < e);
        self.top_k.is_none_or(|k| logits.iter().enumerate().filter(|&other| before(other)).count() < k)
    }

    /// The same for the logits of one gate in the caller's row, in f64.
    pub(super) fn select_reference(&self, draws: &Draws<'_>, row: u64, gate: usize, logits: &mut [f64]) {
        let experts = logits.len();
        let mut best: Vec<usize> = (0..experts).collect();
        best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        best.truncate(self.top_k.unwrap_or(experts));
        let left = |&e: &usize| {
            self.dropout.is_none_or(|(key, rate)| {
                let column = gate * experts + e;
                let numbers = draws.stream(key).block(row, column as u64 / 4);
                numbers[column % 4] >= Dropping::new(rate).threshold
            })
        };
        let kept: Vec<usize> = best.iter().copied().filter(left).collect();
        let kept = if kept.is_empty() { best } else { kept };
        let left_out = logits.iter_mut().enumerate().filter(|(e, _)| !kept.contains(e));
        left_out.for_each(|(_, logit)| *logit = f64::NEG_INFINITY);
    }
}
