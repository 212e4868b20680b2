//! Losses of logits: gradients have the bits of the CPU's fused instruction sets, sums have another order. And the guard.

use manygate_cuda::loss::{self, Event, LossSum};
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// What is asked of the device.
struct Asked<'a> {
    window: Window,
    logits: &'a [f32],
    labels: &'a [f32],
    counted: Option<&'a [f32]>,
    scale: f32,
    gradients: Option<(&'a [f32], bool)>,
}

impl Asked<'_> {
    /// The gradients and the sum of the loss, added to `start`.
    fn of_device(&self, order: u64, start: f64) -> (Vec<f32>, f64) {
        let mut gpu = Gpu::with_order(order);
        let logits = self.window.upload(&mut gpu, self.logits);
        let labels = gpu.upload(self.labels);
        let counted = self.counted.map(|counted| gpu.upload(counted));
        let scale = gpu.upload(&[self.scale]);
        let d = self.gradients.map(|(before, accumulate)| (self.window.upload(&mut gpu, before), accumulate));
        let sum = gpu.upload(&[start]);
        let partials = gpu.allocate::<f64>(loss::partials_of(logits.rows) as usize);
        for launch in
            loss::bce_with_logits(logits, labels, counted, scale, d, Some(LossSum { sum, partials }))
        {
            gpu.launch(&launch);
        }
        let gradients = d.map(|(d, _)| self.window.download(&mut gpu, d)).unwrap_or_default();
        (gradients, gpu.download(sum, 1)[0])
    }

    /// The gradients in rows that are there, and the sum.
    fn of_cpu(&self) -> (Vec<f32>, f64) {
        let (live, logits) = (self.window.live, self.window.live_values(self.logits));
        let mut d = vec![0.0; live];
        let sum = manygate_kernels::loss::bce_with_logits(
            Isa::Scalar,
            Mat::new(&logits, live, 1),
            &self.labels[..live],
            self.counted.map(|counted| &counted[..live]),
            self.scale,
            Some(MatMut::new(&mut d, live, 1)),
        );
        (d, sum)
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-13 * expected.abs().max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn losses_and_gradients_agree_with_the_cpu(
        rows in prop_oneof![0usize..5, 250usize..260, Just(700)], missing in prop_oneof![Just(0usize), 0usize..300],
        before in 0usize..3, behind in 0usize..3, some: bool, accumulate: bool,
        range in prop_oneof![Just(6.0f32), Just(90.0)], seed: u64,
    ) {
        let window = Window { live: rows.saturating_sub(missing), before, behind, ..Window::whole(rows, 1) };
        let logits = window.values(seed, range);
        let labels: Vec<f32> = values(seed ^ 1, rows, 1.0).iter().map(|&v| f32::from(v > 0.0)).collect();
        let counted: Vec<f32> = values(seed ^ 2, rows, 1.0).iter().map(|&v| f32::from(v > -0.5)).collect();
        let gradients = window.values(seed ^ 3, 1.0);
        let asked = Asked {
            window,
            logits: &logits,
            labels: &labels,
            counted: some.then_some(&counted),
            scale: 0.7 / 3.0,
            gradients: Some((&gradients, accumulate)),
        };
        let (d, sum) = asked.of_device(0, 2.5);
        let (mut expected_d, expected) = asked.of_cpu();
        if accumulate {
            let was = window.live_values(&gradients);
            expected_d.iter_mut().zip(was).for_each(|(d, was)| *d += was);
        }
        prop_assert_eq!(first_difference(&d, &window.replaced(&gradients, &expected_d)), None);
        prop_assert!(close(sum, 2.5 + expected), "{} {}", sum, 2.5 + expected);
        let again = asked.of_device(seed | 1, 2.5);
        prop_assert_eq!((d, sum.to_bits()), (again.0, again.1.to_bits()), "the order of warps shows");
        let alone = Asked { gradients: None, ..asked };
        prop_assert_eq!(alone.of_device(0, 2.5).1.to_bits(), sum.to_bits());
    }
}

#[test]
fn what_is_not_finite_shows_in_the_sum_and_only_where_it_counts() {
    for (z, y) in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN].into_iter().flat_map(|z| [(z, 0.0), (z, 1.0)])
    {
        let (logits, labels) = ([0.5, z, -0.5], [1.0, y, 0.0]);
        let asked = |counted| Asked {
            window: Window::whole(3, 1),
            logits: &logits,
            labels: &labels,
            counted,
            scale: 1.0,
            gradients: Some((&[7.0; 3], false)),
        };
        assert!(!asked(None).of_device(0, 0.0).1.is_finite(), "logit {z}, label {y}");
        let (d, sum) = asked(Some(&[1.0, 0.0, 1.0])).of_device(0, 0.0);
        assert!(sum.is_finite() && d[1] == 0.0, "logit {z}, label {y}");
    }
}

