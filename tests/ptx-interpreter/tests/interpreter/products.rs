//! Products of warpgroups: what they compute, and which forms of them are known.

use crate::support::{bytes_of, upload};
use manygate_ptx_interpreter::{Fault, Launch, Memory, Module};

/// How the values of a factor lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Major {
    /// Those that are summed up lie side by side.
    Summands,
    /// Those of neighbouring results do.
    Lines,
}

/// A factor: `lines` rows of the first one, or columns of the second one, of `depth` values each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor {
    pub(crate) lines: usize,
    pub(crate) depth: usize,
    pub(crate) major: Major,
}

impl Factor {
    fn new(lines: usize, depth: usize, major: Major) -> Factor {
        Factor { lines, depth, major }
    }

    fn bytes(self) -> usize {
        match self.major {
            Major::Summands => self.lines * 128,
            Major::Lines => self.lines.div_ceil(64) * self.leading(),
        }
    }

    fn leading(self) -> usize {
        self.depth / 8 * 1024
    }

    /// Where a value lies, from a multiple of 1024 on.
    fn place(self, line: usize, k: usize) -> usize {
        let linear = match self.major {
            Major::Summands => line % 8 * 128 + line / 8 * 1024 + k * 2,
            Major::Lines => line % 64 * 2 + line / 64 * self.leading() + k % 8 * 128 + k / 8 * 1024,
        };
        linear ^ (linear >> 7 & 7) << 4
    }

    pub(crate) fn image(self, value: impl Fn(usize, usize) -> f32) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes()];
        for (line, k) in (0..self.lines).flat_map(|line| (0..self.depth).map(move |k| (line, k))) {
            let half = (value(line, k).to_bits() >> 16) as u16;
            bytes[self.place(line, k)..][..2].copy_from_slice(&half.to_le_bytes());
        }
        bytes
    }

    /// What must be added to `address >> 4` to make a descriptor of sixteen values from `k` on.
    fn descriptor(self, offset: usize, k: usize) -> u64 {
        let (start, leading) = match self.major {
            Major::Summands => (offset + 2 * k, 16),
            Major::Lines => (offset + k / 8 * 1024, self.leading()),
        };
        1 << 62 | 64 << 32 | (leading as u64 >> 4) << 16 | start as u64 >> 4
    }

    fn transposed(self) -> u32 {
        u32::from(self.major == Major::Lines)
    }
}

