//! What is made of each row by itself, on the device against f64.

use manygate_cuda::loss::LossSum;
use manygate_cuda::row as cuda;
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::{Gpu, Window};
use proptest::prelude::*;

/// Most difference, relative to the largest number that it is a sum of.
const TOLERANCE: f32 = 2e-6;

/// A matrix of rows, and what is made of it.
#[derive(Clone, Copy, Debug)]
struct Rows {
    window: Window,
    accumulate: bool,
    seed: u64,
}

impl Rows {
    fn any() -> impl Strategy<Value = Rows> {
        let cols = prop_oneof![3 => 1usize..9, 1 => Just(64), 1 => 125usize..140];
        (Window::any(), cols, any::<bool>(), any::<u64>()).prop_map(|(window, cols, accumulate, seed)| Rows {
            window: Window { cols, ..window },
            accumulate,
            seed,
        })
    }

    fn column() -> impl Strategy<Value = Rows> {
        let rows = prop_oneof![3 => Just(None), 1 => Just(Some(300usize))];
        (Rows::any(), rows).prop_map(|(of, rows)| {
            let rows = rows.unwrap_or(of.window.rows);
            let live = rows - (of.window.rows - of.window.live).min(rows);
            Rows { window: Window { rows, live, cols: 1, ..of.window }, ..of }
        })
    }

    /// That the launches from `inputs`, numbers up to `range`, give what `expected` says of each row in f64, added to what is
    /// there or not.
    fn check(
        &self,
        range: f32,
        launch: impl Fn(&mut Gpu, &[DeviceMat], DeviceMat) -> Vec<Launch>,
        inputs: usize,
        expected: impl Fn(usize, &[Vec<f64>]) -> Vec<f64>,
    ) -> Result<(), TestCaseError> {
        let Rows { window, accumulate, seed } = *self;
        let mut gpu = Gpu::with_order(seed);
        let element = if seed.is_multiple_of(2) { Element::F32 } else { Element::Bf16 };
        let from = Window { before: window.behind, behind: window.before, element, ..window };
        let to = window;
        let all: Vec<Vec<f32>> = (0..inputs as u64).map(|i| from.values(seed ^ i, range)).collect();
        let before = to.values(seed ^ 9, 1.0);
        let live: Vec<Vec<f32>> = all.iter().map(|all| from.live_values(all)).collect();
        let mut wanted = Vec::new();
        for r in 0..window.live {
            let row = |values: &Vec<f32>| {
                values[r * window.cols..][..window.cols].iter().map(|&v| v.into()).collect()
            };
            wanted.extend(expected(r, &live.iter().map(row).collect::<Vec<_>>()));
        }
        let was = to.live_values(&before);
        let begun = |i: usize| if accumulate { f64::from(was[i]) } else { 0.0 };
        let wanted: Vec<f32> = wanted.iter().enumerate().map(|(i, v)| (begun(i) + v) as f32).collect();
        let mats: Vec<DeviceMat> = all.iter().map(|all| from.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        for launch in launch(&mut gpu, &mats, at) {
            gpu.launch(&launch);
        }
        let largest = wanted.iter().fold(1.0 + range, |most, v| v.abs().max(most));
        let scale = vec![largest; wanted.len()];
        let found = to.download(&mut gpu, at);
        prop_assert_eq!(to.difference(&before, &found, &wanted, &scale, TOLERANCE), None);
        Ok(())
    }

    /// A sum that launches add to 100, in the memory that they ask for.
    fn loss(&self, gpu: &mut Gpu) -> LossSum {
        let partials = cuda::partials_bytes(self.window.rows as u32, self.window.cols as u32) / 8;
        LossSum { sum: gpu.upload(&[100.0f64]), partials: gpu.allocate::<f64>(partials as usize) }
    }
}

fn probabilities(z: &[f64]) -> Vec<f64> {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
    z.iter().map(|z| (z - largest).exp() / sum).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn is_close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= f64::from(TOLERANCE) * expected.abs().max(100.0)
}

/// The logit of σ(a) σ(b), and what its slopes by a and b are.
fn product_logit(a: f64, b: f64) -> (f64, [f64; 2]) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let rest = sigmoid(-a) + sigmoid(a) * sigmoid(-b);
    ((sigmoid(a) * sigmoid(b) / rest).ln(), [-a, -b].map(|x| sigmoid(x) / rest))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn probabilities_of_rows(rows in Rows::any()) {
        let written = Rows { accumulate: false, ..rows };
        written.check(8.0, |_, from, q| vec![cuda::softmax(from[0], q)], 1, |_, from| probabilities(&from[0]))?;
        let backward = |_: &mut Gpu, from: &[DeviceMat], dz| vec![cuda::softmax_dz(from[0], from[1], rows.accumulate, dz)];
        rows.check(1.0, backward, 2, |_, from| {
            let mean = dot(&from[0], &from[1]);
            from[0].iter().zip(&from[1]).map(|(q, d)| q * (d - mean)).collect()
        })?;
    }

