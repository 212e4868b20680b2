//! Arithmetic on floating-point numbers.

use crate::support::{Value, binary, compute, ternary, unary};

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0f32.copysign(a) } else { a }
}

fn saturate(a: f32) -> f32 {
    if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) }
}

/// The larger or smaller number; one that is none counts if both are, and -0 is below 0.
fn extreme<T: Value + PartialOrd>(a: T, b: T, larger: bool) -> T {
    let is_nan = |v: T| v.partial_cmp(&v).is_none();
    let zeros = a == b;
    match (is_nan(a), is_nan(b)) {
        (true, _) => b,
        (_, true) => a,
        _ if zeros => T::from_bits(if larger { a.bits() & b.bits() } else { a.bits() | b.bits() }),
        _ if (a > b) == larger => a,
        _ => b,
    }
}

#[test]
fn nearest_rounding() {
    binary("add.f32", |a: f32, b: f32| a + b);
    binary("add.rn.f32", |a: f32, b: f32| a + b);
    binary("sub.f32", |a: f32, b: f32| a - b);
    binary("mul.f32", |a: f32, b: f32| a * b);
    binary("mul.rn.f32", |a: f32, b: f32| a * b);
    binary("div.rn.f32", |a: f32, b: f32| a / b);
    ternary("fma.rn.f32", |a: f32, b: f32, c: f32| a.mul_add(b, c));
    ternary("mad.rn.f32", |a: f32, b: f32, c: f32| a.mul_add(b, c));
    binary("add.f64", |a: f64, b: f64| a + b);
    binary("sub.rn.f64", |a: f64, b: f64| a - b);
    binary("mul.f64", |a: f64, b: f64| a * b);
    binary("div.rn.f64", |a: f64, b: f64| a / b);
    ternary("fma.rn.f64", |a: f64, b: f64, c: f64| a.mul_add(b, c));
    unary("rcp.rn.f32", |a: f32| 1.0 / a);
    unary("sqrt.rn.f32", |a: f32| a.sqrt());
    unary("rcp.rn.f64", |a: f64| 1.0 / a);
    unary("sqrt.rn.f64", |a: f64| a.sqrt());
}

/// Products and sums that lie halfway between two f32, or nearly.
#[test]
fn a_fused_product_is_rounded_once() {
    let half = f32::EPSILON / 2.0;
    let cases = [
        [1.0, 1.0 + f32::EPSILON, half],
        [1.0 + f32::EPSILON, 1.0 + f32::EPSILON, half],
        [1.0 + half * 2.0, 1.0 - half, half * 1e-8],
        [1.0 + half * 2.0, 1.0 - half, -half * 1e-8],
        [half, half, 1.0],
        [half, 1.0, 1.0],
        [half, 1.0 + f32::EPSILON, 1.0],
        [-half, 0.5, 1.0],
        [1e-30, 1e-15, 1e-45],
        [1e30, 1e30, f32::NEG_INFINITY],
        [f32::MIN_POSITIVE, 0.5, f32::from_bits(1)],
        [f32::MIN_POSITIVE, 0.3, 0.0],
        [3.0, 5.0, -15.0],
    ];
    let bits: Vec<_> = cases.iter().map(|case| case.map(Value::bits).to_vec()).collect();
    for (case, result) in cases.iter().zip(compute("fma.rn.f32 d, a, b, c;", "f32", &["f32"; 3], &bits)) {
        let wanted = case[0].mul_add(case[1], case[2]);
        assert!(
            f32::from_bits(result as u32).is(wanted),
            "{case:?}: {result:#x}, wanted {:#x}",
            wanted.to_bits()
        );
    }
}

/// The neighbours of a number in the direction of a rounding.
fn directed(exact: f64, up: bool) -> f32 {
    let nearest = exact as f32;
    match () {
        _ if exact.is_nan() || exact.is_infinite() => nearest,
        _ if up && f64::from(nearest) < exact => nearest.next_up(),
        _ if !up && f64::from(nearest) > exact => nearest.next_down(),
        _ => nearest,
    }
}

