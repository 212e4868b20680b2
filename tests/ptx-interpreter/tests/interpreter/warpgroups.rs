//! What may not be done around products of warpgroups.

use crate::products::{
    COMMIT, FENCE, Factor, Major, PUBLISH, WAIT, filled, first_value, product, second_value, text, try_run,
};
use manygate_ptx_interpreter::{Fault, FaultKind};

/// Factors of 64 x 64 x 16 values, one after the other.
const FIRST: Factor = Factor { lines: 64, depth: 16, major: Major::Summands };
const SECOND: Factor = FIRST;

fn multiply(adds: &str) -> String {
    product(FIRST, SECOND, 0, adds, "1, 1")
}

/// The outcome of a kernel in which `$product` is a product that replaces, `$more` one that adds, of factors that are
/// there and fenced unless `body` says otherwise.
fn outcome_of(threads: u32, body: &str, seed: u64) -> Result<Vec<Vec<f32>>, Fault> {
    let image = [FIRST.image(first_value), SECOND.image(second_value)].concat();
    let body = body
        .replace("$begin", &format!("$filled_by_all{PUBLISH}"))
        .replace("$filled_by_all", &filled(image.len()))
        .replace("$all", &format!("{FENCE}$product{COMMIT}{WAIT}"))
        .replace("$product", &multiply("%p1"))
        .replace("$more", &multiply("%p2"))
        .replace("$fence", FENCE)
        .replace("$commit", COMMIT)
        .replace("$wait", WAIT);
    try_run(&text(64, &body), 64, threads, &image, seed)
}

fn runs(body: &str) {
    for seed in 0..4 {
        outcome_of(128, body, seed).unwrap_or_else(|fault| panic!("{fault}\n{body}"));
    }
}

fn is_at_fault(body: &str, kind: FaultKind, why: &str) {
    for seed in 0..4 {
        match outcome_of(128, body, seed) {
            Ok(_) => panic!("no fault: {body}"),
            Err(fault) => {
                assert_eq!(fault.kind(), kind, "{fault}\n{body}");
                assert!(fault.to_string().contains(why), "{fault}\n{body}");
            }
        }
    }
}

#[test]
fn accumulators_are_fenced() {
    runs("$begin$all");
    runs("$begin$fence$product$more$commit$more$commit$wait");
    runs("$begin$all$fence$more$commit$wait");
    runs("$begin$all$more$commit$wait");
    runs("$begin$all add.f32 %f3, %f3, %f3;\n$fence$more$commit$wait");
    let kind = FaultKind::Unfenced;
    let why = "no `wgmma.fence`";
    is_at_fault("$begin$product$commit$wait", kind, why);
    // Of the instruction's text the beginning is told.
    is_at_fault("$begin$product$commit$wait", kind, "m64n64k16.f32.bf16.bf16 {%f0, ");
    is_at_fault("$begin$product$commit$wait", kind, "...`, block (0, 0, 0)");
    is_at_fault("$begin$fence mov.f32 %f3, 0f00000000;\n$product$commit$wait", kind, why);
    is_at_fault("$begin$all mov.f32 %f3, 0f00000000;\n$more$commit$wait", kind, why);
    is_at_fault("$begin$all add.f32 %f99, %f3, %f3;\n$more$commit$wait", kind, why);
    is_at_fault("$begin$all st.global.f32 [%rd2], %f31;\n$more$commit$wait", kind, why);
    is_at_fault("$begin$fence$more$commit$wait", FaultKind::Uninitialised, "register");
}

