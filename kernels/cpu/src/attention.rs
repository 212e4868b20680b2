//! Attention among the tokens of one sample, head by head.
//!
//! A block of queries is transposed, so that queries are lanes: scores, their softmax and its gradient are computed
//! without a sum over lanes, and no token is padded. Of the square of scores a block of columns exists at a time, its
//! `QUERIES` columns by all keys. Products keep four keys, or four results, in registers.

use crate::dispatch;
use crate::lanes::{load_row, store_row};
use crate::math::exp;
use crate::sequence::Sink;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Queries that are taken together: two vectors of any instruction set, at least.
const QUERIES: usize = 32;

/// Rows that are taken together.
const ROWS: usize = 4;

/// Values of scratch that attention among `tokens` tokens needs, with heads of `width`, forward or backward.
pub const fn self_attention_scratch(tokens: usize, width: usize) -> usize {
    2 * QUERIES * (tokens + width)
}

/// What attends to each other: three matrices `[tokens, heads · width]`.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Queries.
    pub q: Mat<'a>,
    /// Keys.
    pub k: Mat<'a>,
    /// Values.
    pub v: Mat<'a>,
    /// Heads, whose columns lie side by side.
    pub heads: usize,
    /// Factor of the scores.
    pub scale: f32,
}

impl Tokens<'_> {
    /// Tokens and the width of a head, of shapes that agree with each other and `with`.
    #[inline(always)]
    fn check(&self, with: Mat<'_>) -> (usize, usize) {
        for m in [self.q, self.k, self.v] {
            assert_eq!((m.rows(), m.cols()), (with.rows(), with.cols()), "self_attention: shapes differ");
        }
        let width = with.cols() / self.heads;
        assert_eq!(width * self.heads, with.cols(), "self_attention: heads");
        (with.rows(), width)
    }
}

dispatch! {
    /// `out_i = Σ_j softmax_j(scale q_i · k_j) v_j`, head by head. The content of `scratch`, of
    /// [`self_attention_scratch`] values, does not matter.
    ///
    /// # Panics
    /// When shapes or lengths disagree.
    pub fn self_attention(of: Tokens<'_>, scratch: &mut [f32], out: MatMut<'_>) = self_attention_body;
}

#[inline(always)]
fn self_attention_body<S: Simd>(s: S, of: Tokens<'_>, scratch: &mut [f32], mut out: MatMut<'_>) {
    let (tokens, width) = of.check(out.as_mat());
    let (turned, weights) = scratch.split_at_mut(QUERIES * width);
    let weights = &mut weights[..QUERIES * tokens];
    for column in (0..of.heads).map(|head| head * width) {
        let [q, k, v] = [of.q, of.k, of.v].map(|m| m.columns(column, width));
        for first in (0..tokens).step_by(QUERIES) {
            let count = QUERIES.min(tokens - first);
            turn(q.row_range(first, count), turned);
            scores(s, k, turned, count, of.scale, weights);
            softmax(s, count, weights);
            let mut out = out.row_range(first, count);
            mix(s, Weights { of: weights, to: 1, from: QUERIES }, v, false, out.columns(column, width));
        }
    }
}

dispatch! {
    /// Gradients of [`self_attention`], with p the softmax, which is computed again: `dv_j = Σ_i p_ij dout_i`,
    /// `ds_ij = scale p_ij (dp_ij − Σ_j p_ij dp_ij)` of `dp_ij = dout_i · v_j`, `dq_i = Σ_j ds_ij k_j`,
    /// `dk_j = Σ_i ds_ij q_i`. Those that nobody wants are left out.
    ///
    /// # Panics
    /// When shapes or lengths disagree.
    pub fn self_attention_backward(
        of: Tokens<'_>, dout: Mat<'_>, scratch: &mut [f32], dq: Option<Sink<MatMut<'_>>>,
        dk: Option<Sink<MatMut<'_>>>, dv: Option<Sink<MatMut<'_>>>,
    ) = self_attention_backward_body;
}