/// Registers that a product adds to.
fn accumulators(columns: usize) -> String {
    let names: Vec<String> = (0..columns / 2).map(|i| format!("%f{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// A product of factors that lie one after the other at `%r3`, from summand `k` on.
pub(crate) fn product(a: Factor, b: Factor, k: usize, adds: &str, scales: &str) -> String {
    format!(
        "shr.u32 %r4, %r3, 4;\ncvt.u64.u32 %rd3, %r4;\nadd.s64 %rd4, %rd3, {};\nadd.s64 %rd5, %rd3, {};
        wgmma.mma_async.sync.aligned.m64n{}k16.f32.bf16.bf16 {}, %rd4, %rd5, {adds}, {scales}, {}, {};\n",
        a.descriptor(0, k),
        b.descriptor(a.bytes(), k),
        b.lines,
        accumulators(b.lines),
        a.transposed(),
        b.transposed(),
    )
}

pub(crate) const FENCE: &str = "wgmma.fence.sync.aligned;\n";
pub(crate) const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
pub(crate) const WAIT: &str = "wgmma.wait_group.sync.aligned 0;\n";
pub(crate) const PUBLISH: &str = "fence.proxy.async;\nbar.sync 0;\n";

/// Copies what is given to shared memory at `%r3`.
const FILL: &str = "mov.u32 %r1, %r0;\n$fill:\nsetp.ge.u32 %p0, %r1, LENGTH;\n@%p0 bra $filled;
    mad.wide.u32 %rd3, %r1, 16, %rd1;\nld.global.v4.u32 {%r5, %r6, %r7, %r8}, [%rd3];\nmad.lo.s32 %r4, %r1, 16, %r3;
    st.shared.v4.u32 [%r4], {%r5, %r6, %r7, %r8};\nadd.s32 %r1, %r1, %r2;\nbra.uni $fill;\n$filled:\n";

/// A kernel that runs `body`, with `%p1` false and `%p2` true, and stores a lane's accumulators of `columns` columns.
pub(crate) fn text(columns: usize, body: &str) -> String {
    let stores: String =
        (0..columns / 2).map(|i| format!("st.global.f32 [%rd2+{}], %f{i};\n", 4 * i)).collect();
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 dyn[];
        .visible .entry k(.param .u64 k_0, .param .u64 k_1)\n.maxntid 256, 1, 1\n.minnctapersm 1\n.maxnreg 168\n{{
        .reg .b64 %rd<10>;\n.reg .b32 %r<20>;\n.reg .f32 %f<140>;\n.reg .pred %p<5>;
        ld.param.u64 %rd1, [k_0];\nld.param.u64 %rd2, [k_1];\nmov.u32 %r0, %tid.x;\nmov.u32 %r2, %ntid.x;
        mad.wide.u32 %rd2, %r0, {}, %rd2;\nmov.u32 %r3, dyn;\nsetp.ne.u32 %p1, %r0, %r0;\nsetp.eq.u32 %p2, %r0, %r0;
        {body}\n{stores}ret;\n}}",
        2 * columns
    )
}

/// The accumulators of each thread.
pub(crate) fn try_run(
    text: &str,
    columns: usize,
    threads: u32,
    image: &[u8],
    seed: u64,
) -> Result<Vec<Vec<f32>>, Fault> {
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let input = upload(&mut memory, image);
    let len = threads as usize * 2 * columns;
    let output = upload(&mut memory, &vec![0; len]);
    let parameters = bytes_of(&[input, output]);
    let launch = Launch {
        grid: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared: image.len(),
        parameters: &parameters,
        seed,
    };
    module.kernel("k").expect("k").launch(&mut memory, &launch)?;
    let bytes = memory.bytes(output, len).expect("allocated");
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    Ok(values.chunks(columns / 2).map(<[f32]>::to_vec).collect())
}

/// A small number that bf16 holds exactly.
fn small(i: usize) -> f32 {
    ((i * 7919) % 17) as f32 - 8.0
}

pub(crate) fn first_value(row: usize, k: usize) -> f32 {
    small(row * 67 + k)
}

pub(crate) fn second_value(column: usize, k: usize) -> f32 {
    small(1000 + column * 71 + k)
}

/// What fills `length` bytes of shared memory with what is given.
pub(crate) fn filled(length: usize) -> String {
    FILL.replace("LENGTH", &(length / 16).to_string())
}

/// That the product of two matrices is right, to which `before` is added.
fn check(columns: usize, depth: usize, majors: [Major; 2], scales: [i32; 2], before: f32) {
    let (a, b) = (Factor::new(64, depth, majors[0]), Factor::new(columns, depth, majors[1]));
    let image = [a.image(first_value), b.image(second_value)].concat();
    let adds = |k: usize| if k == 0 && before == 0.0 { "%p1" } else { "%p2" };
    let sets: String = match before == 0.0 {
        true => String::new(),
        false => (0..columns / 2).map(|i| format!("mov.f32 %f{i}, 0f{:08X};\n", before.to_bits())).collect(),
    };
    let scales_text = format!("{}, {}", scales[0], scales[1]);
    let products: String = (0..depth).step_by(16).map(|k| product(a, b, k, adds(k), &scales_text)).collect();
    let body = format!("{}{PUBLISH}{sets}{FENCE}{products}{COMMIT}{WAIT}", filled(image.len()));
    let results =
        try_run(&text(columns, &body), columns, 128, &image, 5).unwrap_or_else(|fault| panic!("{fault}"));
    for (thread, results) in results.iter().enumerate() {
        let (warp, lane) = (thread / 32, thread % 32);
        for (r, result) in results.iter().enumerate() {
            let (row, column) =
                (16 * warp + lane / 4 + 8 * (r / 2 % 2), 8 * (r / 4) + 2 * (lane % 4) + r % 2);
            let sum: f32 = (0..depth).map(|k| first_value(row, k) * second_value(column, k)).sum();
            let wanted = before + sum * (scales[0] * scales[1]) as f32;
            assert_eq!(*result, wanted, "{columns} {depth} {majors:?} row {row} column {column}");
        }
    }
}

#[test]
fn products() {
    for a in [Major::Summands, Major::Lines] {
        for b in [Major::Summands, Major::Lines] {
            check(64, 16, [a, b], [1, 1], 0.0);
            check(128, 32, [a, b], [1, 1], 0.5);
            check(256, 16, [a, b], [1, 1], 0.0);
            check(192, 64, [a, b], [1, 1], 0.0);
        }
    }
    for columns in [8, 16, 24, 40] {
        check(columns, 16, [Major::Summands; 2], [1, 1], 0.0);
    }
    check(64, 32, [Major::Summands; 2], [-1, 1], 0.25);
    check(64, 16, [Major::Lines; 2], [1, -1], 0.0);
    check(64, 16, [Major::Lines; 2], [-1, -1], 0.0);
}

fn refused(instruction: &str, why: &str) {
    let error = Module::parse(&text(8, instruction)).err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|error| error.contains(why)), "`{instruction}`: {error:?}");
}

