//! Accesses that nothing orders.

use crate::support::{bytes_of, download, launch_of, module, upload};
use crate::threads::{STORE, try_words, words};
use manygate_ptx_interpreter::{Fault, FaultKind, Launch, Memory};

/// Shared memory of 512 bytes at `%r4`; `%r2` is the thread's word there, `%r3` that of the thread whose number
/// differs in the lowest bit, `%r5` that of the other warp's.
const SHARED: &str =
    ".shared .align 16 .b8 all[512];\nmov.u32 %r4, all;\nshl.b32 %r2, %r0, 2;\nadd.s32 %r2, %r2, %r4;
    xor.b32 %r3, %r2, 4;\nxor.b32 %r5, %r2, 128;\nst.shared.u32 [%r2], 7;\nbar.sync 0;\n";

fn race(body: &str, threads: u32) -> Fault {
    match try_words(&format!("{SHARED}{body}"), threads, &[0; 64]) {
        Ok(_) => panic!("no race: {body}"),
        Err(fault) => {
            assert_eq!(fault.kind(), FaultKind::Race, "{fault}\n{body}");
            fault
        }
    }
}

fn no_race(body: &str, threads: u32) {
    words(&format!("{SHARED}{body}"), threads, &[0; 64]);
}

#[test]
fn shared_memory_between_lanes_and_warps() {
    for other in ["%r3", "%r5"] {
        // Read after write, write after read, write after write.
        race(&format!("st.shared.u32 [%r2], %r0;\nld.shared.u32 %r1, [{other}];"), 64);
        race(
            &format!(
                "st.shared.u32 [%r2], %r0;\nbar.sync 0;\nld.shared.u32 %r1, [{other}];\nst.shared.u32 [%r2], 1;"
            ),
            64,
        );
        race(&format!("st.shared.u32 [%r2], %r0;\nst.shared.u32 [{other}], %r0;"), 64);
        no_race(&format!("st.shared.u32 [%r2], %r0;\nbar.sync 0;\nld.shared.u32 %r1, [{other}];"), 64);
        let body = "st.shared.u32 [%r2], %r0;\nbar.sync 0;\nld.shared.u32 %r1, [OTHER];\nbar.sync 0;
            st.shared.u32 [%r2], 1;";
        no_race(&body.replace("OTHER", other), 64);
    }
    // All lanes write to one word, in one instruction.
    race("st.shared.u32 [%r4], 1;", 2);
}

#[test]
fn both_accesses_are_named() {
    let body = "setp.lt.u32 %p1, %r0, 32;\n@%p1 st.shared.u32 [%r2], %r0;\n@!%p1 ld.shared.u32 %r1, [%r5];";
    let fault = race(body, 64);
    let message = fault.to_string();
    assert_eq!(fault.thread(), [32, 0, 0]);
    assert!(message.contains("`@!%p1 ld.shared.u32 %r1, [%r5];`"), "{message}");
    assert!(
        message.contains("race: reads what thread 0 wrote, and nothing orders the two (at line "),
        "{message}"
    );
    assert!(message.ends_with("`@%p1 st.shared.u32 [%r2], %r0;`)"), "{message}");
}

/// Whoever reads, a writer of another warp finds a reader.
#[test]
fn many_readers() {
    let read = "st.shared.u32 [%r2], 0;\nbar.sync 0;\nld.shared.u32 %r1, [%r4];\n";
    for writer in [0, 5, 33, 127] {
        race(&format!("{read}setp.eq.u32 %p1, %r0, {writer};\n@%p1 st.shared.u32 [%r4], 1;"), 128);
        no_race(
            &format!("{read}bar.sync 0;\nsetp.eq.u32 %p1, %r0, {writer};\n@%p1 st.shared.u32 [%r4], 1;"),
            128,
        );
    }
    no_race(
        "setp.eq.u32 %p1, %r0, 40;\n@%p1 st.shared.u32 [%r4], 0;\n@%p1 ld.shared.u32 %r1, [%r4];
        @%p1 st.shared.u32 [%r4], 1;",
        128,
    );
}

