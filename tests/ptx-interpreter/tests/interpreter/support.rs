//! Small kernels around the instructions to be tested.

use manygate_ptx_interpreter::{Fault, Launch, Memory, Module, Stats};
use std::fmt::Debug;

/// What every text begins with.
pub(crate) const HEADER: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A value that a register holds.
pub(crate) trait Value: Copy + Debug + PartialEq {
    /// The register's type.
    const TYPE: &'static str;
    /// Values at which something may go wrong.
    fn edges() -> Vec<Self>;
    /// Its bits, zeros above them.
    fn bits(self) -> u64;
    /// The value of bits.
    fn from_bits(bits: u64) -> Self;
    /// Whether it is the value that was wanted; for numbers that are none, any of them.
    fn is(self, wanted: Self) -> bool {
        self.bits() == wanted.bits()
    }
}

macro_rules! integers {
    ($($t:ty, $unsigned:ty, $name:literal;)*) => {
        $(impl Value for $t {
            const TYPE: &'static str = $name;
            fn edges() -> Vec<$t> {
                let half = <$t>::MAX / 2;
                vec![0, 1, 2, 7, 31, <$t>::MAX, <$t>::MIN, half, half + 1, 0u8.wrapping_sub(1) as $t, !0, !6]
            }
            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
            fn from_bits(bits: u64) -> $t {
                bits as $t
            }
        })*
    };
}
integers! {
    u8, u8, "b8"; i8, u8, "b8"; u16, u16, "b16"; i16, u16, "b16";
    u32, u32, "b32"; i32, u32, "b32"; u64, u64, "b64"; i64, u64, "b64";
}

impl Value for f32 {
    const TYPE: &'static str = "f32";
    fn edges() -> Vec<f32> {
        let tiny = f32::from_bits(1);
        let subnormal = f32::MIN_POSITIVE / 2.0;
        let values =
            [0.0, 1.0, 1.5, 2.5, 0.1, 3e7, f32::MAX, f32::MIN_POSITIVE, subnormal, tiny, f32::EPSILON];
        let numbers = values.iter().flat_map(|v| [*v, -*v]);
        numbers.chain([f32::INFINITY, f32::NEG_INFINITY, f32::NAN]).collect()
    }
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
    fn from_bits(bits: u64) -> f32 {
        f32::from_bits(bits as u32)
    }
    fn is(self, wanted: f32) -> bool {
        self.to_bits() == wanted.to_bits() || self.is_nan() && wanted.is_nan()
    }
}

impl Value for f64 {
    const TYPE: &'static str = "f64";
    fn edges() -> Vec<f64> {
        let values = [0.0, 1.0, 1.5, 2.5, 0.1, 3e7, 1e20, f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::EPSILON];
        let numbers = values.iter().flat_map(|v| [*v, -*v]);
        numbers.chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]).collect()
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn from_bits(bits: u64) -> f64 {
        f64::from_bits(bits)
    }
    fn is(self, wanted: f64) -> bool {
        self.to_bits() == wanted.to_bits() || self.is_nan() && wanted.is_nan()
    }
}

impl Value for bool {
    const TYPE: &'static str = "pred";
    fn edges() -> Vec<bool> {
        vec![false, true]
    }
    fn bits(self) -> u64 {
        self.into()
    }
    fn from_bits(bits: u64) -> bool {
        bits != 0
    }
}

/// A memory with `values` in it, and their address.
pub(crate) fn upload(memory: &mut Memory, bytes: &[u8]) -> u64 {
    let address = memory.allocate(bytes.len());
    memory.bytes(address, bytes.len()).expect("just allocated").copy_from_slice(bytes);
    address
}

