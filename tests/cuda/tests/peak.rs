//! Random values and multiply-adds in registers, against the same on the CPU.

use manygate_cuda::peak::{Stream, chains, copy, fill_ids, fill_random, multiply_adds, threads};
use manygate_cuda::{Element, Precision};
use manygate_cuda_tests::Gpu;
use manygate_cuda_tests::values::to_bf16;

const STREAM: Stream = Stream(7);

#[test]
fn filled_values_are_numbers_of_the_stream() {
    let mut gpu = Gpu::new();
    for count in [0usize, 1, 1000] {
        let at = gpu.upload(&vec![f32::NAN; count + 1]);
        gpu.launch(&fill_random(at, count as u64, Element::F32, STREAM, 0.3));
        let found: Vec<f32> = gpu.download(at, count + 1);
        let expected = (0..count as u64).map(|i| STREAM.number(i) * 0.3);
        assert!(expected.eq(found[..count].iter().copied()));
        assert!(found[count].is_nan(), "nothing is written behind the end");
        gpu.launch(&fill_random(at, count as u64, Element::Bf16, STREAM, 0.3));
        let found: Vec<u16> = gpu.download(at, count);
        assert!((0..count as u64).map(|i| to_bf16(STREAM.number(i) * 0.3)).eq(found));
        gpu.launch(&fill_ids(at, count as u64, STREAM, 10));
        let found: Vec<u32> = gpu.download(at, count);
        assert!((0..count as u64).map(|i| STREAM.id(i, 10)).eq(found.iter().copied()));
    }
}

#[test]
fn numbers_of_a_stream_are_spread() {
    let numbers: Vec<f32> = (0..4096).map(|i| STREAM.number(i)).collect();
    assert!(numbers.iter().all(|x| (-1.0..1.0).contains(x)));
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    assert!(mean(&numbers).abs() < 0.03);
    let squares: Vec<f32> = numbers.iter().map(|x| x * x).collect();
    assert!((mean(&squares) - 1.0 / 3.0).abs() < 0.02);
    let mut ids: Vec<u32> = (0..4096).map(|i| STREAM.id(i, 10)).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_copy_copies_all_of_it() {
    let mut gpu = Gpu::new();
    for quads in [0usize, 1, 1023, 1500] {
        let values: Vec<u32> = (0..4 * quads as u32).collect();
        let (from, to) = (gpu.upload(&values), gpu.upload(&vec![u32::MAX; values.len() + 1]));
        gpu.launch(&copy(from, to, 16 * quads as u64));
        let found: Vec<u32> = gpu.download(to, values.len() + 1);
        assert_eq!(found, [values, vec![u32::MAX]].concat());
    }
}

fn left_by(precision: Precision, runs: u32) -> Vec<f32> {
    left_on((8, 0), precision, runs)
}

fn left_on(capability: (u32, u32), precision: Precision, runs: u32) -> Vec<f32> {
    let mut gpu = Gpu::of_capability(capability);
    let out = gpu.allocate::<f32>(threads(1));
    gpu.launch(&multiply_adds(precision, runs, STREAM, 1, out));
    gpu.download(out, threads(1))
}

#[test]
fn chains_are_those_of_the_cpu() {
    for runs in [0, 1, 6] {
        let expected = (0..threads(1) as u64).map(|thread| chains(STREAM, thread, runs));
        assert!(expected.eq(left_by(Precision::F32, runs)), "{runs} runs");
    }
}

#[test]
fn tensor_cores_add_the_same_products_each_time() {
    let choices = [((8, 0), Precision::Tf32), ((8, 0), Precision::Bf16), ((9, 0), Precision::Bf16)];
    for (capability, precision) in choices {
        let (once, thrice) = (left_on(capability, precision, 1), left_on(capability, precision, 3));
        assert!(once.iter().any(|sum| sum.abs() > 1.0), "they multiply");
        let worst = once.iter().zip(&thrice).map(|(a, b)| (3.0 * a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{capability:?}, {precision:?}: {worst}");
    }
}
