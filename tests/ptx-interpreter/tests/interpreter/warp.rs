//! Barriers and exchanges between lanes.

use crate::threads::{STORE, words};

#[test]
fn shuffles() {
    let given = |mode: &str, distance: u32, clamp: u32| {
        let body = format!(
            "add.s32 %r2, %r0, 100;\nshfl.sync.{mode}.b32 %r1|%p1, %r2, {distance}, {clamp}, -1;
            @!%p1 add.s32 %r1, %r1, 1000;\n{STORE}"
        );
        words(&body, 32, &[])
    };
    let wanted = |from: &dyn Fn(u32) -> (u32, bool)| -> Vec<u32> {
        (0..32).map(from).map(|(lane, found)| if found { lane + 100 } else { lane + 1100 }).collect()
    };
    for by in [0, 1, 5, 16, 31] {
        assert_eq!(given("up", by, 0), wanted(&|l| if l >= by { (l - by, true) } else { (l, false) }));
        assert_eq!(given("down", by, 31), wanted(&|l| if l + by < 32 { (l + by, true) } else { (l, false) }));
        assert_eq!(given("bfly", by, 31), wanted(&|l| (l ^ by, true)));
        assert_eq!(given("idx", by, 31), wanted(&|_| (by, true)));
    }
    // Segments of eight lanes: the mask of the bits that they share stands above the clamp.
    let segment = 0x18 << 8;
    assert_eq!(given("up", 3, segment), wanted(&|l| if l % 8 >= 3 { (l - 3, true) } else { (l, false) }));
    assert_eq!(
        given("down", 3, segment | 31),
        wanted(&|l| if l % 8 < 5 { (l + 3, true) } else { (l, false) })
    );
    assert_eq!(given("bfly", 4, segment | 31), wanted(&|l| (l ^ 4, true)));
    assert_eq!(
        given("bfly", 8, segment | 31),
        wanted(&|l| if l & 8 == 0 { (l, false) } else { (l ^ 8, true) })
    );
    assert_eq!(given("idx", 6, segment | 31), wanted(&|l| (l / 8 * 8 + 6, true)));
    assert_eq!(given("idx", 6, segment | 4), wanted(&|l| (l, false)));
}

#[test]
fn shuffles_of_some_lanes() {
    let body = format!(
        "mov.u32 %r1, 7;\nsetp.lt.u32 %p1, %r0, 8;\n@%p1 shfl.sync.bfly.b32 %r1, %r0, 3, 31, 0xff;\n{STORE}"
    );
    let wanted: Vec<u32> = (0..32).map(|l| if l < 8 { l ^ 3 } else { 7 }).collect();
    assert_eq!(words(&body, 32, &[]), wanted);
}

/// Lanes of each half name that half, and come to the instruction together.
#[test]
fn two_groups_at_one_instruction() {
    let body = format!(
        "setp.lt.u32 %p1, %r0, 16;\nselp.b32 %r2, 0xffff, 0xffff0000, %p1;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, %r2;
        vote.sync.ballot.b32 %r3, %p1, %r2;\nadd.s32 %r1, %r1, %r3;\n{STORE}"
    );
    let wanted: Vec<u32> = (0..32).map(|l| (l ^ 1) + if l < 16 { 0xffff } else { 0 }).collect();
    assert_eq!(words(&body, 32, &[]), wanted);
}

/// Lanes that come first wait for the others.
#[test]
fn late_lanes_are_waited_for() {
    let body = format!(
        "mov.u32 %r2, %r0;\nsetp.lt.u32 %p1, %r0, 5;\n@!%p1 bra $join;\nmul.lo.s32 %r2, %r2, 10;\nbra.uni $far;
        $join:\nbar.warp.sync 0xffffffff;\nshfl.sync.idx.b32 %r1, %r2, 3, 31, -1;\nbra.uni $store;\n$far:
        bra.uni $join;
        $store:\n{STORE}"
    );
    assert_eq!(words(&body, 32, &[]), [30; 32]);
}

/// Lanes that exit are not waited for, whether they do so before or after the others come.
#[test]
fn lanes_that_exit_are_not_waited_for() {
    for late in ["", "@!%p1 bra $far;"] {
        let body = format!(
            "mov.u32 %r1, 5;\nsetp.lt.u32 %p1, %r0, 8;\n{late}\n@!%p1 ret;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;
            bar.warp.sync -1;\n{STORE}\nret;\n$far:\nadd.s32 %r1, %r1, 1;"
        );
        let wanted: Vec<u32> = (0..32).map(|l| if l < 8 { l ^ 1 } else { 0 }).collect();
        assert_eq!(words(&body, 32, &[]), wanted);
    }
}