#[test]
fn large_logits_are_exact_and_a_gradient_needs_no_sum() {
    let mut gpu = Gpu::new();
    let logits = gpu.upload_mat(&[1e4, -1e4, 60.0], 3, 1, 1);
    let labels = gpu.upload(&[0.0f32, 1.0, 0.0]);
    let (scale, d) = (gpu.upload(&[2.0f32]), gpu.upload_mat(&[7.0; 3], 3, 1, 1));
    let launches = loss::bce_with_logits(logits, labels, None, scale, Some((d, false)), None);
    assert_eq!(launches.len(), 1);
    gpu.launch(&launches[0]);
    assert_eq!(gpu.download_mat(d), [2.0, -2.0, 2.0]);

    let (sum, partials) = (gpu.upload(&[0.0f64]), gpu.allocate::<f64>(1));
    for launch in loss::bce_with_logits(logits, labels, None, 0, None, Some(LossSum { sum, partials })) {
        gpu.launch(&launch);
    }
    assert_eq!(gpu.download::<f64>(sum, 1), [2e4 + 60.0]);
}

#[test]
fn probabilities_have_the_bits_of_the_cpu() {
    let window = Window { live: 4, before: 1, ..Window::whole(5, 3) };
    let z = window.values(1, 20.0);
    let mut gpu = Gpu::new();
    let (from, to) = (window.upload(&mut gpu, &z), window.upload(&mut gpu, &z));
    gpu.launch(&loss::sigmoid(from, to));
    let (live, mut p) = (window.live_values(&z), vec![0.0; 12]);
    manygate_kernels::loss::sigmoid(Isa::Scalar, Mat::new(&live, 4, 3), MatMut::new(&mut p, 4, 3));
    assert_eq!(first_difference(&window.download(&mut gpu, to), &window.replaced(&z, &p)), None);
}

#[test]
fn the_guard_tells_means_and_whether_they_are_finite() {
    let mut gpu = Gpu::new();
    let mut sums: Vec<f64> = (0..70).map(f64::from).collect();
    let divisors: Vec<f64> = (0..70).map(|i| f64::from(i % 3 + 1)).collect();
    let begins = [0u32, 0, 1, 30, 70];
    let (of, by, begins) = (gpu.upload(&sums), gpu.upload(&divisors), gpu.upload(&begins));
    let (means, mut go_on) = (gpu.allocate::<f64>(70), gpu.upload(&[1u32]));
    gpu.launch(&loss::losses_finite(of, by, None, 70, means, go_on));
    let mean = |i: usize| sums[i] / divisors[i];
    assert_eq!(gpu.download::<f64>(means, 70), (0..70).map(mean).collect::<Vec<_>>());
    assert_eq!(gpu.download::<u32>(go_on, 1), [1]);

    gpu.launch(&loss::losses_finite(of, by, Some(begins), 4, means, go_on));
    let part = |range: std::ops::Range<usize>| range.map(mean).sum::<f64>();
    assert_eq!(gpu.download::<f64>(means, 4), [0.0, part(0..1), part(1..30), part(30..70)]);
    assert_eq!(gpu.download::<u32>(go_on, 1), [1]);

    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        sums[40] = bad;
        let of = gpu.upload(&sums);
        gpu.launch(&loss::losses_finite(of, by, None, 70, means, go_on));
        assert_eq!(gpu.download::<u32>(go_on, 1), [0], "{bad}");
        gpu.launch(&loss::losses_finite(of, by, Some(begins), 3, means, go_on));
        assert_eq!(gpu.download::<u32>(go_on, 1), [0], "after {bad} nothing goes on");
        go_on = gpu.upload(&[1u32]);
        gpu.launch(&loss::losses_finite(of, by, Some(begins), 3, means, go_on));
        assert_eq!(gpu.download::<u32>(go_on, 1), [1], "the part of {bad} was not asked for");
    }
}

