//! Kernels of the CUDA compiler (`tests/kernels/kernels.cu`), and faults that were left in some of them.

use crate::support::upload;
use manygate_ptx_interpreter::{Fault, FaultKind, Launch, Memory, Module, Stats};
use std::sync::LazyLock;

static KERNELS: LazyLock<Module> = LazyLock::new(|| {
    Module::parse(include_str!("../kernels/kernels.ptx")).unwrap_or_else(|error| panic!("{error}"))
});

/// An argument of a launch.
enum Argument {
    Address(u64),
    Word(u32),
    /// A matrix of `rows x columns` values that lie `stride` apart, and the address of the number of its rows.
    Matrix(u64, u64, [u32; 3]),
}

use Argument::{Address, Matrix, Word};

struct Device {
    memory: Memory,
    seed: u64,
}

impl Device {
    fn new(seed: u64) -> Device {
        Device { memory: Memory::new(), seed }
    }

    fn upload<const N: usize, T: Copy>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> u64 {
        let all: Vec<u8> = values.iter().flat_map(|value| bytes(*value)).collect();
        upload(&mut self.memory, &all)
    }

    fn floats(&mut self, values: &[f32]) -> u64 {
        self.upload(values, f32::to_le_bytes)
    }

    fn words(&mut self, values: &[u32]) -> u64 {
        self.upload(values, u32::to_le_bytes)
    }

    fn download<const N: usize, T>(
        &mut self,
        address: u64,
        count: usize,
        value: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        let bytes = self.memory.bytes(address, N * count).expect("allocated");
        bytes.as_chunks().0.iter().map(|chunk| value(*chunk)).collect()
    }

    fn launch(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument],
    ) -> Result<Stats, Fault> {
        let kernel = KERNELS.kernel(kernel).expect("a kernel of the file");
        let mut parameters = Vec::new();
        for (argument, place) in arguments.iter().zip(kernel.parameters()) {
            parameters.resize(place.offset, 0);
            match argument {
                Address(address) => parameters.extend(address.to_le_bytes()),
                Word(word) => parameters.extend(word.to_le_bytes()),
                Matrix(values, rows, shape) => {
                    parameters.extend(values.to_le_bytes());
                    parameters.extend(rows.to_le_bytes());
                    parameters.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
                }
            }
            parameters.resize(place.offset + place.size, 0);
        }
        let launch = Launch { grid, block, dynamic_shared: 0, parameters: &parameters, seed: self.seed };
        kernel.launch(&mut self.memory, &launch)
    }
}

/// Numbers between -2 and 2, different for each `seed`.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn close(result: f32, wanted: f64, tolerance: f64) -> bool {
    (f64::from(result) - wanted).abs() <= tolerance * wanted.abs().max(1.0)
}

/// The sum of products that is element (i, j) of a b.
fn product(a: &[f32], b: impl Fn(usize, usize) -> f32, k: usize, i: usize, j: usize) -> f64 {
    (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b(l, j))).sum()
}

fn product_f32(kernel: &str, (m, n, k): (usize, usize, usize), seed: u64) -> Result<(), Fault> {
    let mut device = Device::new(seed);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let (at_a, at_b, at_c) = (device.floats(&a), device.floats(&b), device.memory.allocate(4 * m * n));
    let grid = [n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1];
    let sizes = [m, n, k].map(|size| Word(size as u32));
    let [m_word, n_word, k_word] = sizes;
    let arguments = [Address(at_a), Address(at_b), Address(at_c), m_word, n_word, k_word];
    device.launch(kernel, grid, [16, 16, 1], &arguments)?;
    let c = device.download(at_c, m * n, f32::from_le_bytes);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let wanted = product(&a, |l, j| b[l * n + j], k, i, j);
        assert!(close(c[i * n + j], wanted, 1e-5), "({i}, {j}): {}, wanted {wanted}", c[i * n + j]);
    }
    Ok(())
}

