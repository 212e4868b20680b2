//! Units times amplitudes, `y = x ⊙ a(r)`, and the gradients.
//!
//! An amplitude is taken from its argument again in the backward pass: some twenty instructions a vector, where a product
//! of a hidden layer takes hundreds for the unit it multiplies.

use crate::activation::Activation;
use crate::dispatch;
use crate::lanes::{MAX_LANES, Span, load_span, spans, store_span};
use crate::math;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// What a unit is multiplied by, as a function of any number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amplitude {
    /// `γ / (1 + e^-r)`, between 0 and γ.
    Sigmoid(f32),
    /// `e^r`.
    Exp,
    /// `1 + r`.
    OnePlus,
}

impl Amplitude {
    /// The amplitude of each lane.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, r: S::V) -> S::V {
        match self {
            Amplitude::Sigmoid(gamma) => s.mul(s.splat(gamma), math::sigmoid(s, r)),
            Amplitude::Exp => math::exp(s, r),
            Amplitude::OnePlus => s.add(s.splat(1.0), r),
        }
    }

    /// The derivative of each lane, from the amplitude.
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, a: S::V) -> S::V {
        match self {
            Amplitude::Sigmoid(gamma) => {
                let share = s.mul(a, s.splat(1.0 / gamma));
                s.mul(a, s.sub(s.splat(1.0), share))
            }
            Amplitude::Exp => a,
            Amplitude::OnePlus => s.splat(1.0),
        }
    }
}

/// The arguments of amplitudes, and which of them a unit takes.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    /// `[rows, n]`, or a table `[any, n]` with `rows`.
    pub values: Mat<'a>,
    /// For each row of units the row of the table that it takes.
    pub rows: Option<&'a [u32]>,
    /// How many units side by side each of the n multiplies; empty where each multiplies one.
    pub parts: &'a [usize],
}

impl Arguments<'_> {
    fn check(&self, units: Mat<'_>) {
        let cols = self.values.cols();
        let (wide, parts) = (self.parts.iter().sum::<usize>(), self.parts.len());
        let fits = if parts == 0 { cols == units.cols() } else { parts == cols && wide == units.cols() };
        assert!(fits, "amplitudes: {cols} in parts of {:?} for {} units", self.parts, units.cols());
        let rows = self.rows.map_or(self.values.rows(), <[u32]>::len);
        assert_eq!(rows, units.rows(), "amplitudes: not one row for each row of units");
    }

    #[inline(always)]
    fn row_of(&self, r: usize) -> usize {
        match self.rows {
            None => r,
            Some(rows) => rows[r] as usize,
        }
    }
}

/// Where a gradient goes.
#[derive(Debug)]
pub struct Target<'a> {
    /// The view to write.
    pub to: MatMut<'a>,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

dispatch! {
    /// `y = x ⊙ a(r)`, `[rows, units]` each.
    ///
    /// # Panics
    /// When the shapes disagree.
    pub fn amplify(amplitude: Amplitude, x: Mat<'_>, r: Arguments<'_>, y: MatMut<'_>) = amplify_body;
}

#[inline(always)]
fn amplify_body<S: Simd>(s: S, amplitude: Amplitude, x: Mat<'_>, r: Arguments<'_>, mut y: MatMut<'_>) {
    r.check(x);
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "amplify: x and y differ in shape");
    for row in 0..x.rows() {
        let (x, y, arguments) = (x.row(row), y.row_mut(row), r.values.row(r.row_of(row)));
        let mut at = 0;
        for span in spans(s, arguments.len()) {
            let a = amplitude.apply(s, load_span(s, arguments, span));
            if r.parts.is_empty() {
                store_span(s, y, span, s.mul(a, load_span(s, x, span)));
                continue;
            }
            let factors = lanes_of(s, a);
            for lane in 0..span.lanes {
                let width = r.parts[span.from + lane];
                for part in spans(s, width) {
                    let part = part.shifted(at);
                    store_span(s, y, part, s.mul(s.splat(factors[lane]), load_span(s, x, part)));
                }
                at += width;
            }
        }
    }
}