#[test]
fn directed_rounding() {
    let zero = |exact: f64| directed(exact, exact < 0.0);
    // Products of two f32 are exact in f64.
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    binary("mul.rz.f32", |a: f32, b: f32| zero(product(a, b)));
    binary("mul.rm.f32", |a: f32, b: f32| directed(product(a, b), false));
    binary("mul.rp.f32", |a: f32, b: f32| directed(product(a, b), true));
    // Sums are, if the operands are not too far apart.
    let near = |values: &[f64]| values.iter().map(|v| (*v as f32).bits()).collect::<Vec<_>>();
    let values = near(&[1.0, -1.0, 1.5e-7, -1.5e-7, 3e7, -0.1, 0.3, 1e-3]);
    let cases: Vec<_> = values.iter().flat_map(|a| values.iter().map(|b| vec![*a, *b])).collect();
    type Direction = fn(f64) -> f32;
    let directions: [(&str, Direction); 3] =
        [("rz", |e| directed(e, e < 0.0)), ("rm", |e| directed(e, false)), ("rp", |e| directed(e, true))];
    let number = |bits: u64| f64::from(f32::from_bits(bits as u32));
    for (name, direction) in directions {
        for (sign, opcode) in [(1.0, "add"), (-1.0, "sub")] {
            let results = compute(&format!("{opcode}.{name}.f32 d, a, b;"), "f32", &["f32"; 2], &cases);
            for (case, result) in cases.iter().zip(results) {
                let exact = number(case[0]) + sign * number(case[1]);
                assert_eq!(number(result), f64::from(direction(exact)), "{opcode}.{name} {case:x?}");
            }
        }
    }
}

#[test]
fn directed_rounding_brackets_the_nearest() {
    let values: Vec<f32> = vec![1.0, 3.0, 7.0, 0.1, 1e10, 2.0, 4.0, 1e-10];
    let cases: Vec<_> =
        values.iter().flat_map(|a| values.iter().map(|b| vec![a.bits(), b.bits(), 1])).collect();
    for (opcode, operands, is_exact) in [
        ("div", "a, b", (|a, b| (a / b).mul_add(b, -a) == 0.0) as fn(f64, f64) -> bool),
        ("rcp", "a", |a, _| (1.0 / a).mul_add(a, -1.0) == 0.0),
        ("sqrt", "a", |a, _| a.sqrt().mul_add(a.sqrt(), -a) == 0.0),
    ] {
        let of = |direction: &str| {
            let text = format!("{opcode}.{direction}.f64 d, {operands};");
            let wide: Vec<_> = cases
                .iter()
                .map(|case| {
                    case[..2].iter().map(|v| f64::from(f32::from_bits(*v as u32)).to_bits()).collect()
                })
                .collect();
            compute(&text, "f64", &["f64"; 2], &wide).into_iter().map(f64::from_bits).collect::<Vec<_>>()
        };
        let (nearest, down, up, zero) = (of("rn"), of("rm"), of("rp"), of("rz"));
        for (i, case) in cases.iter().enumerate() {
            let [a, b] = [0, 1].map(|k| f64::from(f32::from_bits(case[k] as u32)));
            assert!(down[i] <= nearest[i] && nearest[i] <= up[i], "{opcode} {a} {b}");
            let gap = if is_exact(a, b) { down[i] == up[i] } else { down[i].next_up() == up[i] };
            assert!(gap && zero[i] == down[i], "{opcode} {a} {b}: {} {}", down[i], up[i]);
        }
    }
    // In f32 all of this is exact in f64 or nearly, so that directions agree with those of the f64 result.
    let quotients = compute("div.rp.f32 d, a, b;", "f32", &["f32"; 3], &cases);
    for (case, result) in cases.iter().zip(quotients) {
        let exact = f64::from(f32::from_bits(case[0] as u32)) / f64::from(f32::from_bits(case[1] as u32));
        assert_eq!(f32::from_bits(result as u32), directed(exact, true), "{case:x?}");
    }
}

