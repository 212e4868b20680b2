use manygate_kernels::math::*;

use manygate_kernels::isa::Isa;
use manygate_kernels::simd::Simd;

macro_rules! over_slices {
    ($($name:ident, $body:ident, $function:ident;)*) => {$(
        #[inline(always)]
        fn $body<S: Simd>(s: S, x: &mut [f32]) {
            let mut parts = x.chunks_exact_mut(S::LANES);
            for part in &mut parts {
                let v = $function(s, s.load(part));
                s.store(part, v);
            }
            let rest = parts.into_remainder();
            let v = $function(s, s.load_part(rest));
            s.store_part(rest, v);
        }
        manygate_kernels::dispatch! {
            #[allow(unreachable_pub)]
            pub fn $name(x: &mut [f32]) = $body;
        }
    )*};
}
over_slices! {
    exp_all, exp_body, exp;
    sigmoid_all, sigmoid_body, sigmoid;
    tanh_all, tanh_body, tanh;
    log1p_all, log1p_body, log1p_exp_neg_abs;
}

/// Largest relative error over `from ..= to` on every instruction set, with a length that has a tail.
fn worst(from: f32, to: f32, f: fn(Isa, &mut [f32]), exact: impl Fn(f64) -> f64) -> f64 {
    const COUNT: usize = 200_003;
    let x: Vec<f32> = (0..COUNT).map(|i| from + (to - from) * i as f32 / (COUNT - 1) as f32).collect();
    let error = |isa: Isa| {
        let mut y = x.clone();
        f(isa, &mut y);
        let pairs = x.iter().zip(&y).filter(|(x, _)| **x != 0.0);
        pairs.map(|(&x, &y)| (f64::from(y) / exact(f64::from(x)) - 1.0).abs()).fold(0.0, f64::max)
    };
    Isa::available().into_iter().map(error).fold(0.0, f64::max)
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic on many values")]
fn errors_against_f64_are_a_few_roundings() {
    let softplus = |x: f64| (-x.abs()).exp().ln_1p();
    for (from, to) in [(-87.3, 88.37), (-1.0, 1.0), (-1e-3, 1e-3)] {
        let error = worst(from, to, exp_all, f64::exp);
        assert!(error < 1.5e-7, "exp on {from} .. {to}: {error:e}");
        let error = worst(from, to, sigmoid_all, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(error < 3e-7, "sigmoid on {from} .. {to}: {error:e}");
        let error = worst(from, to, tanh_all, f64::tanh);
        assert!(error < 3e-7, "tanh on {from} .. {to}: {error:e}");
        let error = worst(from.max(-87.0), to.min(87.0), log1p_all, softplus);
        assert!(error < 4e-7, "log1p on {from} .. {to}: {error:e}");
    }
}

#[test]
fn the_ends_and_nan_are_as_documented() {
    let inf = f32::INFINITY;
    let ends = [-inf, -1e30, -88.0, 0.0, 89.0, 1e30, inf, f32::NAN];
    for isa in Isa::available() {
        let check = |f: fn(Isa, &mut [f32]), expected: [f32; 8]| {
            let mut y = ends;
            f(isa, &mut y);
            for i in 0..8 {
                let same = y[i] == expected[i] || (y[i].is_nan() && expected[i].is_nan());
                assert!(same, "{isa}, x = {}: {} and not {}", ends[i], y[i], expected[i]);
            }
        };
        let nan = f32::NAN;
        let ln2 = std::f32::consts::LN_2;
        check(exp_all, [0.0, 0.0, 0.0, 1.0, inf, inf, inf, nan]);
        check(tanh_all, [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, nan]);
        check(log1p_all, [0.0, 0.0, 0.0, ln2, 0.0, 0.0, 0.0, nan]);
        let mut y = ends;
        sigmoid_all(isa, &mut y);
        assert_eq!((y[0], y[1], y[3], y[4], y[6]), (0.0, 0.0, 0.5, 1.0, 1.0));
        assert!(y[2] > 0.0 && y[2] < 1e-37 && y[7].is_nan());
    }
}
