//! Asynchronous copies.

use crate::threads::{STORE, words};

/// Each thread copies 16 bytes of its own and reads those of its neighbour.
fn neighbours(copy: &str, wait: &str) -> Vec<u32> {
    let body = format!(
        ".shared .align 16 .b8 tile[512];\nmov.u32 %r4, tile;\nshl.b32 %r2, %r0, 4;\nadd.s32 %r3, %r4, %r2;
        mad.wide.u32 %rd2, %r0, 16, %rd1;\n{copy}\n{wait}\nbar.sync 0;\nxor.b32 %r2, %r2, 16;\nadd.s32 %r3, %r4, %r2;
        ld.shared.v4.u32 {{%r5, %r6, %r7, %r8}}, [%r3];\nmad.lo.s32 %r1, %r5, 10, %r6;\nmad.lo.s32 %r1, %r1, 10, %r7;
        mad.lo.s32 %r1, %r1, 10, %r8;\n{STORE}"
    );
    let given: Vec<u32> = (0..32).flat_map(|i| [i % 10, 1, 2, 3]).collect();
    words(&body, 32, &given)
}

#[test]
fn copies_are_there_after_a_wait() {
    let wanted: Vec<u32> = (0..32u32).map(|i| (i ^ 1) % 10 * 1000 + 123).collect();
    for copy in [
        "cp.async.cg.shared.global [%r3], [%rd2], 16;",
        "cp.async.ca.shared.global [%r3], [%rd2], 16;",
        "cp.async.cg.shared.global.L2::128B [%r3], [%rd2], 16;",
        "cp.async.cg.shared.global [%r3], [%rd2], 16, 16;",
        "cp.async.ca.shared.global [%r3], [%rd2], 8;\ncp.async.ca.shared.global [%r3+8], [%rd2+8], 8;",
        "cp.async.ca.shared.global [%r3], [%rd2], 4;\ncp.async.ca.shared.global [%r3+4], [%rd2+4], 4;
        cp.async.ca.shared.global [%r3+8], [%rd2+8], 8;",
    ] {
        for wait in ["cp.async.commit_group;\ncp.async.wait_group 0;", "cp.async.wait_all;"] {
            assert_eq!(neighbours(copy, wait), wanted, "{copy} {wait}");
        }
    }
}

/// What is not read of the source is zero, and needs not be there.
#[test]
fn short_sources_are_filled_with_zeros() {
    let of = |operand: &str| {
        neighbours(&format!("cp.async.cg.shared.global [%r3], [%rd2], 16, {operand};"), "cp.async.wait_all;")
    };
    let first = |i: u32| (i ^ 1) % 10 * 1000;
    assert_eq!(of("0"), [0; 32]);
    assert_eq!(of("4"), (0..32).map(first).collect::<Vec<_>>());
    assert_eq!(of("12"), (0..32).map(|i| first(i) + 120).collect::<Vec<_>>());
    let beyond =
        "mov.u32 %r9, 0;\nadd.s64 %rd2, %rd2, 16384;\ncp.async.cg.shared.global [%r3], [%rd2], 16, %r9;";
    assert_eq!(neighbours(beyond, "cp.async.wait_all;"), [0; 32]);
    let ignored = "setp.lt.u32 %p1, %r0, 8;\ncp.async.cg.shared.global [%r3], [%rd2], 16, %p1;";
    let wanted: Vec<_> = (0..32).map(|i| if i < 8 { 0 } else { first(i) + 123 }).collect();
    assert_eq!(neighbours(ignored, "cp.async.wait_all;"), wanted);
}

/// Of two groups the first one is waited for and used while the second is on its way.
#[test]
fn groups_come_one_after_the_other() {
    let body = format!(
        ".shared .align 16 .b8 tile[32];\nmov.u32 %r3, tile;\ncp.async.ca.shared.global [%r3], [%rd1], 16;
        cp.async.commit_group;
        cp.async.ca.shared.global [%r3+16], [%rd1+16], 16;\ncp.async.commit_group;\ncp.async.wait_group 1;
        ld.shared.u32 %r1, [%r3+4];\ncp.async.wait_group 0;\nld.shared.u32 %r2, [%r3+24];
        mad.lo.s32 %r1, %r1, 100, %r2;\n{STORE}"
    );
    assert_eq!(words(&body, 1, &[1, 2, 3, 4, 5, 6, 7, 8]), [207]);
}
