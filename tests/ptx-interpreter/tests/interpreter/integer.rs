//! Arithmetic on integers.

use crate::support::{Value, binary, compute, quaternary_text, ternary, ternary_text, unary};

/// The lowest bits of an exact result.
fn low<T: Value>(exact: i128) -> T {
    T::from_bits(exact as u64)
}

#[test]
fn sums_and_differences_wrap() {
    binary("add.u16", |a: u16, b: u16| a.wrapping_add(b));
    binary("add.s16", |a: i16, b: i16| a.wrapping_add(b));
    binary("add.u32", |a: u32, b: u32| a.wrapping_add(b));
    binary("add.s32", |a: i32, b: i32| a.wrapping_add(b));
    binary("add.u64", |a: u64, b: u64| a.wrapping_add(b));
    binary("add.s64", |a: i64, b: i64| a.wrapping_add(b));
    binary("sub.u16", |a: u16, b: u16| a.wrapping_sub(b));
    binary("sub.s16", |a: i16, b: i16| a.wrapping_sub(b));
    binary("sub.u32", |a: u32, b: u32| a.wrapping_sub(b));
    binary("sub.s32", |a: i32, b: i32| a.wrapping_sub(b));
    binary("sub.u64", |a: u64, b: u64| a.wrapping_sub(b));
    binary("sub.s64", |a: i64, b: i64| a.wrapping_sub(b));
}

#[test]
fn sums_saturate_where_asked() {
    binary("add.sat.s32", |a: i32, b: i32| a.saturating_add(b));
    binary("sub.sat.s32", |a: i32, b: i32| a.saturating_sub(b));
}

#[test]
fn products() {
    binary("mul.lo.u16", |a: u16, b: u16| a.wrapping_mul(b));
    binary("mul.lo.s16", |a: i16, b: i16| a.wrapping_mul(b));
    binary("mul.lo.u32", |a: u32, b: u32| a.wrapping_mul(b));
    binary("mul.lo.s32", |a: i32, b: i32| a.wrapping_mul(b));
    binary("mul.lo.u64", |a: u64, b: u64| a.wrapping_mul(b));
    binary("mul.lo.s64", |a: i64, b: i64| a.wrapping_mul(b));
    binary("mul.hi.u16", |a: u16, b: u16| low::<u16>((i128::from(a) * i128::from(b)) >> 16));
    binary("mul.hi.s16", |a: i16, b: i16| low::<i16>((i128::from(a) * i128::from(b)) >> 16));
    binary("mul.hi.u32", |a: u32, b: u32| low::<u32>((i128::from(a) * i128::from(b)) >> 32));
    binary("mul.hi.s32", |a: i32, b: i32| low::<i32>((i128::from(a) * i128::from(b)) >> 32));
    binary("mul.hi.u64", |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    binary("mul.hi.s64", |a: i64, b: i64| low::<i64>((i128::from(a) * i128::from(b)) >> 64));
    binary("mul.wide.u16", |a: u16, b: u16| u32::from(a) * u32::from(b));
    binary("mul.wide.s16", |a: i16, b: i16| i32::from(a) * i32::from(b));
    binary("mul.wide.u32", |a: u32, b: u32| u64::from(a) * u64::from(b));
    binary("mul.wide.s32", |a: i32, b: i32| i64::from(a) * i64::from(b));
}

#[test]
fn products_with_sums() {
    ternary("mad.lo.u16", |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.lo.s32", |a: i32, b: i32, c: i32| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.lo.u64", |a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c));
    let high32 = |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32;
    ternary("mad.hi.s32", |a: i32, b: i32, c: i32| high32(a, b).wrapping_add(c));
    let high64 = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    ternary("mad.hi.u64", |a: u64, b: u64, c: u64| high64(a, b).wrapping_add(c));
    ternary("mad.wide.u16", |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c));
    ternary("mad.wide.s16", |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c));
    ternary("mad.wide.u32", |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
    ternary("mad.wide.s32", |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
}

#[test]
fn products_of_24_bits() {
    let unsigned = |a: u32, b: u32| i64::from(a & 0xff_ffff) * i64::from(b & 0xff_ffff);
    let signed = |a: i32, b: i32| i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8);
    binary("mul24.lo.u32", |a: u32, b: u32| unsigned(a, b) as u32);
    binary("mul24.hi.u32", |a: u32, b: u32| (unsigned(a, b) >> 16) as u32);
    binary("mul24.lo.s32", |a: i32, b: i32| signed(a, b) as i32);
    binary("mul24.hi.s32", |a: i32, b: i32| (signed(a, b) >> 16) as i32);
    ternary("mad24.lo.u32", |a: u32, b: u32, c: u32| (unsigned(a, b) as u32).wrapping_add(c));
    ternary("mad24.hi.s32", |a: i32, b: i32, c: i32| ((signed(a, b) >> 16) as i32).wrapping_add(c));
}

#[test]
fn sums_of_absolute_differences() {
    ternary("sad.u16", |a: u16, b: u16, c: u16| a.abs_diff(b).wrapping_add(c));
    ternary("sad.s16", |a: i16, b: i16, c: u16| a.abs_diff(b).wrapping_add(c));
    ternary("sad.u32", |a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c));
    ternary("sad.s32", |a: i32, b: i32, c: u32| a.abs_diff(b).wrapping_add(c));
    ternary("sad.u64", |a: u64, b: u64, c: u64| a.abs_diff(b).wrapping_add(c));
    ternary("sad.s64", |a: i64, b: i64, c: u64| a.abs_diff(b).wrapping_add(c));
}