#[test]
fn operations_of_a_warp_order_its_lanes_alone() {
    for sync in
        ["bar.warp.sync -1;", "shfl.sync.idx.b32 %r1, %r0, 0, 31, -1;", "match.any.sync.b32 %r1, %r0, -1;"]
    {
        no_race(
            &format!(
                "st.shared.u32 [%r2], %r0;\n{sync}\nld.shared.u32 %r1, [%r3];\n{sync}\nst.shared.u32 [%r2], 1;"
            ),
            64,
        );
        race(&format!("st.shared.u32 [%r2], %r0;\n{sync}\nld.shared.u32 %r1, [%r5];"), 64);
        race(
            &format!("st.shared.u32 [%r2], %r0;\n{sync}\nld.shared.u32 %r1, [%r3];\nst.shared.u32 [%r2], 1;"),
            64,
        );
    }
    // Of some lanes those alone.
    let pairs = "and.b32 %r6, %r0, 30;\nmov.u32 %r7, 3;\nshl.b32 %r7, %r7, %r6;\nbar.warp.sync %r7;";
    no_race(&format!("st.shared.u32 [%r2], %r0;\n{pairs}\nld.shared.u32 %r1, [%r3];"), 64);
    race(&format!("st.shared.u32 [%r2], %r0;\n{pairs}\nxor.b32 %r3, %r2, 8;\nld.shared.u32 %r1, [%r3];"), 64);
}

#[test]
fn barriers_of_some_warps_order_those_alone() {
    let body = |other: u32| {
        format!(
            "st.shared.u32 [%r2], %r0;\nshr.u32 %r6, %r0, 6;\nadd.s32 %r6, %r6, 1;\nbar.sync %r6, 64;
            xor.b32 %r7, %r2, {};\nld.shared.u32 %r1, [%r7];",
            4 * other
        )
    };
    no_race(&body(32), 128);
    race(&body(64), 128);
}

/// Warps that do not wait at a barrier are not ordered after it, nor is what they do after they arrived before it.
#[test]
fn warps_that_arrive_do_not_wait() {
    let body = |before: &str, after: &str, read: &str| {
        format!(
            "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra $arrives;\nbar.sync 1, 64;\n{read}\nbra $end;\n$arrives:
            {before}\nbar.arrive 1, 64;\n{after}\n$end:"
        )
    };
    let (write, read) = ("st.shared.u32 [%r2], 1;", "ld.shared.u32 %r1, [%r5];");
    no_race(&body(write, "", read), 64);
    race(&body("", write, read), 64);
    race(&body("", "ld.shared.u32 %r1, [%r2];", "st.shared.u32 [%r5], 1;"), 64);
    no_race(&body("ld.shared.u32 %r1, [%r2];", "", "st.shared.u32 [%r5], 1;"), 64);
    race(&body("", "ld.shared.u32 %r1, [%r5];", "st.shared.u32 [%r2], 1;"), 64);
}

#[test]
fn neighbours_within_a_word_do_not_race() {
    let halves = "shl.b32 %r6, %r0, 1;\nadd.s32 %r6, %r6, %r4;\nst.shared.u16 [%r6], %r0;";
    no_race(halves, 64);
    no_race("add.s32 %r6, %r0, %r4;\nst.shared.u8 [%r6], %r0;\nld.shared.u8 %r1, [%r6];", 64);
    race(&format!("{halves}\nld.shared.u16 %r1, [%r4+6];"), 64);
    // Words are looked at before and after they are halves to anyone.
    race(&format!("st.shared.u32 [%r2], %r0;\n{halves}"), 64);
    no_race(
        &format!("st.shared.u32 [%r2], %r0;\nbar.sync 0;\n{halves}\nbar.sync 0;\nld.shared.u32 %r1, [%r4];"),
        64,
    );
}

