//! Units times amplitudes on the device against those of the CPU.

use manygate_cuda::Element;
use manygate_cuda::amplitude::{self as cuda, DeviceParts, Of, parts_to_bytes};
use manygate_cuda_tests::{Gpu, Window, first_difference};
use manygate_kernels::activation::Activation;
use manygate_kernels::amplitude::{
    Amplitude, Arguments, Pruning, Target, amplify, amplify_backward, pruning_dr, unpruned,
};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference, relative to the sum of absolute terms.
const TOLERANCE: f32 = 2e-6;

const PRUNING: Pruning = Pruning { scale: 1.5, steepness: 2.0, threshold: 0.6 };

fn any_amplitude() -> impl Strategy<Value = Amplitude> {
    prop_oneof![
        Just(Amplitude::Sigmoid(2.0)),
        Just(Amplitude::Exp),
        Just(Amplitude::OnePlus),
        Just(Amplitude::Pruned(PRUNING)),
        Just(Amplitude::Mask { pruning: PRUNING, straight_through: true }),
        Just(Amplitude::Mask { pruning: PRUNING, straight_through: false }),
    ]
}

/// Units, and what multiplies them.
#[derive(Clone, Debug)]
struct Units {
    /// Of x, y and their gradients.
    x: Window,
    /// Of the arguments of the amplitudes.
    r: Window,
    /// Empty where each unit has an amplitude of its own.
    parts: Vec<usize>,
    amplitude: Amplitude,
}

impl Units {
    fn any() -> impl Strategy<Value = Units> {
        let parts = prop_oneof![
            Just(Vec::new()),
            prop::collection::vec(1usize..21, 1..9),
            (1usize..9).prop_map(|count| vec![16; count]),
            Just(vec![300, 4]),
        ];
        (Window::any(), parts, any_amplitude(), any::<bool>()).prop_map(
            |(window, parts, amplitude, halves)| {
                let units = if parts.is_empty() { window.cols } else { parts.iter().sum() };
                let amplitudes = if parts.is_empty() { units } else { parts.len() };
                let element = if halves { Element::Bf16 } else { Element::F32 };
                let r = Window { cols: amplitudes, before: window.behind, element, ..window };
                Units { x: Window { cols: units, ..window }, r, parts, amplitude }
            },
        )
    }

    fn on_device(&self, gpu: &mut Gpu, r: &[f32]) -> Of {
        let table = (!self.parts.is_empty()).then(|| gpu.upload(&parts_to_bytes(&self.parts)));
        let parts = table.map(|table| DeviceParts::new(&self.parts, table));
        Of { values: self.r.upload(gpu, r), parts }
    }

    fn arguments<'a>(&'a self, r: &'a [f32]) -> Arguments<'a> {
        Arguments { values: Mat::new(r, self.r.live, self.r.cols), rows: None, parts: &self.parts }
    }

    /// The CPU's gradients at units and arguments, added to `start`.
    fn gradients(
        &self,
        [x, r, dy]: [&[f32]; 3],
        activation: Option<Activation>,
        start: [Vec<f32>; 2],
    ) -> [Vec<f32>; 2] {
        let [mut dx, mut dr] = start;
        let (rows, cols) = (self.x.live, self.x.cols);
        amplify_backward(
            Isa::best(),
            self.amplitude,
            Mat::new(x, rows, cols),
            self.arguments(r),
            Mat::new(dy, rows, cols),
            Some(Target { to: MatMut::new(&mut dx, rows, cols), accumulate: true }),
            activation.map(|activation| (activation, Mat::new(x, rows, cols))),
            Some(Target { to: MatMut::new(&mut dr, rows, self.r.cols), accumulate: true }),
        );
        [dx, dr]
    }
}