#[inline(always)]
fn self_attention_backward_body<S: Simd>(
    s: S,
    of: Tokens<'_>,
    dout: Mat<'_>,
    scratch: &mut [f32],
    mut dq: Option<Sink<MatMut<'_>>>,
    mut dk: Option<Sink<MatMut<'_>>>,
    mut dv: Option<Sink<MatMut<'_>>>,
) {
    let (tokens, width) = of.check(dout);
    let (turned, rest) = scratch.split_at_mut(QUERIES * width);
    let (weights, slopes) = rest.split_at_mut(QUERIES * tokens);
    let slopes = &mut slopes[..QUERIES * tokens];
    for column in (0..of.heads).map(|head| head * width) {
        let [q, k, v, dout] = [of.q, of.k, of.v, dout].map(|m| m.columns(column, width));
        for first in (0..tokens).step_by(QUERIES) {
            let count = QUERIES.min(tokens - first);
            let (q, dout) = (q.row_range(first, count), dout.row_range(first, count));
            turn(q, turned);
            scores(s, k, turned, count, of.scale, weights);
            softmax(s, count, weights);
            if let Some(Sink { to, accumulate }) = &mut dv {
                let by_key = Weights { of: weights, to: QUERIES, from: 1 };
                mix(s, by_key, dout, *accumulate || first > 0, to.columns(column, width));
            }
            turn(dout, turned);
            scores(s, v, turned, count, 1.0, slopes);
            softmax_slopes(s, count, of.scale, weights, slopes);
            if let Some(Sink { to, accumulate }) = &mut dq {
                let by_query = Weights { of: slopes, to: 1, from: QUERIES };
                mix(s, by_query, k, *accumulate, to.row_range(first, count).columns(column, width));
            }
            if let Some(Sink { to, accumulate }) = &mut dk {
                let by_key = Weights { of: slopes, to: QUERIES, from: 1 };
                mix(s, by_key, q, *accumulate || first > 0, to.columns(column, width));
            }
        }
    }
}

/// Writes the transpose of `from`, at most [`QUERIES`] rows, in rows of [`QUERIES`]. What stands behind is not touched.
#[inline(always)]
fn turn(from: Mat<'_>, to: &mut [f32]) {
    let (width, whole) = (from.cols(), from.rows() / ROWS * ROWS);
    for r in (0..whole).step_by(ROWS) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &from.row(r + i)[..width]);
        for (i, to) in to.chunks_exact_mut(QUERIES).take(width).enumerate() {
            to[r..r + ROWS].copy_from_slice(&[a[i], b[i], c[i], d[i]]);
        }
    }
    for r in whole..from.rows() {
        for (to, &value) in to.chunks_exact_mut(QUERIES).zip(from.row(r)) {
            to[r] = value;
        }
    }
}

/// `to_ji = scale k_j · q_i` for the first `count` queries, of which `turned` is the transpose.
#[inline(always)]
fn scores<S: Simd>(s: S, k: Mat<'_>, turned: &[f32], count: usize, scale: f32, to: &mut [f32]) {
    let mut key = 0;
    while key + ROWS <= k.rows() {
        score_rows::<S, ROWS>(s, k, key, turned, count, scale, to);
        key += ROWS;
    }
    for key in key..k.rows() {
        score_rows::<S, 1>(s, k, key, turned, count, scale, to);
    }
}

