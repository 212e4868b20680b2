//! Atomic operations.

use crate::support::{bytes_of, download, launch, module, upload};
use manygate_ptx_interpreter::Memory;

/// What is in memory, and what each of the lanes that follow one another saw, after `instruction` on `initial` with
/// the thread's `operand` (an instruction that computes `x` of type `ty` from `%tid`).
fn atomics(
    space: &str,
    instruction: &str,
    ty: &str,
    operand: &str,
    initial: u64,
    threads: u32,
) -> (u64, Vec<u64>) {
    let (declare, address, fill, drain) = match space {
        "shared" => (
            ".shared .align 8 .b64 place;",
            "place",
            "st.shared.u64 [place], first;\nbar.sync 0;",
            "bar.sync 0;\nld.shared.u64 first, [place];\nmov.u32 tid, %tid.x;\nsetp.eq.u32 p, tid, 0;
            @p st.global.u64 [cell], first;",
        ),
        _ => ("", "cell", "", ""),
    };
    let fill = fill.replace("st.shared", "mov.u32 tid, %tid.x;\nsetp.eq.u32 p, tid, 0;\n@p st.shared");
    let atomic = match instruction.starts_with("red") {
        true => format!("{instruction} [{address}], {{operands}};\nmov.b{ty_bits} d, x;", ty_bits = bits(ty)),
        false => format!("{instruction} d, [{address}], {{operands}};"),
    };
    let operands = if instruction.contains("cas") { "x, y" } else { "x" };
    let atomic = atomic.replace("{operands}", operands);
    let text = format!(
        ".visible .entry k(.param .u64 k_0, .param .u64 k_1) {{\n{declare}\n.reg .b64 cell, to, first;\n.reg .b32 tid;
        .reg .pred p;\n.reg .{ty} d, x, y;\nld.param.u64 cell, [k_0];\nld.param.u64 to, [k_1];
        mov.u64 first, {initial};\n{fill}\nmov.u32 tid, %tid.x;\nmad.wide.u32 to, tid, 8, to;\n{operand}\n{atomic}
        st.global.b{ty_bits} [to], d;\n{drain}\nret;\n}}",
        ty_bits = bits(ty)
    );
    let mut memory = Memory::new();
    let cell = upload(&mut memory, &bytes_of(&[initial]));
    let seen = upload(&mut memory, &vec![0; 8 * threads as usize]);
    launch(&module(&text), &mut memory, [threads, 1, 1], 0, &bytes_of(&[cell, seen]))
        .unwrap_or_else(|fault| panic!("{instruction}: {fault}"));
    (download(&mut memory, cell, 1)[0], download(&mut memory, seen, threads as usize))
}

fn bits(ty: &str) -> &str {
    &ty[1..]
}

/// The atomic as `wanted` folds it, in device and in shared memory, with and without a result.
fn check(operation: &str, ty: &str, operand: &str, initial: u64, wanted: impl Fn(u64, u64) -> u64) {
    let threads = 40;
    let mut value = initial;
    let mut before = Vec::new();
    for thread in 0..threads {
        before.push(value);
        value = wanted(value, thread);
    }
    let register = format!("{}{}", if ty.starts_with('f') { "f" } else { "b" }, bits(ty));
    for space in ["global", "shared"] {
        let instruction = format!("atom.{space}.{operation}.{ty}");
        let result = atomics(space, &instruction, &register, operand, initial, threads as u32);
        assert_eq!(result, (value, before.clone()), "{instruction}");
        if !["exch", "cas"].contains(&operation) {
            let instruction = format!("red.{space}.{operation}.{ty}");
            assert_eq!(
                atomics(space, &instruction, &register, operand, initial, threads as u32).0,
                value,
                "{instruction}"
            );
        }
    }
}

const WORD: &str = "mov.u32 x, tid;";
const LONG: &str = "cvt.u64.u32 x, tid;";

#[test]
fn sums() {
    check("add", "u32", WORD, 0xffff_fff0, |v, t| u64::from((v as u32).wrapping_add(t as u32)));
    check("add", "s32", WORD, 7, |v, t| v + t);
    check("add", "u64", LONG, u64::MAX, |v, t| v.wrapping_add(t));
    let single = |v: u64| f32::from_bits(v as u32);
    check("add", "f32", "cvt.rn.f32.u32 x, tid;", 1.5f32.to_bits().into(), |v, t| {
        (single(v) + t as f32).to_bits().into()
    });
    check("add", "f64", "cvt.rn.f64.u32 x, tid;", 1.5f64.to_bits(), |v, t| {
        (f64::from_bits(v) + t as f64).to_bits()
    });
}

