//! Transfer between scenarios on the device, against f64.

use manygate_cuda::transfer::{self as cuda, Conflict, Experts, Present};
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::{Gpu, Window, values};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute terms.
const TOLERANCE: f32 = 2e-6;

/// Rows with an expert for each scenario.
#[derive(Clone, Debug)]
struct Mixture {
    y: Window,
    scenarios: usize,
    scenario: Vec<u32>,
    accumulate: bool,
    seed: u64,
}

impl Mixture {
    fn any() -> impl Strategy<Value = Mixture> {
        let cols = prop_oneof![4 => 0usize..20, 1 => 125usize..140];
        (Window::any(), cols, 1usize..6, any::<bool>(), any::<u64>()).prop_map(
            |(window, cols, scenarios, accumulate, seed)| {
                let scenario = |r: usize| ((seed >> (r % 40)) % scenarios as u64) as u32;
                let scenario = (0..window.rows).map(scenario).collect();
                Mixture { y: Window { cols, ..window }, scenarios, scenario, accumulate, seed }
            },
        )
    }

    fn weights(&self) -> Window {
        Window { cols: self.scenarios, element: Element::F32, ..self.y }
    }

    fn bank(&self) -> Window {
        Window { cols: self.scenarios * self.y.cols, before: self.y.behind, ..self.y }
    }

    fn experts(&self, gpu: &mut Gpu, own: DeviceMat, others: DeviceMat) -> Experts {
        Experts { own, others, scenario: gpu.upload(&self.scenario), scenarios: self.scenarios as u32 }
    }

