//! Comparisons and selections.

use crate::support::{Value, binary, compute, quaternary_text, ternary, ternary_text};
use std::cmp::Ordering::{self, Equal, Greater, Less};

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0f32.copysign(a) } else { a }
}

/// Comparisons that are false for values that are not ordered.
const ORDERED: [(&str, &[Ordering]); 6] = [
    ("eq", &[Equal]),
    ("ne", &[Less, Greater]),
    ("lt", &[Less]),
    ("le", &[Less, Equal]),
    ("gt", &[Greater]),
    ("ge", &[Greater, Equal]),
];

fn ordered<T: Value + PartialOrd>(ty: &str) {
    for (name, holds) in ORDERED {
        binary(&format!("setp.{name}.{ty}"), |a: T, b: T| {
            a.partial_cmp(&b).is_some_and(|o| holds.contains(&o))
        });
    }
}

#[test]
fn integers() {
    ordered::<u16>("u16");
    ordered::<i16>("s16");
    ordered::<u32>("u32");
    ordered::<i32>("s32");
    ordered::<u64>("u64");
    ordered::<i64>("s64");
    binary("setp.eq.b32", |a: u32, b: u32| a == b);
    binary("setp.ne.b64", |a: u64, b: u64| a != b);
    binary("setp.eq.b16", |a: u16, b: u16| a == b);
    binary("setp.lo.u32", |a: u32, b: u32| a < b);
    binary("setp.ls.u32", |a: u32, b: u32| a <= b);
    binary("setp.hi.u32", |a: u32, b: u32| a > b);
    binary("setp.hs.u64", |a: u64, b: u64| a >= b);
}

#[test]
fn numbers_and_what_is_none() {
    ordered::<f32>("f32");
    ordered::<f64>("f64");
    for (name, holds) in ORDERED {
        binary(&format!("setp.{name}u.f32"), |a: f32, b: f32| {
            a.partial_cmp(&b).is_none_or(|o| holds.contains(&o))
        });
        binary(&format!("setp.{name}u.f64"), |a: f64, b: f64| {
            a.partial_cmp(&b).is_none_or(|o| holds.contains(&o))
        });
        binary(&format!("setp.{name}.ftz.f32"), |a: f32, b: f32| {
            flush(a).partial_cmp(&flush(b)).is_some_and(|o| holds.contains(&o))
        });
        binary(&format!("setp.{name}u.ftz.f32"), |a: f32, b: f32| {
            flush(a).partial_cmp(&flush(b)).is_none_or(|o| holds.contains(&o))
        });
    }
    binary("setp.num.f32", |a: f32, b: f32| !a.is_nan() && !b.is_nan());
    binary("setp.nan.f32", |a: f32, b: f32| a.is_nan() || b.is_nan());
    binary("setp.num.f64", |a: f64, b: f64| !a.is_nan() && !b.is_nan());
    binary("setp.nan.ftz.f32", |a: f32, b: f32| a.is_nan() || b.is_nan());
}

#[test]
fn combined_with_a_predicate() {
    ternary("setp.lt.and.s32", |a: i32, b: i32, c: bool| a < b && c);
    ternary("setp.lt.or.s32", |a: i32, b: i32, c: bool| a < b || c);
    ternary("setp.lt.xor.s32", |a: i32, b: i32, c: bool| (a < b) != c);
    ternary_text("setp.gt.and.u64 d, a, b, !c;", |a: u64, b: u64, c: bool| a > b && !c);
    ternary("setp.le.or.ftz.f32", |a: f32, b: f32, c: bool| flush(a) <= flush(b) || c);
}

#[test]
fn two_results() {
    let pair = "{ .reg .pred p, q; .reg .b32 x;";
    let join = "selp.b32 d, 2, 0, p; selp.b32 x, 1, 0, q; or.b32 d, d, x; }";
    let both = |p: bool, q: bool| u32::from(p) * 2 + u32::from(q);
    ternary_text(&format!("{pair} setp.lt.s32 p|q, a, b; {join}"), |a: i32, b: i32, _: bool| {
        both(a < b, a >= b)
    });
    ternary_text(&format!("{pair} setp.lt.and.s32 p|q, a, b, c; {join}"), |a: i32, b: i32, c: bool| {
        both(a < b && c, a >= b && c)
    });
    ternary_text(
        &format!("{pair} mov.pred p, c; setp.eq.or.b32 p|q, a, b, p; {join}"),
        |a: u32, b: u32, c: bool| both(a == b || c, a != b || c),
    );
    ternary_text(
        &format!("{pair} mov.pred q, 1; setp.ne.s32 p|_, a, b; {join}"),
        |a: i32, b: i32, _: bool| both(a != b, true),
    );
}

#[test]
fn truth_as_a_value() {
    binary("set.lt.u32.s32", |a: i32, b: i32| if a < b { u32::MAX } else { 0 });
    binary("set.eq.s32.u64", |a: u64, b: u64| if a == b { -1 } else { 0 });
    binary("set.ge.f32.f32", |a: f32, b: f32| if a >= b { 1f32 } else { 0.0 });
    binary("set.ltu.ftz.u32.f32", |a: f32, b: f32| {
        if flush(a).partial_cmp(&flush(b)).is_none_or(|o| o == Less) { u32::MAX } else { 0 }
    });
    ternary("set.gt.and.u32.f64", |a: f64, b: f64, c: bool| if a > b && c { u32::MAX } else { 0 });
}

#[test]
fn selections() {
    ternary("selp.b16", |a: u16, b: u16, c: bool| if c { a } else { b });
    ternary("selp.b32", |a: u32, b: u32, c: bool| if c { a } else { b });
    ternary("selp.s64", |a: i64, b: i64, c: bool| if c { a } else { b });
    ternary("selp.f32", |a: f32, b: f32, c: bool| if c { a } else { b });
    ternary("selp.f64", |a: f64, b: f64, c: bool| if c { a } else { b });
    ternary("slct.b32.s32", |a: u32, b: u32, c: i32| if c >= 0 { a } else { b });
    ternary("slct.u64.f32", |a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b });
    ternary("slct.ftz.f32.f32", |a: f32, b: f32, c: f32| if flush(c) >= 0.0 { a } else { b });
}

/// The target may be one of the operands.
#[test]
fn targets_among_the_operands() {
    quaternary_text("add.s32 a, a, b;\nsub.s32 b, a, b;\nadd.s32 d, a, b;", |a: i32, b, _, _| {
        let sum = a.wrapping_add(b);
        sum.wrapping_add(sum.wrapping_sub(b))
    });
    ternary_text("selp.b32 a, b, a, c;\nmov.b32 d, a;", |a: u32, b: u32, c: bool| if c { b } else { a });
}

#[test]
fn guards() {
    ternary_text("mov.b32 d, a;\n@c mov.b32 d, b;", |a: u32, b: u32, c: bool| if c { b } else { a });
    ternary_text("mov.b32 d, a;\n@!c mov.b32 d, b;", |a: u32, b: u32, c: bool| if c { a } else { b });
}

#[test]
fn predicates_from_numbers() {
    let of = |value: &str| compute(&format!("mov.pred d, {value};"), "pred", &["b32"], &[vec![0]])[0];
    assert_eq!((of("0"), of("1"), of("-1")), (0, 1, 1));
}
