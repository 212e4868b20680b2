//! What is not understood is refused, with its place.

use crate::support::HEADER;
use crate::threads::text;
use manygate_ptx_interpreter::Module;

fn error_of(text: &str) -> String {
    match Module::parse(&format!("{HEADER}{text}")) {
        Ok(_) => panic!("understood: {text}"),
        Err(error) => error.to_string(),
    }
}

/// The error of a kernel with `instruction`.
fn refused(instruction: &str, why: &str) {
    let error = error_of(&text("", instruction));
    assert!(error.contains(why), "`{instruction}`: {error}");
    let first = instruction.lines().next().unwrap_or_default();
    assert!(
        error.starts_with("k, line ") && error.contains(&format!("`{first}`")),
        "`{instruction}`: {error}"
    );
}

#[test]
fn the_place_is_named() {
    let error =
        Module::parse(".version 8.0\n.target sm_80\n.visible .entry f()\n{\n  ret;\n  frobnicate.s32;\n}");
    let error = error.err().expect("an error");
    assert_eq!(error.line(), 6);
    assert_eq!(error.to_string(), "f, line 6 `frobnicate.s32;`: opcode `frobnicate` is not known");
    assert_eq!(String::from(error.clone()), error.to_string());
}

#[test]
fn opcodes_and_modifiers() {
    refused("elect.sync %r1|%p1, -1;", "opcode `elect`");
    refused("add.rn.s32 %r1, %r2, %r3;", "`.rn` is not known here");
    refused("add.f32.frob %f1, %f2, %f3;", "`.frob`");
    refused("ld.global.wild.u32 %r1, [%rd1];", "`.wild`");
    refused("ld.global.v8.u32 %r1, [%rd1];", "`.v8`");
    refused("mul.s32 %r1, %r2, %r3;", "`.lo`");
    refused("shf.l.b32 %r1, %r2, %r3, %r4;", "`.wrap`");
    refused("setp.like.s32 %p1, %r2, %r3;", "no comparison");
    refused("setp.ltu.s32 %p1, %r2, %r3;", "not known for S32");
    refused("and.f32 %f1, %f2, %f3;", "not known for F32");
    refused("shfl.b32 %r1, %r2, 1, 31;", "`.sync`");
    refused("shfl.sync.sideways.b32 %r1, %r2, 1, 31, -1;", "`.bfly`");
    refused("atom.global.mul.u32 %r1, [%rd1], %r2;", "operation");
    refused("atom.global.min.f32 %f1, [%rd1], %f2;", "not known for F32");
    refused(
        "mma.sync.aligned.m8n8k4.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r1}, {%f1};",
        "shape `m8n8k4`",
    );
    refused("mma.sync.aligned.m16n8k16.row.col.f32.s8.s8.f32 {%f1}, {%r1}, {%r1}, {%f1};", "not known");
    refused("cp.async.bulk.commit_group;", "`cp.async` alone");
    refused("cp.async.cg.shared.global [%r1], [%rd1], 8;", "4, 8 or 16");
    refused("cvt.s32.f32 %r1, %f1;", "expected a rounding");
    refused("cvt.f32.f64 %f1, %rd1;", "expected a rounding");
    refused("cvt.f32.s32 %f1, %r1;", "expected a rounding");
    refused("redux.sync.mul.u32 %r1, %r2, -1;", "`mul`");
    refused("st.const.u32 [%rd1], %r1;", "nothing can be stored there");
    refused("st.global.nc.u32 [%rd1], %r1;", "not known to stores");
    refused("st.acquire.gpu.global.u32 [%rd1], %r1;", "not known to stores");
    refused("ld.release.gpu.global.u32 %r1, [%rd1];", "do not release");
}

#[test]
fn operands() {
    refused("add.s32 %r1, %r2;", "3 operands wanted, 2 given");
    refused("add.s32 %r1, %r2, %r3, %r4;", "3 operands wanted, 4 given");
    refused("add.s32 %r1, %r2, %q3;", "`%q3` is not declared");
    refused("add.s32 %r1, %r2, %rd3;", "`%rd3` has 64 bits, 32 are wanted");
    refused("add.s32 %rd1, %r2, %r3;", "`%rd1` has 64 bits, 32 are wanted");
    refused("add.s32 5, %r2, %r3;", "register for the result");
    refused("add.s32 %r99, %r2, %r3;", "`%r99` is no register");
    refused("add.f32 %f1, %f2, 1;", "a number of the instruction's type");
    refused("add.s32 %r1, %r2, 0f3F800000;", "a number of the instruction's type");
    refused("add.f64 %rd1, %rd1, 0f3F800000;", "a number of the instruction's type");
    refused("ld.global.v2.u32 %r1, [%rd1];", "2 registers are wanted");
    refused("ld.global.u32 %h1, [%rd1];", "`%h1` has 16 bits, 32 are wanted");
    refused("ld.global.v4.f64 {%rd1, %rd2, %rd3, %rd4}, [%rd1];", "16 bytes");
    refused("ld.global.u32 %r1, %rd1;", "expected an address");
    refused("ld.global.u32 %r1, [nowhere];", "`nowhere` is not declared");
    refused("mov.u32 %r1, %p1;", "bits");
    refused("@%r1 mov.u32 %r1, %r2;", "bits");
    refused("bra %r1;", "`%r1` is no label");
    refused("bra $nowhere;", "`$nowhere` is no label");
    refused("brx.idx %r1, $nowhere;", "no table");
    refused("mov.b64 {%r1, %r2, %r3}, %rd1;", "two or four parts");
    refused("mov.u64 %rd1, %clock;", "bits");
    refused("bar.sync 0, 1, 2;", "a barrier and a number of threads");
}

#[test]
fn calls() {
    let declared = ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
        .func loop() { call loop; ret; }";
    let of = |body: &str| error_of(&text(declared, body));
    assert!(of("call.uni nowhere, ();").contains("no function `nowhere`"));
    assert!(of("{ .param .b32 p; call.uni (p), vprintf, (p, p); }").contains("no function `vprintf`"));
    assert!(of("call loop;").contains("calls itself"));
    assert!(of("call loop, (%r1);").contains("takes 0"));
    assert!(of("call (%r1), %rd1, (%r1), proto;").contains("pointers"));
}

#[test]
fn text_that_is_broken() {
    for (text, why) in [
        (".visible .entry k( {", "`.param`"),
        (".visible .entry k() { ret; ", "ends too early"),
        (".visible .entry k() { ret }", "expected a name"),
        (".visible .entry k() { add.s32 %r1 %r2, %r3; }", "`,`"),
        (".visible .entry k() .frob { ret; }", "`.frob`"),
        (".visible .entry k() { .frob 3; }", "`.frob`"),
        (".tex .u64 t;", "`.tex`"),
        (".global .align 4 .q32 x;", "`.q32`"),
        (".global .align 4 .u32 x[2] = {1, 2, 3};", "more values"),
        (".global .align 8 .u64 x = y;", "initial values"),
        ("/* no end", "comment"),
    ] {
        let error = error_of(text);
        assert!(error.contains(why), "`{text}`: {error}");
    }
}
