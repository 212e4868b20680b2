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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values, widen};
    use proptest::prelude::*;

    /// Values of a view, padding left out.
    fn dense(x: &[f32], rows: usize, cols: usize, stride: usize) -> Vec<f64> {
        (0..rows).flat_map(|r| widen(&x[r * stride..][..cols])).collect()
    }

    proptest! {
        #[test]
        fn crosses_agree_with_f64(rows in 0usize..6, cols in 0usize..40, pad in 0usize..3, same: bool,
            accumulate: bool, seed: u64)
        {
            let stride = cols + pad;
            let [x0, map, x, dy] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
            let x = if same { x0.clone() } else { x };
            let view = |v| Mat::strided(v, rows, cols, stride);
            let [wide0, wide_map, wide_x, wide_dy] = [&x0, &map, &x, &dy].map(|v| dense(v, rows, cols, stride));
            let start = if accumulate { 0.5 } else { 0.0 };
            for isa in Isa::available() {
                let mut y = vec![7.0; rows * stride];
                cross(isa, view(&x0), view(&map), view(&x), MatMut::strided(&mut y, rows, cols, stride));
                let mut gradients = [(); 3].map(|()| vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols]);
                let [g0, g1, g2] = &mut gradients;
                let targets = [g0, g1, g2].map(|g| Target { to: MatMut::new(g, rows, cols), accumulate });
                let [dx0, dmap, dx] = targets.map(Some);
                cross_dx(isa, view(&x0), view(&map), view(&dy), same, dx0, dmap, if same { None } else { dx });
                for (i, v) in dense(&y, rows, cols, stride).into_iter().enumerate() {
                    prop_assert!(close(v as f32, wide0[i] * wide_map[i] + wide_x[i], 1e-6), "{isa}");
                    let own = if same { wide_dy[i] } else { 0.0 };
                    prop_assert!(close(gradients[0][i], start + wide_dy[i] * wide_map[i] + own, 1e-6), "{isa}");
                    prop_assert!(close(gradients[1][i], start + wide_dy[i] * wide0[i], 1e-6), "{isa}");
                    prop_assert!(same || close(gradients[2][i], start + wide_dy[i], 1e-6), "{isa}");
                }
            }
        }

        #[test]
        fn vector_crosses_agree_with_f64(rows in 0usize..6, cols in 1usize..40, pad in 0usize..3,
            accumulate: bool, seed: u64)
        {
            let stride = cols + pad;
            let [x0, x, residual, dy] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
            let [w, bias] = [4, 5].map(|i| values(seed ^ i, cols, 1.0));
            let view = |v| Mat::strided(v, rows, cols, stride);
            let [wide0, wide_x, wide_residual, wide_dy] =
                [&x0, &x, &residual, &dy].map(|v| dense(v, rows, cols, stride));
            let inner = |a: &[f64], r: usize, b: &dyn Fn(usize) -> f64| -> f64 {
                (0..cols).map(|c| a[r * cols + c] * b(c)).sum()
            };
            let start = if accumulate { 0.5 } else { 0.0 };
            for isa in Isa::available() {
                let (mut y, mut dots) = (vec![7.0; rows * stride], vec![7.0; rows]);
                cross_vector(isa, view(&x0), view(&x), view(&residual), &w, &bias, MatMut::new(&mut dots, rows, 1),
                    MatMut::strided(&mut y, rows, cols, stride));
                let [mut dw, mut db] = [vec![1.0; cols], vec![2.0; cols]];
                let mut of_all = vec![if accumulate { 0.5 } else { f32::NAN }; rows * cols];
                let mut of_factor = of_all.clone();
                let sums = VectorGradients { weight: Some(&mut dw), bias: Some(&mut db) };
                let all = Roles { factor: true, inner: true, residual: true };
                let mut gradients = [
                    (all, Some(Target { to: MatMut::new(&mut of_all, rows, cols), accumulate })),
                    (Roles { inner: true, ..Roles::default() }, None),
                    (Roles { factor: true, ..Roles::default() },
                        Some(Target { to: MatMut::new(&mut of_factor, rows, cols), accumulate })),
                ];
                cross_vector_dx(isa, view(&x0), view(&x), &w, Mat::new(&dots, rows, 1), view(&dy), sums,
                    &mut gradients);
                let wide_y = dense(&y, rows, cols, stride);
                let (mut sum_w, mut sum_b) = (vec![1.0; cols], vec![2.0; cols]);
                for r in 0..rows {
                    let number = inner(&wide_x, r, &|c| f64::from(w[c]));
                    let q = inner(&wide_dy, r, &|c| wide0[r * cols + c]);
                    for c in 0..cols {
                        let (i, w) = (r * cols + c, f64::from(w[c]));
                        let sum = wide0[i] * number + f64::from(bias[c]) + wide_residual[i];
                        prop_assert!(close(wide_y[i] as f32, sum, 1e-4), "{isa}");
                        let factor = start + wide_dy[i] * number;
                        prop_assert!(close(of_factor[i], factor, 1e-4), "{isa}");
                        prop_assert!(close(of_all[i], factor + q * w + wide_dy[i], 1e-4), "{isa}");
                        sum_w[c] += q * wide_x[i];
                        sum_b[c] += wide_dy[i];
                    }
                }
                for c in 0..cols {
                    prop_assert!(close(dw[c], sum_w[c], 1e-4) && close(db[c], sum_b[c], 1e-4), "{isa}");
                }
            }
        }
    }
}
