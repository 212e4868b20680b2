//! Logic, shifts and fields.

use crate::support::{binary, compute, ternary, ternary_text, unary};

#[test]
fn logic() {
    binary("and.b16", |a: u16, b: u16| a & b);
    binary("and.b32", |a: u32, b: u32| a & b);
    binary("and.b64", |a: u64, b: u64| a & b);
    binary("and.pred", |a: bool, b: bool| a && b);
    binary("or.b16", |a: u16, b: u16| a | b);
    binary("or.b32", |a: u32, b: u32| a | b);
    binary("or.b64", |a: u64, b: u64| a | b);
    binary("or.pred", |a: bool, b: bool| a || b);
    binary("xor.b16", |a: u16, b: u16| a ^ b);
    binary("xor.b32", |a: u32, b: u32| a ^ b);
    binary("xor.b64", |a: u64, b: u64| a ^ b);
    binary("xor.pred", |a: bool, b: bool| a != b);
    unary("not.b16", |a: u16| !a);
    unary("not.b32", |a: u32| !a);
    unary("not.b64", |a: u64| !a);
    unary("not.pred", |a: bool| !a);
    unary("cnot.b16", |a: u16| u16::from(a == 0));
    unary("cnot.b32", |a: u32| u32::from(a == 0));
    unary("cnot.b64", |a: u64| u64::from(a == 0));
}

/// A shift of bits that are wider than the type.
fn shifted(a: i128, by: u32) -> i128 {
    a >> by.min(100)
}

#[test]
fn shifts_beyond_the_width() {
    binary("shl.b16", |a: u16, b: u32| if b < 16 { a << b } else { 0 });
    binary("shl.b32", |a: u32, b: u32| if b < 32 { a << b } else { 0 });
    binary("shl.b64", |a: u64, b: u32| if b < 64 { a << b } else { 0 });
    binary("shr.b16", |a: u16, b: u32| shifted(a.into(), b) as u16);
    binary("shr.u16", |a: u16, b: u32| shifted(a.into(), b) as u16);
    binary("shr.s16", |a: i16, b: u32| shifted(a.into(), b) as i16);
    binary("shr.b32", |a: u32, b: u32| shifted(a.into(), b) as u32);
    binary("shr.u32", |a: u32, b: u32| shifted(a.into(), b) as u32);
    binary("shr.s32", |a: i32, b: u32| shifted(a.into(), b) as i32);
    binary("shr.b64", |a: u64, b: u32| shifted(a.into(), b) as u64);
    binary("shr.u64", |a: u64, b: u32| shifted(a.into(), b) as u64);
    binary("shr.s64", |a: i64, b: u32| shifted(a.into(), b) as i64);
}

#[test]
fn funnel_shifts() {
    let both = |a: u32, b: u32| u128::from(b) << 32 | u128::from(a);
    ternary("shf.l.clamp.b32", |a: u32, b: u32, c: u32| (both(a, b) << c.min(32) >> 32) as u32);
    ternary("shf.l.wrap.b32", |a: u32, b: u32, c: u32| (both(a, b) << (c % 32) >> 32) as u32);
    ternary("shf.r.clamp.b32", |a: u32, b: u32, c: u32| (both(a, b) >> c.min(32)) as u32);
    ternary("shf.r.wrap.b32", |a: u32, b: u32, c: u32| (both(a, b) >> (c % 32)) as u32);
}

#[test]
fn counts_of_bits() {
    unary("popc.b32", |a: u32| a.count_ones());
    unary("popc.b64", |a: u64| a.count_ones());
    unary("clz.b32", |a: u32| a.leading_zeros());
    unary("clz.b64", |a: u64| a.leading_zeros());
    unary("brev.b32", |a: u32| a.reverse_bits());
    unary("brev.b64", |a: u64| a.reverse_bits());
    let highest = |a: u64| (0..64).rev().find(|bit| a >> bit & 1 == 1).unwrap_or(u32::MAX);
    let magnitude = |a: i64| if a < 0 { !a as u64 } else { a as u64 };
    unary("bfind.u32", |a: u32| highest(a.into()));
    unary("bfind.u64", highest);
    unary("bfind.s32", |a: i32| highest(magnitude(a.into())));
    unary("bfind.s64", |a: i64| highest(magnitude(a)));
    let amount = |position: u32, bits: u32| if position == u32::MAX { position } else { bits - 1 - position };
    unary("bfind.shiftamt.u32", |a: u32| amount(highest(a.into()), 32));
    unary("bfind.shiftamt.s32", |a: i32| amount(highest(magnitude(a.into())), 32));
    unary("bfind.shiftamt.u64", |a: u64| amount(highest(a), 64));
    unary("bfind.shiftamt.s64", |a: i64| amount(highest(magnitude(a)), 64));
}

/// The field as the specification builds it, bit by bit.
fn field(a: u64, bits: u32, signed: bool, start: u32, length: u32) -> u64 {
    let (start, length) = (start & 255, length & 255);
    let sign = if !signed || length == 0 { 0 } else { a >> (start + length - 1).min(bits - 1) & 1 };
    let bit = |i: u32| if i < length && start + i < bits { a >> (start + i) & 1 } else { sign };
    (0..bits).fold(0, |all, i| all | bit(i) << i)
}

