//! Multi-head attention among the tokens of each sample: `out_i = Σ_j softmax_j(scale · q_i · k_j) v_j`, head by head.
//!
//! Tokens are the ids of a list (q, k, v, out `[ids of the list, heads · width]`; samples without ids give nothing), or
//! columns of a sample (`[batch, tokens · heads · width]`, the fields of W. Song et al., *AutoInt*, CIKM 2019). Nothing is
//! padded, so nothing is masked. A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
//!
//! Backward, with p the softmax, which is computed again: `dv_j = Σ_i p_ij dout_i`, `dp_ij = dout_i · v_j`,
//! `ds_ij = scale · p_ij (dp_ij − Σ_j p_ij dp_ij)`, `dq_i = Σ_j ds_ij k_j`, `dk_j = Σ_i ds_ij q_i`.

use crate::check::{Case, LONGEST};
use crate::device::{Capacity, DeviceOp, DeviceStep, Halves};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Reads, Rowset, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_cuda::attention as cuda;
use manygate_kernels::attention::{
    Tokens as Attending, self_attention, self_attention_backward, self_attention_scratch,
};
use manygate_kernels::sequence::Sink;
use manygate_kernels::{Mat, MatMut};
use std::ops::Range;

/// What attends to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tokens {
    /// The ids of a list, at most so many.
    List { bag: usize, longest: usize },
    /// Equal parts of a row.
    Columns(usize),
}

/// Attention, see the [module](self). Inputs: q, k, v.
#[derive(Clone, Debug)]
pub struct Attention {
    tokens: Tokens,
    heads: usize,
    scale: f32,
}

impl Attention {
    /// Among the ids of list `bag`, of which a sample has at most `longest`.
    pub fn of_list(bag: usize, longest: usize, heads: usize, scale: f32) -> Attention {
        Attention { tokens: Tokens::List { bag, longest }, heads, scale }
    }

    /// Among `tokens` equal parts of a row.
    pub fn of_columns(tokens: usize, heads: usize, scale: f32) -> Attention {
        Attention { tokens: Tokens::Columns(tokens), heads, scale }
    }

    fn longest(&self) -> usize {
        match self.tokens {
            Tokens::List { longest, .. } => longest,
            Tokens::Columns(tokens) => tokens,
        }
    }

    /// Rows of the tile that sample `r` has, and tokens in each.
    fn places(&self, at: &Rowset<'_>, r: usize) -> (Range<usize>, usize) {
        match self.tokens {
            Tokens::List { bag, .. } => (at.positions_of(bag, r), 1),
            Tokens::Columns(tokens) => (r..r + 1, tokens),
        }
    }

    /// The tokens of sample `r`, `[tokens, heads · width]`.
    fn of_sample<'a>(&self, at: &Rowset<'_>, r: usize, of: Mat<'a>) -> Mat<'a> {
        let (rows, count) = self.places(at, r);
        match count {
            1 => of.row_range(rows.start, rows.len()),
            _ => Mat::new(of.row(r), count, of.cols() / count),
        }
    }