fn absolute(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.abs()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn units_are_those_of_the_cpu(units in Units::any(), seed: u64) {
        let mut gpu = Gpu::with_order(seed);
        let (x, r) = (units.x.values(seed, 2.0), units.r.values(seed ^ 1, 2.0));
        let y = Window { before: units.r.before, element: units.r.element, ..units.x };
        let before = y.values(seed ^ 2, 1.0);
        let (live_x, live_r) = (units.x.live_values(&x), units.r.live_values(&r));
        let mut expected = vec![0.0; live_x.len()];
        let (rows, cols) = (units.x.live, units.x.cols);
        let to = MatMut::new(&mut expected, rows, cols);
        amplify(Isa::best(), units.amplitude, Mat::new(&live_x, rows, cols), units.arguments(&live_r), to);

        let (from, to) = (units.x.upload(&mut gpu, &x), y.upload(&mut gpu, &before));
        let of = units.on_device(&mut gpu, &r);
        gpu.launch(&cuda::amplify(units.amplitude, from, of, to));
        let found = y.download(&mut gpu, to);
        prop_assert_eq!(y.difference(&before, &found, &expected, &expected, TOLERANCE), None);
    }

    #[test]
    fn gradients_are_those_of_the_cpu(
        units in Units::any(), is_masked: bool, accumulate: [bool; 2], wanted: [bool; 2], seed: u64,
    ) {
        let mut gpu = Gpu::with_order(seed);
        let windows = [Window { before: units.r.before, ..units.x }, units.r];
        let (x, r) = (units.x.values(seed, 2.0), units.r.values(seed ^ 1, 2.0));
        let dy = units.x.values(seed ^ 2, 1.0);
        let before = [0, 1].map(|i| windows[i].values(seed ^ (3 + i as u64), 1.0));
        let start = [0, 1].map(|i| {
            let live = windows[i].live_values(&before[i]);
            if accumulate[i] { live } else { vec![0.0; live.len()] }
        });
        let live = [units.x.live_values(&x), units.r.live_values(&r), units.x.live_values(&dy)];
        let [live_x, live_r, live_dy] = live.each_ref().map(|values| &values[..]);
        let activation = is_masked.then_some(Activation::LeakyRelu(0.25));
        let expected = units.gradients([live_x, live_r, live_dy], activation, start.clone());
        let [most_x, most_r, most_dy] = [live_x, live_r, live_dy].map(absolute);
        let most_start = start.each_ref().map(|values| absolute(values));
        let scale = units.gradients([&most_x, &most_r, &most_dy], None, most_start);

        let (x, dy) = (units.x.upload(&mut gpu, &x), units.x.upload(&mut gpu, &dy));
        let of = units.on_device(&mut gpu, &r);
        let to = [0, 1].map(|i| windows[i].upload(&mut gpu, &before[i]));
        let [dx, dr] = [0, 1].map(|i| wanted[i].then_some((to[i], accumulate[i])));
        gpu.launch(&cuda::amplify_backward(units.amplitude, x, of, dy, dx, activation, dr));
        for i in 0..2 {
            let found = windows[i].download(&mut gpu, to[i]);
            let difference = match wanted[i] {
                true => windows[i].difference(&before[i], &found, &expected[i], &scale[i], TOLERANCE),
                false => first_difference(&found, &before[i]),
            };
            prop_assert_eq!(difference, None, "gradient {}", i);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pruned_shares_and_their_gradients_are_those_of_the_cpu(
        r in Window::any(), many: bool, out: bool, accumulate: bool, seed: u64,
    ) {
        // At times of several blocks; there is always a row and a unit.
        let rows = if many && r.cols < 20 { 700 } else { r.rows.max(1) };
        let r = Window { rows, live: (rows - (r.rows - r.live).min(rows - 1)), cols: r.cols.max(1), ..r };
        let element = if out { Element::Bf16 } else { Element::F32 };
        let dr = Window { before: r.behind, element, ..r };
        let (all, before) = (r.values(seed, 2.0), dr.values(seed ^ 1, 1.0));
        let (live, d_share) = (r.live_values(&all), 3.0f32);
        let view = Mat::new(&live, r.live, r.cols);
        let open = unpruned(Isa::best(), PRUNING, view);
        let mut expected = if accumulate { dr.live_values(&before) } else { vec![0.0; live.len()] };
        let factor = -d_share / (r.live as f32 * r.cols as f32);
        let target = Target { to: MatMut::new(&mut expected, r.live, r.cols), accumulate: true };
        pruning_dr(Isa::best(), PRUNING, view, factor, target);

        let mut gpu = Gpu::with_order(seed);
        let (from, to) = (r.upload(&mut gpu, &all), dr.upload(&mut gpu, &before));
        let scratch = gpu.allocate::<u8>(cuda::pruned_share_scratch(r.rows as u32, r.cols as u32) as usize);
        let (share, at) = (gpu.allocate::<f32>(1), gpu.upload(&[d_share]));
        for launch in cuda::pruned_share(PRUNING, from, share, scratch) {
            gpu.launch(&launch);
        }
        gpu.launch(&cuda::pruning_dr(PRUNING, from, at, accumulate, to));
        let pruned = (1.0 - open / live.len() as f64) as f32;
        prop_assert_eq!(gpu.download::<f32>(share, 1), [pruned]);
        let found = dr.download(&mut gpu, to);
        prop_assert_eq!(dr.difference(&before, &found, &expected, &vec![1.0; live.len()], TOLERANCE), None);
    }
}

#[test]
fn nan_is_never_hidden() {
    let (x, r) = ([f32::NAN, 1.0, 1.0], [0.0, f32::NAN, 0.0]);
    for amplitude in [Amplitude::Sigmoid(2.0), Amplitude::Exp, Amplitude::OnePlus, Amplitude::Pruned(PRUNING)]
    {
        let mut gpu = Gpu::new();
        let (x, r) = (gpu.upload_mat(&x, 1, 3, 3), gpu.upload_mat(&r, 1, 3, 3));
        gpu.launch(&cuda::amplify(amplitude, x, Of { values: r, parts: None }, x));
        let y = gpu.download_mat(x);
        assert!(y[0].is_nan() && y[1].is_nan() && !y[2].is_nan(), "{amplitude:?}: {y:?}");
    }
}

#[test]
#[should_panic(expected = "do not fit")]
fn parts_of_other_units_are_refused() {
    let mut gpu = Gpu::new();
    let (x, r) = (gpu.upload_mat(&[0.0; 6], 1, 6, 6), gpu.upload_mat(&[0.0; 2], 1, 2, 2));
    let parts = Some(DeviceParts::new(&[3, 4], 0));
    cuda::amplify(Amplitude::Exp, x, Of { values: r, parts }, x);
}
