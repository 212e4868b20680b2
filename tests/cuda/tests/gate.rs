//! Gates on the device against those of the CPU.

use manygate_cuda::gate::{self as cuda, DeviceSeen, seen_to_bytes};
use manygate_cuda::{Element, Launch};
use manygate_cuda_tests::{Gpu, Window, first_difference};
use manygate_kernels::activation::{Activation, activation_dx};
use manygate_kernels::gate::{
    MAX_SOURCES, Seen, gate_combine, gate_combine_dx, gate_combine_seen, gate_combine_seen_dx, self_scored,
    self_scored_dx,
};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute products.
const TOLERANCE: f32 = 2e-6;

/// Gates over a bank of experts.
#[derive(Clone, Debug)]
struct Bank {
    rows: usize,
    live: usize,
    gates: usize,
    experts: usize,
    width: usize,
    /// Columns before and behind each matrix in its larger one.
    around: (usize, usize),
    /// Of the weights and logits, of the bank, and of what is mixed.
    elements: [Element; 3],
    accumulate: (bool, bool),
    seed: u64,
}

impl Bank {
    fn any() -> impl Strategy<Value = Bank> {
        let element = || prop_oneof![Just(Element::F32), Just(Element::Bf16)];
        let rows = prop_oneof![0usize..4, 7usize..20];
        let experts = prop_oneof![0usize..10, Just(8), Just(32), 30usize..70];
        let width = prop_oneof![0usize..20, Just(16), Just(64), 120usize..140, Just(260)];
        let around = prop_oneof![Just((0, 0)), Just((16, 8)), (0usize..5, 0usize..5)];
        let sizes = (rows, 0usize..8, 1usize..10, experts, width);
        let elements = (element(), element(), element());
        (sizes, around, elements, any::<(bool, bool)>(), any::<u64>()).prop_map(
            |(sizes, around, elements, accumulate, seed)| Bank {
                rows: sizes.0,
                live: sizes.0.saturating_sub(sizes.1.saturating_sub(4) * 4),
                gates: sizes.2,
                experts: if sizes.2 * sizes.4 > 700 { sizes.3 % 9 } else { sizes.3 },
                width: sizes.4,
                around,
                elements: [elements.0, elements.1, elements.2],
                accumulate,
                seed,
            },
        )
    }

    /// Sometimes in one block, so that warps have several rows, one after the other.
    fn in_turns(&self, launch: Launch) -> Launch {
        let [blocks, y, z] = launch.grid;
        Launch { grid: [if self.seed.is_multiple_of(2) { blocks } else { blocks.min(1) }, y, z], ..launch }
    }

    fn window(&self, cols: usize, element: Element) -> Window {
        Window {
            rows: self.rows,
            live: self.live,
            cols,
            before: self.around.0,
            behind: self.around.1,
            element,
        }
    }

    fn logits(&self) -> Window {
        self.window(self.gates * self.experts, self.elements[0])
    }

    fn experts(&self) -> Window {
        self.window(self.experts * self.width, self.elements[1])
    }

    fn mixed(&self) -> Window {
        self.window(self.gates * self.width, self.elements[2])
    }

    /// The CPU's weights and mixtures of rows that are there.
    fn combine(&self, logits: &[f32], experts: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (rows, gates) = (self.live, self.gates);
        let (mut weights, mut mixed) = (vec![0.0; logits.len()], vec![0.0; rows * gates * self.width]);
        gate_combine(
            Isa::best(),
            gates,
            Mat::new(logits, rows, gates * self.experts),
            Mat::new(experts, rows, self.experts * self.width),
            MatMut::new(&mut weights, rows, gates * self.experts),
            MatMut::new(&mut mixed, rows, gates * self.width),
        );
        (weights, mixed)
    }

    /// The CPU's gradients, added to `start`.
    fn combine_dx(
        &self,
        weights: &[f32],
        experts: &[f32],
        d_mixed: &[f32],
        start: [Vec<f32>; 2],
    ) -> [Vec<f32>; 2] {
        let (rows, gates) = (self.live, self.gates);
        let [mut d_logits, mut d_experts] = start;
        gate_combine_dx(
            Isa::best(),
            gates,
            Mat::new(weights, rows, gates * self.experts),
            Mat::new(experts, rows, self.experts * self.width),
            Mat::new(d_mixed, rows, gates * self.width),
            true,
            MatMut::new(&mut d_logits, rows, gates * self.experts),
            true,
            MatMut::new(&mut d_experts, rows, self.experts * self.width),
        );
        [d_logits, d_experts]
    }