#[test]
fn the_last_warp_may_be_smaller() {
    let body = format!("vote.sync.ballot.b32 %r1, 1, -1;\n{STORE}").replace("1, -1", "%p1, -1");
    let body = format!("setp.ge.u32 %p1, %r0, 0;\n{body}");
    let wanted: Vec<u32> = (0..40).map(|l| if l < 32 { u32::MAX } else { 0xff }).collect();
    assert_eq!(words(&body, 40, &[]), wanted);
}

#[test]
fn votes() {
    let vote = |kind: &str, condition: &str| {
        let body = format!(
            "setp.{condition};\nvote.sync.{kind}.pred %p2, %p1, -1;\nselp.b32 %r1, 1, 0, %p2;\n{STORE}"
        );
        let results = words(&body, 32, &[]);
        assert!(results.iter().all(|r| *r == results[0]));
        results[0]
    };
    let (some, none, every) = ("eq.u32 %p1, %r0, 3", "gt.u32 %p1, %r0, 99", "lt.u32 %p1, %r0, 99");
    assert_eq!([some, none, every].map(|c| vote("all", c)), [0, 0, 1]);
    assert_eq!([some, none, every].map(|c| vote("any", c)), [1, 0, 1]);
    assert_eq!([some, none, every].map(|c| vote("uni", c)), [0, 1, 1]);
    let body = format!("setp.gt.u32 %p1, %r0, 29;\nvote.sync.ballot.b32 %r1, !%p1, -1;\n{STORE}");
    assert_eq!(words(&body, 32, &[]), [0x3fff_ffff; 32]);
}

#[test]
fn matches() {
    let body = format!("rem.u32 %r2, %r0, 3;\nmatch.any.sync.b32 %r1, %r2, -1;\n{STORE}");
    let same = |lane: u32| (0..32).filter(|l| l % 3 == lane % 3).fold(0, |set, l| set | 1 << l);
    assert_eq!(words(&body, 32, &[]), (0..32).map(same).collect::<Vec<u32>>());
    let all = |value: &str| {
        let body = format!(
            "{value}\ncvt.u64.u32 %rd2, %r2;\nshl.b64 %rd2, %rd2, 40;\nmatch.all.sync.b64 %r1|%p1, %rd2, -1;
            @%p1 add.s32 %r1, %r1, 2;\n{STORE}"
        );
        words(&body, 32, &[])
    };
    assert_eq!(all("mov.u32 %r2, 5;"), [1; 32]);
    assert_eq!(all("mov.u32 %r2, %r0;"), [0; 32]);
}

#[test]
fn reductions_of_a_warp() {
    let given: Vec<u32> = (0..32u32).map(|i| i.wrapping_mul(0x9e37_79b9) ^ 0x8000_0000).collect();
    let reduce = |kind: &str| {
        let body = format!(
            "mad.wide.u32 %rd1, %r0, 4, %rd1;\nld.global.u32 %r2, [%rd1];\nredux.sync.{kind} %r1, %r2, -1;\n{STORE}"
        );
        words(&body, 32, &given)[7]
    };
    let signed = || given.iter().map(|v| *v as i32);
    assert_eq!(reduce("add.u32"), given.iter().fold(0u32, |a, b| a.wrapping_add(*b)));
    assert_eq!(reduce("add.s32"), given.iter().fold(0u32, |a, b| a.wrapping_add(*b)));
    assert_eq!(reduce("min.u32"), *given.iter().min().expect("values"));
    assert_eq!(reduce("max.u32"), *given.iter().max().expect("values"));
    assert_eq!(reduce("min.s32"), signed().min().expect("values") as u32);
    assert_eq!(reduce("max.s32"), signed().max().expect("values") as u32);
    assert_eq!(reduce("and.b32"), given.iter().fold(u32::MAX, |a, b| a & b));
    assert_eq!(reduce("or.b32"), given.iter().fold(0, |a, b| a | b));
    assert_eq!(reduce("xor.b32"), given.iter().fold(0, |a, b| a ^ b));
}

/// What each thread stores, and reads of another warp's thread behind the barrier.
fn across_warps(barrier: &str) -> Vec<u32> {
    let body = format!(
        ".shared .align 4 .b8 all[512];\nmov.u32 %r4, all;\nshl.b32 %r2, %r0, 2;\nadd.s32 %r2, %r2, %r4;
        st.shared.u32 [%r2], %r0;\nsetp.lt.u32 %p1, %r0, 77;\n{barrier}\nxor.b32 %r2, %r0, 127;\nshl.b32 %r2, %r2, 2;
        add.s32 %r2, %r2, %r4;\nld.shared.u32 %r1, [%r2];\n{STORE}"
    );
    words(&body, 128, &[])
}

