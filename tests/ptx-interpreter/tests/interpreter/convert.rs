//! Conversions and copies.

use crate::support::{Value, binary, compute, ternary_text, unary, unary_of};

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0f32.copysign(a) } else { a }
}

#[test]
fn integers_to_integers() {
    unary("cvt.u16.u32", |a: u32| a as u16);
    unary("cvt.s16.s64", |a: i64| a as i16);
    unary("cvt.u32.u64", |a: u64| a as u32);
    unary("cvt.s32.s64", |a: i64| a as i32);
    unary("cvt.u32.u16", |a: u16| u32::from(a));
    unary("cvt.s32.s16", |a: i16| i32::from(a));
    unary("cvt.u64.u16", |a: u16| u64::from(a));
    unary("cvt.s64.s16", |a: i16| i64::from(a));
    unary("cvt.u64.u32", |a: u32| u64::from(a));
    unary("cvt.s64.s32", |a: i32| i64::from(a));
    unary("cvt.u64.s32", |a: i32| i64::from(a) as u64);
    unary("cvt.s64.u32", |a: u32| i64::from(a));
    unary("cvt.u32.s16", |a: i16| i32::from(a) as u32);
    unary("cvt.u64.s16", |a: i16| i64::from(a) as u64);
}

/// Values of eight bits live in wider registers.
#[test]
fn integers_of_eight_bits() {
    unary("cvt.u32.u8", |a: u32| a & 0xff);
    unary("cvt.s32.s8", |a: u32| i32::from(a as i8));
    unary("cvt.u16.u8", |a: u16| a & 0xff);
    unary("cvt.s16.s8", |a: u32| i16::from(a as i8));
    unary("cvt.u64.u8", |a: u64| a & 0xff);
    unary("cvt.s64.s8", |a: u16| i64::from(a as i8));
    unary("cvt.u8.u32", |a: u32| a & 0xff);
    unary("cvt.s8.s32", |a: i32| i32::from(a as i8));
    unary("cvt.s8.u64", |a: u64| i32::from(a as i8));
    unary("cvt.u16.s32", |a: i32| u32::from(a as u16));
    unary("cvt.s16.u32", |a: u32| i64::from(a as i16));
}

#[test]
fn integers_saturate_where_asked() {
    unary("cvt.sat.u8.s32", |a: i32| a.clamp(0, 255) as u32);
    unary("cvt.sat.s8.s32", |a: i32| a.clamp(-128, 127));
    unary("cvt.sat.u16.s32", |a: i32| a.clamp(0, 65535) as u16);
    unary("cvt.sat.s16.u32", |a: u32| a.min(32767) as i16);
    unary("cvt.sat.s32.s64", |a: i64| a.clamp(i32::MIN.into(), i32::MAX.into()) as i32);
    unary("cvt.sat.u32.s64", |a: i64| a.clamp(0, u32::MAX.into()) as u32);
    unary("cvt.sat.u64.s64", |a: i64| a.max(0) as u64);
    unary("cvt.sat.s64.u64", |a: u64| a.min(i64::MAX as u64) as i64);
}

