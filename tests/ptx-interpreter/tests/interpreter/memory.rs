//! Loads, stores, state spaces and addresses.

use crate::support::{bytes_of, compute, download, run, upload};
use manygate_ptx_interpreter::Memory;

/// The results of a body that stores 64 bits for each thread at `[to]`, given `values` at `[from]`.
fn of_threads(threads: u32, body: &str, values: &[u64]) -> Vec<u64> {
    let text = format!(
        ".visible .entry k(.param .u64 k_0, .param .u64 k_1) {{
        .reg .b64 to, from, base, x, y, z;\n.reg .b32 tid, w, v;\n.reg .b16 h, g;\n.reg .f32 f, e;
        ld.param.u64 to, [k_0];\nld.param.u64 from, [k_1];\nmov.u32 tid, %tid.x;
        mov.b64 base, to;\nmad.wide.u32 to, tid, 8, to;\n{body}\nret;\n}}"
    );
    let mut memory = Memory::new();
    let input = upload(&mut memory, &bytes_of(values));
    let output = upload(&mut memory, &vec![0; 8 * threads as usize]);
    run(&mut memory, &text, [threads, 1, 1], 0, &bytes_of(&[output, input]))
        .unwrap_or_else(|fault| panic!("{fault}"));
    download(&mut memory, output, threads as usize)
}

#[test]
fn values_of_all_sizes_are_loaded() {
    let value = 0x8081_8283_8485_8687u64;
    let load = |text: &str| of_threads(1, &format!("{text}\nst.global.b64 [to], x;"), &[value])[0];
    assert_eq!(load("ld.global.u8 h, [from]; cvt.u64.u16 x, h;"), 0x87);
    assert_eq!(load("ld.global.s8 h, [from]; cvt.u64.u16 x, h;"), 0xff87);
    assert_eq!(load("ld.global.s8 w, [from+1]; cvt.u64.u32 x, w;"), 0xffff_ff86);
    assert_eq!(load("ld.global.s8 x, [from+7];"), 0xffff_ffff_ffff_ff80);
    assert_eq!(load("ld.global.b8 x, [from+7];"), 0x80);
    assert_eq!(load("ld.global.u16 w, [from+2]; cvt.u64.u32 x, w;"), 0x8485);
    assert_eq!(load("ld.global.s16 w, [from+2]; cvt.u64.u32 x, w;"), 0xffff_8485);
    assert_eq!(load("ld.global.s32 x, [from+4];"), 0xffff_ffff_8081_8283);
    assert_eq!(load("ld.global.u32 x, [from+4];"), 0x8081_8283);
    assert_eq!(load("ld.global.f32 f, [from+4]; mov.b32 w, f; cvt.u64.u32 x, w;"), 0x8081_8283);
    assert_eq!(load("ld.global.s64 x, [from];"), value);
    assert_eq!(load("ld.global.b64 x, [from+0];"), value);
    assert_eq!(load("add.s64 from, from, 8; ld.global.b32 x, [from+-8];"), 0x8485_8687);
}

#[test]
fn values_of_all_sizes_are_stored() {
    let store =
        |text: &str| of_threads(1, &format!("ld.global.u64 x, [from];\n{text}"), &[0x8081_8283_8485_8687])[0];
    assert_eq!(store("st.global.u8 [to+3], x;"), 0x8700_0000);
    assert_eq!(store("cvt.u16.u64 h, x; st.global.u8 [to+1], h; st.global.u16 [to+4], h;"), 0x8687_0000_8700);
    assert_eq!(store("cvt.u32.u64 w, x; st.global.b32 [to+4], w;"), 0x8485_8687_0000_0000);
    assert_eq!(store("cvt.u32.u64 w, x; mov.b32 f, w; st.global.f32 [to], f;"), 0x8485_8687);
    assert_eq!(store("st.global.b64 [to], x;"), 0x8081_8283_8485_8687);
    assert_eq!(store("st.global.b64 [to], 5;"), 5);
}