    /// Sums of all absolute terms of the gradients of the logits.
    fn logits_most(&self, weights: &[f32], experts: &[f32], d_mixed: &[f32], start: &[f32]) -> Vec<f32> {
        let (count, width) = (self.experts, self.width);
        let dot = |i: usize| -> f32 {
            let (gate, expert) = (i / count, i / (count * self.gates) * count + i % count);
            let expert = &experts[expert * width..][..width];
            d_mixed[gate * width..][..width].iter().zip(expert).map(|(d, x)| d * x).sum()
        };
        let weighted: Vec<f32> = (0..weights.len()).map(|i| weights[i] * dot(i)).collect();
        let mean = |i: usize| weighted[i / count * count..][..count].iter().sum::<f32>();
        (0..weights.len()).map(|i| start[i].abs() + weighted[i] + weights[i] * mean(i)).collect()
    }
}

/// Where `found`, the larger matrix of `window`, is not `expected` to within `scale` inside and `before` outside.
fn wrong(window: Window, before: &[f32], found: &[f32], expected: &[f32], scale: &[f32]) -> Option<String> {
    window.difference(before, found, expected, scale, TOLERANCE)
}

fn absolute(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.abs()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mixtures_are_those_of_the_cpu(bank in Bank::any()) {
        let mut gpu = Gpu::with_order(bank.seed);
        let (logits, experts, mixed) = (bank.logits(), bank.experts(), bank.mixed());
        let weights = Window { element: bank.elements[2], ..logits };
        let mut all_logits = logits.values(bank.seed, 4.0);
        all_logits.iter_mut().step_by(11).for_each(|v| *v = f32::NEG_INFINITY);
        let all_experts = experts.values(bank.seed ^ 1, 1.0);
        let before = (weights.values(bank.seed ^ 2, 1.0), mixed.values(bank.seed ^ 3, 1.0));
        let (live_logits, live_experts) = (logits.live_values(&all_logits), experts.live_values(&all_experts));
        let expected = bank.combine(&live_logits, &live_experts);
        let scale = bank.combine(&live_logits, &absolute(&live_experts));

        let (logits, experts) = (logits.upload(&mut gpu, &all_logits), experts.upload(&mut gpu, &all_experts));
        let to = (weights.upload(&mut gpu, &before.0), mixed.upload(&mut gpu, &before.1));
        gpu.launch(&bank.in_turns(cuda::gate_combine(bank.gates as u32, logits, experts, to.0, to.1)));
        let found = (weights.download(&mut gpu, to.0), mixed.download(&mut gpu, to.1));
        // A gate without any logit above minus infinity is NaN, on both sides.
        let agree = |found: &[f32], expected: &[f32]| -> Vec<f32> {
            found.iter().zip(expected).map(|(f, e)| if f.is_nan() && e.is_nan() { 0.0 } else { *f }).collect()
        };
        let zero = |v: &[f32]| -> Vec<f32> { v.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect() };
        for (window, before, found, expected, scale) in [
            (weights, &before.0, &found.0, &expected.0, &scale.0),
            (mixed, &before.1, &found.1, &expected.1, &scale.1),
        ] {
            let found = window.replaced(found, &agree(&window.live_values(found), expected));
            let difference = wrong(window, before, &found, &zero(expected), &zero(scale));
            prop_assert_eq!(difference, None, "{:?}", window);
        }
    }

    #[test]
    fn gradients_are_those_of_the_cpu(bank in Bank::any(), is_masked: bool) {
        let mut gpu = Gpu::with_order(bank.seed);
        let (weights, experts, d_mixed) = (bank.logits(), bank.experts(), bank.mixed());
        let (d_logits, d_experts) = (Window { element: bank.elements[1], ..weights }, experts);
        let all_weights: Vec<f32> = weights.values(bank.seed, 1.0).iter().map(|v| v.abs()).collect();
        let (all_experts, all_mixed) = (experts.values(bank.seed ^ 1, 1.0), d_mixed.values(bank.seed ^ 2, 1.0));
        let before = (d_logits.values(bank.seed ^ 3, 1.0), d_experts.values(bank.seed ^ 4, 1.0));
        let (logits_start, experts_start) = (d_logits.live_values(&before.0), d_experts.live_values(&before.1));
        let start = |accumulate: bool, values: Vec<f32>| if accumulate { values } else { vec![0.0; values.len()] };
        let start = [start(bank.accumulate.0, logits_start), start(bank.accumulate.1, experts_start)];
        let (live_weights, live_experts) = (weights.live_values(&all_weights), experts.live_values(&all_experts));
        let live_mixed = d_mixed.live_values(&all_mixed);
        let mut expected = bank.combine_dx(&live_weights, &live_experts, &live_mixed, start.clone());
        let mask = is_masked.then_some(Activation::Relu);
        if is_masked {
            let experts = Mat::new(&live_experts, bank.live, bank.experts * bank.width);
            let d_experts = MatMut::new(&mut expected[1], bank.live, bank.experts * bank.width);
            activation_dx(Isa::best(), Activation::Relu, experts, d_experts);
        }
        let (experts_most, mixed_most) = (absolute(&live_experts), absolute(&live_mixed));
        let most = bank.combine_dx(&live_weights, &experts_most, &mixed_most, start.clone().map(|s| absolute(&s)));
        let logits_most = bank.logits_most(&live_weights, &experts_most, &mixed_most, &start[0]);

        let (weights, experts) = (weights.upload(&mut gpu, &all_weights), experts.upload(&mut gpu, &all_experts));
        let d_mixed = d_mixed.upload(&mut gpu, &all_mixed);
        let to = (d_logits.upload(&mut gpu, &before.0), d_experts.upload(&mut gpu, &before.1));
        let (add, gates) = (bank.accumulate, bank.gates as u32);
        let launch = cuda::gate_combine_dx(gates, weights, experts, d_mixed, add.0, to.0, add.1, mask, to.1);
        gpu.launch(&bank.in_turns(launch));
        let found = (d_logits.download(&mut gpu, to.0), d_experts.download(&mut gpu, to.1));
        prop_assert_eq!(wrong(d_logits, &before.0, &found.0, &expected[0], &logits_most), None, "logits");
        prop_assert_eq!(wrong(d_experts, &before.1, &found.1, &expected[1], &most[1]), None, "experts");
    }
}