#[test]
fn extremes() {
    let minus = "sub.s32 x, 20, tid;";
    let minus = &minus.replace("20, tid", "tid, 20") as &str;
    let operand = |t: u64| t as i32 - 20;
    check("min", "u32", minus, 1 << 31, |v, t| (v as u32).min(operand(t) as u32).into());
    check("max", "u32", minus, 5, |v, t| (v as u32).max(operand(t) as u32).into());
    check("min", "s32", minus, 5, |v, t| u64::from((v as i32).min(operand(t)) as u32));
    check("max", "s32", minus, 5, |v, t| u64::from((v as i32).max(operand(t)) as u32));
    let long = "{ .reg .b32 w; sub.s32 w, tid, 20; cvt.s64.s32 x, w; }";
    check("min", "u64", long, 1 << 63, |v, t| v.min(i64::from(operand(t)) as u64));
    check("max", "u64", long, 5, |v, t| v.max(i64::from(operand(t)) as u64));
    check("min", "s64", long, 5, |v, t| (v as i64).min(operand(t).into()) as u64);
    check("max", "s64", long, 5, |v, t| (v as i64).max(operand(t).into()) as u64);
}

#[test]
fn logic() {
    check("and", "b32", "not.b32 x, tid;", 0xffff_00ff, |v, t| v & u64::from(!t as u32));
    check("or", "b32", "shl.b32 x, 1, tid;", 1 << 31, |v, t| v | if t < 32 { 1 << t } else { 0 });
    check("xor", "b32", WORD, 0xf0f0_0f0f, |v, t| v ^ t);
    check("and", "b64", "{ .reg .b64 w; cvt.u64.u32 w, tid; not.b64 x, w; }", u64::MAX, |v, t| v & !t);
    check("or", "b64", "{ .reg .b64 w; mov.u64 w, 1; shl.b64 x, w, tid; }", 0, |v, t| v | 1 << t);
    check("xor", "b64", LONG, u64::MAX, |v, t| v ^ t);
}

#[test]
fn exchanges() {
    check("exch", "b32", WORD, 99, |_, t| t);
    check("exch", "b64", LONG, 99, |_, t| t);
    // Thread t replaces t by t + 1, except for every fourth.
    let word =
        "{ .reg .pred q; .reg .b32 w; rem.u32 w, tid, 4; setp.eq.u32 q, w, 3; selp.b32 x, 1000, tid, q; }
        add.s32 y, tid, 1;";
    check("cas", "b32", word, 0, |v, t| if t % 4 != 3 && v == t { t + 1 } else { v });
    let long = "cvt.u64.u32 x, tid;\nadd.s64 y, x, 1;";
    check("cas", "b64", long, 0, |v, t| if v == t { t + 1 } else { v });
}

#[test]
fn counters_that_wrap() {
    check("inc", "u32", "mov.u32 x, 6;", 5, |v, _| if v >= 6 { 0 } else { v + 1 });
    check("dec", "u32", "mov.u32 x, 6;", 9, |v, _| if v == 0 || v > 6 { 6 } else { v - 1 });
}

#[test]
fn orders_and_scopes_are_known() {
    for instruction in [
        "atom.relaxed.gpu.global.add.u32",
        "atom.acquire.gpu.global.add.u32",
        "atom.release.sys.global.add.u32",
        "atom.acq_rel.gpu.global.add.u32",
        "atom.global.cta.add.u32",
        "atom.add.u32",
    ] {
        let (value, seen) = atomics("global", instruction, "b32", WORD, 1, 3);
        assert_eq!((value, seen), (4, vec![1, 1, 2]), "{instruction}");
    }
    assert_eq!(atomics("shared", "atom.relaxed.cta.shared.add.u32", "b32", WORD, 1, 3).0, 4);
}

#[test]
fn sums_of_subnormal_numbers_depend_on_the_space() {
    let tiny = 3;
    let of =
        |space: &str| atomics(space, &format!("atom.{space}.add.f32"), "f32", "mov.b32 x, 2;", tiny, 1).0;
    assert_eq!(of("shared"), 5);
    assert_eq!(of("global"), 0);
}