#[test]
fn integers_to_numbers() {
    unary("cvt.rn.f32.u16", |a: u16| f32::from(a));
    unary("cvt.rn.f32.s16", |a: i16| f32::from(a));
    unary("cvt.rn.f32.u32", |a: u32| a as f32);
    unary("cvt.rn.f32.s32", |a: i32| a as f32);
    unary("cvt.rn.f32.u64", |a: u64| a as f32);
    unary("cvt.rn.f32.s64", |a: i64| a as f32);
    unary("cvt.rn.f64.u32", |a: u32| f64::from(a));
    unary("cvt.rn.f64.s32", |a: i32| f64::from(a));
    unary("cvt.rn.f64.u64", |a: u64| a as f64);
    unary("cvt.rn.f64.s64", |a: i64| a as f64);
    unary("cvt.rn.f32.u8", |a: u32| (a & 0xff) as f32);
    let values = [u64::MAX, (1 << 24) + 1, (1 << 25) + 3, (1 << 53) + 1, 0x8000_0080_0000_0001];
    let below = |a: u64| {
        let nearest = a as f32;
        if nearest as u128 > u128::from(a) { nearest.next_down() } else { nearest }
    };
    unary_of("cvt.rz.f32.u64", &values, below);
    unary_of("cvt.rm.f32.u64", &values, below);
    unary_of("cvt.rp.f32.u64", &values, |a| {
        if below(a) as u128 == u128::from(a) { below(a) } else { below(a).next_up() }
    });
    unary_of("cvt.rz.f32.s32", &[-16_777_217, 16_777_217], |a: i32| 16_777_216f32.copysign(a as f32));
    unary_of("cvt.rm.f32.s32", &[-16_777_217], |_: i32| -16_777_218f32);
    unary_of("cvt.rp.f64.u64", &[(1u64 << 53) + 1], |_| 9_007_199_254_740_994f64);
}

#[test]
fn numbers_to_integers() {
    unary("cvt.rzi.s32.f32", |a: f32| a as i32);
    unary("cvt.rzi.u32.f32", |a: f32| a as u32);
    unary("cvt.rzi.s64.f32", |a: f32| a as i64);
    unary("cvt.rzi.u64.f32", |a: f32| a as u64);
    unary("cvt.rni.s32.f32", |a: f32| a.round_ties_even() as i32);
    unary("cvt.rmi.s32.f32", |a: f32| a.floor() as i32);
    unary("cvt.rpi.s32.f32", |a: f32| a.ceil() as i32);
    unary("cvt.rni.u32.f32", |a: f32| a.round_ties_even() as u32);
    unary("cvt.rzi.ftz.s32.f32", |a: f32| a as i32);
    unary("cvt.rpi.ftz.s32.f32", |a: f32| flush(a).ceil() as i32);
    unary("cvt.rzi.s32.f64", |a: f64| a as i32);
    unary("cvt.rzi.u32.f64", |a: f64| a as u32);
    unary("cvt.rni.s64.f64", |a: f64| a.round_ties_even() as i64);
    unary("cvt.rmi.u64.f64", |a: f64| a.floor() as u64);
    unary("cvt.rzi.u16.f32", |a: f32| a as u16);
    unary("cvt.rzi.s16.f32", |a: f32| i32::from(a as i16));
    unary("cvt.rni.u8.f32", |a: f32| u32::from(a.round_ties_even() as u8));
    unary("cvt.rni.sat.s8.f32", |a: f32| i32::from(a.round_ties_even() as i8));
    let ties = [0.5f32, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388607.5];
    unary_of("cvt.rni.s32.f32", &ties, |a| a.round_ties_even() as i32);
}

#[test]
fn numbers_to_numbers() {
    unary("cvt.f64.f32", |a: f32| f64::from(a));
    unary("cvt.rn.f32.f64", |a: f64| a as f32);
    unary("cvt.f32.f32", |a: f32| a);
    unary("cvt.ftz.f32.f32", flush);
    unary("cvt.sat.f32.f32", |a: f32| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) });
    unary("cvt.rni.f32.f32", |a: f32| a.round_ties_even());
    unary("cvt.rzi.f32.f32", |a: f32| a.trunc());
    unary("cvt.rmi.f32.f32", |a: f32| a.floor());
    unary("cvt.rpi.f32.f32", |a: f32| a.ceil());
    unary("cvt.rpi.ftz.f32.f32", |a: f32| flush(a).ceil());
    unary("cvt.rni.f64.f64", |a: f64| a.round_ties_even());
    unary("cvt.rmi.f64.f64", |a: f64| a.floor());
    let third = 1.0 / 3.0;
    unary_of("cvt.rz.f32.f64", &[third, -third, 1e39], |a: f64| {
        let nearest = a as f32;
        let away = f64::from(nearest).abs() > a.abs();
        if away { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
    });
    unary_of("cvt.rp.f32.f64", &[third, -third], |a: f64| {
        let nearest = a as f32;
        if f64::from(nearest) < a { nearest.next_up() } else { nearest }
    });
}

