//! Pieces of attention over a list: one query, or one vector of weights, and the rows of one sample's ids.
//!
//! A list is walked row by row and read once; nothing as long as the list, let alone its square, is written but the
//! results themselves.

use crate::dispatch;
use crate::lanes::{load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// A vector beside what is there, or in place of it.
#[inline(always)]
fn put<S: Simd>(s: S, to: &mut [f32], span: crate::lanes::Span, accumulate: bool, v: S::V) {
    let v = if accumulate { s.add(load_span(s, to, span), v) } else { v };
    store_span(s, to, span, v);
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for span in spans(s, a.len()) {
        sum = s.mul_add(load_span(s, a, span), load_span(s, b, span), sum);
    }
    s.sum(sum)
}

dispatch! {
    /// `z_i = [q ; k_i ; q - k_i ; q * k_i]` for every row of `k`.
    ///
    /// # Panics
    /// When shapes differ.
    pub fn compare(q: &[f32], k: Mat<'_>, z: MatMut<'_>) = compare_body;
}

#[inline(always)]
fn compare_body<S: Simd>(s: S, q: &[f32], k: Mat<'_>, mut z: MatMut<'_>) {
    let n = q.len();
    assert_eq!((k.rows(), n, 4 * n), (z.rows(), k.cols(), z.cols()), "compare: shapes differ");
    for i in 0..k.rows() {
        let (k, z) = (k.row(i), z.row_mut(i));
        for span in spans(s, n) {
            let (a, b) = (load_span(s, q, span), load_span(s, k, span));
            store_span(s, z, span, a);
            store_span(s, z, span.shifted(n), b);
            store_span(s, z, span.shifted(2 * n), s.sub(a, b));
            store_span(s, z, span.shifted(3 * n), s.mul(a, b));
        }
    }
}

dispatch! {
    /// The gradient of [`compare`] at `k`: written to `dk`, or added with `accumulate`.
    ///
    /// # Panics
    /// When shapes differ.
    pub fn compare_dk(q: &[f32], dz: Mat<'_>, accumulate: bool, dk: MatMut<'_>) = compare_dk_body;
}

#[inline(always)]
fn compare_dk_body<S: Simd>(s: S, q: &[f32], dz: Mat<'_>, accumulate: bool, mut dk: MatMut<'_>) {
    let n = q.len();
    assert_eq!((dk.rows(), n, 4 * n), (dz.rows(), dk.cols(), dz.cols()), "compare_dk: shapes differ");
    for i in 0..dz.rows() {
        let (dz, dk) = (dz.row(i), dk.row_mut(i));
        for span in spans(s, n) {
            let [b, c, d] = [1, 2, 3].map(|part| load_span(s, dz, span.shifted(part * n)));
            put(s, dk, span, accumulate, s.mul_add(load_span(s, q, span), d, s.sub(b, c)));
        }
    }
}

dispatch! {
    /// The gradient of [`compare`] at `q`, zero for a list without rows: written to `dq`, or added with `accumulate`.
    ///
    /// # Panics
    /// When shapes differ.
    pub fn compare_dq(k: Mat<'_>, dz: Mat<'_>, accumulate: bool, dq: &mut [f32]) = compare_dq_body;
}

#[inline(always)]
fn compare_dq_body<S: Simd>(s: S, k: Mat<'_>, dz: Mat<'_>, accumulate: bool, dq: &mut [f32]) {
    let n = dq.len();
    assert_eq!((k.rows(), n, 4 * n), (dz.rows(), k.cols(), dz.cols()), "compare_dq: shapes differ");
    if !accumulate {
        dq.fill(0.0);
    }
    for i in 0..dz.rows() {
        let (k, dz) = (k.row(i), dz.row(i));
        for span in spans(s, n) {
            let [a, c, d] = [0, 2, 3].map(|part| load_span(s, dz, span.shifted(part * n)));
            put(s, dq, span, true, s.mul_add(load_span(s, k, span), d, s.add(a, c)));
        }
    }
}

dispatch! {
    /// `y = Σ_i w_i x_i` over the rows of `x`; zeros where it has none.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn weighted_sum(w: &[f32], x: Mat<'_>, y: &mut [f32]) = weighted_sum_body;
}

#[inline(always)]
fn weighted_sum_body<S: Simd>(s: S, w: &[f32], x: Mat<'_>, y: &mut [f32]) {
    assert_eq!((w.len(), y.len()), (x.rows(), x.cols()), "weighted_sum: lengths differ");
    y.fill(0.0);
    for (i, &w) in w.iter().enumerate() {
        let x = x.row(i);
        for span in spans(s, x.len()) {
            let sum = s.mul_add(s.splat(w), load_span(s, x, span), load_span(s, y, span));
            store_span(s, y, span, sum);
        }
    }
}

dispatch! {
    /// `y_i = w_i v` for every row of `y`, written or, with `accumulate`, added.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn outer(w: &[f32], v: &[f32], accumulate: bool, y: MatMut<'_>) = outer_body;
}

#[inline(always)]
fn outer_body<S: Simd>(s: S, w: &[f32], v: &[f32], accumulate: bool, mut y: MatMut<'_>) {
    assert_eq!((w.len(), v.len()), (y.rows(), y.cols()), "outer: lengths differ");
    for (i, &w) in w.iter().enumerate() {
        let y = y.row_mut(i);
        for span in spans(s, v.len()) {
            put(s, y, span, accumulate, s.mul(s.splat(w), load_span(s, v, span)));
        }
    }
}

dispatch! {
    /// `to_i = x_i · v` for every row of `x`.
    ///
    /// # Panics
    /// When lengths differ.
    pub fn dots(x: Mat<'_>, v: &[f32], to: &mut [f32]) = dots_body;
}

#[inline(always)]
fn dots_body<S: Simd>(s: S, x: Mat<'_>, v: &[f32], to: &mut [f32]) {
    assert_eq!((to.len(), v.len()), (x.rows(), x.cols()), "dots: lengths differ");
    for (i, to) in to.iter_mut().enumerate() {
        *to = dot(s, x.row(i), v);
    }
}

dispatch! {
    /// One query attends to a list: `out = Σ_i softmax_i(scale q · k_i) v_i`, and `log_sum`, the logarithm of the sum of the
    /// exponentials, by which [`attend_backward`] finds the weights again. Zeros, and -∞, for a list without rows.
    ///
    /// One pass over the rows: sums are kept relative to the largest score so far, and scaled down when a larger one comes
    /// (M. Milakov, N. Gimelshein, *Online Normalizer Calculation for Softmax*, 2018).
    ///
    /// # Panics
    /// When shapes differ.
    pub fn attend(scale: f32, q: &[f32], k: Mat<'_>, v: Mat<'_>, out: &mut [f32], log_sum: &mut f32) = attend_body;
}

#[inline(always)]
fn attend_body<S: Simd>(
    s: S,
    scale: f32,
    q: &[f32],
    k: Mat<'_>,
    v: Mat<'_>,
    out: &mut [f32],
    log_sum: &mut f32,
) {
    assert_eq!((k.rows(), q.len(), out.len()), (v.rows(), k.cols(), v.cols()), "attend: shapes differ");
    let (mut largest, mut sum) = (f32::NEG_INFINITY, 0.0f32);
    out.fill(0.0);
    for i in 0..k.rows() {
        let score = scale * dot(s, q, k.row(i));
        let mut shrink = 1.0;
        if score > largest {
            shrink = (largest - score).exp();
            largest = score;
        }
        let weight = (score - largest).exp();
        sum = sum * shrink + weight;
        let v = v.row(i);
        for span in spans(s, v.len()) {
            let kept = s.mul(load_span(s, out, span), s.splat(shrink));
            store_span(s, out, span, s.mul_add(s.splat(weight), load_span(s, v, span), kept));
        }
    }
    let inverse = if k.rows() > 0 { 1.0 / sum } else { 0.0 };
    for span in spans(s, out.len()) {
        store_span(s, out, span, s.mul(load_span(s, out, span), s.splat(inverse)));
    }
    *log_sum = largest + sum.ln();
}

/// What the gradients of [`attend`] are computed from.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'a> {
    /// Factor of the scores.
    pub scale: f32,
    /// The query.
    pub q: &'a [f32],
    /// Keys.
    pub k: Mat<'a>,
    /// Values.
    pub v: Mat<'a>,
    /// The result.
    pub out: &'a [f32],
    /// The logarithm of the sum of exponentials.
    pub log_sum: f32,
    /// The gradient at the result.
    pub dout: &'a [f32],
}

/// Where a gradient goes, and whether to add to what is there.
#[derive(Debug)]
pub struct Sink<T> {
    /// The memory.
    pub to: T,
    /// Whether to add.
    pub accumulate: bool,
}

dispatch! {
    /// Gradients of [`attend`], in one pass over the rows: `dv_i = p_i dout`, `ds_i = scale p_i (dout · v_i − dout · out)`,
    /// `dq = Σ ds_i k_i`, `dk_i = ds_i q`. Those that nobody wants are left out.
    ///
    /// # Panics
    /// When shapes differ.
    pub fn attend_backward(
        at: &Attended<'_>, dq: Option<Sink<&mut [f32]>>, dk: Option<Sink<MatMut<'_>>>, dv: Option<Sink<MatMut<'_>>>,
    ) = attend_backward_body;
}

#[inline(always)]
fn attend_backward_body<S: Simd>(
    s: S,
    at: &Attended<'_>,
    mut dq: Option<Sink<&mut [f32]>>,
    mut dk: Option<Sink<MatMut<'_>>>,
    mut dv: Option<Sink<MatMut<'_>>>,
) {
    let Attended { scale, q, k, v, out, log_sum, dout } = *at;
    assert_eq!((k.rows(), q.len()), (v.rows(), k.cols()), "attend_backward: keys differ in shape");
    assert_eq!((out.len(), dout.len()), (v.cols(), v.cols()), "attend_backward: values differ in shape");
    if let Some(dq) = &mut dq
        && !dq.accumulate
    {
        dq.to.fill(0.0);
    }
    let mean = dot(s, dout, out);
    for i in 0..k.rows() {
        let weight = (scale * dot(s, q, k.row(i)) - log_sum).exp();
        let ds = scale * weight * (dot(s, dout, v.row(i)) - mean);
        if let Some(dv) = &mut dv {
            scaled(s, weight, dout, dv.accumulate, dv.to.row_mut(i));
        }
        if let Some(dk) = &mut dk {
            scaled(s, ds, q, dk.accumulate, dk.to.row_mut(i));
        }
        if let Some(dq) = &mut dq {
            scaled(s, ds, k.row(i), true, dq.to);
        }
    }
}

/// `to = factor v`, or added.
#[inline(always)]
fn scaled<S: Simd>(s: S, factor: f32, v: &[f32], accumulate: bool, to: &mut [f32]) {
    for span in spans(s, v.len()) {
        put(s, to, span, accumulate, s.mul(s.splat(factor), load_span(s, v, span)));
    }
}