#[test]
fn directed_sums_and_products_of_f64() {
    let of = |text: &str, a: f64, b: f64, c: f64| {
        let case = vec![vec![a.to_bits(), b.to_bits(), c.to_bits()]];
        f64::from_bits(compute(text, "f64", &["f64"; 3], &case)[0])
    };
    let tiny = 1e-30;
    assert_eq!(of("add.rp.f64 d, a, b;", 1.0, tiny, 0.0), 1f64.next_up());
    assert_eq!(of("add.rm.f64 d, a, b;", 1.0, tiny, 0.0), 1.0);
    assert_eq!(of("add.rz.f64 d, a, b;", -1.0, tiny, 0.0), (-1f64).next_up());
    assert_eq!(of("sub.rz.f64 d, a, b;", 1.0, tiny, 0.0), 1f64.next_down());
    let third = 1.0 / 3.0;
    assert_eq!(of("mul.rp.f64 d, a, b;", third, 3.0, 0.0), 1.0);
    assert_eq!(of("mul.rm.f64 d, a, b;", third, 3.0, 0.0), 1f64.next_down());
    assert_eq!(of("fma.rp.f64 d, a, b, c;", 1.0, 1.0, tiny), 1f64.next_up());
    assert_eq!(of("fma.rz.f64 d, a, b, c;", 1.0, 1.0, -tiny), 1f64.next_down());
    assert_eq!(of("fma.rm.f64 d, a, b, c;", 1.0, 1.0, tiny), 1.0);
}

#[test]
fn subnormal_numbers_are_flushed_where_asked() {
    binary("add.ftz.f32", |a: f32, b: f32| flush(flush(a) + flush(b)));
    binary("sub.ftz.f32", |a: f32, b: f32| flush(flush(a) - flush(b)));
    binary("mul.ftz.f32", |a: f32, b: f32| flush(flush(a) * flush(b)));
    binary("mul.rn.ftz.f32", |a: f32, b: f32| flush(flush(a) * flush(b)));
    ternary("fma.rn.ftz.f32", |a: f32, b: f32, c: f32| flush(flush(a).mul_add(flush(b), flush(c))));
    binary("div.rn.ftz.f32", |a: f32, b: f32| flush(flush(a) / flush(b)));
    unary("rcp.rn.ftz.f32", |a: f32| flush(1.0 / flush(a)));
    unary("sqrt.rn.ftz.f32", |a: f32| flush(flush(a).sqrt()));
    unary("abs.ftz.f32", |a: f32| flush(a).abs());
    unary("neg.ftz.f32", |a: f32| -flush(a));
    binary("max.ftz.f32", |a: f32, b: f32| extreme(flush(a), flush(b), true));
}

#[test]
fn results_saturate_where_asked() {
    binary("add.sat.f32", |a: f32, b: f32| saturate(a + b));
    binary("sub.sat.f32", |a: f32, b: f32| saturate(a - b));
    binary("mul.sat.f32", |a: f32, b: f32| saturate(a * b));
    ternary("fma.rn.sat.f32", |a: f32, b: f32, c: f32| saturate(a.mul_add(b, c)));
    ternary("fma.rn.ftz.sat.f32", |a: f32, b: f32, c: f32| {
        saturate(flush(flush(a).mul_add(flush(b), flush(c))))
    });
}

#[test]
fn extremes_and_signs() {
    binary("min.f32", |a: f32, b: f32| extreme(a, b, false));
    binary("max.f32", |a: f32, b: f32| extreme(a, b, true));
    binary("min.f64", |a: f64, b: f64| extreme(a, b, false));
    binary("max.f64", |a: f64, b: f64| extreme(a, b, true));
    let or_nan = |a: f32, b: f32, value: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { value };
    binary("min.NaN.f32", |a: f32, b: f32| or_nan(a, b, extreme(a, b, false)));
    binary("max.NaN.f32", |a: f32, b: f32| or_nan(a, b, extreme(a, b, true)));
    unary("neg.f32", |a: f32| -a);
    unary("abs.f32", |a: f32| a.abs());
    unary("neg.f64", |a: f64| -a);
    unary("abs.f64", |a: f64| a.abs());
    binary("copysign.f32", |a: f32, b: f32| b.copysign(a));
    binary("copysign.f64", |a: f64, b: f64| b.copysign(a));
}

