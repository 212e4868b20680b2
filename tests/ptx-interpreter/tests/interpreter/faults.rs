//! What a correct kernel never does, and that it is found where it happens.

use crate::support::{bytes_of, launch_of, module, run, upload};
use crate::threads::{STORE, try_words};
use manygate_ptx_interpreter::{Fault, FaultKind, Launch, Memory};

/// The fault of a kernel in `threads` threads.
fn fault(body: &str, threads: u32) -> Fault {
    match try_words(body, threads, &[1, 2, 3, 4]) {
        Ok(words) => panic!("no fault, but {words:?}: {body}"),
        Err(fault) => fault,
    }
}

/// That a body is at fault, for the given reason.
fn is_at_fault(body: &str, threads: u32, kind: FaultKind, why: &str) {
    let fault = fault(body, threads);
    assert_eq!(fault.kind(), kind, "{fault}\n{body}");
    assert!(fault.to_string().contains(why), "{fault}\n{body}");
}

#[test]
fn the_place_is_named() {
    let text = ".visible .entry k(.param .u64 k_0) {\n.reg .b64 %rd<2>;\n.reg .b32 %r<4>;\n.reg .pred %p<2>;
        ld.param.u64 %rd0, [k_0];\nmov.u32 %r0, %tid.y;\nmov.u32 %r1, %ctaid.x;\nmul.lo.s32 %r2, %r0, %r1;
        setp.ne.s32 %p1, %r2, 6;\n@%p1 ret;\n  st.global.u32   [%rd0+4], %r0;\nret;\n}";
    let mut memory = Memory::new();
    let output = upload(&mut memory, &[0; 4]);
    let parameters = bytes_of(&[output]);
    let launch = launch_of([4, 1, 1], [2, 4, 1], &parameters);
    let fault = module(text).kernel("k").expect("k").launch(&mut memory, &launch).expect_err("a fault");
    assert_eq!((fault.line(), fault.block(), fault.thread()), (14, [2, 0, 0], [0, 3, 0]));
    let message = "k, line 14 `st.global.u32   [%rd0+4], %r0;`, block (2, 0, 0), thread (0, 3, 0): \
        out of bounds: 4 bytes at 4 of an allocation of 4";
    assert_eq!(fault.to_string(), message);
}

#[test]
fn accesses_out_of_bounds() {
    let kind = FaultKind::OutOfBounds;
    is_at_fault("ld.global.u32 %r1, [%rd1+16];", 1, kind, "4 bytes at 16 of an allocation of 16");
    is_at_fault("ld.global.u32 %r1, [%rd1+-4];", 1, kind, "out of bounds");
    is_at_fault("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1+16];", 1, kind, "16 bytes at 16");
    is_at_fault("mov.u64 %rd2, 64;\nld.global.u32 %r1, [%rd2];", 1, kind, "0x40, where nothing is allocated");
    is_at_fault("mov.u64 %rd2, 0;\nst.u32 [%rd2], %r0;", 1, kind, "0x0, where nothing is allocated");
    is_at_fault("ld.const.u32 %r1, [%rd1+16];", 1, kind, "of an allocation");
    is_at_fault("red.global.add.u32 [%rd1+1024], 1;", 1, kind, "of an allocation");
    let shared = ".shared .align 4 .b8 a[8];\n.shared .align 4 .b8 b[8];\n";
    is_at_fault(
        &format!("{shared}st.shared.u32 [a+8], 1;"),
        1,
        kind,
        "4 bytes at 8 of a shared variable of 8",
    );
    is_at_fault(
        &format!("{shared}st.shared.u32 [b+8], 1;"),
        1,
        kind,
        "4 bytes at 8 of a shared variable of 8",
    );
    is_at_fault(&format!("{shared}atom.shared.add.u32 %r1, [b+-4], 1;"), 1, kind, "shared variable");
    is_at_fault("mov.u32 %r2, 64;\nld.shared.u32 %r1, [%r2];", 1, kind, "64 of 0 of shared memory");
    is_at_fault(
        ".local .align 4 .b8 d[8];\nst.local.u32 [d+8], 1;",
        1,
        kind,
        "8 of 8 of the thread's memory",
    );
    is_at_fault("ld.param.u64 %rd2, [k_1+8];", 1, kind, "16 of 16 of parameters");
    is_at_fault(
        "mov.u32 %r2, 0;\ncp.async.ca.shared.global [%r2], [%rd1+16], 4;",
        1,
        kind,
        "4 bytes at 16 of an allocation",
    );
    // Of 32 lanes the fifth one alone is beyond.
    let fault = fault("mad.wide.u32 %rd1, %r0, 4, %rd1;\nld.global.u32 %r1, [%rd1];", 32);
    assert_eq!((fault.kind(), fault.thread()), (kind, [4, 0, 0]));
}