#[test]
fn vectors_are_loaded_and_stored() {
    let values = [0x0000_0002_0000_0001, 0x0000_0004_0000_0003];
    let four = "{ .reg .b32 a, b, c, d; ld.global.v4.u32 {a, b, c, d}, [from];";
    let body = format!("{four} st.global.v2.b32 [to], {{d, a}}; }}");
    assert_eq!(of_threads(1, &body, &values), [0x0000_0001_0000_0004]);
    let body = format!("{four} shl.b32 c, c, 8; @%p bra L; L: st.global.v2.u32 [to], {{c, b}}; }}");
    let body = format!(".reg .pred %p; setp.eq.u32 %p, tid, 0;\n{body}");
    assert_eq!(of_threads(1, &body, &values), [0x0000_0002_0000_0300]);
    let body = "{ .reg .b64 a, b; ld.global.v2.b64 {a, b}, [from]; add.s64 a, a, b; st.global.b64 [to], a; }";
    assert_eq!(of_threads(1, body, &values), [0x0000_0006_0000_0004]);
    let body = "{ .reg .b16 a, b, c, d; ld.global.v4.u16 {a, b, c, d}, [from+8];
        st.global.v4.u16 [to], {d, c, b, a}; }";
    assert_eq!(of_threads(1, body, &values), [0x0003_0000_0004_0000]);
    let body = "{ .reg .b32 a; ld.global.v2.u32 {_, a}, [from]; cvt.u64.u32 x, a; st.global.b64 [to], x; }";
    assert_eq!(of_threads(1, body, &values), [2]);
    let body =
        "{ .reg .b16 a, b, c, d; ld.global.v4.u8 {a, b, c, d}, [from]; st.global.v4.u8 [to], {a, a, b, a}; }";
    assert_eq!(of_threads(1, body, &values), [0x0100_0101]);
}

#[test]
fn hints_change_nothing() {
    for load in [
        "ld.global.nc.u64",
        "ld.global.ca.u64",
        "ld.global.cg.u64",
        "ld.global.cs.u64",
        "ld.global.lu.u64",
        "ld.global.cv.u64",
        "ld.volatile.global.u64",
        "ld.weak.global.u64",
        "ld.relaxed.gpu.global.u64",
        "ld.acquire.sys.global.u64",
        "ld.acquire.cta.global.u64",
        "ldu.global.u64",
        "ld.global.nc.L1::no_allocate.L2::128B.u64",
        "ld.global.L1::evict_last.u64",
        "ld.global.L2::64B.u64",
        "ld.u64",
    ] {
        let body = format!("{load} x, [from];\nst.global.u64 [to], x;\nprefetch.global.L2 [from];");
        assert_eq!(of_threads(1, &body, &[77]), [77], "{load}");
    }
    for store in [
        "st.global.wb.u64",
        "st.global.cg.u64",
        "st.global.cs.u64",
        "st.global.wt.u64",
        "st.volatile.global.u64",
        "st.relaxed.gpu.global.u64",
        "st.release.gpu.global.u64",
        "st.global.L1::no_allocate.u64",
        "st.weak.u64",
    ] {
        let body = format!("ld.global.u64 x, [from];\n{store} [to], x;");
        assert_eq!(of_threads(1, &body, &[77]), [77], "{store}");
    }
}

#[test]
fn shared_variables_by_name_and_by_register() {
    let body = ".shared .align 16 .b8 tile[256];\n.shared .align 4 .f32 other[33];
        shl.b32 w, tid, 2;\nmov.u32 v, tile;\nadd.s32 v, v, w;\nst.shared.u32 [v], tid;
        mov.u64 y, other;\ncvt.u64.u32 z, w;\nadd.s64 y, y, z;\nst.shared.u32 [y+4], tid;
        bar.sync 0;\nmov.u32 w, %ntid.x;\nsub.s32 w, w, tid;\nshl.b32 w, w, 2;\nmov.u32 v, tile;\nadd.s32 v, v, w;
        ld.shared.u32 w, [v+-4];\nld.shared.u32 v, [other+8];\nshl.b32 v, v, 16;\nadd.s32 w, w, v;
        cvt.u64.u32 x, w;\nst.global.u64 [to], x;";
    let wanted: Vec<u64> = (0..32).map(|i| 0x1_0000 + 31 - i).collect();
    assert_eq!(of_threads(32, body, &[0]), wanted);
}

#[test]
fn shared_memory_through_generic_addresses() {
    let body = ".shared .align 8 .b64 one;\n.reg .pred p;\nmov.u64 y, one;\ncvta.shared.u64 z, y;
        st.u64 [z], 41;\nld.shared.u64 x, [one];\nadd.s64 x, x, 1;\nst.shared.u64 [one], x;\nld.u64 x, [z];
        isspacep.shared p, z;\n@!p mov.u64 x, 0;\nisspacep.global p, z;\n@p mov.u64 x, 0;
        cvta.to.shared.u64 z, z;\nsetp.ne.u64 p, z, y;\n@p mov.u64 x, 1;\nst.global.u64 [to], x;";
    assert_eq!(of_threads(1, body, &[0]), [42]);
}