fn f16(bits: u16) -> f32 {
    let size = match (bits >> 10 & 31, f32::from(bits & 0x3ff)) {
        (0, fraction) => fraction * 2f32.powi(-24),
        (31, 0.0) => f32::INFINITY,
        (31, _) => f32::NAN,
        (exponent, fraction) => (1024.0 + fraction) * 2f32.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[test]
fn halves() {
    let all: Vec<u16> = (0..=u16::MAX).step_by(7).collect();
    unary_of("cvt.f32.f16", &all, f16);
    unary_of("cvt.f64.f16", &all, |a| f64::from(f16(a)));
    unary_of("cvt.f32.bf16", &all, |a| f32::from_bits(u32::from(a) << 16));
    let nearest = |a: f32| {
        let far = (0..=u16::MAX).filter(|bits| !f16(*bits).is_nan());
        let distance = |bits: u16| (f64::from(f16(bits)) - f64::from(a)).abs();
        let best = far.min_by(|x, y| {
            let order = distance(*x).total_cmp(&distance(*y));
            order
                .then(
                    (f16(*x).is_sign_negative() != a.is_sign_negative())
                        .cmp(&(f16(*y).is_sign_negative() != a.is_sign_negative())),
                )
                .then((x & 1).cmp(&(y & 1)))
        });
        best.expect("there are halves")
    };
    let values =
        [0.0f32, -0.0, 1.0, 0.1, 1.0 / 3.0, -2.7, 1.000_488_3, 1.001_464_8, 6.1e-5, 5.9e-8, 2.9e-8, 65000.0];
    unary_of("cvt.rn.f16.f32", &values, nearest);
    let edges = [f32::INFINITY, -1e6, f32::NAN, 65519.0, 65520.0];
    let wanted = [0x7c00, 0xfc00, 0x7fff, 0x7bff, 0x7c00];
    let results = compute("cvt.rn.f16.f32 d, a;", "b16", &["f32"], &edges.map(|e| vec![e.bits()]));
    assert_eq!(results, wanted);
    let results = compute("cvt.rz.f16.f32 d, a;", "b16", &["f32"], &edges.map(|e| vec![e.bits()]));
    assert_eq!(results, [0x7c00, 0xfbff, 0x7fff, 0x7bff, 0x7bff]);
    unary_of("cvt.rn.f16.s32", &[3, -2049, 2051], |a: i32| nearest(a as f32));
}

/// The nearer of the two bfloat16 around a number, of two equally near the even one.
fn bf16(a: f32) -> u16 {
    if a.is_nan() {
        return 0x7fff;
    }
    let down = (a.to_bits() >> 16) as u16;
    let number = |bits: u16| match bits & 0x7fff {
        0x7f80 => 2f64.powi(128),
        size => f64::from(f32::from_bits(u32::from(size) << 16)),
    };
    let size = f64::from(a.abs());
    let (to_down, to_up) = (size - number(down), number(down.wrapping_add(1)) - size);
    if a.is_infinite() || to_down < to_up || to_down == to_up && down & 1 == 0 { down } else { down + 1 }
}

#[test]
fn bfloat16() {
    let values: Vec<f32> = [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0x3f80_7fff,
        0xbf81_8000,
        0x0000_8001,
        0x7f80_0000,
        0x7fc0_0001,
    ]
    .into_iter()
    .map(f32::from_bits)
    .chain([0.0, -0.0, 1.0, 0.1, -1e30, 3e38])
    .collect();
    unary_of("cvt.rn.bf16.f32", &values, bf16);
    unary_of("cvt.rn.relu.bf16.f32", &values, |a| if a <= 0.0 { 0 } else { bf16(a) });
    unary_of("cvt.rz.bf16.f32", &values, |a| if a.is_nan() { 0x7fff } else { (a.to_bits() >> 16) as u16 });
    binary("cvt.rn.bf16x2.f32", |a: f32, b: f32| u32::from(bf16(a)) << 16 | u32::from(bf16(b)));
    binary("cvt.rn.relu.bf16x2.f32", |a: f32, b: f32| {
        let positive = |v: f32| if v <= 0.0 { 0 } else { bf16(v) };
        u32::from(positive(a)) << 16 | u32::from(positive(b))
    });
    let halves =
        compute("cvt.rn.f16x2.f32 d, a, b;", "b32", &["f32"; 2], &[vec![1f32.bits(), (-2f32).bits()]]);
    assert_eq!(halves, [0x3c00_c000]);
}

#[test]
fn tf32() {
    let bits = [0x3f80_0fff, 0x3f80_1000, 0xbf80_1000, 0x3f80_2fff, 0x7f80_0000, 0x0000_1000];
    let wanted = [0x3f80_0000, 0x3f80_2000, 0xbf80_2000, 0x3f80_2000, 0x7f80_0000, 0x0000_2000];
    let results = compute("cvt.rna.tf32.f32 d, a;", "b32", &["f32"], &bits.map(|b| vec![b]));
    assert_eq!(results, wanted);
    assert!(
        f32::from_bits(
            compute("cvt.rna.tf32.f32 d, a;", "b32", &["f32"], &[vec![f32::NAN.bits()]])[0] as u32
        )
        .is_nan()
    );
}

#[test]
fn copies_of_all_widths() {
    unary("mov.b16", |a: u16| a);
    unary("mov.u32", |a: u32| a);
    unary("mov.s64", |a: i64| a);
    unary("mov.f32", |a: f32| f32::from_bits(a.to_bits()));
    unary("mov.f64", |a: f64| a);
    unary("mov.pred", |a: bool| a);
    unary("mov.b32", |a: f32| a.to_bits());
}

#[test]
fn vectors_are_packed_and_unpacked() {
    ternary_text("mov.b64 d, {a, b};", |a: u32, b: u32, _: bool| u64::from(b) << 32 | u64::from(a));
    ternary_text("mov.b32 d, {a, b};", |a: u16, b: u16, _: bool| u32::from(b) << 16 | u32::from(a));
    ternary_text("mov.b64 d, {a, b, c, a};", |a: u16, b: u16, c: u16| {
        u64::from(a) << 48 | u64::from(c) << 32 | u64::from(b) << 16 | u64::from(a)
    });
    unary_of("{ .reg .b32 x; mov.b64 {x, d}, a; } //", &[0x1234_5678_9abc_def0], |a: u64| (a >> 32) as u32);
    ternary_text("mov.b64 {d, _}, a;", |a: u64, _: bool, _: bool| a as u32);
    ternary_text("{ .reg .b16 x; mov.b32 {x, d}, a; }", |a: u32, _: bool, _: bool| (a >> 16) as u16);
    ternary_text("{ .reg .b16 w, x, y; mov.b64 {w, x, y, d}, a; }", |a: u64, _: bool, _: bool| {
        (a >> 48) as u16
    });
    // An element may be where the vector comes from.
    ternary_text("{ .reg .b32 x, y; mov.b64 {x, y}, a; mov.b64 d, {y, x}; }", |a: u64, _: bool, _: bool| {
        a.rotate_left(32)
    });
}

#[test]
fn constants_of_all_kinds() {
    let of = |text: &str, ty: &str| compute(text, ty, &["b32"], &[vec![0]])[0];
    assert_eq!(of("mov.f32 d, 0f3F800000;", "f32"), 0x3f80_0000);
    assert_eq!(of("mov.f64 d, 0d3FF0000000000000;", "f64"), 1f64.to_bits());
    assert_eq!(of("mov.u16 d, -1;", "b16"), 0xffff);
    assert_eq!(of("mov.b64 d, 0xFFFFFFFF00000000;", "b64"), 0xffff_ffff_0000_0000);
    assert_eq!(of("mov.u32 d, WARP_SZ;", "b32"), 32);
    assert_eq!(of("mov.u32 d, 017;", "b32"), 15);
}