#[test]
fn accesses_of_freed_memory() {
    let text =
        ".visible .entry k(.param .u64 k_0) {\n.reg .b64 %rd<2>;\n.reg .b32 %r<2>;\nld.param.u64 %rd0, [k_0];
        ld.global.u32 %r1, [%rd0+8];\nret;\n}";
    let mut memory = Memory::new();
    let (first, second) = (upload(&mut memory, &[0; 16]), upload(&mut memory, &[0; 16]));
    assert!(memory.free(first));
    assert!(!memory.free(first));
    assert!(!memory.free(second + 4));
    let fault = run(&mut memory, text, [1, 1, 1], 0, &bytes_of(&[first])).expect_err("a fault");
    assert_eq!(fault.kind(), FaultKind::UseAfterFree, "{fault}");
    assert!(run(&mut memory, text, [1, 1, 1], 0, &bytes_of(&[second])).is_ok());
    assert_ne!(memory.allocate(16), first, "addresses are not used again");
}

#[test]
fn the_host_sees_allocations_alone() {
    let mut memory = Memory::new();
    let address = memory.allocate(8);
    assert_eq!(memory.bytes(address + 4, 4).map(|bytes| bytes.len()), Some(4));
    assert!(memory.bytes(address + 4, 5).is_none());
    assert!(memory.bytes(address - 1, 1).is_none());
    assert!(memory.bytes(0, 0).is_some_and(|bytes| bytes.is_empty()));
    let empty = memory.allocate(0);
    assert_ne!(empty, memory.allocate(0));
    assert!(memory.free(empty));
}

#[test]
fn accesses_that_are_not_aligned() {
    let kind = FaultKind::Misaligned;
    is_at_fault("ld.global.u32 %r1, [%rd1+2];", 1, kind, "4 bytes");
    is_at_fault("ld.global.u16 %h1, [%rd1+1];", 1, kind, "2 bytes");
    is_at_fault("ld.global.v2.u32 {%r1, %r2}, [%rd1+4];", 1, kind, "8 bytes");
    is_at_fault("ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1+8];", 1, kind, "16 bytes");
    is_at_fault(".shared .align 8 .b8 a[16];\nst.shared.u64 [a+4], 1;", 1, kind, "8 bytes");
    is_at_fault(".local .align 8 .b8 a[16];\nst.local.u64 [a+4], 1;", 1, kind, "8 bytes");
    is_at_fault("ld.param.u64 %rd2, [k_0+4];", 1, kind, "8 bytes");
    is_at_fault("atom.global.add.u64 %rd2, [%rd1+4], 1;", 1, kind, "8 bytes");
    let shared = ".shared .align 16 .b8 a[32];\nmov.u32 %r2, a;\n";
    is_at_fault(&format!("{shared}cp.async.ca.shared.global [%r2+4], [%rd1], 8;"), 1, kind, "8 bytes");
    is_at_fault(&format!("{shared}cp.async.ca.shared.global [%r2], [%rd1+4], 8;"), 1, kind, "8 bytes");
}

#[test]
fn constants_are_not_stored_to() {
    let text = ".const .align 4 .u32 one = 1;\n.visible .entry k() {\nst.global.u32 [one], 2;\nret;\n}";
    let fault = run(&mut Memory::new(), text, [1, 1, 1], 0, &[]).expect_err("a fault");
    assert_eq!(fault.kind(), FaultKind::ReadOnly);
}

