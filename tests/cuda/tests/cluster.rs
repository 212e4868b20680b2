//! Rows by cluster on the device: choices and orders exactly, centres against f64.

use manygate_cuda::cluster::{self as cuda, Moving, Order};
use manygate_cuda::gemm_by_scenario::scenario_starts;
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::{Gpu, Window, values};
use proptest::prelude::*;

/// Rows of a matrix: none, few, or more than a chunk of the sort has.
fn windows() -> impl Strategy<Value = Window> {
    let rows = prop_oneof![3 => Just(None), 2 => Just(Some(300usize)), 1 => Just(Some(2300usize))];
    (Window::any(), rows).prop_map(|(window, many)| {
        let rows = many.unwrap_or(window.rows);
        let live = rows - (37 * (window.rows - window.live)).min(rows);
        Window { rows, live, cols: window.cols % 20, ..window }
    })
}

/// A cluster for each row, as numbers that are not all whole or inside.
fn routes(rows: usize, clusters: usize, seed: u64) -> Vec<f32> {
    let most = clusters as f32;
    values(seed, rows, 0.5).into_iter().map(|v| ((v + 0.5) * (most + 0.5)).max(-1.0)).collect()
}

fn cluster(route: f32, clusters: usize) -> usize {
    (route.max(0.0) as usize).min(clusters - 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_choose_the_first_of_the_largest(window in windows(), seed: u64) {
        let z = Window { cols: window.cols + 1, ..window };
        let y = Window { cols: 1, element: Element::F32, ..window };
        // Few different values, so that some are equal.
        let coarse = |all: Vec<f32>| all.into_iter().map(|v| (v * 2.0).round()).collect::<Vec<_>>();
        let (all, before) = (coarse(z.values(seed, 1.0)), y.values(seed ^ 1, 1.0));
        let largest = |row: &[f32]| (1..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best });
        let expected: Vec<f32> = z.live_values(&all).chunks(z.cols).map(|row| largest(row) as f32).collect();
        let mut gpu = Gpu::with_order(seed);
        let (from, to) = (z.upload(&mut gpu, &all), y.upload(&mut gpu, &before));
        gpu.launch(&cuda::route(from, to));
        let found = y.download(&mut gpu, to);
        prop_assert_eq!(y.difference(&before, &found, &expected, &expected, 0.0), None);
    }

    #[test]
    fn rows_stand_in_the_order_of_their_clusters(
        window in windows(), clusters in prop_oneof![3 => 1usize..9, 1 => Just(256usize)], accumulate: bool, seed: u64,
    ) {
        let of_route = Window { cols: 1, before: 0, behind: 0, element: Element::F32, ..window };
        let route = routes(window.rows, clusters, seed);
        let chosen: Vec<usize> = route[..window.live].iter().map(|&route| cluster(route, clusters)).collect();
        let of = |k: usize| chosen.iter().zip(0u32..).filter(move |(own, _)| **own == k).map(|(_, r)| r);
        let order: Vec<u32> = (0..clusters).flat_map(of).collect();
        let counts: Vec<u32> = (0..clusters).map(|k| of(k).count() as u32).collect();
        let mut gpu = Gpu::with_order(seed);
        let route = of_route.upload(&mut gpu, &route);
        let bytes = Order::bytes(route.rows, clusters) as usize;
        let on_device = Order::at(gpu.allocate::<u8>(bytes), route.rows, clusters);
        for launch in cuda::order_rows(route, on_device) {
            gpu.launch(&launch);
        }
        if window.rows > 0 {
            prop_assert_eq!(gpu.download::<u32>(on_device.starts, 2 * (clusters + 1)), scenario_starts(&counts));
            prop_assert_eq!(gpu.download::<u32>(on_device.rows, window.live), order.clone());
        }

        let other = Window { before: window.behind, behind: window.before, element: Element::F32, ..window };
        let (all, before) = (window.values(seed ^ 1, 1.0), other.values(seed ^ 2, 1.0));
        let (live, was) = (window.live_values(&all), other.live_values(&before));
        let row = |values: &[f32], r: u32| values[r as usize * window.cols..][..window.cols].to_vec();
        let gathered: Vec<f32> = order.iter().flat_map(|&r| row(&live, r)).collect();
        let (from, to) = (window.upload(&mut gpu, &all), other.upload(&mut gpu, &before));
        gpu.launch(&cuda::gather_rows(on_device, from, to));
        let found = other.download(&mut gpu, to);
        prop_assert_eq!(other.difference(&before, &found, &gathered, &gathered, 0.0), None);

        let mut scattered = was.clone();
        for (i, &r) in order.iter().enumerate() {
            let own = &mut scattered[r as usize * window.cols..][..window.cols];
            let add = |(to, v): (&mut f32, f32)| *to = if accumulate { *to + v } else { v };
            own.iter_mut().zip(row(&live, i as u32)).for_each(add);
        }
        let to = other.upload(&mut gpu, &before);
        gpu.launch(&cuda::scatter_rows(on_device, from, accumulate, to));
        let found = other.download(&mut gpu, to);
        prop_assert_eq!(other.difference(&before, &found, &scattered, &scattered, 0.0), None);
    }

    #[test]
    fn centres_follow(
        clusters in 1usize..4, n in prop_oneof![1usize..9, 250usize..300], add_old: bool, add_pull: bool, seed: u64,
    ) {
        let (beta, len) = (0.75f32, clusters * n);
        let [old, pull, dy, before] = [0, 1, 2, 3].map(|i| values(seed ^ i, len, 1.0));
        let mut gpu = Gpu::with_order(seed);
        let mats: Vec<DeviceMat> =
            [&old, &pull, &dy, &before, &before, &before].map(|v| gpu.upload_mat(v, clusters, n, n)).into();
        let moving = Moving { beta, shortest: 1e-12, old: mats[0], pull: mats[1] };
        gpu.launch(&cuda::move_centers(moving, mats[3]));
        let (d_old, d_pull) = (Some((mats[4], add_old)), Some((mats[5], add_pull)));
        let backward = cuda::move_centers_backward(moving, mats[3], mats[2], d_old, d_pull);
        gpu.launch(&backward.expect("gradients are wanted"));
        let found = [3, 4, 5].map(|i| gpu.download_mat(mats[i]));
        for at in 0..len {
            let moved = |i: usize| f64::from(beta) * f64::from(old[i]) + f64::from(1.0 - beta) * f64::from(pull[i]);
            let row = || at / n * n..(at / n + 1) * n;
            let length = row().map(|i| moved(i).powi(2)).sum::<f64>().sqrt();
            let along: f64 = row().map(|i| moved(i) / length * f64::from(dy[i])).sum();
            let dv = (f64::from(dy[at]) - moved(at) / length * along) / length;
            let begun = |add: bool| if add { f64::from(before[at]) } else { 0.0 };
            let wanted = [
                moved(at) / length,
                begun(add_old) + f64::from(beta) * dv,
                begun(add_pull) + f64::from(1.0 - beta) * dv,
            ];
            for (found, wanted) in found.iter().zip(wanted) {
                let allowed = 1e-5 * (1.0 + 1.0 / length);
                prop_assert!((f64::from(found[at]) - wanted).abs() <= allowed, "{at}: {}, not {wanted}", found[at]);
            }
        }
    }

    #[test]
    fn centres_are_kept_where_the_step_may_move_anything(go_on: bool, clusters in 1usize..4, n in 1usize..200) {
        let mut gpu = Gpu::new();
        let (centers, state) = (values(1, clusters * n, 1.0), values(2, clusters * n, 1.0));
        let (mat, to) = (gpu.upload_mat(&centers, clusters, n, n), gpu.upload(&state));
        let flag = gpu.upload(&[u32::from(go_on)]);
        gpu.launch(&cuda::keep_centers(flag, mat, to));
        prop_assert_eq!(gpu.download::<f32>(to, clusters * n), if go_on { centers } else { state });
    }
}