/// The scores of keys `key .. key + R`.
#[inline(always)]
fn score_rows<S: Simd, const R: usize>(
    s: S,
    k: Mat<'_>,
    key: usize,
    turned: &[f32],
    count: usize,
    scale: f32,
    to: &mut [f32],
) {
    let mut keys: [&[f32]; R] = [&[]; R];
    for (r, row) in keys.iter_mut().enumerate() {
        *row = k.row(key + r);
    }
    let mut from = 0;
    while from < count {
        let mut sums = [[s.splat(0.0); 2]; R];
        for (c, queries) in turned.chunks_exact(QUERIES).take(k.cols()).enumerate() {
            let queries = &queries[from..from + 2 * S::LANES];
            let right = [s.load(queries), s.load(&queries[S::LANES..])];
            for (sums, key) in sums.iter_mut().zip(keys) {
                let left = s.splat(key[c]);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = s.mul_add(left, right, *sum);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let to = &mut to[(key + r) * QUERIES + from..][..2 * S::LANES];
            for (v, sum) in sums.into_iter().enumerate() {
                s.store(&mut to[v * S::LANES..], s.mul(sum, s.splat(scale)));
            }
        }
        from += 2 * S::LANES;
    }
}

/// The softmax of each of the first `count` columns.
#[inline(always)]
fn softmax<S: Simd>(s: S, count: usize, scores: &mut [f32]) {
    for from in (0..count).step_by(S::LANES) {
        let mut largest = s.splat(f32::NEG_INFINITY);
        for row in scores.chunks_exact(QUERIES) {
            largest = s.max(s.load(&row[from..]), largest);
        }
        let mut sum = s.splat(0.0);
        for row in scores.chunks_exact_mut(QUERIES) {
            let e = exp(s, s.sub(s.load(&row[from..]), largest));
            sum = s.add(sum, e);
            s.store(&mut row[from..], e);
        }
        let inverse = s.div(s.splat(1.0), sum);
        for row in scores.chunks_exact_mut(QUERIES) {
            let weight = s.mul(s.load(&row[from..]), inverse);
            s.store(&mut row[from..], weight);
        }
    }
}

/// Turns the slopes at the weights `p` into those at the scores: `scale p (dp − Σ p dp)`, column by column.
#[inline(always)]
fn softmax_slopes<S: Simd>(s: S, count: usize, scale: f32, weights: &[f32], slopes: &mut [f32]) {
    for from in (0..count).step_by(S::LANES) {
        let mut mean = s.splat(0.0);
        for (p, dp) in weights.chunks_exact(QUERIES).zip(slopes.chunks_exact(QUERIES)) {
            mean = s.mul_add(s.load(&p[from..]), s.load(&dp[from..]), mean);
        }
        for (p, dp) in weights.chunks_exact(QUERIES).zip(slopes.chunks_exact_mut(QUERIES)) {
            let p = s.mul(s.load(&p[from..]), s.splat(scale));
            let slope = s.mul(p, s.sub(s.load(&dp[from..]), mean));
            s.store(&mut dp[from..], slope);
        }
    }
}

/// How much each row of a result takes of each row that it is made of.
#[derive(Clone, Copy)]
struct Weights<'a> {
    of: &'a [f32],
    /// Step from one row of the result to the next.
    to: usize,
    /// Step from one row that is taken to the next.
    from: usize,
}

/// `to_t = Σ_u w_tu from_u`, written or, with `accumulate`, added.
#[inline(always)]
fn mix<S: Simd>(s: S, weights: Weights<'_>, from: Mat<'_>, accumulate: bool, mut to: MatMut<'_>) {
    let mut row = 0;
    while row + ROWS <= to.rows() {
        mix_rows::<S, ROWS>(s, weights, from, accumulate, &mut to, row);
        row += ROWS;
    }
    for row in row..to.rows() {
        mix_rows::<S, 1>(s, weights, from, accumulate, &mut to, row);
    }
}

/// Rows `row .. row + R` of the result, two vectors of columns at a time.
#[inline(always)]
fn mix_rows<S: Simd, const R: usize>(
    s: S,
    weights: Weights<'_>,
    from: Mat<'_>,
    accumulate: bool,
    to: &mut MatMut<'_>,
    row: usize,
) {
    for column in (0..from.cols()).step_by(2 * S::LANES) {
        let lanes = (from.cols() - column).min(2 * S::LANES);
        let (from, mut to) = (from.columns(column, lanes), to.columns(column, lanes));
        match (lanes > S::LANES, lanes.is_multiple_of(S::LANES)) {
            (true, true) => mix_columns::<S, R, 2, true>(s, weights, from, accumulate, &mut to, row),
            (true, false) => mix_columns::<S, R, 2, false>(s, weights, from, accumulate, &mut to, row),
            (false, true) => mix_columns::<S, R, 1, true>(s, weights, from, accumulate, &mut to, row),
            (false, false) => mix_columns::<S, R, 1, false>(s, weights, from, accumulate, &mut to, row),
        }
    }
}

/// The same of `V` vectors of columns, all of them `WHOLE` or the last one in part.
#[inline(always)]
fn mix_columns<S: Simd, const R: usize, const V: usize, const WHOLE: bool>(
    s: S,
    weights: Weights<'_>,
    from: Mat<'_>,
    accumulate: bool,
    to: &mut MatMut<'_>,
    row: usize,
) {
    let mut sums = [[s.splat(0.0); V]; R];
    if accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = load_row::<S, V, WHOLE>(s, to.row(row + r));
        }
    }
    for u in 0..from.rows() {
        let right = load_row::<S, V, WHOLE>(s, from.row(u));
        let weights_of = &weights.of[row * weights.to + u * weights.from..][..(R - 1) * weights.to + 1];
        for (r, sums) in sums.iter_mut().enumerate() {
            let weight = s.splat(weights_of[r * weights.to]);
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = s.mul_add(weight, right, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        store_row::<S, V, WHOLE>(s, to.row_mut(row + r), sums);
    }
}