#[test]
fn registers_that_are_not_initialised() {
    let kind = FaultKind::Uninitialised;
    let why = "register";
    is_at_fault("add.s32 %r1, %r2, 1;", 1, kind, why);
    is_at_fault("fma.rn.f32 %f1, %f2, %f2, %f2;", 1, kind, why);
    is_at_fault("add.rz.f32 %f1, %f2, %f2;", 1, kind, why);
    is_at_fault("cvt.rn.bf16.f32 %h1, %f2;", 1, kind, why);
    is_at_fault("cvt.rn.bf16x2.f32 %r1, %f2, %f2;", 1, kind, why);
    is_at_fault("addc.u32 %r1, %r0, %r0;", 1, kind, why);
    is_at_fault("ld.global.u32 %r1, [%rd5];", 1, kind, why);
    is_at_fault("st.global.u32 [%rd1], %r9;", 1, kind, why);
    is_at_fault("red.global.add.u32 [%rd1], %r9;", 1, kind, why);
    is_at_fault("@%p5 mov.u32 %r1, 1;", 1, kind, why);
    is_at_fault("shfl.sync.idx.b32 %r1, %r0, %r9, 31, -1;", 32, kind, why);
    is_at_fault("vote.sync.ballot.b32 %r1, %p5, -1;", 32, kind, why);
    is_at_fault("bar.sync %r9;", 32, kind, why);
    is_at_fault("bar.red.popc.u32 %r1, 0, %p5;", 32, kind, why);
    // Copies of it are not, what is made of them is.
    is_at_fault("mov.u32 %r2, %r3;\nmov.b64 %rd2, {%r2, %r2};\nadd.s64 %rd3, %rd2, 1;", 1, kind, why);
    is_at_fault("setp.eq.u32 %p1, %r0, 0;\nselp.b32 %r1, %r2, %r0, %p1;\nadd.s32 %r1, %r1, 1;", 1, kind, why);
    is_at_fault("shfl.sync.idx.b32 %r1, %r9, 0, 31, -1;\nadd.s32 %r1, %r1, 1;", 32, kind, why);
    let copies =
        "mov.u32 %r2, %r3;\nmov.b64 %rd2, {%r0, %r2};\nmov.b64 {%r4, %r5}, %rd2;\nsetp.eq.u32 %p1, %r0, 0;
        selp.b32 %r1, %r0, %r3, %p1;";
    assert_eq!(try_words(&format!("{copies}\n{STORE}"), 1, &[]).expect("no fault"), [0]);
    // Lane 3 alone went the way on which the register is set.
    let fault = fault("setp.ne.u32 %p1, %r0, 3;\n@%p1 mov.u32 %r1, 1;\nadd.s32 %r1, %r1, 1;", 32);
    assert_eq!((fault.kind(), fault.thread()), (kind, [3, 0, 0]));
}

#[test]
fn memory_that_is_not_initialised() {
    let kind = FaultKind::Uninitialised;
    let shared = ".shared .align 8 .b8 a[64];\n";
    is_at_fault(&format!("{shared}ld.shared.u32 %r1, [a];"), 1, kind, "no thread has written to by now");
    is_at_fault(&format!("{shared}st.shared.u32 [a], 1;\nld.shared.u64 %rd2, [a];"), 1, kind, "byte 4 of");
    is_at_fault(&format!("{shared}atom.shared.add.u32 %r1, [a], 1;"), 1, kind, "atomic");
    is_at_fault(
        ".local .align 4 .b8 d[8];\nld.local.u32 %r1, [d];\nadd.s32 %r1, %r1, 1;",
        1,
        kind,
        "register",
    );
    let text =
        ".visible .entry k(.param .u64 k_0) {\n.reg .b64 %rd<2>;\n.reg .b32 %r<3>;\nld.param.u64 %rd0, [k_0];
        st.global.u16 [%rd0], 1;\nst.global.u16 [%rd0+2], 1;\nld.global.u32 %r1, [%rd0];
        ld.global.u32 %r1, [%rd0+4];\nret;\n}";
    let mut memory = Memory::new();
    let address = memory.allocate(8);
    let fault = run(&mut memory, text, [1, 1, 1], 0, &bytes_of(&[address])).expect_err("a fault");
    assert_eq!((fault.kind(), fault.line()), (kind, 11));
    memory.bytes(address + 4, 4).expect("allocated").fill(0);
    assert!(run(&mut memory, text, [1, 1, 1], 0, &bytes_of(&[address])).is_ok());
}