/// Bytes of `u64` values.
pub(crate) fn bytes_of(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The `u64` values at an address.
pub(crate) fn download(memory: &mut Memory, address: u64, count: usize) -> Vec<u64> {
    let bytes = memory.bytes(address, 8 * count).expect("allocated");
    bytes.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect()
}

/// Loads the operand `name` of `ty` from `[at + offset]`.
fn load(name: &str, ty: &str, offset: usize) -> String {
    match ty {
        "pred" => format!("ld.global.b32 word, [at + {offset}];\nsetp.ne.b32 {name}, word, 0;\n"),
        _ => format!("ld.global.b{} {name}, [at + {offset}];\n", bits_of(ty)),
    }
}

fn bits_of(ty: &str) -> &str {
    ty.trim_start_matches(|c: char| c.is_ascii_alphabetic())
}

/// Names of the operands of an instruction that is tested.
const OPERANDS: [&str; 5] = ["a", "b", "c", "e", "f"];

/// The bits of `d` after `instructions`, for each case of the operands `a`, `b`, `c`, `e`, `f`.
pub(crate) fn compute(instructions: &str, result: &str, operands: &[&str], cases: &[Vec<u64>]) -> Vec<u64> {
    let declared: String =
        operands.iter().zip(OPERANDS).map(|(ty, name)| format!(".reg .{ty} {name};\n")).collect();
    let width = 8 * operands.len();
    let loads: String =
        operands.iter().zip(OPERANDS).enumerate().map(|(i, (ty, name))| load(name, ty, 8 * i)).collect();
    let store = match result {
        "pred" => "selp.b32 word, 1, 0, d;\nst.global.b32 [to], word;\n".to_owned(),
        _ => format!("st.global.b{} [to], d;\n", bits_of(result)),
    };
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 k_in, .param .u64 k_out, .param .u32 k_count) {{
        .reg .{result} d;\n{declared}.reg .b32 word, index, count;\n.reg .b64 at, to;\n.reg .pred beyond;
        mov.u32 index, %ctaid.x;\nmov.u32 count, %ntid.x;\nmov.u32 word, %tid.x;
        mad.lo.u32 index, index, count, word;\nld.param.u32 count, [k_count];
        setp.ge.u32 beyond, index, count;\n@beyond ret;
        ld.param.u64 at, [k_in];\nmad.wide.u32 at, index, {width}, at;
        ld.param.u64 to, [k_out];\nmad.wide.u32 to, index, 8, to;\n{loads}{instructions}\n{store}ret;\n}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut memory = Memory::new();
    let input = upload(&mut memory, &bytes_of(&cases.concat()));
    let output = upload(&mut memory, &vec![0; 8 * cases.len()]);
    let mut parameters = bytes_of(&[input, output]);
    parameters.extend((cases.len() as u32).to_le_bytes());
    let grid = [(cases.len() as u32).div_ceil(96), 1, 1];
    let launch = Launch { grid, block: [96, 1, 1], dynamic_shared: 0, parameters: &parameters, seed: 3 };
    let kernel = module.kernel("k").expect("the kernel of the text");
    kernel.launch(&mut memory, &launch).unwrap_or_else(|fault| panic!("{fault}"));
    download(&mut memory, output, cases.len())
}

/// All combinations of edge values, as bits.
fn combinations(edges: &[Vec<u64>]) -> Vec<Vec<u64>> {
    edges.iter().fold(vec![Vec::new()], |cases, values| {
        let longer =
            |case: &Vec<u64>| values.iter().map(|value| [&case[..], &[*value]].concat()).collect::<Vec<_>>();
        cases.iter().flat_map(longer).collect()
    })
}

fn edges<T: Value>() -> Vec<u64> {
    T::edges().into_iter().map(Value::bits).collect()
}

/// That `instructions` computes `d` as `wanted` says, for all combinations of edge values.
fn check<D: Value>(instructions: &str, types: &[&str], edges: &[Vec<u64>], wanted: impl Fn(&[u64]) -> D) {
    let cases = combinations(edges);
    let results = compute(instructions, D::TYPE, types, &cases);
    for (case, result) in cases.iter().zip(results) {
        let (result, wanted) = (D::from_bits(result), wanted(case));
        assert!(
            result.is(wanted),
            "`{instructions}` of {case:x?}: {result:?} ({:#x}), wanted {wanted:?}",
            result.bits()
        );
    }
}

/// `instruction d, a;`
pub(crate) fn unary<A: Value, D: Value>(instruction: &str, wanted: impl Fn(A) -> D) {
    check(&format!("{instruction} d, a;"), &[A::TYPE], &[edges::<A>()], |v| wanted(A::from_bits(v[0])));
}

/// `instruction d, a, b;`
pub(crate) fn binary<A: Value, B: Value, D: Value>(instruction: &str, wanted: impl Fn(A, B) -> D) {
    let types = [A::TYPE, B::TYPE];
    check(&format!("{instruction} d, a, b;"), &types, &[edges::<A>(), edges::<B>()], |v| {
        wanted(A::from_bits(v[0]), B::from_bits(v[1]))
    });
}

/// `instruction d, a, b, c;`
pub(crate) fn ternary<A: Value, B: Value, C: Value, D: Value>(
    instruction: &str,
    wanted: impl Fn(A, B, C) -> D,
) {
    ternary_text(&format!("{instruction} d, a, b, c;"), wanted);
}

/// Instructions that compute d of a, b and c.
pub(crate) fn ternary_text<A: Value, B: Value, C: Value, D: Value>(
    instructions: &str,
    wanted: impl Fn(A, B, C) -> D,
) {
    let types = [A::TYPE, B::TYPE, C::TYPE];
    check(instructions, &types, &[edges::<A>(), edges::<B>(), edges::<C>()], |v| {
        wanted(A::from_bits(v[0]), B::from_bits(v[1]), C::from_bits(v[2]))
    });
}

/// Instructions that compute d of a, b, c and e.
pub(crate) fn quaternary_text<T: Value>(instructions: &str, wanted: impl Fn(T, T, T, T) -> T) {
    let all = edges::<T>();
    check(instructions, &[T::TYPE; 4], &[all.clone(), all.clone(), all.clone(), all], |v| {
        wanted(T::from_bits(v[0]), T::from_bits(v[1]), T::from_bits(v[2]), T::from_bits(v[3]))
    });
}

/// `instruction d, a;` for the given values.
pub(crate) fn unary_of<A: Value, D: Value>(instruction: &str, values: &[A], wanted: impl Fn(A) -> D) {
    let bits = values.iter().map(|value| value.bits()).collect();
    check(&format!("{instruction} d, a;"), &[A::TYPE], &[bits], |v| wanted(A::from_bits(v[0])));
}

/// A module of kernels without the lines at the beginning.
pub(crate) fn module(text: &str) -> Module {
    Module::parse(&format!("{HEADER}{text}")).unwrap_or_else(|error| panic!("{error}"))
}

/// A launch of `grid` blocks of `block` threads.
pub(crate) fn launch_of(grid: [u32; 3], block: [u32; 3], parameters: &[u8]) -> Launch<'_> {
    Launch { grid, block, dynamic_shared: 0, parameters, seed: 0 }
}

/// Runs kernel `k` in one block.
pub(crate) fn launch(
    module: &Module,
    memory: &mut Memory,
    block: [u32; 3],
    dynamic_shared: usize,
    parameters: &[u8],
) -> Result<Stats, Fault> {
    let launch = Launch { dynamic_shared, ..launch_of([1, 1, 1], block, parameters) };
    module.kernel("k").expect("the text has a kernel k").launch(memory, &launch)
}

/// Runs kernel `k` of `text` in one block.
pub(crate) fn run(
    memory: &mut Memory,
    text: &str,
    block: [u32; 3],
    dynamic_shared: usize,
    parameters: &[u8],
) -> Result<Stats, Fault> {
    launch(&module(text), memory, block, dynamic_shared, parameters)
}