    #[test]
    fn rows_of_length_one(rows in Rows::any(), floor in prop_oneof![Just(1e-12f32), Just(3.0)]) {
        let scale = |x: &[f64]| 1.0 / dot(x, x).sqrt().max(f64::from(floor));
        let written = Rows { accumulate: false, ..rows };
        written.check(1.0, |_, from, y| vec![cuda::row_normalise(floor, from[0], y)], 1, |_, from| {
            from[0].iter().map(|x| x * scale(&from[0])).collect()
        })?;
        let backward = |_: &mut Gpu, from: &[DeviceMat], dx| {
            vec![cuda::row_normalise_dx(floor, from[0], from[1], from[2], rows.accumulate, dx)]
        };
        rows.check(1.0, backward, 3, |_, from| {
            let is_long = dot(&from[0], &from[0]).sqrt() >= f64::from(floor);
            let along = if is_long { dot(&from[1], &from[2]) } else { 0.0 };
            from[1].iter().zip(&from[2]).map(|(y, d)| (d - y * along) * scale(&from[0])).collect()
        })?;
    }

    #[test]
    fn cross_entropies_of_classes(rows in Rows::any()) {
        let Rows { window: Window { rows: most, live, cols, .. }, accumulate, seed } = rows;
        let ids: Vec<u32> = (0..most).map(|r| ((r as u64 ^ seed) % cols as u64) as u32).collect();
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], dz| {
            let (ids, scale) = (gpu.upload(&ids), gpu.upload(&[0.25f32]));
            cuda::cross_entropy(from[0], ids, scale, Some((dz, accumulate)), None)
        };
        rows.check(8.0, launch, 1, |r, from| {
            let class = |(i, q): (usize, f64)| 0.25 * (q - f64::from(u8::from(i == ids[r] as usize)));
            probabilities(&from[0]).into_iter().enumerate().map(class).collect()
        })?;

        let mut gpu = Gpu::with_order(seed);
        let all = rows.window.values(seed, 8.0);
        let (z, loss) = (rows.window.upload(&mut gpu, &all), rows.loss(&mut gpu));
        let (at, scale) = (gpu.upload(&ids), gpu.upload(&[0.25f32]));
        for launch in cuda::cross_entropy(z, at, scale, None, Some(loss)) {
            gpu.launch(&launch);
        }
        let values: Vec<f64> = rows.window.live_values(&all).into_iter().map(f64::from).collect();
        let of_row = |r: usize| -probabilities(&values[r * cols..][..cols])[ids[r] as usize].ln();
        let (found, wanted) = (gpu.download::<f64>(loss.sum, 1)[0], 100.0 + (0..live).map(of_row).sum::<f64>());
        prop_assert!(is_close(found, wanted), "{found}, not {wanted}");
    }

    #[test]
    fn logits_of_products(rows in Rows::any(), column in Rows::column()) {
        let written = Rows { accumulate: false, ..rows };
        let launch = |_: &mut Gpu, from: &[DeviceMat], z| {
            vec![cuda::product_logit(from[0].columns(0, 1), from[1], z)]
        };
        written.check(3.0, launch, 2, |_, from| from[1].iter().map(|&b| product_logit(from[0][0], b).0).collect())?;
        let launch = |_: &mut Gpu, from: &[DeviceMat], db| {
            let a = from[0].columns(0, 1);
            vec![cuda::product_logit_backward(a, from[1], from[2], None, Some((db, rows.accumulate)))]
        };
        rows.check(3.0, launch, 3, |_, from| {
            let terms = from[1].iter().zip(&from[2]);
            terms.map(|(&b, dz)| dz * product_logit(from[0][0], b).1[1]).collect()
        })?;
        let launch = |_: &mut Gpu, from: &[DeviceMat], da| {
            vec![cuda::product_logit_backward(from[0], from[1], from[2], Some((da, column.accumulate)), None)]
        };
        column.check(3.0, launch, 3, |_, from| {
            vec![from[2][0] * product_logit(from[0][0], from[1][0]).1[0]]
        })?;
    }

    #[test]
    fn squares_and_residuals(rows in Rows::column()) {
        let Rows { window, accumulate, seed } = rows;
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], dx| {
            let scale = gpu.upload(&[0.25f32]);
            cuda::mean_square(from[0], scale, Some((dx, accumulate)), None)
        };
        rows.check(1.0, launch, 1, |_, from| vec![0.5 * from[0][0]])?;
        let mut gpu = Gpu::with_order(seed);
        let all = window.values(seed, 1.0);
        let (x, loss, scale) = (window.upload(&mut gpu, &all), rows.loss(&mut gpu), gpu.upload(&[0.25f32]));
        for launch in cuda::mean_square(x, scale, None, Some(loss)) {
            gpu.launch(&launch);
        }
        let wanted = 100.0 + window.live_values(&all).iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let found = gpu.download::<f64>(loss.sum, 1)[0];
        prop_assert!(is_close(found, wanted), "{found}, not {wanted}");

        let labels: Vec<f32> = (0..window.rows).map(|r| (r % 2) as f32).collect();
        let (written, batch) = (Rows { accumulate: false, ..rows }, window.live as f64);
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], y| vec![cuda::bce_residual(from[0], gpu.upload(&labels), y)];
        written.check(4.0, launch, 1, |r, from| vec![(sigmoid(from[0][0]) - f64::from(labels[r])) / batch])?;
        let launch = |_: &mut Gpu, from: &[DeviceMat], dz| vec![cuda::bce_residual_dz(from[0], from[1], accumulate, dz)];
        rows.check(4.0, launch, 2, |_, from| {
            let p = sigmoid(from[0][0]);
            vec![from[1][0] * p * (1.0 - p) / batch]
        })?;
    }
}
