//! Multi-head attention among the tokens of each sample: `out_i = Σ_j softmax_j(scale · q_i · k_j) v_j`, head by head.
//!
//! Tokens are the ids of a list (q, k, v, out `[ids of the list, heads · width]`; samples without ids give nothing), or
//! columns of a sample (`[batch, tokens · heads · width]`, the fields of W. Song et al., *AutoInt*, CIKM 2019). Nothing is
//! padded, so nothing is masked. A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
//!
//! Backward, with p the softmax, which is computed again: `dv_j = Σ_i p_ij dout_i`, `dp_ij = dout_i · v_j`,
//! `ds_ij = scale · p_ij (dp_ij − Σ_j p_ij dp_ij)`, `dq_i = Σ_j ds_ij k_j`, `dk_j = Σ_i ds_ij q_i`.

use super::softmax::softmax;
use crate::check::{Case, LONGEST};
use crate::growth::Growth;
use crate::op::{Backward, Forward, Gradient, Matrix, Op, Reads, Rowset, Saved};
use crate::reach;
use crate::shape::{Shape, Space};
use manygate_core::Batch;
use manygate_kernels::Mat;
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

    /// Where the tokens of sample `r` of the tile stand: row and first column of each.
    fn places(&self, at: &Rowset<'_>, r: usize, cols: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let (rows, count) = match self.tokens {
            Tokens::List { bag, .. } => (at.positions_of(bag, r), 1),
            Tokens::Columns(tokens) => (r..r + 1, tokens),
        };
        let width = cols / count;
        rows.flat_map(move |row| (0..count).map(move |token| (row, token * width)))
    }

    /// Columns of head `h` of a token.
    fn head(&self, h: usize, (row, column): (usize, usize), width: usize) -> (usize, Range<usize>) {
        (row, column + h * width..column + (h + 1) * width)
    }

    /// Width of a head.
    fn width(&self, cols: usize) -> usize {
        let tokens = if let Tokens::Columns(tokens) = self.tokens { tokens } else { 1 };
        cols / tokens / self.heads
    }

    /// The probabilities of a query over keys, written to `p` by way of `scores`.
    fn probabilities<'a>(
        &self,
        q: &[f32],
        keys: impl Iterator<Item = &'a [f32]>,
        scores: &mut [f32],
        p: &mut [f32],
    ) {
        for (score, k) in scores.iter_mut().zip(keys) {
            *score = self.scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>();
        }
        softmax(scores, p);
    }
}

fn part<'a>(of: Mat<'a>, (row, columns): (usize, Range<usize>)) -> &'a [f32] {
    &of.row(row)[columns]
}

fn add(to: &mut Option<Gradient<'_>>, (row, columns): (usize, Range<usize>), factor: f32, from: &[f32]) {
    if let Some(to) = to {
        to.to.row_mut(row)[columns].iter_mut().zip(from).for_each(|(to, v)| *to += factor * v);
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

    fn scratch(&self, _rows: usize, _inputs: &[Shape]) -> usize {
        3 * self.longest()
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

    fn forward(&self, tile: &mut Forward<'_>) {
        let (at, q, k, v) = (tile.at, tile.input(0), tile.input(1), tile.input(2));
        let (mut out, scratch) = (tile.take_output(), tile.take_scratch());
        let (cols, width) = (q.cols(), self.width(q.cols()));
        let (scores, p) = scratch.split_at_mut(self.longest());
        for (r, h) in (0..at.rows).flat_map(|r| (0..self.heads).map(move |h| (r, h))) {
            let places = self.places(&at, r, cols).map(|place| self.head(h, place, width));
            let count = places.clone().count();
            for i in places.clone() {
                let keys = places.clone().map(|j| part(k, j));
                self.probabilities(part(q, i.clone()), keys, &mut scores[..count], &mut p[..count]);
                let to = &mut out.row_mut(i.0)[i.1];
                to.fill(0.0);
                for (j, &p) in places.clone().zip(&p[..count]) {
                    to.iter_mut().zip(part(v, j)).for_each(|(to, v)| *to += p * v);
                }
            }
        }
    }

    fn backward(&self, tile: &mut Backward<'_>) {
        let (at, q, k, v) = (tile.at, tile.input(0), tile.input(1), tile.input(2));
        let (dout, scratch) = (tile.take_output_gradient(), tile.take_scratch());
        let mut gradients = [0, 1, 2].map(|i| tile.take_gradient(i));
        for gradient in gradients.iter_mut().flatten().filter(|g| !g.accumulate) {
            gradient.to.fill(0.0);
        }
        let [dq, dk, dv] = &mut gradients;
        let (cols, width) = (q.cols(), self.width(q.cols()));
        let (scores, rest) = scratch.split_at_mut(self.longest());
        let (p, dp) = rest.split_at_mut(self.longest());
        for (r, h) in (0..at.rows).flat_map(|r| (0..self.heads).map(move |h| (r, h))) {
            let places = self.places(&at, r, cols).map(|place| self.head(h, place, width));
            let count = places.clone().count();
            for i in places.clone() {
                let keys = places.clone().map(|j| part(k, j));
                self.probabilities(part(q, i.clone()), keys, &mut scores[..count], &mut p[..count]);
                let dout = &dout.row(i.0)[i.1.clone()];
                for (dp, j) in dp.iter_mut().zip(places.clone()) {
                    *dp = dout.iter().zip(part(v, j)).map(|(d, v)| d * v).sum();
                }
                let mean: f32 = p.iter().zip(&*dp).take(count).map(|(p, dp)| p * dp).sum();
                for ((j, &p), &dp) in places.clone().zip(&*p).zip(&*dp) {
                    let ds = self.scale * p * (dp - mean);
                    add(dv, j.clone(), p, dout);
                    add(dq, i.clone(), ds, part(k, j.clone()));
                    add(dk, j, ds, part(q, i.clone()));
                }
            }
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