/// A block's memory is forgotten when the next block begins.
#[test]
fn shared_memory_of_another_block() {
    let text = ".visible .entry k() {\n.shared .align 4 .b8 a[4];\n.reg .b32 %r<3>;\n.reg .pred %p<2>;
        mov.u32 %r0, %ctaid.x;\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [a], 1;\nld.shared.u32 %r1, [a];
            ret;\n}";
    let launch = launch_of([2, 1, 1], [1, 1, 1], &[]);
    let fault =
        module(text).kernel("k").expect("k").launch(&mut Memory::new(), &launch).expect_err("a fault");
    assert_eq!((fault.kind(), fault.block()), (FaultKind::Uninitialised, [1, 0, 0]));
}

#[test]
fn threads_that_never_meet() {
    let kind = FaultKind::Deadlock;
    let half = "setp.lt.u32 %p1, %r0, 16;\n";
    let full = "shfl.sync.idx.b32 %r1, %r0, 0, 31, -1;";
    is_at_fault(&format!("{half}@%p1 {full}\nbar.warp.sync -1;"), 32, kind, "never come");
    is_at_fault(&format!("{half}@%p1 {full}\nbar.sync 0;"), 32, kind, "lanes 0xffff0000 wait at line");
    is_at_fault(&format!("{half}@%p1 bra $A;\n{full}\nbra $B;\n$A:\n{full}\n$B:"), 32, kind, "never come");
    is_at_fault(
        &format!("{half}@%p1 vote.sync.ballot.b32 %r1, %p1, -1;\nbar.sync 0;"),
        32,
        kind,
        "never come",
    );
    is_at_fault(&format!("{half}@%p1 bar.warp.sync 0x1ffff;\nbar.sync 0;"), 32, kind, "never come");
    // The lanes that come would be enough, were they not of two branches.
    is_at_fault(
        &format!("{half}@%p1 bra $A;\nbar.sync 0;\nbra $B;\n$A:\nbar.sync 0;\n$B:"),
        32,
        kind,
        "wait at line",
    );
    let warps = "setp.lt.u32 %p1, %r0, 32;\n";
    is_at_fault(
        &format!("{warps}@%p1 bra $A;\nbar.sync 0;\nbra $B;\n$A:\nbar.sync 0;\n$B:"),
        64,
        kind,
        "others at the barrier",
    );
    is_at_fault(&format!("{warps}@%p1 ret;\nbar.sync 0;"), 64, kind, "32 threads wait here, 32 have exited");
    is_at_fault(&format!("{half}@%p1 ret;\nbar.sync 0;"), 32, kind, "16 threads wait here, 16 have exited");
    is_at_fault(
        "setp.eq.u32 %p1, %r0, 5;\n@%p1 ret;\nbar.sync 0;",
        64,
        kind,
        "63 threads wait here, 1 have exited",
    );
    is_at_fault(&format!("{half}@%p1 bar.sync 0;"), 32, kind, "16 threads wait here, 16 have exited");
    is_at_fault(&format!("{warps}@%p1 bar.sync 1;\n@!%p1 bar.sync 2;"), 64, kind, "others wait at line");
    is_at_fault("bar.sync 1, 128;", 64, kind, "64 threads wait here");
    is_at_fault(&format!("{warps}@%p1 bar.sync 0;\nbar.sync 0;"), 64, kind, "others at the barrier");
}

#[test]
fn operations_of_whole_warps() {
    let kind = FaultKind::Deadlock;
    let shared = ".shared .align 16 .b8 a[512];\nmov.u32 %r2, a;\n";
    let load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r2];";
    is_at_fault(&format!("{shared}{load}"), 31, kind, "all lanes are needed");
    is_at_fault(
        &format!("{shared}setp.eq.u32 %p1, %r0, 9;\n@%p1 ret;\n{load}"),
        32,
        kind,
        "all lanes are needed",
    );
    is_at_fault(
        &format!("{shared}setp.eq.u32 %p1, %r0, 9;\n@!%p1 {load}\nbar.sync 0;"),
        32,
        kind,
        "never come",
    );
}

