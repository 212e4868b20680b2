//! Matrices that are spread over a warp.

use crate::support::{bytes_of, module, upload};
use manygate_ptx_interpreter::{Launch, Memory};

/// The words that each lane stores, `count` of them, given words of shared memory.
fn lanes(body: &str, count: usize, given: &[u32]) -> Vec<Vec<u32>> {
    let text = format!(
        ".extern .shared .align 16 .b8 dyn[];
        .visible .entry k(.param .u64 k_0, .param .u64 k_1) {{\n\n.reg .b64 %rd<4>;
        .reg .b32 %r<40>;\n.reg .f32 %f<20>;\n.reg .pred %p<2>;\nld.param.u64 %rd1, [k_0];\nld.param.u64 %rd2, [k_1];
        mov.u32 %r0, %tid.x;\nmov.u32 %r1, %r0;\nmov.u32 %r30, dyn;
        $fill:\nsetp.ge.u32 %p0, %r1, {len};\n@%p0 bra $filled;\nmad.wide.u32 %rd3, %r1, 4, %rd1;
        ld.global.u32 %r2, [%rd3];
        mad.lo.s32 %r3, %r1, 4, %r30;\nst.shared.u32 [%r3], %r2;\nadd.s32 %r1, %r1, 32;\nbra.uni $fill;\n$filled:
        bar.sync 0;\nmad.wide.u32 %rd2, %r0, {stride}, %rd2;\n{body}\nret;\n}}",
        len = given.len(),
        stride = 4 * count
    );
    let mut memory = Memory::new();
    let bytes: Vec<u8> = given.iter().flat_map(|word| word.to_le_bytes()).collect();
    let input = upload(&mut memory, &bytes);
    let output = upload(&mut memory, &vec![0; 32 * 4 * count]);
    let parameters = bytes_of(&[input, output]);
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        dynamic_shared: bytes.len(),
        parameters: &parameters,
        seed: 0,
    };
    module(&text)
        .kernel("k")
        .expect("k")
        .launch(&mut memory, &launch)
        .unwrap_or_else(|fault| panic!("{fault}"));
    let bytes = memory.bytes(output, 32 * 4 * count).expect("allocated");
    let words: Vec<u32> = bytes.as_chunks().0.iter().map(|chunk| u32::from_le_bytes(*chunk)).collect();
    words.chunks(count).map(<[u32]>::to_vec).collect()
}

/// Value `column` of row `row` of matrix `matrix`, of 16 bits.
fn element(matrix: usize, row: usize, column: usize) -> u32 {
    (matrix * 64 + row * 8 + column + 256) as u32
}

#[test]
fn matrices_are_loaded() {
    // Rows of a matrix lie 48 bytes apart, in reverse order.
    let mut given = vec![0; 4 * 8 * 12];
    for (matrix, row) in (0..4).flat_map(|m| (0..8).map(move |r| (m, r))) {
        for pair in 0..4 {
            let (low, high) = (element(matrix, row, 2 * pair), element(matrix, row, 2 * pair + 1));
            given[(matrix * 8 + 7 - row) * 12 + pair] = high << 16 | low;
        }
    }
    for count in [1, 2, 4] {
        for transposed in [false, true] {
            let registers: Vec<String> = (0..count).map(|i| format!("%r{}", 10 + i)).collect();
            let trans = if transposed { ".trans" } else { "" };
            let stores: String =
                (0..count).map(|i| format!("st.global.u32 [%rd2+{}], %r{};\n", 4 * i, 10 + i)).collect();
            let body = format!(
                "and.b32 %r4, %r0, 24;\nxor.b32 %r5, %r0, 7;\nand.b32 %r5, %r5, 7;\nadd.s32 %r4, %r4, %r5;
                mad.lo.s32 %r4, %r4, 48, %r30;
                ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{}}}, [%r4];\n{stores}",
                registers.join(", ")
            );
            for (lane, words) in lanes(&body, count, &given).iter().enumerate() {
                for (matrix, word) in words.iter().enumerate() {
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    let at = |half| match transposed {
                        false => element(matrix, row, column + half),
                        true => element(matrix, column + half, row),
                    };
                    assert_eq!(*word, at(1) << 16 | at(0), "x{count}{trans}, lane {lane}, matrix {matrix}");
                }
            }
        }
    }
}

