//! Dropout on the device, and which experts it leaves to gates: the bits of the CPU.

use manygate_cuda::random::Selection;
use manygate_cuda::{Element, random};
use manygate_cuda_tests::{Gpu, Window, first_difference};
use manygate_kernels::random::{Dropping, dropout, philox};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_dropped_and_the_rest_have_the_bits_of_the_cpu(
        window in Window::any(), out in any::<bool>(), accumulate: bool, named: bool,
        first_row in prop_oneof![0u64..100, u64::from(u32::MAX) - 2..u64::from(u32::MAX) + 3],
        rate in prop_oneof![Just(0.0), 0.0f64..1.0], key: [u32; 2], seed: u64,
    ) {
        let out = Window {
            before: window.behind,
            element: if out { Element::F32 } else { window.element },
            ..window
        };
        let (x, before) = (window.values(seed, 3.0), out.values(seed ^ 1, 1.0));
        let names: Vec<u32> = (0..window.rows as u32).map(|r| r.wrapping_mul(2_654_435_761) ^ key[0]).collect();
        let dropping = Dropping::new(rate);

        let (live, mut expected) = (window.live_values(&x), out.live_values(&before));
        let named_rows = if named { &names[..window.live] } else { &[] };
        let (rows, cols) = (window.live, window.cols);
        let (from, to) = (Mat::new(&live, rows, cols), MatMut::new(&mut expected, rows, cols));
        dropout(Isa::Scalar, key, first_row, named_rows, dropping, accumulate, from, to);

        let mut gpu = Gpu::with_order(seed);
        let (from, to) = (window.upload(&mut gpu, &x), out.upload(&mut gpu, &before));
        let (key, rows) = (gpu.upload(&key), named.then(|| gpu.upload(&names)));
        gpu.launch(&random::dropout(key, first_row, rows, dropping, accumulate, from, to));
        let found = out.download(&mut gpu, to);
        prop_assert_eq!(first_difference(&found, &out.replaced(&before, &expected)), None);
    }

    #[test]
    fn experts_are_the_best_of_those_that_dropout_leaves(
        window in Window::any(), gates in 1usize..4, experts in 1usize..7, best in 1u32..8, named: bool,
        rate in prop_oneof![Just(None), (0.0f64..1.0).prop_map(Some)], key: [u32; 2], seed: u64,
    ) {
        let window = Window { cols: gates * experts, ..window };
        let out = Window { element: Element::F32, before: window.behind, ..window };
        // Some are equal, and some not finite.
        let logits: Vec<f32> = window.values(seed, 3.0).into_iter().map(|v| if v > 2.8 { f32::NAN } else { v.round() }).collect();
        let before = out.values(seed ^ 1, 1.0);
        let names: Vec<u32> = (0..window.rows as u32).map(|r| r.wrapping_mul(2_654_435_761) ^ key[0]).collect();
        let threshold = rate.map(|rate| Dropping::new(rate).threshold);

        let mut expected = window.live_values(&logits);
        for (r, row) in expected.chunks_exact_mut(gates * experts).enumerate() {
            let name = if named { names[r] } else { r as u32 };
            let number = |col: usize| philox([name, 0, col as u32 / 4, 0], key)[col % 4];
            for (t, gate) in row.chunks_exact_mut(experts).enumerate() {
                let logits = gate.to_vec();
                let is_before = |i: usize, e: usize| logits[i] > logits[e] || (logits[i] == logits[e] && i < e);
                let chosen = |e: &usize| (0..experts).filter(|&i| is_before(i, *e)).count() < best as usize;
                let chosen: Vec<usize> = (0..experts).filter(chosen).collect();
                let left = |e: &usize| {
                    !logits[*e].is_finite() || threshold.is_none_or(|least| number(t * experts + e) >= least)
                };
                let left: Vec<usize> = chosen.iter().copied().filter(left).collect();
                let stay = if left.is_empty() { chosen } else { left };
                (0..experts).filter(|e| !stay.contains(e)).for_each(|e| gate[e] = f32::NEG_INFINITY);
            }
        }

        let mut gpu = Gpu::with_order(seed);
        let (from, to) = (window.upload(&mut gpu, &logits), out.upload(&mut gpu, &before));
        let (key, rows) = (gpu.upload(&key), named.then(|| gpu.upload(&names)));
        let dropping = threshold.map(|threshold| (threshold, key));
        let selection = Selection { experts: experts as u32, best, dropping, rows };
        gpu.launch(&random::select_experts(selection, from, to));
        let found = out.download(&mut gpu, to);
        prop_assert_eq!(first_difference(&found, &out.replaced(&before, &expected)), None);
    }
}

#[test]
fn a_number_that_is_the_threshold_is_not_below_it() {
    let threshold = philox([5, 0, 1, 0], [3, 4])[2];
    let mut gpu = Gpu::new();
    let (mat, key) = (gpu.upload_mat(&[1.0; 8], 1, 8, 8), gpu.upload(&[3u32, 4]));
    gpu.launch(&random::dropout(key, 5, None, Dropping { threshold, factor: 2.0 }, false, mat, mat));
    assert_eq!(gpu.download_mat(mat)[6], 2.0);
}

#[test]
fn it_works_in_place_and_hides_nothing_that_is_not_finite() {
    let mut gpu = Gpu::new();
    let x = [f32::NAN, f32::INFINITY].repeat(20);
    let mat = gpu.upload_mat(&x, 1, 40, 40);
    let key = gpu.upload(&[3u32, 4]);
    gpu.launch(&random::dropout(key, 0, None, Dropping::new(0.5), false, mat, mat));
    assert!(gpu.download_mat(mat).iter().all(|v| !v.is_finite()));
}