#[test]
fn each_thread_has_its_own_memory() {
    let body = ".local .align 16 .b8 __local_depot0[64];\n.reg .b64 %SP, %SPL;\nmov.u64 %SPL, __local_depot0;
        cvta.local.u64 %SP, %SPL;\nadd.u64 y, %SP, 16;\nadd.u64 z, %SPL, 16;\nst.local.u32 [z+4], tid;
        ld.u32 w, [y+4];\nst.u32 [y], 3;\nld.local.v2.u32 {v, w}, [z];\nmad.lo.s32 w, w, v, 1;
        cvta.to.local.u64 y, y;\nsub.s64 y, y, z;\ncvt.u64.u32 x, w;\nadd.s64 x, x, y;\nst.global.u64 [to], x;";
    let wanted: Vec<u64> = (0..40).map(|i| 3 * i + 1).collect();
    assert_eq!(of_threads(40, body, &[0]), wanted);
}

/// Structures are copied by words that reach over what lies between their members.
#[test]
fn own_memory_is_copied_with_its_gaps() {
    let body = ".local .align 8 .b8 depot[32];\n.reg .b64 a;\nmov.u64 a, depot;\nst.local.u8 [a], 9;
        ld.local.u64 x, [a];\nst.local.u64 [a+8], x;\nld.local.u8 h, [a+8];\ncvt.u64.u16 x, h;
        st.global.u64 [to], x;";
    assert_eq!(of_threads(1, body, &[0]), [9]);
}

#[test]
fn parameters_of_all_kinds() {
    let text = ".visible .entry k(.param .u64 .ptr .global .align 8 k_0, .param .align 8 .b8 k_1[24], .param .u8 k_2,
        .param .f32 k_3, .param .align 4 .b8 k_4[6]) {
        .reg .b64 to, x, y;\n.reg .b32 w, v;\n.reg .b16 h;\n.reg .f32 f;
        ld.param.u64 to, [k_0];\nld.param.u64 x, [k_1];\nst.global.u64 [to], x;\nld.param.v2.u32 {w, v}, [k_1+16];
        sub.s32 w, w, v;\nst.global.u32 [to+8], w;\nmov.b64 y, k_1;\nadd.s64 y, y, 8;\nld.param.u64 x, [y];
        st.global.u64 [to+16], x;\nld.param.s8 h, [k_2];\nst.global.u16 [to+24], h;\nld.param.f32 f, [k_3];
        st.global.f32 [to+28], f;\nld.param.u16 h, [k_4+4];\nst.global.u16 [to+26], h;\nret;\n}";
    let mut memory = Memory::new();
    let output = upload(&mut memory, &[0; 32]);
    let mut parameters = bytes_of(&[output, 5, 6, 0x0000_0003_0000_0009]);
    parameters.extend([0xfe, 0, 0, 0]);
    parameters.extend(1.5f32.to_le_bytes());
    parameters.extend([1, 2, 3, 4, 5, 6]);
    run(&mut memory, text, [1, 1, 1], 0, &parameters).unwrap_or_else(|fault| panic!("{fault}"));
    let results = download(&mut memory, output, 4);
    assert_eq!(results[..3], [5, 6, 6]);
    assert_eq!(results[3], u64::from(1.5f32.to_bits()) << 32 | 0x0605_fffe);
}

#[test]
fn parameters_are_laid_out_as_c_does() {
    let text = ".visible .entry k(.param .u8 a, .param .u16 b, .param .align 16 .b8 c[20], .param .f64 d, .param .u32 e)
        { ret; }";
    let module = crate::support::module(text);
    let places: Vec<_> =
        module.kernel("k").expect("k").parameters().iter().map(|p| (p.offset, p.size)).collect();
    assert_eq!(places, [(0, 1), (2, 2), (16, 20), (40, 8), (48, 4)]);
}

#[test]
fn variables_of_the_module() {
    let text = ".global .align 4 .u32 counter;
        .const .align 4 .f32 table[4] = {0f3F800000, 0f40000000, 0f40400000};
        .global .align 2 .u16 rows[2][3] = {{1, 2, 3}, {4, 5, -1}};\n.global .align 8 .b8 bytes[8] = {1, 0x02, 255};
        .visible .entry k(.param .u64 k_0) {\n.reg .b64 to, x, y;\n.reg .b32 w;\n.reg .b16 h;\n.reg .f32 f;
        ld.param.u64 to, [k_0];\nld.global.u32 w, [counter];\nadd.s32 w, w, 1;\nst.global.u32 [counter], w;
        st.global.u32 [to], w;\nld.const.f32 f, [table+8];\nst.global.f32 [to+4], f;\nmov.u64 x, rows;
        cvta.global.u64 x, x;\nld.u16 h, [x+10];\nst.global.u16 [to+8], h;\nld.global.b64 x, [bytes];
        mov.u64 y, table;\nld.const.u32 w, [y+12];\nst.global.u32 [to+12], w;\nst.global.u64 [to+16], x;\nret;\n}";
    let module = crate::support::module(text);
    let mut memory = Memory::new();
    let output = upload(&mut memory, &[0; 24]);
    for launches in 1..=3 {
        crate::support::launch(&module, &mut memory, [1, 1, 1], 0, &bytes_of(&[output]))
            .unwrap_or_else(|fault| panic!("{fault}"));
        let results = download(&mut memory, output, 3);
        assert_eq!(results[0], u64::from(3f32.to_bits()) << 32 | launches);
        assert_eq!(results[1..], [0xffff, 0x00ff_0201]);
    }
    // Another memory has variables of its own.
    let mut other = Memory::new();
    let output = upload(&mut other, &[0; 24]);
    crate::support::launch(&module, &mut other, [1, 1, 1], 0, &bytes_of(&[output]))
        .unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(download(&mut other, output, 1)[0] as u32, 1);
}

