//! Branches, loops, tables, calls and ends.

use crate::threads::{STORE, text, words, words_of_module};

#[test]
fn lanes_go_different_ways_and_meet() {
    let body =
        "and.b32 %r2, %r0, 3;\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 bra $A;\nsetp.eq.u32 %p2, %r2, 1;\n@%p2 bra $B;
        mov.u32 %r1, 30;\nbra.uni $end;\n$A:\nmov.u32 %r1, 10;\nbra $end;\n$B:\nmov.u32 %r1, 20;\n$end:
        activemask.b32 %r3;\nadd.s32 %r1, %r1, %r2;\nsetp.ne.u32 %p3, %r3, -1;\n@%p3 mov.u32 %r1, 0;
        st.global.u32 [%rd0], %r1;";
    let wanted: Vec<u32> = (0..64).map(|i| [10, 21, 32, 33][i % 4]).collect();
    assert_eq!(words(body, 64, &[]), wanted);
}

#[test]
fn loops_of_different_lengths() {
    let body = "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\n$loop:\nsetp.ge.u32 %p1, %r2, %r0;\n@%p1 bra $done;
        add.s32 %r1, %r1, %r2;\nadd.s32 %r2, %r2, 1;\nbra.uni $loop;\n$done:\nbar.warp.sync -1;
        st.global.u32 [%rd0], %r1;";
    let wanted: Vec<u32> = (0..64u32).map(|i| (0..i).sum()).collect();
    assert_eq!(words(body, 64, &[]), wanted);
}

#[test]
fn nested_loops_with_breaks() {
    let body = "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\n$outer:\nmov.u32 %r3, 0;\n$inner:
        add.s32 %r1, %r1, 1;\nadd.s32 %r3, %r3, 1;\nsetp.gt.u32 %p1, %r1, %r0;\n@%p1 bra $out;
        setp.lt.u32 %p2, %r3, %r2;\n@%p2 bra $inner;\nadd.s32 %r2, %r2, 1;\nsetp.lt.u32 %p3, %r2, 9;\n@%p3 bra $outer;
        $out:\nmad.lo.s32 %r1, %r2, 100, %r1;\nst.global.u32 [%rd0], %r1;";
    let run = |thread: u32| {
        let (mut sum, mut outer) = (0, 0);
        while outer < 9 {
            for _ in 0..outer.max(1) {
                sum += 1;
                if sum > thread {
                    return outer * 100 + sum;
                }
            }
            outer += 1;
        }
        outer * 100 + sum
    };
    let wanted: Vec<u32> = (0..64).map(run).collect();
    assert_eq!(words(body, 64, &[]), wanted);
}

#[test]
fn tables_of_branches() {
    let body = "and.b32 %r2, %r0, 3;\n$L_0: .branchtargets $a, $b, $c, $a;\nbrx.idx %r2, $L_0;
        $a:\nmov.u32 %r1, 1;\nbra.uni $end;\n$b:\nmov.u32 %r1, 2;\nbra.uni $end;\n$c:\nmov.u32 %r1, 3;\n$end:";
    let wanted: Vec<u32> = (0..32).map(|i| [1, 2, 3, 1][i % 4]).collect();
    assert_eq!(words(&format!("{body}\n{STORE}"), 32, &[]), wanted);
}

#[test]
fn some_lanes_exit_early() {
    let body =
        "setp.gt.u32 %p1, %r0, 20;\n@%p1 exit;\nsetp.gt.u32 %p2, %r0, 10;\n@%p2 ret;\nadd.s32 %r1, %r0, 1;";
    let wanted: Vec<u32> = (0..32).map(|i| if i > 10 { 0 } else { i + 1 }).collect();
    assert_eq!(words(&format!("{body}\n{STORE}"), 32, &[]), wanted);
}

#[test]
fn blocks_of_inline_assembly_have_their_own_names() {
    let body = "mov.u32 %r1, 5;
        { .reg .b32 t; .reg .pred p; mov.u32 t, %r1; setp.lt.u32 p, %r0, 4; @p bra L; add.s32 t, t, 1;
        L: mov.u32 %r1, t; }\n{ .reg .pred t; setp.eq.u32 t, %r0, 2; @t bra L; add.s32 %r1, %r1, 10; L: }";
    let wanted: Vec<u32> = (0..32).map(|i| 5 + u32::from(i >= 4) + 10 * u32::from(i != 2)).collect();
    assert_eq!(words(&format!("{body}\n{STORE}"), 32, &[]), wanted);
}