#[test]
fn what_is_not_a_number_is_one_pattern() {
    let nan = |text: &str| {
        let case = vec![vec![0x7fc0_1234, f32::INFINITY.bits(), f32::NEG_INFINITY.bits()]];
        compute(text, "f32", &["f32"; 3], &case)[0]
    };
    for text in [
        "add.f32 d, a, b;",
        "add.f32 d, b, c;",
        "mul.f32 d, a, b;",
        "fma.rn.f32 d, a, b, c;",
        "min.f32 d, a, a;",
        "div.rn.f32 d, b, c;",
        "sqrt.rn.f32 d, c;",
        "add.ftz.f32 d, a, b;",
    ] {
        assert_eq!(nan(text), 0x7fff_ffff, "{text}");
    }
}

/// That a function is within a relative error of 2^-21, as the device's approximations are, which ours are well below.
fn approximates(instruction: &str, wanted: impl Fn(f64) -> f64) {
    let tolerance = 2f64.powi(-21);
    let is_near = |result: f32, exact: f64, input: f32| {
        let exact_single = exact as f32;
        result.is(exact_single)
            || (f64::from(result) - exact).abs() <= tolerance * exact.abs().max(f64::from(f32::MIN_POSITIVE))
            || panic!("`{instruction}` of {input}: {result}, wanted {exact}")
    };
    let values: Vec<f32> = f32::edges().into_iter().chain([0.7, 3.2, -5.5, 20.25, 100.0, 1e-5]).collect();
    let cases: Vec<_> = values.iter().map(|value| vec![value.bits()]).collect();
    for (input, result) in
        values.iter().zip(compute(&format!("{instruction} d, a;"), "f32", &["f32"], &cases))
    {
        assert!(is_near(f32::from_bits(result as u32), wanted((*input).into()), *input));
    }
}

#[test]
fn approximations() {
    approximates("ex2.approx.f32", f64::exp2);
    approximates("lg2.approx.f32", f64::log2);
    approximates("rcp.approx.f32", |a| 1.0 / a);
    approximates("sqrt.approx.f32", f64::sqrt);
    approximates("rsqrt.approx.f32", |a| 1.0 / a.sqrt());
    approximates("sin.approx.f32", f64::sin);
    approximates("cos.approx.f32", f64::cos);
    approximates("tanh.approx.f32", f64::tanh);
    binary("div.approx.f32", |a: f32, b: f32| a / b);
    binary("div.full.f32", |a: f32, b: f32| a / b);
    binary("div.approx.ftz.f32", |a: f32, b: f32| flush(flush(a) / flush(b)));
    unary("ex2.approx.ftz.f32", |a: f32| flush(f64::from(flush(a)).exp2() as f32));
    unary("lg2.approx.ftz.f32", |a: f32| f64::from(flush(a)).log2() as f32);
    unary("rcp.approx.ftz.f32", |a: f32| flush(1.0 / flush(a)));
    unary("rsqrt.approx.ftz.f32", |a: f32| (1.0 / f64::from(flush(a)).sqrt()) as f32);
    unary("sqrt.approx.ftz.f32", |a: f32| flush(a).sqrt());
    unary("sin.approx.ftz.f32", |a: f32| flush(f64::from(flush(a)).sin() as f32));
    unary("cos.approx.ftz.f32", |a: f32| f64::from(flush(a)).cos() as f32);
    unary("rcp.approx.ftz.f64", |a: f64| 1.0 / a);
    unary("rsqrt.approx.f64", |a: f64| 1.0 / a.sqrt());
}

#[test]
fn questions_about_numbers() {
    unary("testp.finite.f32", |a: f32| a.is_finite());
    unary("testp.infinite.f32", |a: f32| a.is_infinite());
    unary("testp.number.f32", |a: f32| !a.is_nan());
    unary("testp.notanumber.f32", |a: f32| a.is_nan());
    unary("testp.normal.f32", |a: f32| a.is_normal());
    unary("testp.subnormal.f32", |a: f32| a.is_subnormal() || a == 0.0);
    unary("testp.finite.f64", |a: f64| a.is_finite());
    unary("testp.notanumber.f64", |a: f64| a.is_nan());
}