#[test]
fn atomics_race_with_others_than_atomics() {
    let start = "st.shared.u32 [%r2], 0;\nbar.sync 0;\natom.shared.add.u32 %r1, [%r4], 1;\n";
    no_race(start, 64);
    no_race(&format!("{start}bar.sync 0;\nld.shared.u32 %r1, [%r4];"), 64);
    no_race(&format!("{start}ld.volatile.shared.u32 %r1, [%r4];"), 64);
    race(&format!("{start}ld.shared.u32 %r1, [%r4];"), 64);
    race(&format!("{start}setp.eq.u32 %p1, %r0, 40;\n@%p1 st.shared.u32 [%r4], 5;"), 64);
    race("st.shared.u32 [%r2], 0;\natom.shared.add.u32 %r1, [%r4], 1;", 64);
    let volatile = "st.volatile.shared.u32 [%r4], %r0;\nld.volatile.shared.u32 %r1, [%r4];";
    no_race(volatile, 64);
}

#[test]
fn device_memory_within_a_block() {
    let word = "mad.wide.u32 %rd2, %r0, 4, %rd1;\nst.global.u32 [%rd2], %r0;\n";
    let other = "xor.b32 %r6, %r0, 33;\nmad.wide.u32 %rd3, %r6, 4, %rd1;\nld.global.u32 %r1, [%rd3];";
    race(&format!("{word}{other}"), 64);
    no_race(&format!("{word}bar.sync 0;\n{other}"), 64);
    race("st.global.u32 [%rd1], %r0;", 2);
    race("ld.global.u32 %r1, [%rd1];\nsetp.eq.u32 %p1, %r0, 3;\n@%p1 st.global.u32 [%rd1], 1;", 64);
}

/// A load that says that nothing is written need not see what was, not even of its own thread.
#[test]
fn loads_of_what_does_not_change() {
    let fault = race("st.global.u32 [%rd1], 1;\nld.global.nc.u32 %r1, [%rd1];", 1);
    assert!(fault.to_string().contains("(`.nc`) what thread 0 wrote in this launch (at line "), "{fault}");
    race("st.global.u32 [%rd1], 1;\nbar.sync 0;\nld.global.nc.u32 %r1, [%rd1];", 1);
    no_race("ld.global.nc.u32 %r1, [%rd1];\nst.global.u32 [%rd1], 1;\nld.global.u32 %r1, [%rd1];", 1);
    race("ld.global.nc.u32 %r1, [%rd1];\nst.global.u32 [%rd1], 1;", 2);
}

/// The outcome of a kernel in blocks of 64 threads; `%r0` is the block, `%r1` the thread, `%rd0` memory with zeros.
fn blocks(count: u32, body: &str) -> Result<Vec<u64>, Fault> {
    let text = format!(
        ".visible .entry k(.param .u64 k_0) {{\n.reg .b64 %rd<6>;\n.reg .b32 %r<9>;\n.reg .pred %p<4>;
        .shared .align 4 .b8 flag[4];
        ld.param.u64 %rd0, [k_0];\nmov.u32 %r0, %ctaid.x;\nmov.u32 %r1, %tid.x;\nmad.wide.u32 %rd1, %r0, 4, %rd0;
        {body}\nret;\n}}"
    );
    let mut memory = Memory::new();
    let address = upload(&mut memory, &[0; 1024]);
    let parameters = bytes_of(&[address]);
    let launch = Launch { seed: 9, ..launch_of([count, 1, 1], [64, 1, 1], &parameters) };
    module(&text).kernel("k").expect("k").launch(&mut memory, &launch)?;
    Ok(download(&mut memory, address, 128))
}

fn race_of_blocks(body: &str) {
    let fault = blocks(3, body).expect_err("a race");
    assert_eq!(fault.kind(), FaultKind::Race, "{fault}");
    assert!(fault.to_string().contains("of block ("), "{fault}");
}

const FIRST: &str = "setp.eq.u32 %p1, %r1, 0;\n";