#[test]
fn shared_memory_of_the_module_and_of_the_launch() {
    let text = ".shared .align 4 .b8 fixed[12];\n.shared .align 4 .b8 unused[4000];
        .extern .shared .align 16 .b8 dynamic[];
        .visible .entry k(.param .u64 k_0) {\n.reg .b64 to, x;\n.reg .b32 w, v;
        ld.param.u64 to, [k_0];\nst.shared.u32 [fixed+8], 5;\nmov.u32 w, dynamic;\nst.shared.v2.u32 [w+56], {7, 9};
        ld.shared.u32 v, [dynamic+60];\nld.shared.u32 w, [fixed+8];\nadd.s32 v, v, w;\nst.global.u32 [to], v;
        mov.u32 v, %dynamic_smem_size;\nst.global.u32 [to+4], v;\nret;\n}";
    let module = crate::support::module(text);
    assert_eq!(module.kernel("k").expect("k").shared_bytes(), 12);
    let mut memory = Memory::new();
    let output = upload(&mut memory, &[0; 8]);
    run(&mut memory, text, [1, 1, 1], 64, &bytes_of(&[output])).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(download(&mut memory, output, 1), [64 << 32 | 14]);
}

#[test]
fn special_registers() {
    let text = ".visible .entry k(.param .u64 k_0) {\n.reg .b64 to, x;\n.reg .b32 i, w, v;
        mov.u32 i, %tid.z;\nmov.u32 w, %ntid.y;\nmov.u32 v, %tid.y;\nmad.lo.s32 i, i, w, v;\nmov.u32 w, %ntid.x;
        mov.u32 v, %tid.x;\nmad.lo.s32 i, i, w, v;
        mov.u32 w, %ctaid.y;\nmov.u32 v, %nctaid.x;\nmad.lo.s32 w, w, v, %ctaid.x;\nmad.lo.s32 i, w, 70, i;
        ld.param.u64 to, [k_0];\nmad.wide.u32 to, i, 32, to;
        mov.u32 w, %laneid;\nst.global.u32 [to], w;\nmov.u32 w, %warpid;\nst.global.u32 [to+4], w;
        mov.u32 w, %nwarpid;\nmov.u32 v, %lanemask_eq;\nst.global.v2.u32 [to+8], {w, v};
        mov.u32 w, %lanemask_lt;\nmov.u32 v, %lanemask_le;\nst.global.v2.u32 [to+16], {w, v};
        mov.u32 w, %lanemask_gt;\nmov.u32 v, %lanemask_ge;\nst.global.v2.u32 [to+24], {w, v};\nret;\n}";
    let mut memory = Memory::new();
    let output = upload(&mut memory, &[0; 70 * 6 * 32]);
    let launch = crate::support::launch_of([3, 2, 1], [7, 5, 2], &[]);
    let parameters = bytes_of(&[output]);
    let launch = manygate_ptx_interpreter::Launch { parameters: &parameters, ..launch };
    let module = crate::support::module(text);
    module.kernel("k").expect("k").launch(&mut memory, &launch).unwrap_or_else(|fault| panic!("{fault}"));
    let results = download(&mut memory, output, 70 * 6 * 4);
    for (i, words) in results.chunks(4).enumerate() {
        let (lane, warp) = (i % 70 % 32, i % 70 / 32);
        let (below, upto) = ((1u64 << lane) - 1, (2u64 << lane) - 1);
        let pair = |low: u64, high: u64| (low & 0xffff_ffff) | high << 32;
        let wanted = [
            pair(lane as u64, warp as u64),
            pair(3, 1 << lane),
            pair(below, upto),
            pair(!upto, !below & 0xffff_ffff),
        ];
        assert_eq!(words, wanted, "thread {i}");
    }
}

#[test]
fn clocks_go_on() {
    let results = compute(
        "{ .reg .b32 t; .reg .b64 u, v; mov.u32 t, %clock; mov.u64 u, %clock64; mov.u64 v, %globaltimer;
        sub.s64 d, v, u; }",
        "b64",
        &["b32"],
        &[vec![0]],
    );
    assert!(results[0] > 0 && results[0] < 100);
}