const FUNCTIONS: &str = "
    .func (.param .b32 f_ret) twice(.param .b32 f_0) {
        .reg .b32 %r<3>;
        ld.param.u32 %r0, [f_0];
        add.s32 %r1, %r0, %r0;
        st.param.b32 [f_ret+0], %r1;
        ret;
    }
    .visible .func (.param .b32 g_ret) clamp(.param .b32 g_0, .param .align 4 .b8 g_1[8]) {
        .reg .b32 %r<6>;
        .reg .pred %p<2>;
        ld.param.u32 %r0, [g_0];
        ld.param.u32 %r1, [g_1+4];
        setp.gt.u32 %p1, %r0, %r1;
        @%p1 bra $L__big;
        { .param .b32 param0; st.param.b32 [param0+0], %r0; .param .b32 retval0;
          call.uni (retval0), twice, (param0); ld.param.b32 %r2, [retval0+0]; }
        st.param.b32 [g_ret], %r2;
        ret;
    $L__big:
        st.param.b32 [g_ret], %r1;
        ret;
    }
    .func nothing() { ret; }";

#[test]
fn functions_are_called() {
    let body = "{ .param .b32 param0; st.param.b32 [param0+0], %r0; .param .align 4 .b8 param1[8];
        st.param.b32 [param1+0], 1; st.param.b32 [param1+4], 9; .param .b32 retval0;
        call.uni (retval0), clamp, (param0, param1); ld.param.b32 %r1, [retval0+0]; }\ncall nothing;
        setp.gt.u32 %p1, %r0, 28;\n@%p1 call.uni nothing, ();\nst.global.u32 [%rd0], %r1;";
    let wanted: Vec<u32> = (0..32).map(|i| if i > 9 { 9 } else { 2 * i }).collect();
    let text = text(FUNCTIONS, body);
    assert_eq!(words_of_module(&text, 32, &[]).unwrap_or_else(|fault| panic!("{fault}")), wanted);
}

/// A function's shared variable is one, wherever the function is called from.
#[test]
fn functions_keep_their_shared_variables() {
    let add = ".func (.param .b32 a_ret) add_up(.param .b32 a_0) {\n.shared .align 4 .b8 sum[4];\n.reg .b32 %r<3>;
        .reg .pred %p<2>;\nld.param.u32 %r0, [a_0];\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [sum], 0;
        ld.shared.u32 %r1, [sum];\nadd.s32 %r1, %r1, %r0;\nst.shared.u32 [sum], %r1;\nst.param.b32 [a_ret], %r1;
        ret;\n}";
    let call = |number: u32| {
        format!(
            "{{ .param .b32 p; st.param.b32 [p], {number}; .param .b32 r; call (r), add_up, (p);
            ld.param.b32 %r1, [r]; }}\n"
        )
    };
    let text = text(add, &format!("{}{}{}{STORE}", call(0), call(5), call(7)));
    assert_eq!(words_of_module(&text, 1, &[]).unwrap_or_else(|fault| panic!("{fault}")), [12]);
}

#[test]
fn warps_and_blocks_run_in_any_order() {
    let text = ".visible .entry k(.param .u64 k_0) {\n.reg .b64 %rd<3>;\n.reg .b32 %r<5>;\n.reg .pred %p<2>;
        ld.param.u64 %rd0, [k_0];\nmov.u32 %r0, %tid.x;\nand.b32 %r1, %r0, 31;\nsetp.ne.u32 %p0, %r1, 0;\n@%p0 ret;
        atom.global.add.u32 %r2, [%rd0], 1;\nshl.b32 %r3, %r0, 0;\nmov.u32 %r4, %ctaid.x;
        mad.lo.s32 %r3, %r4, 128, %r3;
        shr.u32 %r3, %r3, 5;\nmad.wide.u32 %rd1, %r3, 4, %rd0;\nst.global.u32 [%rd1+8], %r2;\nret;\n}";
    let module = crate::support::module(text);
    let order = |seed: u64| {
        let mut memory = manygate_ptx_interpreter::Memory::new();
        let output = crate::support::upload(&mut memory, &[0; 8 + 4 * 16]);
        let parameters = crate::support::bytes_of(&[output]);
        let launch = crate::support::launch_of([4, 1, 1], [128, 1, 1], &parameters);
        let launch = manygate_ptx_interpreter::Launch { seed, ..launch };
        module.kernel("k").expect("k").launch(&mut memory, &launch).unwrap_or_else(|fault| panic!("{fault}"));
        crate::support::download(&mut memory, output, 9)
    };
    assert_eq!(order(0)[1..], [0u64, 2, 4, 6, 8, 10, 12, 14].map(|i| i | (i + 1) << 32));
    assert_ne!(order(0), order(1));
    assert_ne!(order(2), order(1));
    assert_eq!(order(5), order(5));
}