#[test]
fn lanes_that_do_not_take_part() {
    let kind = FaultKind::InactiveLane;
    is_at_fault("shfl.sync.idx.b32 %r1, %r0, 31, 31, -1;", 16, kind, "reads lane 31");
    is_at_fault(
        "setp.gt.u32 %p1, %r0, 3;\n@%p1 ret;\nshfl.sync.down.b32 %r1, %r0, 1, 31, -1;",
        32,
        kind,
        "reads lane 4",
    );
    let some = "setp.lt.u32 %p1, %r0, 8;\n@%p1 shfl.sync.bfly.b32 %r1, %r0, 8, 31, 0xff;";
    is_at_fault(some, 32, kind, "lane 8, which is not one of the lanes 0x000000ff");
}

#[test]
fn operands_that_are_not_allowed() {
    let kind = FaultKind::InvalidOperand;
    is_at_fault(
        "shfl.sync.idx.b32 %r1, %r0, 0, 31, 1;",
        32,
        kind,
        "lane 1 is not among the lanes 0x00000001",
    );
    is_at_fault("bar.sync 16;", 32, kind, "no barrier 16");
    is_at_fault("bar.sync %r0;", 32, kind, "different barriers");
    is_at_fault("bar.sync 1, 48;", 64, kind, "which is for 48");
    is_at_fault("bar.arrive 1, 128;\nbar.arrive 1, 128;", 64, kind, "arrives again at barrier 1");
    let roles = "setp.lt.u32 %p1, %r0, 32;\n@%p1 bar.arrive 1, 96;\n@!%p1 bar.sync 1, 64;";
    is_at_fault(roles, 64, kind, "for 64 threads here, for 96 to others");
    is_at_fault("bar.sync 1, 32;", 64, kind, "64 threads at barrier 1, which is for 32");
    is_at_fault("$T: .branchtargets $a, $a;\nbrx.idx %r0, $T;\n$a:", 32, kind, "branch 2 of 2");
    let shared = ".shared .align 16 .b8 a[32];\nmov.u32 %r2, a;\nmov.u32 %r3, 9;\n";
    is_at_fault(
        &format!("{shared}cp.async.ca.shared.global [%r2], [%rd1], 8, %r3;"),
        1,
        kind,
        "9 bytes of a copy of 8",
    );
}

#[test]
fn kernels_that_do_not_end() {
    let fault = fault("$L:\nbra.uni $L;", 1);
    assert_eq!(fault.kind(), FaultKind::EndlessLoop);
    is_at_fault("setp.eq.u32 %p1, %r0, 3;\n@%p1 trap;", 32, FaultKind::Trap, "thread (3, 0, 0)");
}

#[test]
fn launches_that_cannot_begin() {
    let text = ".visible .entry k(.param .u32 k_0)\n.maxntid 8, 4, 1\n.minnctapersm 2\n{ ret; }";
    let module = module(text);
    let launch = |launch: Launch<'_>| module.kernel("k").expect("k").launch(&mut Memory::new(), &launch);
    let fits = launch_of([1, 1, 1], [32, 1, 1], &[0; 4]);
    assert!(launch(fits).is_ok());
    for (wrong, why) in [
        (Launch { parameters: &[0; 8], ..fits }, "8 bytes of parameters, 4 wanted"),
        (Launch { block: [64, 1, 1], ..fits }, "32 at most"),
        (Launch { block: [0, 1, 1], ..fits }, "cannot be launched"),
        (Launch { grid: [1, 0, 1], ..fits }, "cannot be launched"),
        (Launch { grid: [1, 70000, 1], ..fits }, "cannot be launched"),
        (Launch { block: [2048, 1, 1], ..fits }, "cannot be launched"),
        (Launch { block: [1 << 16, 1 << 16, 1], ..fits }, "cannot be launched"),
    ] {
        let fault = launch(wrong).expect_err("a fault");
        assert_eq!(fault.kind(), FaultKind::Launch);
        assert!(fault.to_string().contains(why), "{fault}");
        assert!(fault.to_string().starts_with("k: "), "{fault}");
    }
}