#[test]
fn fields_are_extracted() {
    ternary("bfe.u32", |a: u32, b: u32, c: u32| field(a.into(), 32, false, b, c) as u32);
    ternary("bfe.s32", |a: u32, b: u32, c: u32| field(a.into(), 32, true, b, c) as u32);
    ternary("bfe.u64", |a: u64, b: u32, c: u32| field(a, 64, false, b, c));
    ternary("bfe.s64", |a: u64, b: u32, c: u32| field(a, 64, true, b, c));
    let cases: Vec<_> = (0..40).flat_map(|b| (0..40).map(move |c| vec![0x8421_7bde, b, c])).collect();
    let results = compute("bfe.s32 d, a, b, c;", "b32", &["b32"; 3], &cases);
    for (case, result) in cases.iter().zip(results) {
        assert_eq!(result, field(case[0], 32, true, case[1] as u32, case[2] as u32), "{case:?}");
    }
}

#[test]
fn fields_are_inserted() {
    let insert = |a: u64, b: u64, bits: u32, start: u32, length: u32| {
        let (start, length) = (start & 255, length & 255);
        let inside = |i: u32| i >= start && i < start + length;
        (0..bits).fold(0, |all, i| all | (if inside(i) { a >> (i - start) } else { b >> i } & 1) << i)
    };
    let cases: Vec<_> = [0, 1, 5, 16, 31, 32, 64, 255, 256]
        .iter()
        .flat_map(|c| {
            [0, 1, 7, 32, 33, 64, 255, 257].map(|e| vec![0x1234_5678_9abc_def0, 0x0f0f_f0f0_5555_aaaa, *c, e])
        })
        .collect();
    let results = compute("bfi.b64 d, a, b, c, e;", "b64", &["b64", "b64", "b32", "b32"], &cases);
    for (case, result) in cases.iter().zip(results) {
        assert_eq!(result, insert(case[0], case[1], 64, case[2] as u32, case[3] as u32), "{case:x?}");
    }
    let narrow: Vec<_> =
        cases.iter().map(|c| vec![c[0] as u32 as u64, c[1] as u32 as u64, c[2], c[3]]).collect();
    let results = compute("bfi.b32 d, a, b, c, e;", "b32", &["b32"; 4], &narrow);
    for (case, result) in narrow.iter().zip(results) {
        assert_eq!(result, insert(case[0], case[1], 32, case[2] as u32, case[3] as u32), "{case:x?}");
    }
}

#[test]
fn any_function_of_three_bits() {
    ternary_text("lop3.b32 d, a, b, c, 0x80;", |a: u32, b: u32, c: u32| a & b & c);
    ternary_text("lop3.b32 d, a, b, c, 0x96;", |a: u32, b: u32, c: u32| a ^ b ^ c);
    ternary_text("lop3.b32 d, a, b, c, 0x1a;", |a: u32, b: u32, c: u32| (a & b | c) ^ a);
    ternary_text("lop3.b32 d, a, b, c, 0xca;", |a: u32, b: u32, c: u32| a & b | !a & c);
    ternary_text("lop3.b32 d, a, b, c, 0;", |_: u32, _: u32, _: u32| 0u32);
}

#[test]
fn permutations_of_bytes() {
    let (a, b) = (0x8322_1100u32, 0x7766_c584u32);
    let bytes: Vec<u8> = [a.to_le_bytes(), b.to_le_bytes()].concat();
    let of = |mode: &str, c: u32| {
        let case = vec![vec![a.into(), b.into(), c.into()]];
        compute(&format!("prmt.b32{mode} d, a, b, c;"), "b32", &["b32"; 3], &case)[0] as u32
    };
    let pick = |places: [usize; 4]| u32::from_le_bytes(places.map(|place| bytes[place]));
    assert_eq!(of("", 0x3210), a);
    assert_eq!(of("", 0x7654), b);
    assert_eq!(of("", 0x0426), pick([6, 2, 4, 0]));
    // The highest bit of a digit asks for eight copies of the byte's sign.
    assert_eq!(of("", 0xdcb3), u32::from_le_bytes([0x83, 0xff, 0xff, 0xff]));
    assert_eq!(of("", 0xa111), u32::from_le_bytes([0x11, 0x11, 0x11, 0]));
    for c in 0..4 {
        let at = c as usize;
        assert_eq!(of(".f4e", c), pick([at, at + 1, at + 2, at + 3]));
        assert_eq!(of(".b4e", c), pick([at, (at + 7) % 8, (at + 6) % 8, (at + 5) % 8]));
        assert_eq!(of(".rc8", c), pick([at; 4]));
        assert_eq!(of(".rc16", c), pick([at % 2 * 2, at % 2 * 2 + 1, at % 2 * 2, at % 2 * 2 + 1]));
        assert_eq!(of(".ecl", c), pick([at, 1.max(at), 2.max(at), 3.max(at)]));
        assert_eq!(of(".ecr", c), pick([0, 1.min(at), 2.min(at), at]));
    }
}