#[test]
fn a_product_over_tiles() {
    for seed in [0, 1, 2] {
        product_f32("product_f32", (37, 21, 50), seed).unwrap_or_else(|fault| panic!("{fault}"));
    }
    product_f32("product_f32", (1, 1, 1), 0).unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn a_missing_barrier_is_a_race() {
    for seed in [0, 1, 2] {
        let fault = product_f32("product_f32_with_a_race", (37, 21, 50), seed).expect_err("a race");
        assert_eq!(fault.kind(), FaultKind::Race, "{fault}");
        assert!(fault.to_string().contains("`st.shared.f32"), "{fault}");
    }
}

fn product_bf16(kernel: &str, (m, n, k): (usize, usize, usize)) -> Result<(), Fault> {
    let mut device = Device::new(5);
    let rounded = |values: Vec<f32>| -> Vec<f32> {
        values.into_iter().map(|value| f32::from_bits(value.to_bits() & 0xffff_0000)).collect()
    };
    let (a, b) = (rounded(numbers(m * k, 3)), rounded(numbers(n * k, 4)));
    let halves = |value: f32| ((value.to_bits() >> 16) as u16).to_le_bytes();
    let (at_a, at_b) = (device.upload(&a, halves), device.upload(&b, halves));
    let at_c = device.memory.allocate(4 * m * n);
    let grid = [n.div_ceil(8) as u32, m.div_ceil(16) as u32, 1];
    let [m_word, n_word, k_word] = [m, n, k].map(|size| Word(size as u32));
    let arguments = [Address(at_a), Address(at_b), Address(at_c), m_word, n_word, k_word];
    device.launch(kernel, grid, [32, 1, 1], &arguments)?;
    let c = device.download(at_c, m * n, f32::from_le_bytes);
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let wanted = product(&a, |l, j| b[j * k + l], k, i, j);
        assert!(close(c[i * n + j], wanted, 1e-5), "({i}, {j}): {}, wanted {wanted}", c[i * n + j]);
    }
    Ok(())
}

