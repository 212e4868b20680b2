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

/// When a unit is pruned: where its weight `v = γ sigmoid(α r)` is not above ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pruning {
    /// γ, the largest weight.
    pub scale: f32,
    /// α.
    pub steepness: f32,
    /// ε.
    pub threshold: f32,
}

/// What a unit is multiplied by, as a function of any number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amplitude {
    /// `γ / (1 + e^-r)`, between 0 and γ.
    Sigmoid(f32),
    /// `e^r`.
    Exp,
    /// `1 + r`.
    OnePlus,
    /// The weight of a unit that is not pruned, 0 for others, whose gradient is 0 too.
    Pruned(Pruning),
    /// 1 for a unit that is not pruned, 0 for others.
    Mask {
        /// Which are.
        pruning: Pruning,
        /// Whether the gradient is that of the weight, as if the step were none; else it is 0.
        straight_through: bool,
    },
}

impl Pruning {
    /// The weight v of each lane and its derivative.
    #[inline(always)]
    fn weight<S: Simd>(self, s: S, r: S::V) -> (S::V, S::V) {
        let share = math::sigmoid(s, s.mul(s.splat(self.steepness), r));
        let v = s.mul(s.splat(self.scale), share);
        (v, s.mul(s.mul(s.splat(self.steepness), v), s.sub(s.splat(1.0), share)))
    }

    /// `open` where the weight is above the threshold, else 0, and NaN where it is NaN.
    #[inline(always)]
    fn only<S: Simd>(self, s: S, v: S::V, open: S::V) -> S::V {
        // In this order `min` is 0 for a weight, and hands a NaN through.
        s.select(s.greater(v, s.splat(self.threshold)), open, s.min(s.splat(0.0), v))
    }
}

impl Amplitude {
    /// The amplitude of one argument.
    pub fn of(self, r: f64) -> f64 {
        let weight = |p: Pruning| f64::from(p.scale) / (1.0 + (-f64::from(p.steepness) * r).exp());
        let open = |p: Pruning| weight(p) > f64::from(p.threshold);
        match self {
            Amplitude::Sigmoid(scale) => f64::from(scale) / (1.0 + (-r).exp()),
            Amplitude::Exp => r.exp(),
            Amplitude::OnePlus => 1.0 + r,
            Amplitude::Pruned(pruning) => {
                if open(pruning) {
                    weight(pruning)
                } else {
                    0.0
                }
            }
            Amplitude::Mask { pruning, .. } => f64::from(u8::from(open(pruning))),
        }
    }

    /// The amplitude of each lane and its derivative.
    #[inline(always)]
    fn with_slope<S: Simd>(self, s: S, r: S::V) -> (S::V, S::V) {
        let one = s.splat(1.0);
        match self {
            Amplitude::Sigmoid(scale) => Pruning { scale, steepness: 1.0, threshold: 0.0 }.weight(s, r),
            Amplitude::Exp => {
                let a = math::exp(s, r);
                (a, a)
            }
            Amplitude::OnePlus => (s.add(one, r), one),
            Amplitude::Pruned(pruning) => {
                let (v, slope) = pruning.weight(s, r);
                (pruning.only(s, v, v), pruning.only(s, v, slope))
            }
            Amplitude::Mask { pruning, straight_through } => {
                let (v, slope) = pruning.weight(s, r);
                (pruning.only(s, v, one), if straight_through { slope } else { s.splat(0.0) })
            }
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
            let (a, _) = amplitude.with_slope(s, load_span(s, arguments, span));
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
        let mask = mask.map(|(activation, output)| (activation, output.row(row)));
        let mut at = 0;
        for span in spans(s, arguments.len()) {
            let (a, slope) = amplitude.with_slope(s, load_span(s, arguments, span));
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
                let add = s.mul(da, slope);
                let adds = dr.accumulate || is_table;
                store_span(s, to, span, if adds { s.add(load_span(s, to, span), add) } else { add });
            }
        }
    }
}

dispatch! {
    /// How many units `r` leaves unpruned.
    pub fn unpruned(pruning: Pruning, r: Mat<'_>) -> f64 = unpruned_body;
}

#[inline(always)]
fn unpruned_body<S: Simd>(s: S, pruning: Pruning, r: Mat<'_>) -> f64 {
    let mut total = 0.0;
    for row in 0..r.rows() {
        let r = r.row(row);
        for span in spans(s, r.len()) {
            let (v, _) = pruning.weight(s, load_span(s, r, span));
            let mut open = [0.0f32; MAX_LANES];
            s.store(&mut open, pruning.only(s, v, s.splat(1.0)));
            for &open in &open[..span.lanes] {
                total += f64::from(open);
            }
        }
    }
    total
}

dispatch! {
    /// `dr = factor v'(r)`: the gradient of `factor` times the sum of the weights.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn pruning_dr(pruning: Pruning, r: Mat<'_>, factor: f32, dr: Target<'_>) = pruning_dr_body;
}

#[inline(always)]
fn pruning_dr_body<S: Simd>(s: S, pruning: Pruning, r: Mat<'_>, factor: f32, mut dr: Target<'_>) {
    assert_eq!((r.rows(), r.cols()), (dr.to.rows(), dr.to.cols()), "pruning_dr: r and dr differ in shape");
    for row in 0..r.rows() {
        let (r, to) = (r.row(row), dr.to.row_mut(row));
        for span in spans(s, r.len()) {
            let (_, slope) = pruning.weight(s, load_span(s, r, span));
            let add = s.mul(s.splat(factor), slope);
            store_span(s, to, span, if dr.accumulate { s.add(load_span(s, to, span), add) } else { add });
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
