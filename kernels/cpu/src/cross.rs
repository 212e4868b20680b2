//! Cross layers: the running vector of a row times its first one. What a layer reads and writes beside its product is
//! bound by memory, so each pass is one: forward, and backward with all gradients.

use crate::dispatch;
use crate::lanes::{Span, load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// Where a gradient goes.
#[derive(Debug)]
pub struct Target<'a> {
    /// The view to write.
    pub to: MatMut<'a>,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

impl Target<'_> {
    fn check(&self, shape: (usize, usize)) {
        assert_eq!((self.to.rows(), self.to.cols()), shape, "cross: a gradient has another shape");
    }
}

/// What stands in `to` where a sum goes on, zeros where it begins.
#[inline(always)]
fn base<S: Simd>(s: S, to: &[f32], span: Span, accumulate: bool) -> S::V {
    if accumulate { load_span(s, to, span) } else { s.splat(0.0) }
}

dispatch! {
    /// `y = x0 ⊙ map + x`.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn cross(x0: Mat<'_>, map: Mat<'_>, x: Mat<'_>, y: MatMut<'_>) = cross_body;
}

#[inline(always)]
fn cross_body<S: Simd>(s: S, x0: Mat<'_>, map: Mat<'_>, x: Mat<'_>, mut y: MatMut<'_>) {
    for other in [map, x, y.as_mat()] {
        assert_eq!((other.rows(), other.cols()), (x0.rows(), x0.cols()), "cross: the shapes differ");
    }
    for r in 0..x0.rows() {
        let (x0, map, x, y) = (x0.row(r), map.row(r), x.row(r), y.row_mut(r));
        for span in spans(s, x0.len()) {
            let sum = s.mul_add(load_span(s, x0, span), load_span(s, map, span), load_span(s, x, span));
            store_span(s, y, span, sum);
        }
    }
}

dispatch! {
    /// Gradients of [`cross`]: `dx0 = dy ⊙ map`, `dmap = dy ⊙ x0`, `dx = dy`; where x is x0 itself (`same`), its two
    /// gradients are one: `dx0 = dy ⊙ map + dy`.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn cross_dx(
        x0: Mat<'_>, map: Mat<'_>, dy: Mat<'_>, same: bool, dx0: Option<Target<'_>>, dmap: Option<Target<'_>>,
        dx: Option<Target<'_>>,
    ) = cross_dx_body;
}

#[inline(always)]
fn cross_dx_body<S: Simd>(
    s: S,
    x0: Mat<'_>,
    map: Mat<'_>,
    dy: Mat<'_>,
    same: bool,
    mut dx0: Option<Target<'_>>,
    mut dmap: Option<Target<'_>>,
    mut dx: Option<Target<'_>>,
) {
    let shape = (dy.rows(), dy.cols());
    assert!(
        (x0.rows(), x0.cols()) == shape && (map.rows(), map.cols()) == shape,
        "cross_dx: the shapes differ"
    );
    for target in [&dx0, &dmap, &dx].into_iter().flatten() {
        target.check(shape);
    }
    let one = s.splat(if same { 1.0 } else { 0.0 });
    for r in 0..dy.rows() {
        let (x0, map, dy) = (x0.row(r), map.row(r), dy.row(r));
        if let Some(Target { to, accumulate }) = &mut dmap {
            let to = to.row_mut(r);
            for span in spans(s, dy.len()) {
                let sum = base(s, to, span, *accumulate);
                store_span(s, to, span, s.mul_add(load_span(s, dy, span), load_span(s, x0, span), sum));
            }
        }
        if let Some(Target { to, accumulate }) = &mut dx0 {
            let to = to.row_mut(r);
            for span in spans(s, dy.len()) {
                let sum = base(s, to, span, *accumulate);
                let factor = s.add(load_span(s, map, span), one);
                store_span(s, to, span, s.mul_add(load_span(s, dy, span), factor, sum));
            }
        }
        if let Some(Target { to, accumulate }) = &mut dx {
            let to = to.row_mut(r);
            for span in spans(s, dy.len()) {
                store_span(s, to, span, s.add(base(s, to, span, *accumulate), load_span(s, dy, span)));
            }
        }
    }
}

/// What a value is in a cross layer with a vector, `y = x0 (w · x) + b + residual`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// It is multiplied by the number of its row: x0.
    pub factor: bool,
    /// It gives that number: x.
    pub inner: bool,
    /// It is added: the residual, x itself as a rule.
    pub residual: bool,
}

dispatch! {
    /// `y = x0 (w · x) + bias + residual`; the numbers `w · x` of the rows are written to `dots` `[rows, 1]`.
    ///
    /// # Panics
    /// When shapes or lengths differ.
    pub fn cross_vector(
        x0: Mat<'_>, x: Mat<'_>, residual: Mat<'_>, w: &[f32], bias: &[f32], dots: MatMut<'_>, y: MatMut<'_>,
    ) = cross_vector_body;
}