#[test]
fn accumulators_are_not_touched_before_a_wait() {
    let kind = FaultKind::InFlight;
    let why = "accumulator of a product that was not waited for (at line ";
    for touch in [
        "add.f32 %f99, %f3, %f3;",
        "mov.f32 %f99, %f31;",
        "mov.f32 %f0, 0f00000000;",
        "ld.global.f32 %f7, [%rd1];",
        "st.global.v2.f32 [%rd2], {%f0, %f1};",
        "mov.b64 %rd9, {%f98, %f3};",
        "selp.f32 %f99, %f3, %f98, %p2;",
        "shfl.sync.idx.b32 %f99, %f3, 0, 31, -1;",
        "cvt.rn.bf16x2.f32 %r9, %f3, %f4;",
        "@%p2 neg.f32 %f99, %f3;",
    ] {
        for before in ["$fence$product", "$fence$product$commit", "$fence$product$wait"] {
            let late = if touch.starts_with("@") { "" } else { "mov.f32 %f98, 0f00000000;\n" };
            is_at_fault(&format!("$begin{late}{before}{touch}\n$commit$wait"), kind, why);
        }
        runs(&format!("mov.f32 %f98, 0f00000000;\n$begin$all{touch}"));
    }
    runs("$begin$fence$product$commit @%p1 neg.f32 %f99, %f3;\nadd.s32 %r9, %r0, %r0;\n$wait");
    // The last group may be on its way, of other accumulators.
    let names = |from: usize| (from..from + 32).map(|i| format!("%f{i}")).collect::<Vec<_>>().join(", ");
    let other = multiply("%p1").replace(&names(0), &names(100));
    let one = |wait: &str| {
        format!(
            "$begin$fence$product$commit{other}$commit wgmma.wait_group.sync.aligned {wait};\nneg.f32 %f99, %f3;\n$wait"
        )
    };
    runs(&one("1"));
    is_at_fault(&one("2"), kind, why);
    // Another shape is no continuation.
    let narrow = product(FIRST, Factor { lines: 32, ..SECOND }, 0, "%p2", "1, 1");
    is_at_fault(&format!("$begin$fence$product$commit{narrow}$commit$wait"), kind, why);
    is_at_fault(
        &format!("$begin$fence$product$commit$wait{narrow}$commit$wait"),
        FaultKind::Unfenced,
        "fence",
    );
    runs(&format!("$begin$fence$product$commit$wait$fence{narrow}$commit$wait"));
}

#[test]
fn products_are_waited_for_before_the_end() {
    let kind = FaultKind::InFlight;
    is_at_fault("$begin$fence$product ret;", kind, "on its way that was not committed (at line ");
    is_at_fault("$begin$fence$product$wait ret;", kind, "not committed");
    is_at_fault("$begin$fence$product$commit ret;", kind, "not waited for");
    runs("$begin$fence$product$commit$wait ret;");
}

#[test]
fn factors_are_not_written_to_before_a_wait() {
    let write = "shl.b32 %r9, %r0, 2;\nadd.s32 %r9, %r9, %r3;\nst.shared.u32 [%r9], %r0;\n";
    let copy = "shl.b32 %r9, %r0, 4;\nadd.s32 %r9, %r9, %r3;\ncp.async.cg.shared.global [%r9], [%rd1], 16;\n";
    for write in [write, copy] {
        let end = "cp.async.wait_all;\n";
        is_at_fault(&format!("$begin$fence$product$commit{write}$wait{end}"), FaultKind::Race, "race");
        is_at_fault(&format!("$begin$all{write}{end}"), FaultKind::Race, "race");
        is_at_fault(
            &format!("$begin$fence$product$commit bar.sync 0;\n{write}{end}bar.sync 0;\n$wait"),
            FaultKind::InFlight,
            "read what thread 0 wrote meanwhile (at line ",
        );
        runs(&format!("$begin$all bar.sync 0;\n{write}{end}"));
    }
    let begun = format!("$begin$fence$product$commit bar.sync 0;\n{copy}bar.sync 0;\n$wait");
    is_at_fault(&begun, FaultKind::InFlight, "read what thread 0 wrote meanwhile (at line ");
    // Of two products with the same factors, one is still on its way.
    let second = product(FIRST, SECOND, 0, "%p2", "1, 1");
    let body = format!(
        "$begin$fence$product$commit{second}$commit wgmma.wait_group.sync.aligned 1;\nbar.sync 0;\n{write}
        bar.sync 0;\n$wait"
    );
    is_at_fault(&body, FaultKind::InFlight, "meanwhile");
    // What is written meanwhile to other columns does not matter.
    let narrow = product(FIRST, Factor { lines: 32, ..SECOND }, 0, "%p1", "1, 1");
    let beyond = write.replace("[%r9]", "[%r9+12288]");
    runs(&format!("$begin$all bar.sync 0;\n$fence{narrow}$commit{beyond}$wait"));
}