#[test]
fn device_memory_between_blocks() {
    race_of_blocks(&format!("{FIRST}@%p1 st.global.u32 [%rd0], 1;"));
    race_of_blocks(&format!(
        "{FIRST}@%p1 ld.global.u32 %r2, [%rd0];\nbar.sync 0;\nsetp.eq.u32 %p2, %r0, 1;\n@!%p2 bra $end;
        @%p1 st.global.u32 [%rd0], 1;\n$end:"
    ));
    race_of_blocks(&format!("{FIRST}@%p1 st.global.u32 [%rd1], 1;\n@%p1 ld.global.u32 %r2, [%rd0+4];"));
    race_of_blocks(&format!(
        "{FIRST}@%p1 red.global.add.u32 [%rd0], 1;\nbar.sync 0;\n@%p1 ld.global.u32 %r2, [%rd0];"
    ));
    assert!(
        blocks(3, &format!("{FIRST}@%p1 st.global.u32 [%rd1], 1;\n@%p1 ld.global.u32 %r2, [%rd1];")).is_ok()
    );
    assert!(
        blocks(
            3,
            &format!(
                "{FIRST}@%p1 st.volatile.global.u32 [%rd0], 1;\n@%p1 ld.volatile.global.u32 %r2, [%rd0];"
            )
        )
        .is_ok()
    );
    assert_eq!(blocks(3, "red.global.add.u32 [%rd0], 1;").expect("no fault")[0], 192);
    assert!(blocks(3, "ld.global.u32 %r2, [%rd0];").is_ok());
}

#[test]
fn launches_are_ordered() {
    let text = ".visible .entry k(.param .u64 k_0) {\n.reg .b64 %rd<2>;\n.reg .b32 %r<2>;\nld.param.u64 %rd0, [k_0];
        mov.u32 %r0, %tid.x;\nld.global.u32 %r1, [%rd0];\nadd.s32 %r1, %r1, 1;\nst.global.u32 [%rd0], %r1;\nret;\n}";
    let module = module(text);
    let mut memory = Memory::new();
    let address = upload(&mut memory, &[0; 8]);
    for _ in 0..3 {
        let parameters = bytes_of(&[address]);
        let launch = launch_of([1, 1, 1], [1, 1, 1], &parameters);
        module.kernel("k").expect("k").launch(&mut memory, &launch).unwrap_or_else(|fault| panic!("{fault}"));
    }
    assert_eq!(download(&mut memory, address, 1), [3]);
}

/// Every block stores a number; the one that counts last sums them up.
fn last_block(before: &str, count: &str, after: &str) -> Result<Vec<u64>, Fault> {
    blocks(
        5,
        &format!(
            "{FIRST}setp.eq.u32 %p2, %r1, 40;\nadd.s32 %r2, %r0, 10;\n@%p2 st.global.u32 [%rd1], %r2;\n{before}
            @!%p1 bra $counted;\n{count}\nst.shared.u32 [flag], %r3;\n$counted:\nbar.sync 0;
                ld.shared.u32 %r3, [flag];
            setp.ne.u32 %p3, %r3, 4;\n@%p3 ret;\n{after}\nsetp.ne.u32 %p3, %r1, 7;\n@%p3 ret;\nmov.u32 %r4, 0;
            mov.u32 %r5, 0;
            $sum:\nmad.wide.u32 %rd2, %r5, 4, %rd0;\nld.global.u32 %r6, [%rd2];\nadd.s32 %r4, %r4, %r6;
            add.s32 %r5, %r5, 1;
            setp.lt.u32 %p3, %r5, 5;\n@%p3 bra $sum;\nst.global.u32 [%rd0+512], %r4;"
        ),
    )
}

