//! Layer normalisation on the device against f64.

use manygate_cuda::layer_norm::{self as cuda, Normal};
use manygate_cuda_tests::{Gpu, Window, values};
use proptest::prelude::*;

/// Most difference, relative to the largest number that it is a sum of.
const TOLERANCE: f32 = 4e-6;
const EPSILON: f32 = 1e-2;

/// Rows in equal parts.
fn rows() -> impl Strategy<Value = (Window, usize)> {
    let (width, groups) = (prop_oneof![3 => 1usize..9, 1 => 60usize..70, 1 => 125usize..140], 1usize..4);
    let many = prop_oneof![4 => Just(None), 1 => Just(Some(300usize))];
    (Window::any(), width, groups, many).prop_map(|(window, width, groups, many)| {
        let rows = many.filter(|_| width < 9).unwrap_or(window.rows);
        let live = rows - (window.rows - window.live).min(rows);
        (Window { rows, live, cols: width * groups, ..window }, groups)
    })
}

/// Of each value of parts `width` wide: what it is normalised, and the deviation of its part.
fn normalised(x: &[f32], width: usize) -> Vec<(f64, f64)> {
    let of_part = |part: &[f32]| {
        let mean = part.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
        let variance = part.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
        let deviation = (variance + f64::from(EPSILON)).sqrt();
        part.iter().map(|&v| ((f64::from(v) - mean) / deviation, deviation)).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(of_part).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn parts_of_rows_are_normalised((x, groups) in rows(), seed: u64, accumulate: bool, sums: bool, wanted: bool) {
        let (cols, width) = (x.cols, x.cols / groups);
        let dy = Window { before: x.behind, behind: x.before, ..x };
        let (all_x, all_dy, before) = (x.values(seed, 2.0), dy.values(seed ^ 1, 1.0), dy.values(seed ^ 2, 1.0));
        let (gamma, beta) = (values(seed ^ 3, cols, 2.0), values(seed ^ 4, cols, 2.0));
        let normal = normalised(&x.live_values(&all_x), width);
        let mut gpu = Gpu::with_order(seed);
        let (on_x, on_dy, y) =
            (x.upload(&mut gpu, &all_x), dy.upload(&mut gpu, &all_dy), dy.upload(&mut gpu, &before));
        let with = Normal { groups: groups as u32, epsilon: EPSILON, gamma: gpu.upload(&gamma) };

        let launch = cuda::layer_norm(with, on_x, gpu.upload(&beta), y);
        gpu.launch(&launch);
        let expected: Vec<f32> = normal
            .iter()
            .enumerate()
            .map(|(at, (v, _))| (f64::from(gamma[at % cols]) * v + f64::from(beta[at % cols])) as f32)
            .collect();
        let found = dy.download(&mut gpu, y);
        prop_assert_eq!(dy.difference(&before, &found, &expected, &vec![8.0; normal.len()], TOLERANCE), None);

        let slopes = dy.live_values(&all_dy);
        let weighed = |at: usize| f64::from(slopes[at]) * f64::from(gamma[at % cols]);
        let was = dy.live_values(&before);
        let dx = |at: usize| {
            let part = || at / width * width..(at / width + 1) * width;
            let mean = part().map(weighed).sum::<f64>() / width as f64;
            let along = part().map(|i| weighed(i) * normal[i].0).sum::<f64>() / width as f64;
            let begun = if accumulate { f64::from(was[at]) } else { 0.0 };
            (begun + (weighed(at) - mean - normal[at].0 * along) / normal[at].1) as f32
        };
        let expected: Vec<f32> = (0..normal.len()).map(dx).collect();
        let to = dy.upload(&mut gpu, &before);
        let [d_gamma, d_beta] = [5, 6].map(|which| gpu.upload(&values(seed ^ which, cols, 1.0)));
        let scratch = gpu.allocate::<u8>(cuda::layer_norm_scratch(on_x.rows, on_x.cols, groups as u32) as usize);
        let (of_rows, of_sums) = ((wanted || !sums).then_some((to, accumulate)), |at| sums.then_some((at, accumulate)));
        let backward =
            cuda::layer_norm_backward(with, on_x, on_dy, of_rows, of_sums(d_gamma), of_sums(d_beta), scratch);
        for launch in backward {
            gpu.launch(&launch);
        }
        let found = dy.download(&mut gpu, to);
        if of_rows.is_some() {
            // A deviation is 0.1 at the least.
            let scale = vec![40.0; expected.len()];
            prop_assert_eq!(dy.difference(&before, &found, &expected, &scale, TOLERANCE), None);
        } else {
            prop_assert_eq!(found, before);
        }
        for (which, address) in [(5, d_gamma), (6, d_beta)] {
            let before = values(seed ^ which, cols, 1.0);
            for (c, found) in gpu.download::<f32>(address, cols).into_iter().enumerate() {
                let column = (0..slopes.len()).filter(|at| at % cols == c);
                let term = |at: usize| f64::from(slopes[at]) * if which == 5 { normal[at].0 } else { 1.0 };
                let begun = if accumulate || !sums { f64::from(before[c]) } else { 0.0 };
                let wanted = begun + if sums { column.map(term).sum() } else { 0.0 };
                let allowed = f64::from(TOLERANCE) * (1.0 + wanted.abs() + x.live as f64);
                prop_assert!((f64::from(found) - wanted).abs() <= allowed, "{which}, {c}: {found}, not {wanted}");
            }
        }
    }
}