/// Gates that see a part of each of two banks.
#[derive(Clone, Debug)]
struct SeenBank {
    bank: Bank,
    seen: Seen,
    /// Which of the banks' gradients are wanted.
    wanted: [bool; 2],
}

impl SeenBank {
    fn any() -> impl Strategy<Value = SeenBank> {
        (Bank::any(), any::<[bool; 2]>()).prop_map(|(bank, wanted)| {
            let bank = Bank { experts: bank.experts.max(1), ..bank };
            let sees = |gate: usize, expert: usize| (bank.seed >> ((gate * 7 + expert * 3) % 61)) & 1 == 0;
            let gates: Vec<Vec<usize>> = (0..bank.gates)
                .map(|t| {
                    (0..bank.experts).filter(|&e| t == 0 || e == t % bank.experts || sees(t, e)).collect()
                })
                .collect();
            // The first gate reads all of the first bank.
            let apart =
                |t: usize, e: usize| t > 0 && !bank.seed.is_multiple_of(3) && (t + e).is_multiple_of(3);
            let seen = Seen::reading_apart(bank.experts, &gates, apart).unwrap();
            SeenBank { bank, seen, wanted }
        })
    }

    fn logits(&self) -> Window {
        self.bank.window(self.seen.logits(), self.bank.elements[0])
    }

    fn upload(&self, gpu: &mut Gpu) -> DeviceSeen {
        DeviceSeen::new(&self.seen, gpu.upload(&seen_to_bytes(&self.seen)))
    }

    /// The CPU's weights and mixtures.
    fn combine(&self, logits: &[f32], banks: [&[f32]; 2]) -> (Vec<f32>, Vec<f32>) {
        let Bank { live: rows, gates, width, experts, .. } = self.bank;
        let count = self.seen.logits();
        let (mut weights, mut mixed) = (vec![0.0; logits.len()], vec![0.0; rows * gates * width]);
        gate_combine_seen(
            Isa::best(),
            &self.seen,
            Mat::new(logits, rows, count),
            banks.map(|bank| Mat::new(bank, rows, experts * width)),
            MatMut::new(&mut weights, rows, count),
            MatMut::new(&mut mixed, rows, gates * width),
        );
        (weights, mixed)
    }

