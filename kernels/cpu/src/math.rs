//! Elementary functions on vectors: the same polynomials on every instruction set.
//!
//! The polynomials were fitted for the least largest relative error on their interval and rounded to f32; what is
//! left comes from rounding. NaN stays NaN in all of them.

use crate::simd::Simd;

/// Above this, [`exp`] is infinite: the last argument whose power of two is below 2^127.5.
const EXP_MAX: f32 = 88.376_26;
/// Below this, [`exp`] is 0: its value would be subnormal.
const EXP_MIN: f32 = -87.336_54;

/// `acc * x + c` for every coefficient, highest power first.
#[inline(always)]
fn horner<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut acc = s.splat(coefficients[0]);
    for i in 1..N {
        acc = s.mul_add(acc, x, s.splat(coefficients[i]));
    }
    acc
}

/// `e^x`, relative error below 1.5e-7.
///
/// 0 below -87.33 (no subnormal results) and infinite above 88.376, 0.35 before f32 ends. NaN gives NaN.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // In this order `min` and `max` hand a NaN through.
    let inside = s.max(s.splat(EXP_MIN), s.min(s.splat(EXP_MAX), x));
    let n = s.round(s.mul(inside, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), inside);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let q = horner(s, r, [1.395_053_8e-3, 8.368_918e-3, 4.166_620_6e-2, 1.666_651_8e-1, 0.5]);
    let p = s.add(s.mul_add(q, s.mul(r, r), r), s.splat(1.0));
    let e = s.scale_by_power_of_two(p, n);
    let e = s.select(s.greater(s.splat(EXP_MIN), x), s.splat(0.0), e);
    s.select(s.greater(x, s.splat(EXP_MAX)), s.splat(f32::INFINITY), e)
}

/// `1 / (1 + e^-x)`, relative error below 3e-7; 0 below -88.376.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// Hyperbolic tangent, relative error below 3e-7.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // Near 0 the exponential form cancels; there an odd polynomial serves.
    let z = s.mul(x, x);
    let q = horner(s, z, [-5.717_037e-3, 2.065_058e-2, -5.374_35e-2, 1.333_149e-1, -3.333_328_4e-1]);
    let near = s.mul_add(s.mul(q, z), x, x);
    let one = s.splat(1.0);
    let far = s.sub(one, s.div(s.splat(2.0), s.add(exp(s, s.add(x, x)), one)));
    s.select(s.greater(s.abs(x), s.splat(0.625)), far, near)
}

/// `ln(1 + e)` for `e` in 0 ..= 1, relative error below 3e-7.
#[inline(always)]
pub fn log1p_of_unit<S: Simd>(s: S, e: S::V) -> S::V {
    // ln(1 + e) = 2 atanh(e / (2 + e)), whose argument is at most 1/3.
    let a = s.div(e, s.add(e, s.splat(2.0)));
    let z = s.mul(a, a);
    let q = horner(s, z, [1.401_223_2e-1, 1.399_957e-1, 2.001_085e-1, 3.333_320_6e-1]);
    let twice = s.add(a, a);
    s.mul_add(s.mul(q, z), twice, twice)
}

/// `ln(1 + e^-|x|)`, the smooth part of softplus and of the logistic loss; relative error below 4e-7.
#[inline(always)]
pub fn log1p_exp_neg_abs<S: Simd>(s: S, x: S::V) -> S::V {
    log1p_of_unit(s, exp(s, s.sub(s.splat(0.0), s.abs(x))))
}