#[test]
fn quotients_and_remainders() {
    binary("div.u16", |a: u16, b: u16| a.checked_div(b).unwrap_or(!0));
    binary("div.u32", |a: u32, b: u32| a.checked_div(b).unwrap_or(!0));
    binary("div.u64", |a: u64, b: u64| a.checked_div(b).unwrap_or(!0));
    binary("div.s16", |a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) });
    binary("div.s32", |a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) });
    binary("div.s64", |a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) });
    binary("rem.u16", |a: u16, b: u16| a.checked_rem(b).unwrap_or(a));
    binary("rem.u32", |a: u32, b: u32| a.checked_rem(b).unwrap_or(a));
    binary("rem.u64", |a: u64, b: u64| a.checked_rem(b).unwrap_or(a));
    binary("rem.s16", |a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) });
    binary("rem.s32", |a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) });
    binary("rem.s64", |a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) });
}

#[test]
fn extremes_and_signs() {
    binary("min.u16", |a: u16, b: u16| a.min(b));
    binary("max.u16", |a: u16, b: u16| a.max(b));
    binary("min.s16", |a: i16, b: i16| a.min(b));
    binary("max.s16", |a: i16, b: i16| a.max(b));
    binary("min.u32", |a: u32, b: u32| a.min(b));
    binary("max.u32", |a: u32, b: u32| a.max(b));
    binary("min.s32", |a: i32, b: i32| a.min(b));
    binary("max.s32", |a: i32, b: i32| a.max(b));
    binary("min.u64", |a: u64, b: u64| a.min(b));
    binary("max.u64", |a: u64, b: u64| a.max(b));
    binary("min.s64", |a: i64, b: i64| a.min(b));
    binary("max.s64", |a: i64, b: i64| a.max(b));
    unary("neg.s16", |a: i16| a.wrapping_neg());
    unary("neg.s32", |a: i32| a.wrapping_neg());
    unary("neg.s64", |a: i64| a.wrapping_neg());
    unary("abs.s16", |a: i16| a.wrapping_abs());
    unary("abs.s32", |a: i32| a.wrapping_abs());
    unary("abs.s64", |a: i64| a.wrapping_abs());
}

/// Numbers of twice the width, computed by halves.
#[test]
fn carries_link_sums() {
    let wide = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    // The higher halves of a:b + c:e and a:b - c:e.
    quaternary_text("add.cc.u32 d, b, e;\naddc.u32 d, a, c;", |a: u32, b, c, e| {
        (wide(a, b).wrapping_add(wide(c, e)) >> 32) as u32
    });
    quaternary_text("sub.cc.s32 d, b, e;\nsubc.s32 d, a, c;", |a: u32, b, c, e| {
        (wide(a, b).wrapping_sub(wide(c, e)) >> 32) as u32
    });
    let wider = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
    quaternary_text("add.cc.u64 d, b, e;\naddc.cc.u64 d, a, c;", |a: u64, b, c, e| {
        (wider(a, b).wrapping_add(wider(c, e)) >> 64) as u64
    });
    quaternary_text("sub.cc.u64 d, b, e;\nsubc.cc.u64 d, a, c;", |a: u64, b, c, e| {
        (wider(a, b).wrapping_sub(wider(c, e)) >> 64) as u64
    });
    // The carry out of a sum with a carry in.
    quaternary_text("add.cc.u32 d, a, b;\naddc.cc.u32 d, c, e;\naddc.u32 d, 0, 0;", |a: u32, b, c, e| {
        ((wide(c, a) as u128 + wide(e, b) as u128) >> 64) as u32
    });
}

#[test]
fn carries_link_products() {
    // The upper word of a * b + c with 64 bits each: c is c:e.
    quaternary_text("mad.lo.cc.u32 d, a, b, e;\nmadc.hi.u32 d, a, b, c;", |a: u32, b, c, e| {
        let sum = (u64::from(a) * u64::from(b)).wrapping_add(u64::from(c) << 32 | u64::from(e));
        (sum >> 32) as u32
    });
    quaternary_text("mad.lo.cc.s32 d, a, b, e;\nmadc.hi.s32 d, a, b, c;", |a: i32, b, c, e| {
        let addend = i64::from(c) << 32 | i64::from(e as u32);
        ((i64::from(a) * i64::from(b)).wrapping_add(addend) >> 32) as i32
    });
    quaternary_text("mad.lo.cc.u64 d, a, b, e;\nmadc.hi.cc.u64 d, a, b, c;", |a: u64, b, c, e| {
        let sum = (u128::from(a) * u128::from(b)).wrapping_add(u128::from(c) << 64 | u128::from(e));
        (sum >> 64) as u64
    });
    ternary_text("mad.hi.cc.u32 d, a, b, c;\nmadc.lo.u32 d, 0, 0, 0;", |a: u32, b: u32, c: u32| {
        let high = (u64::from(a) * u64::from(b)) >> 32;
        ((high + u64::from(c)) >> 32) as u32
    });
}

#[test]
fn immediate_operands_are_of_the_type() {
    let of = |text: &str, value: i64| compute(text, "b64", &["b64"], &[vec![value as u64]])[0] as i64;
    assert_eq!(of("add.s64 d, a, -5;", 3), -2);
    assert_eq!(of("add.s64 d, a, 0x10;", 3), 19);
    assert_eq!(of("add.u64 d, a, 0xffffffffffffffff;", 3), 2);
    assert_eq!(of("{ .reg .b32 t; cvt.u32.u64 t, a; add.s32 t, t, -5; cvt.s64.s32 d, t; }", 3), -2);
}
