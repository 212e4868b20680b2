//! Multi-head attention with one query a sample, over the ids of a list: `out = Σ_i softmax_i(scale · q · k_i) v_i`, head by
//! head; zero for a sample without ids. Nothing is padded, so nothing is masked.
//!
//! q `[batch, heads · width]`, k, v `[ids of the list, heads · width]`, out `[batch, heads · width]`. A. Vaswani et al.,
//! *Attention Is All You Need*, NeurIPS 2017.
//!
//! It streams over the list: one pass forward, one backward, and of all the weights only the logarithm of the sum of
//! exponentials is kept, a number a head, by which the backward pass finds each weight p again (T. Dao et al.,
//! *FlashAttention*, NeurIPS 2022): `dv_i = p_i dout`, `ds_i = scale · p_i (dout · v_i − dout · out)`, `dk_i = ds_i q`,
//! `dq = Σ_i ds_i k_i`.

use crate::check::{Case, LONGEST};
use crate::device::{DeviceOp, DeviceStep, Halves};
use crate::op::{Backward, Forward, Matrix, Op, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::attention as cuda;
use manygate_kernels::sequence::{self, Attended, Sink};

/// Attention with one query, see the [module](self). Inputs: q, k, v.
#[derive(Clone, Debug)]
pub struct TargetAttention {
    bag: usize,
    longest: usize,
    heads: usize,
    scale: f32,
}

impl TargetAttention {
    /// Over list `bag`, of which a sample has at most `longest` ids.
    pub fn new(bag: usize, longest: usize, heads: usize, scale: f32) -> TargetAttention {
        TargetAttention { bag, longest, heads, scale }
    }
}

impl Op for TargetAttention {
    fn name(&self) -> &'static str {
        "target_attention"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        match inputs {
            [q, k, v]
                if q.space == Space::Batch
                    && *k == Shape::position(self.bag, q.cols)
                    && k == v
                    && self.heads > 0
                    && q.cols.is_multiple_of(self.heads) =>
            {
                Ok(*q)
            }
            _ => {
                let (bag, heads) = (self.bag, self.heads);
                Err(format!(
                    "a query and keys and values of list {bag}, as wide, for {heads} heads are needed, not {inputs:?}"
                ))
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: true }
    }

    fn extra(&self, _inputs: &[Shape]) -> usize {
        self.heads
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        2 * self.longest * inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        match i {
            2 => reach::same(output, reached),
            _ => reach::by_group(output, reached, self.heads),
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, q, k, v) = (tile.at, tile.input(0), tile.input(1), tile.input(2));
        let (mut out, mut log_sums) = (tile.take_output(), tile.take_extra());
        let width = q.cols() / self.heads;
        for (r, h) in (0..at.rows).flat_map(|r| (0..self.heads).map(move |h| (r, h))) {
            let (ids, head) = (at.positions_of(self.bag, r), h * width..(h + 1) * width);
            let [k, v] = [k, v].map(|m| m.row_range(ids.start, ids.len()).columns(head.start, width));
            let (to, log_sum) = (&mut out.row_mut(r)[head.clone()], &mut log_sums.row_mut(r)[h]);
            sequence::attend(at.isa, self.scale, &q.row(r)[head], k, v, to, log_sum);
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, q, k, v, out) = (tile.at, tile.input(0), tile.input(1), tile.input(2), tile.output());
        let (dout, log_sums) = (tile.take_output_gradient(), tile.take_extra());
        let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i| tile.take_gradient(i));
        let width = q.cols() / self.heads;
        for (r, h) in (0..at.rows).flat_map(|r| (0..self.heads).map(move |h| (r, h))) {
            let (ids, head) = (at.positions_of(self.bag, r), h * width..(h + 1) * width);
            let [k, v] = [k, v].map(|m| m.row_range(ids.start, ids.len()).columns(head.start, width));
            let attended = Attended {
                scale: self.scale,
                q: &q.row(r)[head.clone()],
                k,
                v,
                out: &out.row(r)[head.clone()],
                log_sum: log_sums.row(r)[h],
                dout: &dout.row(r)[head.clone()],
            };
            let dq = dq
                .as_mut()
                .map(|g| Sink { accumulate: g.accumulate, to: &mut g.to.row_mut(r)[head.clone()] });
            let [dk, dv] = [&mut dk, &mut dv].map(|g| {
                let g = g.as_mut()?;
                let to = g.to.columns(head.start, width).into_row_range(ids.start, ids.len());
                Some(Sink { accumulate: g.accumulate, to })
            });
            sequence::attend_backward(at.isa, &attended, dq, dk, dv);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let [q, k, v] = [0, 1, 2].map(|i| &inputs[i]);
        let width = q.cols / self.heads;
        let mut out = Matrix::zeros(q.rows, q.cols);
        for (r, ends) in batch.bags[self.bag].offsets.windows(2).enumerate() {
            for head in (0..self.heads).map(|h| h * width..(h + 1) * width) {
                let ids = ends[0] as usize..ends[1] as usize;
                let score = |i: usize| -> f64 { head.clone().map(|c| q.at(r, c) * k.at(i, c)).sum() };
                let weights: Vec<f64> =
                    ids.clone().map(|i| (f64::from(self.scale) * score(i)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for c in head {
                    out.set(r, c, ids.clone().zip(&weights).map(|(i, w)| w / sum * v.at(i, c)).sum());
                }
            }
        }
        out
    }
}

impl DeviceOp for TargetAttention {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let inputs = [0, 1, 2].map(|i| step.input(i));
        step.launch(cuda::attend(self.on(step), inputs, step.output(), step.extra()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (heads, inputs) = (self.on(step), [0, 1, 2].map(|i| step.input(i)));
        let at = cuda::Attended { out: step.output(), log_sums: step.extra(), dout: step.output_gradient() };
        let to = [0, 1, 2].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        step.launch(cuda::attend_backward(heads, inputs, at, to));
    }
}

impl TargetAttention {
    fn on(&self, step: &DeviceStep<'_>) -> cuda::Heads {
        let tokens = cuda::Tokens::Sample(step.lists(self.bag));
        cuda::Heads { tokens, heads: self.heads as u32, scale: self.scale }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let case = |name: &str, heads: usize, cols: usize| {
        let op = TargetAttention::new(0, LONGEST, heads, 0.6);
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        case.rows(cols).positions(0, cols).positions(0, cols)
    };
    vec![case("target_attention/one", 1, 1), case("target_attention/heads", 2, 6)]
}