#[test]
fn barriers_of_the_block() {
    let wanted: Vec<u32> = (0..128).map(|t| t ^ 127).collect();
    for barrier in [
        "bar.sync 0;",
        "barrier.sync 0;",
        "barrier.sync.aligned 3;",
        "bar.cta.sync 1;",
        "mov.u32 %r3, 7;\nbar.sync %r3;",
        "bar.sync 2, 128;",
        "{ .reg .pred q; bar.red.or.pred q, 0, %p1; }",
    ] {
        assert_eq!(across_warps(barrier), wanted, "{barrier}");
    }
}

#[test]
fn barriers_that_count() {
    let of = |barrier: &str| words(&format!("setp.lt.u32 %p1, %r0, 77;\n{barrier}\n{STORE}"), 128, &[]);
    assert_eq!(of("bar.red.popc.u32 %r1, 0, %p1;"), [77; 128]);
    assert_eq!(of("barrier.red.popc.aligned.u32 %r1, 1, 128, !%p1;"), [51; 128]);
    assert_eq!(of("bar.red.and.pred %p2, 0, %p1;\nselp.b32 %r1, 1, 0, %p2;"), [0; 128]);
    assert_eq!(of("barrier.cta.red.or.pred %p2, 0, %p1;\nselp.b32 %r1, 1, 0, %p2;"), [1; 128]);
}

/// The upper two warps hand over to the lower two, without waiting themselves.
#[test]
fn some_warps_arrive_and_others_wait() {
    let body = format!(
        ".shared .align 4 .b8 all[256];\nmov.u32 %r4, all;\nand.b32 %r2, %r0, 63;\nshl.b32 %r2, %r2, 2;
        add.s32 %r2, %r2, %r4;
        mov.u32 %r1, 1;\nsetp.lt.u32 %p1, %r0, 64;\n@%p1 bra $wait;\nst.shared.u32 [%r2], %r0;\nbar.arrive 1, 128;
        bra.uni $store;\n$wait:\nbar.sync 1, 128;\nld.shared.u32 %r1, [%r2];\n$store:\n{STORE}"
    );
    let wanted: Vec<u32> = (0..128).map(|t| if t < 64 { t + 64 } else { 1 }).collect();
    assert_eq!(words(&body, 128, &[]), wanted);
}

/// Pairs of warps meet at barriers of their own.
#[test]
fn barriers_of_some_warps() {
    let body = format!(
        ".shared .align 4 .b8 all[512];\nmov.u32 %r4, all;\nshl.b32 %r2, %r0, 2;\nadd.s32 %r2, %r2, %r4;
        st.shared.u32 [%r2], %r0;\nshr.u32 %r3, %r0, 6;\nadd.s32 %r3, %r3, 1;\nbar.sync %r3, 64;\nxor.b32 %r2, %r0, 32;
        shl.b32 %r2, %r2, 2;\nadd.s32 %r2, %r2, %r4;\nld.shared.u32 %r1, [%r2];\n{STORE}"
    );
    let wanted: Vec<u32> = (0..128).map(|t| t ^ 32).collect();
    assert_eq!(words(&body, 128, &[]), wanted);
}

#[test]
fn warps_order_their_own_accesses() {
    for sync in
        ["bar.warp.sync -1;", "shfl.sync.idx.b32 %r3, %r0, 0, 31, -1;", "vote.sync.ballot.b32 %r3, %p1, -1;"]
    {
        let body = format!(
            ".shared .align 4 .b8 all[256];\nmov.u32 %r4, all;\nsetp.eq.u32 %p1, %r0, 0;\nshl.b32 %r2, %r0, 2;
            add.s32 %r2, %r2, %r4;\nst.shared.u32 [%r2], %r0;\n{sync}\nxor.b32 %r2, %r2, 4;
            ld.shared.u32 %r1, [%r2];\n{STORE}"
        );
        let wanted: Vec<u32> = (0..64).map(|t| t ^ 1).collect();
        assert_eq!(words(&body, 64, &[]), wanted, "{sync}");
    }
}

#[test]
fn fences_are_known() {
    for fence in [
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "fence.sc.gpu;",
        "fence.acq_rel.cta;",
        "fence.acq_rel.sys;",
    ] {
        assert_eq!(words(&format!("{fence}\nmov.u32 %r1, 1;\n{STORE}"), 1, &[]), [1], "{fence}");
    }
}