dispatch! {
    /// The gradients of [`amplify`], from that of y: `dx = dy ⊙ a(r)`, then, with a `mask`, times the slope of the
    /// activation with that output; `dr = dy ⊙ x ⊙ a'(r)`, summed over the units of a part and, where there is a table,
    /// over the rows of units that take a row of it.
    ///
    /// # Panics
    /// When the shapes disagree.
    pub fn amplify_backward(
        amplitude: Amplitude, x: Mat<'_>, r: Arguments<'_>, dy: Mat<'_>,
        dx: Option<Target<'_>>, mask: Option<(Activation, Mat<'_>)>, dr: Option<Target<'_>>,
    ) = backward_body;
}

#[inline(always)]
fn backward_body<S: Simd>(
    s: S,
    amplitude: Amplitude,
    x: Mat<'_>,
    r: Arguments<'_>,
    dy: Mat<'_>,
    mut dx: Option<Target<'_>>,
    mask: Option<(Activation, Mat<'_>)>,
    mut dr: Option<Target<'_>>,
) {
    let shape = (x.rows(), x.cols());
    r.check(x);
    assert_eq!((dy.rows(), dy.cols()), shape, "amplify_backward: x and dy differ in shape");
    let is_table = r.rows.is_some();
    if let Some(dr) = &mut dr
        && is_table
        && !dr.accumulate
    {
        dr.to.fill(0.0);
    }
    for row in 0..x.rows() {
        let source = r.row_of(row);
        let (x, dy, arguments) = (x.row(row), dy.row(row), r.values.row(source));
        let mask = match mask {
            Some((activation, output)) => Some((activation, output.row(row))),
            None => None,
        };
        let mut at = 0;
        for span in spans(s, arguments.len()) {
            let a = amplitude.apply(s, load_span(s, arguments, span));
            let mut da = s.splat(0.0);
            if r.parts.is_empty() {
                da = s.mul(load_span(s, dy, span), load_span(s, x, span));
                if let Some(dx) = &mut dx {
                    put_dx(
                        s,
                        dx.to.row_mut(row),
                        dx.accumulate,
                        mask,
                        span,
                        s.mul(a, load_span(s, dy, span)),
                    );
                }
            } else {
                let factors = lanes_of(s, a);
                let mut sums = [0.0f32; MAX_LANES];
                for lane in 0..span.lanes {
                    let width = r.parts[span.from + lane];
                    let (factor, mut sum) = (s.splat(factors[lane]), s.splat(0.0));
                    for part in spans(s, width) {
                        let part = part.shifted(at);
                        let d = load_span(s, dy, part);
                        sum = s.mul_add(d, load_span(s, x, part), sum);
                        if let Some(dx) = &mut dx {
                            put_dx(s, dx.to.row_mut(row), dx.accumulate, mask, part, s.mul(factor, d));
                        }
                    }
                    sums[lane] = s.sum(sum);
                    at += width;
                }
                da = s.add(da, load_span(s, &sums, Span { from: 0, ..span }));
            }
            if let Some(dr) = &mut dr {
                let to = dr.to.row_mut(source);
                let add = s.mul(da, amplitude.slope(s, a));
                let adds = dr.accumulate || is_table;
                store_span(s, to, span, if adds { s.add(load_span(s, to, span), add) } else { add });
            }
        }
    }
}

/// The lanes of a vector, 0 behind them.
#[inline(always)]
fn lanes_of<S: Simd>(s: S, v: S::V) -> [f32; MAX_LANES] {
    let mut lanes = [0.0f32; MAX_LANES];
    s.store(&mut lanes, v);
    lanes
}

/// Gives a span of dx.
#[inline(always)]
fn put_dx<S: Simd>(
    s: S,
    dx: &mut [f32],
    accumulate: bool,
    mask: Option<(Activation, &[f32])>,
    span: Span,
    add: S::V,
) {
    let mut d = if accumulate { s.add(load_span(s, dx, span), add) } else { add };
    if let Some((activation, output)) = mask {
        d = s.mul(d, activation.slope_from_output(s, load_span(s, output, span)));
    }
    store_span(s, dx, span, d);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values};
    use proptest::prelude::*;

    const ALL: [Amplitude; 3] = [Amplitude::Sigmoid(2.0), Amplitude::Exp, Amplitude::OnePlus];

    fn exact(amplitude: Amplitude, r: f64) -> f64 {
        match amplitude {
            Amplitude::Sigmoid(gamma) => f64::from(gamma) / (1.0 + (-r).exp()),
            Amplitude::Exp => r.exp(),
            Amplitude::OnePlus => 1.0 + r,
        }
    }

    fn slope(amplitude: Amplitude, r: f64) -> f64 {
        let h = 1e-5;
        (exact(amplitude, r + h) - exact(amplitude, r - h)) / (2.0 * h)
    }

    proptest! {
        #[test]
        fn units_and_gradients_agree_with_f64(
            rows in 0usize..5, parts in prop::collection::vec(1usize..21, 1..20), one_each: bool, table: bool,
            pad in 0usize..3, accumulate: bool, masked: bool, seed: u64,
        ) {
            let parts = if one_each { Vec::new() } else { parts };
            let (n, units) = if one_each { (seed as usize % 40, seed as usize % 40) }
                else { (parts.len(), parts.iter().sum()) };
            let stride = units + pad;
            let source: Vec<u32> = (0..rows as u32).map(|r| (r * 7) % 3).collect();
            let r_rows = if table { 3 } else { rows };
            let [x, dy, old, h] = [0, 1, 2, 3].map(|i| values(seed ^ i, rows * stride, 2.0));
            let [r, old_dr] = [4, 5].map(|i| values(seed ^ i, r_rows * n, 2.0));
            let unit_of: Vec<usize> = if one_each { (0..n).collect() } else {
                parts.iter().enumerate().flat_map(|(g, &width)| std::iter::repeat_n(g, width)).collect() };
            let arguments = Arguments {
                values: Mat::new(&r, r_rows, n), rows: table.then_some(&source[..]), parts: &parts };
            let view = |data| Mat::strided(data, rows, units, stride);
            for (isa, amplitude) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a))) {
                let [mut y, mut dx, mut dr] = [&old, &old, &old_dr].map(Clone::clone);
                amplify(isa, amplitude, view(&x), arguments, MatMut::strided(&mut y, rows, units, stride));
                let mask = masked.then_some((Activation::Relu, view(&h)));
                amplify_backward(isa, amplitude, view(&x), arguments, view(&dy),
                    Some(Target { to: MatMut::strided(&mut dx, rows, units, stride), accumulate }), mask,
                    Some(Target { to: MatMut::new(&mut dr, r_rows, n), accumulate }));
                let mut sums: Vec<f64> = old_dr.iter().map(|&v| if accumulate { f64::from(v) } else { 0.0 }).collect();
                for (row, c) in (0..rows).flat_map(|row| (0..stride).map(move |c| (row, c))) {
                    let i = row * stride + c;
                    if c >= units {
                        prop_assert_eq!((y[i], dx[i]), (old[i], old[i]), "padding was written");
                        continue;
                    }
                    let at = (if table { source[row] as usize } else { row }) * n + unit_of[c];
                    let (x, dy, r) = (f64::from(x[i]), f64::from(dy[i]), f64::from(r[at]));
                    let a = exact(amplitude, r);
                    prop_assert!(close(y[i], a * x, 1e-6), "{isa} {amplitude:?}: {}", y[i]);
                    let before = if accumulate { f64::from(old[i]) } else { 0.0 };
                    let open = if masked && h[i] <= 0.0 { 0.0 } else { 1.0 };
                    prop_assert!(close(dx[i], open * (before + a * dy), 2e-6), "{isa} {amplitude:?}: {}", dx[i]);
                    sums[at] += dy * x * slope(amplitude, r);
                }
                for (got, expected) in dr.iter().zip(&sums) {
                    prop_assert!(close(*got, *expected, 1e-5), "{isa} {amplitude:?}: {got}, {expected}");
                }
            }
        }
    }

    #[test]
    fn nan_is_never_hidden() {
        let (x, r) = ([f32::NAN, 1.0, 1.0], [0.0, f32::NAN, 0.0]);
        for (isa, amplitude) in Isa::available().into_iter().flat_map(|isa| ALL.map(|a| (isa, a))) {
            let mut y = [0.0; 3];
            let arguments = Arguments { values: Mat::new(&r, 1, 3), rows: None, parts: &[] };
            amplify(isa, amplitude, Mat::new(&x, 1, 3), arguments, MatMut::new(&mut y, 1, 3));
            assert!(y[0].is_nan() && y[1].is_nan() && !y[2].is_nan(), "{isa} {amplitude:?}: {y:?}");
        }
    }
}