#[test]
fn forms_that_are_not_known() {
    let multiply =
        |shape: &str, d: &str, rest: &str| format!("wgmma.mma_async.sync.aligned.{shape} {d}, {rest};");
    let (known, four, rest) =
        ("m64n8k16.f32.bf16.bf16", "{%f0, %f1, %f2, %f3}", "%rd4, %rd5, %p1, 1, 1, 0, 0");
    assert!(Module::parse(&text(8, &multiply(known, four, rest))).is_ok());
    refused(&multiply("m64n12k16.f32.bf16.bf16", four, rest), "shape `m64n12k16`");
    refused(&multiply("m64n264k16.f32.bf16.bf16", four, rest), "shape");
    refused(&multiply("m64n8k8.f32.bf16.bf16", four, rest), "shape");
    refused(&multiply("m64n8k16.f32.f16.f16", four, rest), "F16");
    refused(&multiply("m64n8k16.f16.bf16.bf16", four, rest), "F16");
    refused(&multiply("sp.m64n8k16.f32.bf16.bf16", four, rest), "`.sp`");
    refused(&multiply(known, "{%f0, %f1, %f2}", rest), "4 registers wanted, 3 given");
    refused(&multiply(known, "{%f0, %f1, %f2, %f2}", rest), "of its own");
    refused(&multiply(known, "{%f0, %f1, %f2, _}", rest), "of its own");
    refused(&multiply(known, four, "{%r1, %r2, %r3, %r4}, %rd5, %p1, 1, 1, 0"), "factor in registers");
    refused(&multiply(known, four, "%r4, %rd5, %p1, 1, 1, 0, 0"), "64 are wanted");
    refused(&multiply(known, four, "%rd4, %rd5, %r1, 1, 1, 0, 0"), "bits");
    refused(&multiply(known, four, "%rd4, %rd5, %p1, 2, 1, 0, 0"), "1 or -1");
    refused(&multiply(known, four, "%rd4, %rd5, %p1, 1, 1, 0, 2"), "1 or 0");
    refused(&multiply(known, four, "%rd4, %rd5, %p1, 1, 1"), "8 operands wanted, 6 given");
    refused("wgmma.wait_group.sync.aligned %r1;", "number of groups");
    refused("wgmma.commit_group.sync;", "`.sync` and `.aligned`");
    refused("wgmma.fence.aligned;", "`.sync` and `.aligned`");
    refused("wgmma.fence.sync.aligned 1;", "0 operands wanted");
    refused("wgmma.rest.sync.aligned;", "`wgmma.rest`");
    refused("setmaxnreg.sync.aligned.u32 40;", "`.inc` or `.dec`");
    refused("setmaxnreg.inc.sync.aligned.u32 44;", "a multiple of 8 from 24 to 256");
    refused("setmaxnreg.dec.sync.aligned.u32 16;", "a multiple of 8 from 24 to 256");
    refused("fence.proxy.alias;", "`.async` alone");
    refused("fence.proxy.async.global;", "`.global`");
    refused("elect.sync %r1|%p1, -1;", "`elect`");
    let older = text(8, "wgmma.fence.sync.aligned;").replace("sm_90a", "sm_90");
    let error = Module::parse(&older).err().expect("an error").to_string();
    assert!(error.contains("needs `.target sm_90a`, which is `sm_90`"), "{error}");
    assert!(Module::parse(&text(8, "fence.proxy.async;").replace("sm_90a", "sm_80")).is_err());
}