/// The loss of a row, and the slopes at its logits, in f64: `1 - p` is a sum of what each event loses.
fn product_in_f64(logits: &[f32], label: f64) -> (f64, Vec<f64>) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (mut product, mut rest) = (1.0, 0.0);
    for &x in logits {
        rest += product * sigmoid(-f64::from(x));
        product *= sigmoid(f64::from(x));
    }
    let slope = |&x: &f32| sigmoid(-f64::from(x)) * ((1.0 - label) * product / rest - label);
    (-label * product.ln() - (1.0 - label) * rest.ln(), logits.iter().map(slope).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn products_of_probabilities_agree_with_f64(
        rows in prop_oneof![0usize..5, 250usize..260, Just(700)], missing in prop_oneof![Just(0usize), 0usize..300],
        events in 1usize..=loss::MOST_EVENTS, around in (0usize..3, 0usize..3), wanted: u8, accumulate: u8,
        range in prop_oneof![Just(4.0f32), Just(60.0)], seed: u64,
    ) {
        let live = rows.saturating_sub(missing);
        let window = Window { live, before: around.0, behind: around.1, ..Window::whole(rows, 1) };
        let logits: Vec<Vec<f32>> = (0..events).map(|j| window.values(seed ^ j as u64, range)).collect();
        let before: Vec<Vec<f32>> = (0..events).map(|j| window.values(seed ^ (40 + j as u64), 1.0)).collect();
        let label = |j: usize| values(seed ^ (80 + j as u64), rows, 1.0).into_iter().map(|v| f32::from(v > -0.7)).collect();
        let labels: Vec<Vec<f32>> = (0..events).map(label).collect();
        let is_set = |bits: u8, j: usize| bits >> j & 1 == 1;
        let scale = 0.7f32 / 3.0;
        let run = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let all: Vec<Event> = (0..events).map(|j| Event {
                logits: window.upload(&mut gpu, &logits[j]),
                labels: gpu.upload(&labels[j]),
                gradient: is_set(wanted, j).then(|| (window.upload(&mut gpu, &before[j]), is_set(accumulate, j))),
            }).collect();
            let (scale, sum) = (gpu.upload(&[scale]), gpu.upload(&[2.5f64]));
            let partials = gpu.allocate::<f64>(loss::partials_of(rows as u32) as usize);
            let launches = loss::bce_of_product(&all, scale, Some(LossSum { sum, partials }));
            launches.iter().for_each(|launch| gpu.launch(launch));
            let found: Vec<_> =
                all.iter().map(|event| event.gradient.map(|(to, _)| window.download(&mut gpu, to))).collect();
            (found, gpu.download::<f64>(sum, 1)[0])
        };
        let (found, sum) = run(0);
        let own: Vec<Vec<f32>> = logits.iter().map(|all| window.live_values(all)).collect();
        let row = |r: usize| product_in_f64(
            &own.iter().map(|of| of[r]).collect::<Vec<_>>(), labels.iter().map(|of| f64::from(of[r])).product());
        let expected: Vec<(f64, Vec<f64>)> = (0..live).map(row).collect();
        let total = 2.5 + expected.iter().map(|(loss, _)| loss).sum::<f64>();
        prop_assert!((sum - total).abs() <= 1e-6 * total, "{} {}", sum, total);
        for (j, found) in found.iter().enumerate() {
            let Some(found) = found else { continue };
            let was = window.live_values(&before[j]);
            let inside = window.live_values(found);
            prop_assert_eq!(first_difference(found, &window.replaced(&before[j], &inside)), None);
            for r in 0..live {
                let base = if is_set(accumulate, j) { f64::from(was[r]) } else { 0.0 };
                let slope = base + f64::from(scale) * expected[r].1[j];
                let difference = (f64::from(inside[r]) - slope).abs();
                prop_assert!(difference <= 1e-6 * (base.abs() + slope.abs()) + 1e-12, "event {} row {}", j, r);
            }
        }
        let again = run(seed | 1);
        prop_assert_eq!((found, sum.to_bits()), (again.0, again.1.to_bits()), "the order of warps shows");
    }
}

#[test]
fn what_is_not_finite_shows_in_products() {
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (logits, label) in [([wrong, 0.5], 0.0), ([0.5, wrong], 1.0)] {
            let mut gpu = Gpu::new();
            let event = |gpu: &mut Gpu, z| Event {
                logits: gpu.upload_mat(&[z], 1, 1, 1),
                labels: gpu.upload(&[label]),
                gradient: None,
            };
            let events = logits.map(|z| event(&mut gpu, z));
            let (scale, sum) = (gpu.upload(&[1.0f32]), gpu.upload(&[0.0f64]));
            let partials = gpu.allocate::<f64>(1);
            let launches = loss::bce_of_product(&events, scale, Some(LossSum { sum, partials }));
            launches.iter().for_each(|launch| gpu.launch(launch));
            assert!(gpu.download::<f64>(sum, 1)[0].is_nan(), "{logits:?}");
        }
    }
}