    /// The CPU's gradients of logits and banks, added to `start`.
    fn combine_dx(
        &self,
        weights: &[f32],
        banks: [&[f32]; 2],
        d_mixed: &[f32],
        start: [Vec<f32>; 3],
    ) -> [Vec<f32>; 3] {
        let Bank { live: rows, gates, width, experts, .. } = self.bank;
        let count = self.seen.logits();
        let [mut d_logits, mut d_bank, mut d_other] = start;
        gate_combine_seen_dx(
            Isa::best(),
            &self.seen,
            Mat::new(weights, rows, count),
            banks.map(|bank| Mat::new(bank, rows, experts * width)),
            Mat::new(d_mixed, rows, gates * width),
            true,
            MatMut::new(&mut d_logits, rows, count),
            [&mut d_bank, &mut d_other].map(|d| Some((true, MatMut::new(d, rows, experts * width)))),
        );
        [d_logits, d_bank, d_other]
    }

    /// Sums of all absolute terms of the gradients of the logits.
    fn logits_most(&self, weights: &[f32], banks: [&[f32]; 2], d_mixed: &[f32], start: &[f32]) -> Vec<f32> {
        let Bank { live, gates, width, experts, .. } = self.bank;
        let mut most = start.iter().map(|v| v.abs()).collect::<Vec<_>>();
        for (row, gate) in (0..live).flat_map(|row| (0..gates).map(move |gate| (row, gate))) {
            let (from, own) = self.seen.of(gate);
            let first = row * self.seen.logits() + from;
            let d = &d_mixed[(row * gates + gate) * width..][..width];
            let weighted: Vec<f32> = own
                .iter()
                .enumerate()
                .map(|(i, e)| {
                    let bank = banks[usize::from(self.seen.is_apart(from + i))];
                    let expert = &bank[(row * experts + e) * width..][..width];
                    weights[first + i] * d.iter().zip(expert).map(|(d, x)| (d * x).abs()).sum::<f32>()
                })
                .collect();
            let mean: f32 = weighted.iter().sum();
            (0..own.len()).for_each(|i| most[first + i] += weighted[i] + weights[first + i] * mean);
        }
        most
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mixtures_of_what_is_seen_are_those_of_the_cpu(case in SeenBank::any()) {
        let (bank, mut gpu) = (&case.bank, Gpu::with_order(case.bank.seed));
        let (logits, experts, mixed) = (case.logits(), bank.experts(), bank.mixed());
        let weights = Window { element: bank.elements[2], ..logits };
        let all_logits = logits.values(bank.seed, 4.0);
        let all_banks = [1, 5].map(|salt| experts.values(bank.seed ^ salt, 1.0));
        let before = (weights.values(bank.seed ^ 2, 1.0), mixed.values(bank.seed ^ 3, 1.0));
        let (live_logits, live) = (logits.live_values(&all_logits), all_banks.each_ref().map(|b| experts.live_values(b)));
        let expected = case.combine(&live_logits, live.each_ref().map(|b| &b[..]));
        let most = live.each_ref().map(|b| absolute(b));
        let scale = case.combine(&live_logits, most.each_ref().map(|b| &b[..]));

        let seen = case.upload(&mut gpu);
        let on_device = all_banks.each_ref().map(|b| experts.upload(&mut gpu, b));
        let logits = logits.upload(&mut gpu, &all_logits);
        let to = (weights.upload(&mut gpu, &before.0), mixed.upload(&mut gpu, &before.1));
        gpu.launch(&cuda::gate_combine_seen(seen, logits, on_device, to.0, to.1));
        let found = (weights.download(&mut gpu, to.0), mixed.download(&mut gpu, to.1));
        prop_assert_eq!(wrong(weights, &before.0, &found.0, &expected.0, &scale.0), None, "weights");
        prop_assert_eq!(wrong(mixed, &before.1, &found.1, &expected.1, &scale.1), None, "mixed");
    }

    #[test]
    fn gradients_of_what_is_seen_are_those_of_the_cpu(case in SeenBank::any(), accumulate_other: bool) {
        let (bank, mut gpu) = (&case.bank, Gpu::with_order(case.bank.seed));
        let (weights, experts, d_mixed) = (case.logits(), bank.experts(), bank.mixed());
        let d_logits = Window { element: bank.elements[1], ..weights };
        let windows = [d_logits, experts, experts];
        let add = [bank.accumulate.0, bank.accumulate.1, accumulate_other];
        let all_weights = absolute(&weights.values(bank.seed, 1.0));
        let all_banks = [1, 5].map(|salt| experts.values(bank.seed ^ salt, 1.0));
        let all_mixed = d_mixed.values(bank.seed ^ 2, 1.0);
        let before = [0, 1, 2].map(|i| windows[i].values(bank.seed ^ (6 + i as u64), 1.0));
        let start = [0, 1, 2].map(|i| {
            let live = windows[i].live_values(&before[i]);
            if add[i] { live } else { vec![0.0; live.len()] }
        });
        let live = all_banks.each_ref().map(|b| experts.live_values(b));
        let (live_weights, live_mixed) = (weights.live_values(&all_weights), d_mixed.live_values(&all_mixed));
        let banks = live.each_ref().map(|b| &b[..]);
        let expected = case.combine_dx(&live_weights, banks, &live_mixed, start.clone());
        let most_mixed = absolute(&live_mixed);
        let mut scale = case.combine_dx(&live_weights, banks, &most_mixed, start.each_ref().map(|s| absolute(s)));
        scale[0] = case.logits_most(&live_weights, banks, &most_mixed, &start[0]);

        let seen = case.upload(&mut gpu);
        let on_device = all_banks.each_ref().map(|b| experts.upload(&mut gpu, b));
        let (weights, d_mixed) = (weights.upload(&mut gpu, &all_weights), d_mixed.upload(&mut gpu, &all_mixed));
        let to = [0, 1, 2].map(|i| windows[i].upload(&mut gpu, &before[i]));
        let has_apart = case.seen.has_apart();
        let d_banks = [0, 1].map(|i| (case.wanted[i] && (i == 0 || has_apart)).then_some((add[1 + i], to[1 + i])));
        gpu.launch(&cuda::gate_combine_seen_dx(
            seen, weights, on_device, has_apart, d_mixed, add[0], to[0], d_banks,
        ));
        for i in 0..3 {
            let found = windows[i].download(&mut gpu, to[i]);
            if i == 0 || d_banks[i - 1].is_some() {
                prop_assert_eq!(wrong(windows[i], &before[i], &found, &expected[i], &scale[i]), None, "gradient {}", i);
            } else {
                prop_assert_eq!(first_difference(&found, &before[i]), None, "nobody wants gradient {}", i);
            }
        }
    }
}

#[test]
fn infinity_and_nan_make_a_gate_nan_and_minus_infinity_weighs_nothing() {
    let mut gpu = Gpu::new();
    let logits = [f32::INFINITY, 1.0, f32::NAN, 1.0, f32::NEG_INFINITY, 1.0];
    let (logits, experts) = (gpu.upload_mat(&logits, 1, 6, 6), gpu.upload_mat(&[2.0, 3.0], 1, 2, 2));
    let (weights, mixed) = (gpu.upload_mat(&[0.0; 6], 1, 6, 6), gpu.upload_mat(&[0.0; 3], 1, 3, 3));
    gpu.launch(&cuda::gate_combine(3, logits, experts, weights, mixed));
    let (weights, mixed) = (gpu.download_mat(weights), gpu.download_mat(mixed));
    assert!(weights[..4].iter().all(|w| w.is_nan()) && mixed[0].is_nan() && mixed[1].is_nan());
    assert_eq!((&weights[4..], mixed[2]), ([0.0, 1.0].as_slice(), 3.0));
}

#[test]
fn many_logits_take_fewer_rows_a_block() {
    let bank = Window::whole(3, 0);
    let mut gpu = Gpu::new();
    let logits = Window::whole(3, 4 * 1500);
    let logits = logits.upload(&mut gpu, &vec![0.0; logits.len()]);
    let (experts, mixed) = (bank.upload(&mut gpu, &[]), bank.upload(&mut gpu, &[]));
    let launch = cuda::gate_combine(4, logits, experts, logits, mixed);
    assert_eq!((launch.grid[0], launch.threads), (3, 32));
    gpu.launch(&launch);
    let weights = gpu.download_mat(logits);
    assert!(weights.iter().all(|w| (w * 1500.0 - 1.0).abs() < 1e-5), "{:?}", &weights[..4]);
}

#[test]
#[should_panic(expected = "too many")]
fn more_logits_than_shared_memory_holds_are_refused() {
    let mut gpu = Gpu::new();
    let logits = gpu.upload_mat(&vec![0.0; 13000], 1, 13000, 13000);
    let none = gpu.upload_mat(&[], 1, 0, 0);
    cuda::gate_combine(1, logits, none, logits, none);
}

/// Vectors of a row that score themselves.
#[derive(Clone, Debug)]
struct Sources {
    kqv: Window,
    /// Of what is mixed.
    y: Window,
    count: usize,
}

impl Sources {
    fn any() -> impl Strategy<Value = Sources> {
        let width = prop_oneof![1usize..9, Just(16), Just(130)];
        (Window::any(), 1usize..=MAX_SOURCES, width, any::<bool>()).prop_map(
            |(window, count, width, halves)| {
                let element = if halves { Element::Bf16 } else { Element::F32 };
                let y = Window { cols: width, before: window.behind, element, ..window };
                Sources { kqv: Window { cols: 3 * count * width, ..window }, y, count }
            },
        )
    }

