//! What rows have by their scenario, on the device against f64.

use manygate_cuda::scenario as cuda;
use manygate_cuda::{DeviceMat, Launch};
use manygate_cuda_tests::{Gpu, Window, values};
use proptest::prelude::*;

/// Most difference, relative to the largest number that it is a sum of.
const TOLERANCE: f32 = 2e-6;

/// Rows of several scenarios, in no order.
#[derive(Clone, Debug)]
struct Rows {
    window: Window,
    scenarios: usize,
    of_rows: Vec<u32>,
    accumulate: bool,
    seed: u64,
}

impl Rows {
    fn any() -> impl Strategy<Value = Rows> {
        let cols = prop_oneof![4 => 1usize..20, 1 => 125usize..140];
        let many = prop_oneof![4 => Just(None), 1 => Just(Some(300usize))];
        let sizes = (Window::any(), many, cols, 1usize..6);
        (sizes, any::<bool>(), any::<u64>()).prop_map(
            |((window, many, cols, scenarios), accumulate, seed)| {
                let missing = window.rows - window.live;
                let rows = many.filter(|_| cols < 20).unwrap_or(window.rows);
                let scenario = |r: usize| ((seed >> (r % 40)) % scenarios as u64) as u32;
                Rows {
                    window: Window { rows, live: rows - missing.min(rows), cols, ..window },
                    scenarios,
                    of_rows: (0..rows).map(scenario).collect(),
                    accumulate,
                    seed,
                }
            },
        )
    }

    fn scenario(&self, r: usize) -> usize {
        self.of_rows[r] as usize
    }

    /// As many rows of `cols` columns.
    fn with_cols(&self, cols: usize) -> Window {
        Window { cols, before: self.window.behind, behind: self.window.before, ..self.window }
    }

    /// What exists once, `[scenarios, cols]`.
    fn once(&self, which: u64, cols: usize) -> Vec<f32> {
        values(self.seed ^ which, self.scenarios * cols, 1.0)
    }

    fn upload_once(&self, gpu: &mut Gpu, values: &[f32]) -> DeviceMat {
        let cols = values.len() / self.scenarios;
        gpu.upload_mat(values, self.scenarios, cols, cols)
    }

    /// That a launch from `inputs` to `to` writes what `expected` says of each row in f64, or adds it.
    fn check(
        &self,
        inputs: &[Window],
        to: Window,
        accumulate: bool,
        launch: impl FnOnce(&mut Gpu, &[DeviceMat], DeviceMat) -> Launch,
        expected: impl Fn(usize, &[Vec<f64>]) -> Vec<f64>,
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().zip(0..).map(|(window, i)| window.values(self.seed ^ i, 1.0)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let was = to.live_values(&before);
        let mut wanted = Vec::new();
        for r in 0..to.live {
            let row = |(of, all): (&Window, &Vec<f32>)| {
                of.live_values(all)[r * of.cols..][..of.cols].iter().map(|&v| v.into()).collect()
            };
            wanted.extend(expected(r, &inputs.iter().zip(&all).map(row).collect::<Vec<_>>()));
        }
        let begun = |i: usize| if accumulate { f64::from(was[i]) } else { 0.0 };
        let wanted: Vec<f32> = wanted.iter().enumerate().map(|(i, v)| (begun(i) + v) as f32).collect();
        let mats: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(of, all)| of.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        let launch = launch(&mut gpu, &mats, at);
        gpu.launch(&launch);
        let scale = vec![wanted.iter().fold(2.0, |most: f32, v| v.abs().max(most)); wanted.len()];
        let found = to.download(&mut gpu, at);
        prop_assert_eq!(to.difference(&before, &found, &wanted, &scale, TOLERANCE), None);
        Ok(())
    }
}

/// That `found` is `before`, where that is added to, and `sums` more.
fn check_sums(found: &[f32], before: Option<&[f32]>, sums: &[f64], rows: usize) -> Result<(), TestCaseError> {
    for (i, (&found, sum)) in found.iter().zip(sums).enumerate() {
        let wanted = before.map_or(0.0, |before| f64::from(before[i])) + sum;
        let allowed = f64::from(TOLERANCE) * (1.0 + wanted.abs() + (rows as f64).sqrt());
        prop_assert!((f64::from(found) - wanted).abs() <= allowed, "{i}: {found}, not {wanted}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_scaled_and_shifted(rows in Rows::any()) {
        let (n, x, accumulate) = (rows.window.cols, rows.window, rows.accumulate);
        let (m, b) = (rows.once(11, n), rows.once(12, n));
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], y| {
            let [m, b] = [&m, &b].map(|values| rows.upload_once(gpu, values));
            cuda::scenario_affine(gpu.upload(&rows.of_rows), from[0], m, b, y)
        };
        let own = |values: &[f32], r: usize, c: usize| f64::from(values[rows.scenario(r) * n + c]);
        rows.check(&[x], rows.with_cols(n), false, launch, |r, from| {
            from[0].iter().enumerate().map(|(c, x)| own(&m, r, c) * x + own(&b, r, c)).collect()
        })?;
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], dx| {
            let m = rows.upload_once(gpu, &m);
            cuda::scenario_affine_dx(gpu.upload(&rows.of_rows), m, from[0], accumulate, dx)
        };
        rows.check(&[x], rows.with_cols(n), accumulate, launch, |r, from| {
            from[0].iter().enumerate().map(|(c, d)| own(&m, r, c) * d).collect()
        })?;
    }

    #[test]
    fn sums_over_the_rows_of_scenarios(rows in Rows::any(), with_products: bool) {
        let Rows { window: dy, scenarios, accumulate, seed, .. } = rows;
        let (n, x) = (dy.cols, rows.with_cols(dy.cols));
        let (all_x, all_dy) = (x.values(seed, 1.0), dy.values(seed ^ 1, 1.0));
        let (live_x, live_dy) = (x.live_values(&all_x), dy.live_values(&all_dy));
        let (mut sums, mut products) = (vec![0.0; scenarios * n], vec![0.0; scenarios * n]);
        for (at, (x, d)) in live_x.iter().zip(&live_dy).enumerate() {
            let to = rows.scenario(at / n) * n + at % n;
            sums[to] += f64::from(*d);
            products[to] += f64::from(*d) * f64::from(*x);
        }
        let mut gpu = Gpu::with_order(seed);
        let (x, dy) = (x.upload(&mut gpu, &all_x), dy.upload(&mut gpu, &all_dy));
        let before = rows.once(7, n);
        let [of_dy, of_products] = [0; 2].map(|_| gpu.upload(&before));
        let scratch = gpu.allocate::<u8>(cuda::scenario_sums_scratch(scenarios, dy.rows, dy.cols) as usize);
        let of_rows = gpu.upload(&rows.of_rows);
        let (x, to) = (with_products.then_some(x), with_products.then_some((of_products, accumulate)));
        for launch in cuda::scenario_sums(of_rows, scenarios, x, dy, Some((of_dy, !accumulate)), to, scratch) {
            gpu.launch(&launch);
        }
        let found = gpu.download(of_dy, scenarios * n);
        check_sums(&found, Some(&before[..]).filter(|_| !accumulate), &sums, rows.window.live)?;
        let found: Vec<f32> = gpu.download(of_products, scenarios * n);
        if with_products {
            check_sums(&found, Some(&before[..]).filter(|_| accumulate), &products, rows.window.live)?;
        } else {
            prop_assert_eq!(found, before);
        }
    }
}
