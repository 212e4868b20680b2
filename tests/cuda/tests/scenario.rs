//! What rows have by their scenario, on the device against f64.

use manygate_cuda::scenario::{self as cuda, Attention, Fusion};
use manygate_cuda::{DeviceMat, Element, Launch};
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
        let many = prop_oneof![4 => Just(None), 1 => Just(Some(300usize)), 1 => Just(Some(1100))];
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

/// Two levels of experts `n` wide, those of domains being of the rows' scenarios.
struct Levels<'a> {
    rows: &'a Rows,
    tasks: usize,
    n: usize,
    numbers: [f32; 4],
}

impl Levels<'_> {
    fn fusion(&self, gpu: &mut Gpu) -> Fusion {
        let (scenario, numbers) = (gpu.upload(&self.rows.of_rows), gpu.upload(&self.numbers));
        Fusion { scenario, numbers, domains: self.rows.scenarios as u32, tasks: self.tasks as u32 }
    }

    /// α and β of level `i`.
    fn shares(&self, i: usize) -> [f64; 2] {
        [i, 2 + i].map(|at| 1.0 / (1.0 + (-f64::from(self.numbers[at])).exp()))
    }

    /// Weights of the own expert of level `i`, of so many, and of each other.
    fn weights(&self, i: usize, count: usize) -> [f64; 2] {
        let [alpha, beta] = self.shares(i);
        if count == 1 { [alpha, 0.0] } else { [alpha * beta, alpha * (1.0 - beta) / (count - 1) as f64] }
    }

    /// What weighs expert `e` of level `i` where `own` is the own one.
    fn weight(&self, i: usize, own: usize, e: usize) -> f64 {
        let count = if i == 0 { self.rows.scenarios } else { self.tasks };
        self.weights(i, count)[usize::from(e != own)]
    }

    /// Column `c` of the mixture of level `i`.
    fn mixed(&self, i: usize, experts: &[f64], own: usize, c: usize) -> f64 {
        (0..experts.len() / self.n).map(|e| self.weight(i, own, e) * experts[e * self.n + c]).sum()
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

    #[test]
    fn levels_of_experts_fuse(rows in Rows::any(), tasks in 1usize..4) {
        let (n, accumulate) = (rows.window.cols, rows.accumulate);
        let numbers = [0.5, -1.0, 2.0, -0.25];
        let levels = Levels { rows: &rows, tasks, n, numbers };
        let (of_tasks, of_domains) = (rows.with_cols(tasks * n), rows.with_cols(rows.scenarios * n));
        let dy = Window { cols: tasks * n, ..rows.window };
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], y| {
            cuda::level_fusion(levels.fusion(gpu), from[0], from[1], from[2], y)
        };
        rows.check(&[of_tasks, of_domains, of_tasks], dy, false, launch, |r, from| {
            let unit = |at: usize| {
                let (t, c) = (at / n, at % n);
                let domains = levels.mixed(0, &from[1], rows.scenario(r), c);
                from[0][at] + domains + levels.mixed(1, &from[2], t, c)
            };
            (0..tasks * n).map(unit).collect()
        })?;
        let all = |dy: &[f64], c: usize| (0..tasks).map(|t| dy[t * n + c]).sum::<f64>();
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
            let fusion = levels.fusion(gpu);
            cuda::level_fusion_backward(fusion, from[0], None, Some((to, accumulate)), None).expect("a launch")
        };
        rows.check(&[dy], of_domains, accumulate, launch, |r, from| {
            let unit = |at: usize| levels.weight(0, rows.scenario(r), at / n) * all(&from[0], at % n);
            (0..rows.scenarios * n).map(unit).collect()
        })?;
        for of_experts in [true, false] {
            let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
                let (fusion, to) = (levels.fusion(gpu), Some((to, accumulate)));
                let (shared, tasks) = if of_experts { (None, to) } else { (to, None) };
                cuda::level_fusion_backward(fusion, from[0], shared, None, tasks).expect("a launch")
            };
            rows.check(&[dy], of_tasks, accumulate, launch, |_, from| {
                let unit = |at: usize| (0..tasks).map(|t| levels.weight(1, t, at / n) * from[0][t * n + at % n]).sum();
                if of_experts { (0..tasks * n).map(unit).collect() } else { from[0].clone() }
            })?;
        }
    }

    #[test]
    fn what_weighs_levels_has_gradients(rows in Rows::any(), tasks in 1usize..4) {
        let Rows { window, scenarios, accumulate, seed, .. } = rows;
        let n = window.cols;
        let levels = Levels { rows: &rows, tasks, n, numbers: [0.5, -1.0, 2.0, -0.25] };
        let windows = [scenarios, tasks, tasks].map(|count| rows.with_cols(count * n));
        let all = [0, 1, 2].map(|i| windows[i].values(seed ^ i as u64, 1.0));
        let live = [0, 1, 2].map(|i| windows[i].live_values(&all[i]));
        // Slopes by differences of the two shares, which the output is linear in.
        let mut slopes = [0.0; 4];
        for (at, d) in live[2].iter().enumerate() {
            let (r, t, c) = (at / (tasks * n), at / n % tasks, at % n);
            for (i, own, count) in [(0, rows.scenario(r), scenarios), (1, t, tasks)] {
                let expert = |e: usize| f64::from(live[i][(r * count + e) * n + c]);
                let [alpha, beta] = levels.shares(i);
                let sum: f64 = (0..count).map(expert).sum();
                let others = if count == 1 { expert(own) } else { (sum - expert(own)) / (count - 1) as f64 };
                let mixed = beta * expert(own) + (1.0 - beta) * others;
                slopes[i] += f64::from(*d) * mixed * alpha * (1.0 - alpha);
                slopes[2 + i] += f64::from(*d) * alpha * (expert(own) - others) * beta * (1.0 - beta);
            }
        }
        let mut gpu = Gpu::with_order(seed);
        let fusion = levels.fusion(&mut gpu);
        let mats: Vec<DeviceMat> = windows.iter().zip(&all).map(|(of, all)| of.upload(&mut gpu, all)).collect();
        let (before, scratch) = ([1.0f32; 4], gpu.allocate::<u8>(cuda::level_fusion_scratch() as usize));
        let to = gpu.upload(&before);
        for launch in cuda::level_fusion_dnumbers(fusion, mats[0], mats[1], mats[2], to, accumulate, scratch) {
            gpu.launch(&launch);
        }
        let found = gpu.download(to, 4);
        check_sums(&found, Some(&before[..]).filter(|_| accumulate), &slopes, window.live * tasks * n)?;
    }

    #[test]
    fn other_scenarios_are_weighed(rows in Rows::any(), drops: bool) {
        let Rows { scenarios, accumulate, .. } = rows;
        let n = rows.window.cols;
        let (y, groups) = (Window { cols: 2 * n, ..rows.window }, rows.with_cols(scenarios * n));
        let weights = Window { element: Element::F32, ..rows.with_cols(scenarios) };
        let logits = rows.once(11, scenarios);
        let weight = |own: usize, m: usize| {
            let power = |m: usize| if drops || m != own { f64::from(logits[own * scenarios + m]).exp() } else { 0.0 };
            let sum: f64 = (0..scenarios).map(power).sum();
            if sum > 0.0 { power(m) / sum } else { 0.0 }
        };
        for to_weights in [false, true] {
            let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
                let attention = Attention { scenario: gpu.upload(&rows.of_rows), drops };
                let other = if to_weights { y } else { weights };
                let other = other.upload(gpu, &other.values(3, 1.0));
                let (weights, y) = if to_weights { (to, other) } else { (other, to) };
                cuda::scenario_attention(attention, rows.upload_once(gpu, &logits), from[0], weights, y)
            };
            rows.check(&[groups], if to_weights { weights } else { y }, false, launch, |r, from| {
                let own = rows.scenario(r);
                let others = |c: usize| {
                    (0..scenarios).filter(|&m| m != own).map(|m| weight(own, m) * from[0][m * n + c]).sum()
                };
                if to_weights {
                    return (0..scenarios).map(|m| weight(own, m)).collect();
                }
                from[0][own * n..][..n].iter().copied().chain((0..n).map(others)).collect()
            })?;
        }
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
            cuda::scenario_attention_slopes(gpu.upload(&rows.of_rows), from[0], from[1], from[2], to)
        };
        rows.check(&[groups, weights, y], weights, false, launch, |r, from| {
            let dot = |m: usize| (0..n).map(|c| from[0][m * n + c] * from[2][n + c]).sum::<f64>();
            let slope = |m: usize| if m == rows.scenario(r) { 0.0 } else { dot(m) };
            let mean: f64 = (0..scenarios).map(|m| from[1][m] * slope(m)).sum();
            (0..scenarios).map(|m| from[1][m] * (slope(m) - mean)).collect()
        })?;
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
            cuda::scenario_attention_dgroups(gpu.upload(&rows.of_rows), from[0], from[1], accumulate, to)
        };
        rows.check(&[weights, y], groups, accumulate, launch, |r, from| {
            let unit = |at: usize| match at / n {
                m if m == rows.scenario(r) => from[1][at % n],
                m => from[0][m] * from[1][n + at % n],
            };
            (0..scenarios * n).map(unit).collect()
        })?;
    }
}