#[test]
fn a_product_on_tensor_cores() {
    for shape in [(33, 19, 48), (16, 8, 16), (5, 3, 80)] {
        product_bf16("product_bf16", shape).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn a_copy_that_is_not_waited_for_is_found() {
    let fault = product_bf16("product_bf16_that_waits_too_little", (16, 8, 48)).expect_err("a fault");
    assert_eq!(fault.kind(), FaultKind::Uninitialised, "{fault}");
    assert!(fault.to_string().contains("asynchronous copy"), "{fault}");
}

#[test]
fn a_softmax_of_live_rows() {
    let (rows, live, columns, stride) = (11, 6, 37, 40);
    let mut device = Device::new(7);
    let x = numbers(rows * stride, 5);
    let (at_x, at_y) = (device.floats(&x), device.floats(&vec![-1.0; rows * stride]));
    let at_live = device.words(&[live as u32]);
    let shape = [rows as u32, columns as u32, stride as u32];
    let arguments = [Matrix(at_x, at_live, shape), Matrix(at_y, 0, shape)];
    device.launch("softmax", [3, 1, 1], [128, 1, 1], &arguments).unwrap_or_else(|fault| panic!("{fault}"));
    let y = device.download(at_y, rows * stride, f32::from_le_bytes);
    for (i, (x, y)) in x.chunks(stride).zip(y.chunks(stride)).enumerate() {
        let sum: f64 = x[..columns].iter().map(|v| f64::from(*v).exp()).sum();
        for j in 0..stride {
            let wanted = if i < live && j < columns { f64::from(x[j]).exp() / sum } else { -1.0 };
            assert!(close(y[j], wanted, 1e-6), "({i}, {j}): {}, wanted {wanted}", y[j]);
        }
    }
}

#[test]
fn shuffles_of_lanes_that_left_are_found() {
    let sums = |columns: u32| {
        let mut device = Device::new(0);
        let (x, sums) = (device.floats(&vec![1.0; columns as usize]), device.floats(&[0.0; 4]));
        device.launch("divergent_sums", [1, 1, 1], [32, 1, 1], &[Address(x), Address(sums), Word(columns)])
    };
    assert!(sums(64).is_ok());
    let fault = sums(70).expect_err("a fault");
    assert!(matches!(fault.kind(), FaultKind::InactiveLane | FaultKind::Deadlock), "{fault}");
    assert!(fault.to_string().contains("`shfl.sync.bfly"), "{fault}");
}

#[test]
fn a_sum_by_the_last_block() {
    let values: Vec<f64> = numbers(1000, 6).into_iter().map(f64::from).collect();
    for seed in [0, 1, 2] {
        let mut device = Device::new(seed);
        let x = device.upload(&values, f64::to_le_bytes);
        let (parts, result, counter) =
            (device.memory.allocate(64), device.memory.allocate(8), device.words(&[0]));
        let arguments = [Address(x), Word(1000), Address(parts), Address(result), Address(counter)];
        device.launch("sum_f64", [8, 1, 1], [64, 1, 1], &arguments).unwrap_or_else(|fault| panic!("{fault}"));
        let sum = device.download(result, 1, f64::from_le_bytes)[0];
        assert!((sum - values.iter().sum::<f64>()).abs() < 1e-10);
    }
}

#[test]
fn a_histogram() {
    let keys: Vec<u32> = (0..1000u32).map(|i| i * i % 61).collect();
    let mut device = Device::new(4);
    let (at_keys, counts) = (device.words(&keys), device.words(&[0; 64]));
    let arguments = [Address(at_keys), Word(1000), Address(counts)];
    device.launch("histogram", [9, 1, 1], [128, 1, 1], &arguments).unwrap_or_else(|fault| panic!("{fault}"));
    let wanted: Vec<u32> = (0..64).map(|key| keys.iter().filter(|k| **k == key).count() as u32).collect();
    assert_eq!(device.download(counts, 64, u32::from_le_bytes), wanted);
}

/// The error function, by its series.
fn error_function(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..80 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn functions_of_the_compilers_library() {
    let x = numbers(200, 8);
    let mut device = Device::new(0);
    let (at_x, at_y) = (device.floats(&x), device.memory.allocate(4 * x.len()));
    let arguments = [Address(at_x), Address(at_y), Word(200)];
    device.launch("functions", [4, 1, 1], [64, 1, 1], &arguments).unwrap_or_else(|fault| panic!("{fault}"));
    let y = device.download(at_y, x.len(), f32::from_le_bytes);
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let v = f64::from(*x);
        let wanted = match i % 12 {
            0 => v.exp(),
            1 => v.abs().ln(),
            2 => v.sin(),
            3 => f64::from(x * 1e6).cos(),
            4 => v.tanh(),
            5 => v.abs().ln_1p(),
            6 => v.abs().powf(f64::from(1.7f32)),
            7 => error_function(v),
            8 => 1.0 / v.abs().sqrt() + v.abs().sqrt(),
            9 => v.exp_m1(),
            10 => (0..=i as i32 % 5).map(|n| v.powi(n) / f64::from(n + 1)).sum(),
            _ => v % f64::from(0.3f32) + v.round() + v.trunc(),
        };
        assert!(close(y, wanted, 2e-6), "function {} of {x}: {y}, wanted {wanted}", i % 12);
    }
}

#[test]
fn integers_of_all_kinds() {
    const PRIMES: [u64; 8] = [2, 3, 5, 7, 11, 13, 17, 19];
    let values = |seed: u64| -> Vec<u64> {
        (1..=32u64).map(|i| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 3 * 20)).collect()
    };
    let (a, b) = (values(0), values(77));
    let mut device = Device::new(0);
    let (at_a, at_b) = (device.upload(&a, u64::to_le_bytes), device.upload(&b, u64::to_le_bytes));
    let (at_c, launched) = (device.memory.allocate(8 * 32), device.memory.allocate(4));
    for launches in 1..=2 {
        let arguments = [Address(at_a), Address(at_b), Address(at_c), Address(launched)];
        device
            .launch("integers", [1, 1, 1], [32, 1, 1], &arguments)
            .unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(device.download(launched, 1, u32::from_le_bytes), [launches]);
    }
    for (i, c) in device.download(at_c, 32, u64::from_le_bytes).into_iter().enumerate() {
        let (a, b) = (a[i], b[i]);
        let k = (0..8).find(|k| (k * 3 + i) % 8 == i * 5 % 8).expect("three is odd");
        let mut value =
            (a / b) ^ (a % b) ^ ((u128::from(a) * u128::from(b)) >> 64) as u64 ^ (PRIMES[k] * i as u64);
        value =
            value.wrapping_add(u64::from(a.count_ones()) << 32 | u64::from((a >> (i & 31)).leading_zeros()));
        value ^= ((a as i64).wrapping_div((b | 1) as i64)) as u64 ^ b.reverse_bits();
        let funnel = ((b as u32 as u64) << 32 | a as u32 as u64) << i >> 32;
        let (low, high) = ((a as u32).to_le_bytes(), (b as u32).to_le_bytes());
        let permuted = u32::from_le_bytes([low[0], high[3], low[1], high[0]]);
        value = value.wrapping_add(u64::from((funnel as u32).wrapping_add(permuted)));
        assert_eq!(c, value ^ ((a as i64) >> (i & 63)) as u64, "thread {i}");
    }
}

/// Not a test of anything: how many instructions are run in a second.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let (m, n, k) = (256, 256, 256);
    let mut device = Device::new(0);
    let (a, b) = (device.floats(&numbers(m * k, 1)), device.floats(&numbers(k * n, 2)));
    let c = device.memory.allocate(4 * m * n);
    let arguments = [Address(a), Address(b), Address(c), Word(m as u32), Word(n as u32), Word(k as u32)];
    let start = std::time::Instant::now();
    let stats =
        device.launch("product_f32", [16, 16, 1], [16, 16, 1], &arguments).unwrap_or_else(|f| panic!("{f}"));
    let rate = stats.instructions as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{} instructions, {rate:.0} million a second", stats.instructions);
}