    /// The same to be written.
    fn of_sample_mut<'a>(&self, at: &Rowset<'_>, r: usize, of: &'a mut MatMut<'_>) -> MatMut<'a> {
        let (rows, count) = self.places(at, r);
        let width = of.cols() / count;
        match count {
            1 => of.row_range(rows.start, rows.len()),
            _ => MatMut::new(of.row_mut(r), count, width),
        }
    }

    fn attending<'a>(&self, at: &Rowset<'_>, r: usize, inputs: [Mat<'a>; 3]) -> Attending<'a> {
        let [q, k, v] = inputs.map(|of| self.of_sample(at, r, of));
        Attending { q, k, v, heads: self.heads, scale: self.scale }
    }

    /// Width of a head.
    fn width(&self, cols: usize) -> usize {
        let tokens = if let Tokens::Columns(tokens) = self.tokens { tokens } else { 1 };
        cols / tokens / self.heads
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn output(&self, inputs: &[Shape]) -> Result<Shape, String> {
        let [q, k, v] = inputs else {
            return Err(format!("q, k and v are needed, not {inputs:?}"));
        };
        let (space, tokens) = match self.tokens {
            Tokens::List { bag, .. } => (Space::Position(bag), 1),
            Tokens::Columns(tokens) => (Space::Batch, tokens),
        };
        let parts = tokens * self.heads;
        if q.space != space || q != k || q != v || parts == 0 || !q.cols.is_multiple_of(parts) {
            return Err(format!(
                "three equal shapes that divide into {parts} parts are needed, not {inputs:?}"
            ));
        }
        Ok(*q)
    }

    fn saved(&self) -> Saved {
        Saved { inputs: 0b111, output: false }
    }

    fn reads(&self) -> Reads {
        match self.tokens {
            Tokens::List { bag, .. } => Reads { bags: bag + 1, ..Reads::default() },
            Tokens::Columns(_) => Reads::default(),
        }
    }

    fn scratch(&self, _rows: usize, inputs: &[Shape]) -> usize {
        self_attention_scratch(self.longest(), self.width(inputs[0].cols))
    }

    fn multiply_adds(&self, inputs: &[Shape]) -> usize {
        2 * self.longest() * inputs[0].cols
    }

    fn reach(&self, _inputs: &[Shape], i: usize, output: &[bool], reached: &mut [bool]) {
        let tokens = if let Tokens::Columns(tokens) = self.tokens { tokens } else { 1 };
        reach::by_group(output, reached, tokens * self.heads);
        if i > 0 {
            // A head of a token attends to that head of all.
            let of_query = reached.to_vec();
            reach::at_same_place(&of_query, reached, of_query.len() / tokens);
        }
    }

    fn grow(&self, inputs: &[Shape], growth: &mut Growth<'_>) {
        if matches!(self.tokens, Tokens::Columns(_)) {
            growth.same_columns(inputs, 0..3);
        }
    }

    fn on_device(&self) -> Option<&dyn DeviceOp> {
        Some(self)
    }

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, inputs) = (tile.at, [0, 1, 2].map(|i| tile.input(i)));
        let (mut out, scratch) = (tile.take_output(), tile.take_scratch());
        for r in 0..at.rows {
            let of = self.attending(&at, r, inputs);
            self_attention(at.isa, of, scratch, self.of_sample_mut(&at, r, &mut out));
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, inputs) = (tile.at, [0, 1, 2].map(|i| tile.input(i)));
        let (dout, scratch) = (tile.take_output_gradient(), tile.take_scratch());
        let mut gradients = [0, 1, 2].map(|i| tile.take_gradient(i));
        for r in 0..at.rows {
            let of = self.attending(&at, r, inputs);
            let dout = self.of_sample(&at, r, dout.as_mat());
            let [dq, dk, dv] = gradients.each_mut().map(|gradient| {
                let Gradient { to, accumulate, .. } = gradient.as_mut()?;
                Some(Sink { to: self.of_sample_mut(&at, r, to), accumulate: *accumulate })
            });
            self_attention_backward(at.isa, of, dout, scratch, dq, dk, dv);
        }
    }

    fn reference(&self, inputs: &[Matrix], _tables: &[Matrix], batch: &Batch) -> Matrix {
        let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
        let width = self.width(q.cols);
        let mut out = Matrix::zeros(q.rows, q.cols);
        for r in 0..batch.rows {
            let tokens: Vec<(usize, usize)> = match self.tokens {
                Tokens::List { bag, .. } => {
                    let ends = &batch.bags[bag].offsets;
                    (ends[r] as usize..ends[r + 1] as usize).map(|row| (row, 0)).collect()
                }
                Tokens::Columns(count) => (0..count).map(|t| (r, t * q.cols / count)).collect(),
            };
            for (h, &(row, column)) in (0..self.heads).flat_map(|h| tokens.iter().map(move |t| (h, t))) {
                let at =
                    |m: &Matrix, (row, column): (usize, usize), c: usize| m.at(row, column + h * width + c);
                let score = |&j: &(usize, usize)| -> f64 {
                    (0..width).map(|c| at(q, (row, column), c) * at(k, j, c)).sum()
                };
                let weights: Vec<f64> =
                    tokens.iter().map(|j| (f64::from(self.scale) * score(j)).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for c in 0..width {
                    let mixed: f64 = tokens.iter().zip(&weights).map(|(&j, w)| w / sum * at(v, j, c)).sum();
                    out.set(row, column + h * width + c, mixed);
                }
            }
        }
        out
    }
}

impl DeviceOp for Attention {
    fn halves(&self) -> Halves {
        Halves::ALL
    }

    fn scratch(&self, capacity: &Capacity, inputs: &[Shape]) -> u64 {
        let parts = if let Tokens::Columns(parts) = self.tokens { parts } else { 1 };
        cuda::self_attention_scratch(capacity.rows_in(inputs[0]) * parts, self.heads)
    }

    fn forward(&self, step: &mut DeviceStep<'_>) {
        let inputs = [0, 1, 2].map(|i| step.input(i));
        step.launch(cuda::self_attention(self.on(step), inputs, step.output()));
    }

    fn backward(&self, step: &mut DeviceStep<'_>) {
        let (heads, inputs) = (self.on(step), [0, 1, 2].map(|i| step.input(i)));
        let (dout, scratch) = (step.output_gradient(), step.scratch());
        let to = [0, 1, 2].map(|i| step.take_gradient(i).map(|to| (to.to, to.accumulate)));
        step.launch_all(cuda::self_attention_backward(heads, inputs, dout, to, scratch));
    }
}

impl Attention {
    fn on(&self, step: &DeviceStep<'_>) -> cuda::Heads {
        let tokens = match self.tokens {
            Tokens::List { bag, .. } => cuda::Tokens::List(step.lists(bag)),
            Tokens::Columns(parts) => cuda::Tokens::Parts { parts: parts as u32, samples: step.batch().rows },
        };
        cuda::Heads { tokens, heads: self.heads as u32, scale: self.scale }
    }
}

/// Instances for the check of every op, see [`check`](crate::check).
pub fn cases() -> Vec<Case> {
    let list = |name: &str, heads: usize, cols: usize| {
        let declare = move |g: &mut crate::Graph, x: &[crate::Value]| {
            g.add("op", Attention::of_list(0, LONGEST, heads, 0.6), x)
        };
        Case::new(name, declare).positions(0, cols).positions(0, cols).positions(0, cols)
    };
    let columns = |name: &str, tokens: usize, heads: usize, cols: usize| {
        let op = Attention::of_columns(tokens, heads, 0.8);
        let case = Case::new(name, move |g, x| g.add("op", op.clone(), x));
        case.rows(cols).rows(cols).rows(cols)
    };
    vec![
        list("attention/list", 2, 6),
        list("attention/one_wide", 1, 1),
        columns("attention/columns", 3, 2, 18),
        columns("attention/one_token", 1, 1, 5),
    ]
}