#[inline(always)]
fn cross_vector_body<S: Simd>(
    s: S,
    x0: Mat<'_>,
    x: Mat<'_>,
    residual: Mat<'_>,
    w: &[f32],
    bias: &[f32],
    mut dots: MatMut<'_>,
    mut y: MatMut<'_>,
) {
    let shape = (y.rows(), y.cols());
    for other in [x0, x, residual] {
        assert_eq!((other.rows(), other.cols()), shape, "cross_vector: the shapes differ");
    }
    assert_eq!(
        (w.len(), bias.len(), dots.rows()),
        (shape.1, shape.1, shape.0),
        "cross_vector: lengths differ"
    );
    for r in 0..y.rows() {
        let (x0, residual, y) = (x0.row(r), residual.row(r), y.row_mut(r));
        let number = dot(s, x.row(r), w);
        dots.row_mut(r)[0] = number;
        let number = s.splat(number);
        for span in spans(s, y.len()) {
            let rest = s.add(load_span(s, bias, span), load_span(s, residual, span));
            store_span(s, y, span, s.mul_add(load_span(s, x0, span), number, rest));
        }
    }
}

/// The inner product of two rows, by two sums that do not wait for each other.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 2];
    let mut turn = 0;
    for span in spans(s, a.len()) {
        sums[turn] = s.mul_add(load_span(s, a, span), load_span(s, b, span), sums[turn]);
        turn = 1 - turn;
    }
    s.sum(s.add(sums[0], sums[1]))
}

/// Gradients of w and b, to which rows are added.
#[derive(Debug)]
pub struct VectorGradients<'a> {
    /// `[cols]`, where it is wanted.
    pub weight: Option<&'a mut [f32]>,
    /// `[cols]`, where it is wanted.
    pub bias: Option<&'a mut [f32]>,
}

dispatch! {
    /// Gradients of [`cross_vector`], with `s = w · x` (`dots`) and `q = dy · x0` of a row: `dw += q x`, `db += dy`, and for
    /// each value that has rows, by what it is there: `s dy` as the factor, `q w` as the inner one, `dy` as the residual.
    ///
    /// # Panics
    /// When shapes or lengths differ.
    pub fn cross_vector_dx(
        x0: Mat<'_>, x: Mat<'_>, w: &[f32], dots: Mat<'_>, dy: Mat<'_>, sums: VectorGradients<'_>,
        gradients: &mut [(Roles, Option<Target<'_>>)],
    ) = cross_vector_dx_body;
}

#[inline(always)]
fn cross_vector_dx_body<S: Simd>(
    s: S,
    x0: Mat<'_>,
    x: Mat<'_>,
    w: &[f32],
    dots: Mat<'_>,
    dy: Mat<'_>,
    sums: VectorGradients<'_>,
    gradients: &mut [(Roles, Option<Target<'_>>)],
) {
    let shape = (dy.rows(), dy.cols());
    let alike = (x0.rows(), x0.cols()) == shape && (x.rows(), x.cols()) == shape;
    assert!(alike && w.len() == shape.1 && dots.rows() == shape.0, "cross_vector_dx: the shapes differ");
    for (_, target) in &*gradients {
        if let Some(target) = target {
            target.check(shape);
        }
    }
    let VectorGradients { mut weight, mut bias } = sums;
    for r in 0..dy.rows() {
        let (x, dy) = (x.row(r), dy.row(r));
        let (number, q) = (dots.row(r)[0], dot(s, dy, x0.row(r)));
        if let Some(dw) = &mut weight {
            let q = s.splat(q);
            for span in spans(s, dy.len()) {
                store_span(s, dw, span, s.mul_add(q, load_span(s, x, span), load_span(s, dw, span)));
            }
        }
        if let Some(db) = &mut bias {
            for span in spans(s, dy.len()) {
                store_span(s, db, span, s.add(load_span(s, dy, span), load_span(s, db, span)));
            }
        }
        for (roles, target) in gradients.iter_mut() {
            let Some(Target { to, accumulate }) = target else { continue };
            let of_dy = if roles.factor { number } else { 0.0 } + if roles.residual { 1.0 } else { 0.0 };
            let of_w = if roles.inner { q } else { 0.0 };
            let (of_dy, of_w, to) = (s.splat(of_dy), s.splat(of_w), to.row_mut(r));
            for span in spans(s, dy.len()) {
                let sum = s.mul_add(of_dy, load_span(s, dy, span), base(s, to, span, *accumulate));
                store_span(s, to, span, s.mul_add(of_w, load_span(s, w, span), sum));
            }
        }
    }
}