#[test]
fn writes_are_made_visible() {
    let kind = FaultKind::Unfenced;
    let why = "wrote without `fence.proxy.async`";
    runs("$filled_by_all fence.proxy.async.shared::cta;\nbar.sync 0;\n$all");
    runs("$filled_by_all fence.proxy.async;\nbarrier.sync 1, 128;\n$all");
    is_at_fault("$filled_by_all bar.sync 0;\n$all", kind, why);
    is_at_fault("fence.proxy.async;\n$filled_by_all bar.sync 0;\n$all", kind, why);
    is_at_fault("$filled_by_all bar.sync 0;\nfence.proxy.async;\n$all", kind, why);
    is_at_fault("$filled_by_all membar.gl;\nbar.sync 0;\n$all", kind, why);
    let elected = "setp.eq.u32 %p0, %r0, 0;\n@%p0 fence.proxy.async;\n";
    is_at_fault(&format!("$filled_by_all{elected}bar.sync 0;\n$all"), kind, why);
    is_at_fault(&format!("$filled_by_all bar.sync 0;\n{elected}bar.sync 0;\n$all"), kind, why);
    is_at_fault("bar.sync 0;\n$all", FaultKind::Uninitialised, "no thread has written to");
    // A later write is hidden again, and a later fence does not take back what an earlier one made visible.
    let write = "add.s32 %r9, %r3, 16;\nst.shared.u16 [%r9], 0;\n";
    let one = format!("setp.eq.u32 %p0, %r0, 70;\n@%p0 bra $one;\nbra.uni $rest;\n$one:\n{write}$rest:\n");
    is_at_fault(&format!("$begin{one}bar.sync 0;\n$all"), kind, "thread 70 wrote");
    runs(&format!("$begin{one}fence.proxy.async;\nbar.sync 0;\n$all"));
    is_at_fault(&format!("$begin{one}fence.proxy.async;\n$all"), FaultKind::Race, "race");
    runs("$begin fence.proxy.async;\n$all");
}

#[test]
fn copies_are_made_visible_after_their_wait() {
    let copy = format!(
        "mov.u32 %r1, %r0;\n$fill:\nsetp.ge.u32 %p0, %r1, {};\n@%p0 bra $filled;\nmad.wide.u32 %rd3, %r1, 16, %rd1;
        mad.lo.s32 %r4, %r1, 16, %r3;\ncp.async.cg.shared.global [%r4], [%rd3], 16;\nadd.s32 %r1, %r1, %r2;
        bra.uni $fill;\n$filled:\ncp.async.commit_group;\n",
        2 * 64 * 128 / 16
    );
    let (fence, wait) = ("fence.proxy.async;\n", "cp.async.wait_group 0;\n");
    runs(&format!("{copy}{wait}{fence}bar.sync 0;\n$all"));
    let why = "wrote without `fence.proxy.async`";
    is_at_fault(&format!("{copy}{fence}{wait}bar.sync 0;\n$all"), FaultKind::Unfenced, why);
    is_at_fault(&format!("{copy}{wait}bar.sync 0;\n$all"), FaultKind::Unfenced, why);
    is_at_fault(&format!("{copy}{fence}bar.sync 0;\n$all"), FaultKind::Uninitialised, "asynchronous copy");
}

#[test]
fn descriptors_that_are_not_modelled() {
    let kind = FaultKind::InvalidOperand;
    let with = |change: u64| {
        let other =
            multiply("%p1").replace("wgmma.mma", &format!("xor.b64 %rd5, %rd5, {change};\nwgmma.mma"));
        format!("$begin$fence{other}$commit$wait")
    };
    runs(&with(0));
    is_at_fault(&with(1 << 62), kind, "128-byte swizzle (layout 0)");
    is_at_fault(&with(3 << 62), kind, "128-byte swizzle (layout 2)");
    is_at_fault(&with(1 << 49), kind, "base offset 1");
    is_at_fault(&with(8), kind, "start 0x2080");
    is_at_fault(&with(7), kind, "leaves the rows of 128 bytes");
    is_at_fault(&with(1 << 32), kind, "must be a multiple of 1024");
    is_at_fault(&with(64 << 32), kind, "0 bytes from atom to atom");
    is_at_fault(&with(1 << 46), kind, "bits that mean nothing");
    is_at_fault(&with(1 << 15), kind, "bits that mean nothing");
    is_at_fault(&with(1 << 10), FaultKind::OutOfBounds, "shared variable");
    // The leading offset of a matrix whose summands lie side by side is not looked at.
    runs(&with(5 << 16));
}