/// A small number that every format holds exactly.
fn small(i: usize) -> f32 {
    ((i * 7919) % 17) as f32 - 8.0
}

fn f16(value: f32) -> u32 {
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    bits >> 16 & 0x8000 | ((bits >> 23 & 0xff) - 112) << 10 | bits >> 13 & 0x3ff
}

fn bf16(value: f32) -> u32 {
    value.to_bits() >> 16
}

/// That a product of matrices with `depth` columns and rows is right; `pack` is a value's bits where two make a
/// register.
fn check_product(shape: &str, format: &str, depth: usize, pack: Option<fn(f32) -> u32>) {
    let a = |row: usize, k: usize| small(row * depth + k);
    let b = |k: usize, column: usize| small(1000 + column * depth + k);
    let c = |row: usize, column: usize| small(2000 + row * 8 + column) * 0.5;
    let per_quad = if pack.is_some() { 8 } else { 4 };
    let (a_count, b_count) = (2 * depth / per_quad, depth / per_quad);
    // The register that holds values `k` on of a row or column.
    let register = |lane: usize, start: usize, value: &dyn Fn(usize) -> f32| match pack {
        Some(pack) => pack(value(start + lane % 4 * 2 + 1)) << 16 | pack(value(start + lane % 4 * 2)),
        // What lies below the tf32 is not looked at.
        None => value(start + lane % 4).to_bits() | 0xfff,
    };
    let mut given = Vec::new();
    for lane in 0..32 {
        for i in 0..a_count {
            given.push(register(lane, i / 2 * per_quad, &|k| a(lane / 4 + i % 2 * 8, k)));
        }
        for i in 0..b_count {
            given.push(register(lane, i * per_quad, &|k| b(k, lane / 4)));
        }
        given.extend((0..4).map(|i| c(lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2).to_bits()));
    }
    let words = a_count + b_count + 4;
    let load: String = (0..words)
        .map(|i| {
            format!("ld.shared.b32 %{}{}, [%r4+{}];\n", if i < words - 4 { "r" } else { "f" }, 10 + i, 4 * i)
        })
        .collect();
    let names = |prefix: &str, from: usize, count: usize| {
        (from..from + count).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ")
    };
    let ab = 10 + a_count + b_count;
    let body = format!(
        "mad.lo.s32 %r4, %r0, {}, %r30;
        {load}mma.sync.aligned.{shape}.row.col.f32.{format}.{format}.f32 {{{}}}, {{{}}}, {{{}}}, {{{}}};
        st.global.v4.f32 [%rd2], {{{}}};",
        4 * words,
        names("f", 1, 4),
        names("r", 10, a_count),
        names("r", 10 + a_count, b_count),
        names("f", ab, 4),
        names("f", 1, 4),
    );
    for (lane, results) in lanes(&body, 4, &given).iter().enumerate() {
        for (i, bits) in results.iter().enumerate() {
            let (row, column) = (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
            let wanted = (0..depth).map(|k| a(row, k) * b(k, column)).sum::<f32>() + c(row, column);
            assert_eq!(f32::from_bits(*bits), wanted, "{shape} {format} row {row} column {column}");
        }
    }
}

#[test]
fn products_of_matrices() {
    check_product("m16n8k16", "bf16", 16, Some(bf16));
    check_product("m16n8k8", "bf16", 8, Some(bf16));
    check_product("m16n8k16", "f16", 16, Some(f16));
    check_product("m16n8k8", "f16", 8, Some(f16));
    check_product("m16n8k8", "tf32", 8, None);
    check_product("m16n8k4", "tf32", 4, None);
}