    /// That a launch from `inputs` to `to` adds what `terms` does to what is there or not, of absolute values too.
    fn check(
        &self,
        inputs: &[Window],
        to: Window,
        accumulate: bool,
        launch: impl Fn(&mut Gpu, &[DeviceMat], DeviceMat) -> Launch,
        terms: impl Fn(usize, &[&[f32]], &mut [f32]),
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().enumerate().map(|(i, window)| window.values(self.seed ^ i as u64, 1.0)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let run = |of: fn(f32) -> f32| {
            let live =
                |(window, all): (&Window, &Vec<f32>)| window.live_values(all).into_iter().map(of).collect();
            let values: Vec<Vec<f32>> = inputs.iter().zip(&all).map(live).collect();
            let was = to.live_values(&before).into_iter();
            let mut found: Vec<f32> = was.map(|v| if accumulate { of(v) } else { 0.0 }).collect();
            for r in 0..to.live {
                let rows: Vec<&[f32]> =
                    values.iter().zip(inputs).map(|(values, of)| &values[r * of.cols..][..of.cols]).collect();
                terms(r, &rows, &mut found[r * to.cols..][..to.cols]);
            }
            found
        };
        let (expected, scale) = (run(|v| v), run(f32::abs));
        let from: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(of, all)| of.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        let launch = launch(&mut gpu, &from, at);
        gpu.launch(&launch);
        let found = to.download(&mut gpu, at);
        prop_assert_eq!(to.difference(&before, &found, &expected, &scale, TOLERANCE), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn mixtures_and_their_gradients(mixture in Mixture::any()) {
        let (n, scenarios, accumulate) = (mixture.y.cols, mixture.scenarios, mixture.accumulate);
        let (q, bank, y) = (mixture.weights(), mixture.bank(), mixture.y);
        let of_own = |r: usize, p: usize| mixture.scenario[r] as usize == p;
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], y| {
            cuda::transfer_mixture(from[0], mixture.experts(gpu, from[1], from[2]), y)
        };
        mixture.check(&[q, bank, bank], y, false, launch, |r, from, y| {
            for p in 0..scenarios {
                let expert = &from[if of_own(r, p) { 1 } else { 2 }][p * n..][..n];
                y.iter_mut().zip(expert).for_each(|(y, e)| *y += from[0][p] * e);
            }
        })?;
        let launch = |gpu: &mut Gpu, from: &[DeviceMat], dq| {
            cuda::transfer_mixture_dq(mixture.experts(gpu, from[1], from[2]), from[0], accumulate, dq)
        };
        mixture.check(&[y, bank, bank], q, accumulate, launch, |r, from, dq| {
            for (p, dq) in dq.iter_mut().enumerate() {
                let expert = &from[if of_own(r, p) { 1 } else { 2 }][p * n..][..n];
                *dq += from[0].iter().zip(expert).map(|(d, e)| d * e).sum::<f32>();
            }
        })?;
        for own in [true, false] {
            let launch = |gpu: &mut Gpu, from: &[DeviceMat], to| {
                let scenario = gpu.upload(&mixture.scenario);
                cuda::transfer_mixture_dexperts(scenario, own, from[0], from[1], accumulate, to)
            };
            mixture.check(&[q, y], bank, accumulate, launch, |r, from, to| {
                for p in (0..scenarios).filter(|&p| of_own(r, p) == own) {
                    to[p * n..][..n].iter_mut().zip(from[1]).for_each(|(to, d)| *to += from[0][p] * d);
                }
            })?;
        }
    }

    #[test]
    fn conflicts_of_gradients(
        scenarios in 1usize..5, k in prop_oneof![1usize..40, 250usize..300], rows in 1usize..9, more in 0usize..4,
        basis_fixed: bool, seed: u64,
    ) {
        // Gradients that are much alike, as those of scenarios are.
        let common = values(seed ^ 7, k, 1.0);
        let g: Vec<f32> =
            values(seed, scenarios * k, 1.0).iter().enumerate().map(|(i, v)| v + common[i % k]).collect();
        let scenario: Vec<u32> = (0..rows + more).map(|r| ((seed >> (r % 40)) % scenarios as u64) as u32).collect();
        let is_there: Vec<bool> = (0..scenarios).map(|s| scenario[..rows].contains(&(s as u32))).collect();
        let (loss, gradient) = conflict(&g, k, &is_there, basis_fixed);

        let mut gpu = Gpu::with_order(seed);
        let mat = gpu.upload_mat(&g, scenarios, k, k);
        let present = Present { scenario: gpu.upload(&scenario), rows: gpu.upload(&[rows as u32]) };
        let scratch = gpu.allocate::<u8>(cuda::gradient_conflict_scratch(scenarios as u32, k as u32) as usize);
        let (sum, scale) = (gpu.upload(&[100.0f64]), gpu.upload(&[0.5f32]));
        let dg = gpu.upload_mat(&vec![1.0; scenarios * k], scenarios, k, k);
        gpu.launch(&cuda::gradient_conflict(mat, present, basis_fixed, Conflict::Loss(sum), scratch));
        let what = Conflict::Gradient { scale, dg };
        gpu.launch(&cuda::gradient_conflict(mat, present, basis_fixed, what, scratch));
        let found = gpu.download::<f64>(sum, 1)[0] - 100.0;
        prop_assert!((found - loss).abs() <= 1e-5 * (1.0 + loss), "{found}, not {loss}");
        let largest = gradient.iter().fold(1.0, |most: f64, d| most.max(d.abs()));
        for (i, (found, d)) in gpu.download_mat(dg).into_iter().zip(gradient).enumerate() {
            let wanted = 1.0 + 0.5 * d;
            prop_assert!((f64::from(found) - wanted).abs() <= 3e-5 * largest, "{i}: {found}, not {wanted}");
        }
    }
}

/// The conflict of gradients `[scenarios, k]` of those scenarios that are there, and its gradient.
fn conflict(g: &[f32], k: usize, is_there: &[bool], basis_fixed: bool) -> (f64, Vec<f64>) {
    let g: Vec<Vec<f64>> = g.chunks(k).map(|g| g.iter().map(|&v| v.into()).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let add = |to: &mut [f64], factor: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, v)| *to += factor * v)
    };
    let there: Vec<usize> = (0..g.len()).filter(|&s| is_there[s]).collect();
    let (mut c, mut taken, mut loss) = (g.clone(), vec![vec![0.0; k]; g.len()], 0.0);
    for (i, &d) in there.iter().enumerate() {
        for &j in &there[..i] {
            add(&mut taken[d], dot(&c[j], &g[d]) / (dot(&c[j], &c[j]) + 1e-9), &c[j]);
        }
        let own = taken[d].clone();
        add(&mut c[d], -1.0, &own);
        loss += 0.5 * dot(&own, &own);
    }
    let (mut dg, mut dc) = (vec![vec![0.0; k]; g.len()], vec![vec![0.0; k]; g.len()]);
    for (i, &d) in there.iter().enumerate().rev() {
        let mut d_taken = taken[d].clone();
        add(&mut d_taken, -1.0, &dc[d]);
        dg[d] = dc[d].clone();
        for &j in &there[..i] {
            let norm = dot(&c[j], &c[j]) + 1e-9;
            let (a, da) = (dot(&c[j], &g[d]) / norm, dot(&d_taken, &c[j]));
            add(&mut dg[d], da / norm, &c[j]);
            if !basis_fixed {
                add(&mut dc[j], a, &d_taken);
                add(&mut dc[j], da / norm, &g[d]);
                add(&mut dc[j], -2.0 * a * da / norm, &c[j]);
            }
        }
    }
    (loss, dg.concat())
}