#[test]
fn warps_of_a_warpgroup_do_the_same() {
    let kind = FaultKind::InvalidOperand;
    let own = |register: &str| {
        multiply("%p1").replace("wgmma.mma", &format!("xor.b64 %rd5, %rd5, {register};\nwgmma.mma"))
    };
    let shift = |by: u32| {
        format!(
            "shr.u32 %r9, %r0, {by};\nand.b32 %r9, %r9, 1;\nshl.b32 %r9, %r9, 1;\ncvt.u64.u32 %rd6, %r9;\n"
        )
    };
    is_at_fault(
        &format!("$begin$fence{}{}$commit$wait", shift(0), own("%rd6")),
        kind,
        "lanes of a warp differ",
    );
    is_at_fault(&format!("$begin$fence{}{}$commit$wait", shift(5), own("%rd6")), kind, "another warp");
    let lanes = "and.b32 %r9, %r0, 1;\nsetp.eq.u32 %p3, %r9, 0;\n";
    is_at_fault(&format!("$begin$fence{lanes}{}$commit$wait", multiply("%p3")), kind, "differ in scale-d");
    let first = "setp.lt.u32 %p3, %r0, 32;\n";
    is_at_fault(&format!("$begin$all{first}{}$commit$wait", multiply("%p3")), kind, "another warp");
    is_at_fault(
        &format!("$begin{first}@!%p3 bra $rest;\n$all ret;\n$rest:\n$all"),
        kind,
        "another instruction",
    );
    is_at_fault(&format!("$begin{first}@!%p3 ret;\n$all"), FaultKind::Deadlock, "never comes here");
    let lane = "setp.lt.u32 %p3, %r0, 5;\n";
    is_at_fault(&format!("$begin{lane}@%p3 ret;\n$all"), FaultKind::Deadlock, "all lanes are needed");
    runs("setmaxnreg.dec.sync.aligned.u32 40;\n$begin$all setmaxnreg.inc.sync.aligned.u32 216;\n");
    is_at_fault(&format!("{first}@%p3 setmaxnreg.inc.sync.aligned.u32 216;\n$begin$all"), kind, "another");
    for threads in [32, 96, 160] {
        let fault = outcome_of(threads, "$begin$all", 0).expect_err("a fault");
        assert_eq!(fault.kind(), kind, "{fault}");
        assert!(fault.to_string().contains("no multiple of 128"), "{fault}");
    }
}

/// Two warpgroups compute the same, and meet at barriers of their own.
#[test]
fn two_warpgroups() {
    let group = "shr.u32 %r9, %r0, 7;\nadd.s32 %r9, %r9, 1;\n";
    let body = format!("$begin$all{group}bar.sync %r9, 128;\n$fence$more$commit$wait");
    for seed in 0..4 {
        let results = outcome_of(256, &body, seed).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(results[..128], results[128..]);
    }
    // One warpgroup fills and the other one multiplies: the first one has come when the second one waits.
    let roles =
        "setp.lt.u32 %p3, %r0, 128;\nmov.u32 %r2, 128;\n@%p3 bra $consumer;\nadd.s32 %r0, %r0, -128;\n";
    let producer = |fence: &str| {
        format!("{roles}$filled_by_all{fence}bar.arrive 1, 256;\nret;\n$consumer:\nbar.sync 1, 256;\n$all")
    };
    for seed in 0..4 {
        outcome_of(256, &producer("fence.proxy.async;\n"), seed).unwrap_or_else(|fault| panic!("{fault}"));
        let fault = outcome_of(256, &producer(""), seed).expect_err("a fault");
        assert_eq!(fault.kind(), FaultKind::Unfenced, "{fault}");
    }
}