#[test]
fn the_last_block_sees_what_was_fenced() {
    let inc = "atom.global.inc.u32 %r3, [%rd0+1000], 4;";
    for (before, count, after) in [
        ("membar.gl;\nbar.sync 0;", inc, "membar.gl;"),
        ("bar.sync 0;", &format!("membar.gl;\n{inc}") as &str, "fence.acq_rel.gpu;"),
        ("bar.sync 0;", "atom.acq_rel.gpu.global.inc.u32 %r3, [%rd0+1000], 4;", ""),
        ("membar.gl;\nbar.sync 0;", &format!("{inc}\nmembar.gl;"), ""),
    ] {
        let result = last_block(before, count, after)
            .unwrap_or_else(|fault| panic!("{before} {count} {after}: {fault}"));
        assert_eq!(result[64], 60);
    }
    for (before, count, after) in [
        // Without a fence before the count, without a barrier, with a fence of the block alone, without one after it.
        ("bar.sync 0;", inc, "membar.gl;"),
        ("", &format!("membar.gl;\n{inc}") as &str, "membar.gl;"),
        ("membar.cta;\nbar.sync 0;", inc, "membar.gl;"),
        ("membar.gl;\nbar.sync 0;", inc, ""),
    ] {
        let fault = last_block(before, count, after).expect_err("a race");
        assert_eq!(fault.kind(), FaultKind::Race, "{before} {count} {after}: {fault}");
    }
}

/// A copy of 16 bytes to `%r2`, the thread's own.
const COPY: &str =
    ".shared .align 16 .b8 tile[1024];\nmov.u32 %r4, tile;\nshl.b32 %r2, %r0, 4;\nadd.s32 %r2, %r2, %r4;
    xor.b32 %r3, %r2, 16;\ncp.async.cg.shared.global [%r2], [%rd1], 16;\n";

fn copy_fault(body: &str) -> Fault {
    try_words(&format!("{COPY}{body}"), 64, &[1, 2, 3, 4]).expect_err("a fault")
}

#[test]
fn asynchronous_copies_are_waited_for() {
    let read = "ld.shared.u32 %r1, [%r2];";
    let missing = [
        read.to_owned(),
        format!("bar.sync 0;\n{read}"),
        format!("cp.async.wait_group 0;\n{read}"),
        format!("cp.async.commit_group;\ncp.async.wait_group 1;\n{read}"),
        format!("cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 2;\n{read}"),
    ];
    for body in missing {
        let fault = copy_fault(&body);
        assert_eq!(fault.kind(), FaultKind::Uninitialised, "{fault}\n{body}");
        assert!(fault.to_string().contains("asynchronous copy"), "{fault}\n{body}");
    }
    let other = "ld.shared.u32 %r1, [%r3];";
    assert_eq!(copy_fault(&format!("cp.async.wait_all;\n{other}")).kind(), FaultKind::Race);
    assert_eq!(copy_fault("st.shared.u32 [%r3], 1;").kind(), FaultKind::Race);
    assert_eq!(
        copy_fault("bar.sync 0;\nst.shared.u32 [%r3], 1;\ncp.async.wait_all;").kind(),
        FaultKind::Race
    );
    for body in [
        format!("cp.async.wait_all;\n{read}\n{STORE}"),
        format!("cp.async.wait_all;\nbar.sync 0;\n{other}\n{STORE}"),
        format!("cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 1;\n{read}\n{STORE}"),
    ] {
        let result = try_words(&format!("{COPY}{body}"), 64, &[1, 2, 3, 4]);
        assert_eq!(result.unwrap_or_else(|fault| panic!("{fault}")), [1; 64]);
    }
    // What others still read is not copied over.
    let reused = "cp.async.wait_all;\nbar.sync 0;\nld.shared.u32 %r1, [%r3];\nBARRIER
        cp.async.cg.shared.global [%r2], [%rd1], 16;";
    assert_eq!(copy_fault(&reused.replace("BARRIER", "")).kind(), FaultKind::Race);
    assert!(try_words(&format!("{COPY}{}", reused.replace("BARRIER", "bar.sync 0;")), 64, &[1; 4]).is_ok());
}