    fn scale(&self) -> f32 {
        1.0 / (self.y.cols as f32).sqrt()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn vectors_that_score_themselves_are_those_of_the_cpu(sources in Sources::any(), accumulate: bool, seed: u64) {
        let (Sources { kqv, y, count }, scale) = (&sources, sources.scale());
        let d_kqv = Window { before: kqv.behind, ..*kqv };
        let (all, all_dy) = (kqv.values(seed, 1.5), y.values(seed ^ 1, 1.0));
        let (before_y, before_d) = (y.values(seed ^ 2, 1.0), d_kqv.values(seed ^ 3, 1.0));
        let (rows, cols, width) = (kqv.live, kqv.cols, y.cols);
        let (live, dy) = (kqv.live_values(&all), y.live_values(&all_dy));
        let (mut weights, mut mixed) = (vec![0.0; rows * count], vec![0.0; rows * width]);
        let mut d = if accumulate { d_kqv.live_values(&before_d) } else { vec![0.0; rows * cols] };
        let view = Mat::new(&live, rows, cols);
        let (to_weights, to_y) = (MatMut::new(&mut weights, rows, *count), MatMut::new(&mut mixed, rows, width));
        self_scored(Isa::best(), *count, scale, view, to_weights, to_y);
        let (own, dy) = (Mat::new(&weights, rows, *count), Mat::new(&dy, rows, width));
        self_scored_dx(Isa::best(), *count, scale, view, own, dy, true, MatMut::new(&mut d, rows, cols));

        let mut gpu = Gpu::with_order(seed);
        let of_weights = Window { cols: *count, before: 0, element: Element::F32, ..*y };
        let before_weights = of_weights.values(seed ^ 4, 1.0);
        let [at_kqv, at_d] = [(kqv, &all), (&d_kqv, &before_d)].map(|(window, all)| window.upload(&mut gpu, all));
        let [at_y, at_dy] = [&before_y, &all_dy].map(|all| y.upload(&mut gpu, all));
        let at_weights = of_weights.upload(&mut gpu, &before_weights);
        gpu.launch(&cuda::self_scored(*count as u32, scale, at_kqv, at_weights, at_y));
        gpu.launch(&cuda::self_scored_dx(*count as u32, scale, at_kqv, at_weights, at_dy, accumulate, at_d));
        let found = [
            (of_weights, before_weights, at_weights, weights),
            (*y, before_y, at_y, mixed),
            (d_kqv, before_d, at_d, d),
        ];
        for (window, before, at, expected) in found {
            let found = window.download(&mut gpu, at);
            // Scores are sums, in another order.
            let scale = vec![8.0; expected.len()];
            prop_assert_eq!(window.difference(&before, &found, &expected, &scale, TOLERANCE), None);
        }
    }
}
