//! Activation functions on the device: the bits of the CPU's fused instruction sets.

use manygate_cuda::activation::{Bend, BendGradients};
use manygate_cuda::{Element, activation};
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use manygate_kernels::activation::{Activation, activate, activation_dx};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

const ALL: [Activation; 5] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu(0.1),
    Activation::Tanh,
    Activation::Sigmoid,
];

fn outputs_on_cpu(act: Activation, mut x: Vec<f32>) -> Vec<f32> {
    let len = x.len();
    activate(Isa::Scalar, act, MatMut::new(&mut x, 1, len));
    x
}

fn gradients_on_cpu(act: Activation, y: &[f32], mut dy: Vec<f32>) -> Vec<f32> {
    activation_dx(Isa::Scalar, act, Mat::new(y, 1, y.len()), MatMut::new(&mut dy, 1, y.len()));
    dy
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn outputs_have_the_bits_of_the_cpu(window in Window::any(), out in any::<bool>(), act in 0usize..5, seed: u64) {
        let (act, mut gpu) = (ALL[act], Gpu::with_order(seed));
        let x = window.values(seed, 4.0);
        let y = outputs_on_cpu(act, window.live_values(&x));

        let mat = window.upload(&mut gpu, &x);
        gpu.launch(&activation::activate(act, mat));
        let found = window.download(&mut gpu, mat);
        prop_assert_eq!(first_difference(&found, &window.replaced(&x, &y)), None, "{:?} in place", act);

        let element = if out { Element::F32 } else { Element::Bf16 };
        let out = Window { element, before: window.behind, ..window };
        let before = out.values(seed ^ 1, 1.0);
        let (from, to) = (window.upload(&mut gpu, &x), out.upload(&mut gpu, &before));
        gpu.launch(&activation::activate_to(act, from, to));
        let found = out.download(&mut gpu, to);
        prop_assert_eq!(first_difference(&found, &out.replaced(&before, &y)), None, "{:?}", act);
    }

    #[test]
    fn gradients_have_the_bits_of_the_cpu(window in Window::any(), accumulate: bool, act in 0usize..5, seed: u64) {
        let (act, mut gpu) = (ALL[act], Gpu::with_order(seed));
        // Outputs of any function, as far as it has a slope.
        let (outputs, upstream) = (window.values(seed, 0.99), window.values(seed ^ 1, 1.0));
        let dx = gradients_on_cpu(act, &window.live_values(&outputs), window.live_values(&upstream));

        let (y, dy) = (window.upload(&mut gpu, &outputs), window.upload(&mut gpu, &upstream));
        gpu.launch(&activation::activation_dx(act, y, dy));
        let found = window.download(&mut gpu, dy);
        prop_assert_eq!(first_difference(&found, &window.replaced(&upstream, &dx)), None, "{:?} in place", act);

        let out = Window { element: Element::F32, before: window.behind, ..window };
        let before = out.values(seed ^ 2, 1.0);
        let (dy, to) = (window.upload(&mut gpu, &upstream), out.upload(&mut gpu, &before));
        gpu.launch(&activation::activation_dx_to(act, y, dy, accumulate, to));
        let was = out.live_values(&before);
        let sums: Vec<_> = dx.iter().zip(was).map(|(d, was)| if accumulate { was + d } else { *d }).collect();
        let found = out.download(&mut gpu, to);
        prop_assert_eq!(first_difference(&found, &out.replaced(&before, &sums)), None, "{:?}", act);
    }
}

#[test]
fn values_at_the_ends_have_the_bits_of_the_cpu() {
    let ends = [0.0, 1e-40, 0.625, 0.6251, 9.0, 87.3, 87.4, 88.3, 88.4, 1e30, f32::INFINITY, f32::NAN];
    let x: Vec<f32> = ends.into_iter().flat_map(|v| [v, -v]).collect();
    let mut gpu = Gpu::new();
    for act in ALL {
        let y = outputs_on_cpu(act, x.clone());
        let mat = gpu.upload_mat(&x, 3, 8, 8);
        gpu.launch(&activation::activate(act, mat));
        assert_eq!(first_difference(&gpu.download_mat(mat), &y), None, "{act:?}");
        let dy = gpu.upload_mat(&[3.0; 24], 3, 8, 8);
        gpu.launch(&activation::activation_dx(act, mat, dy));
        let dx = gradients_on_cpu(act, &y, vec![3.0; 24]);
        assert_eq!(first_difference(&gpu.download_mat(dy), &dx), None, "{act:?}'");
    }
}

#[test]
#[should_panic(expected = "activate: shapes [(2, 3), (3, 2)]")]
fn shapes_that_differ_are_refused() {
    let mut gpu = Gpu::new();
    let (x, y) = (gpu.upload_mat(&[0.0; 6], 2, 3, 3), gpu.upload_mat(&[0.0; 6], 3, 2, 2));
    activation::activate_to(Activation::Relu, x, y);
}

/// Units with learnt slopes, and what bends them.
#[derive(Clone, Debug)]
struct Learnt {
    x: Window,
    /// Of y and of gradients.
    y: Window,
    is_dice: bool,
}

/// A value, how y changes with it, and what the sums over rows have of it: at the mean, the variance and the slope.
struct Bent {
    y: f64,
    slope: f64,
    sums: [f64; 3],
    /// What their rounding is relative to: x less the mean is rounded by how large the two are, 1 - p by 1.
    sizes: [f64; 3],
}

const EPSILON: f32 = 1e-3;

impl Learnt {
    fn any() -> impl Strategy<Value = Learnt> {
        let rows = prop_oneof![3 => Just(None), 1 => Just(Some(300usize))];
        (Window::any(), rows, any::<[bool; 2]>()).prop_map(|(window, rows, [is_dice, halves])| {
            let rows = rows.filter(|_| window.cols < 20).unwrap_or(window.rows);
            let x = Window { rows, live: rows - (window.rows - window.live).min(rows), ..window };
            let element = if halves { Element::Bf16 } else { Element::F32 };
            Learnt { x, y: Window { before: window.behind, element, ..x }, is_dice }
        })
    }

    /// Means, then variances; and slopes.
    fn units(&self, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let mut moments = values(seed, 2 * self.x.cols, 1.0);
        moments[self.x.cols..].iter_mut().for_each(|v| *v = v.abs() + 0.2);
        (moments, values(seed ^ 1, self.x.cols, 1.0))
    }

    fn bend(&self, gpu: &mut Gpu, (moments, slopes): &(Vec<f32>, Vec<f32>)) -> Bend {
        let moments = self.is_dice.then(|| (gpu.upload(moments), EPSILON));
        Bend { moments, slopes: gpu.upload(slopes) }
    }

    fn at(&self, (moments, slopes): &(Vec<f32>, Vec<f32>), c: usize, x: f32) -> Bent {
        let (x, a) = (f64::from(x), f64::from(slopes[c]));
        if !self.is_dice {
            let p = f64::from(x > 0.0);
            return Bent {
                y: x * (p + (1.0 - p) * a),
                slope: p + (1.0 - p) * a,
                sums: [0.0, 0.0, x * (1.0 - p)],
                sizes: [0.0, 0.0, x.abs()],
            };
        }
        let (mean, variance) =
            (f64::from(moments[c]), f64::from(moments[self.x.cols + c]) + f64::from(EPSILON));
        let s = (x - mean) / variance.sqrt();
        let p = 1.0 / (1.0 + (-s).exp());
        let g = x * (1.0 - a) * p * (1.0 - p);
        let deviation = variance.sqrt();
        let sums = [-g / deviation, -0.5 * g * s / variance, x * (1.0 - p)];
        let (size, apart) = ((x * (1.0 - a) * p).abs(), (x.abs() + mean.abs()) / deviation);
        let sizes = [size / deviation, 0.5 * size * apart / variance, x.abs()];
        Bent { y: x * (p + (1.0 - p) * a), slope: p + (1.0 - p) * a + g / deviation, sums, sizes }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn learnt_slopes_agree_with_f64(learnt in Learnt::any(), seed: u64) {
        let (Learnt { x, y, .. }, mut gpu) = (&learnt, Gpu::with_order(seed));
        let (all, before, units) = (x.values(seed, 2.0), y.values(seed ^ 1, 1.0), learnt.units(seed ^ 2));
        let live = x.live_values(&all);
        let value = |(i, &v): (usize, &f32)| learnt.at(&units, i % x.cols, v).y as f32;
        let expected: Vec<f32> = live.iter().enumerate().map(value).collect();
        let (from, to) = (x.upload(&mut gpu, &all), y.upload(&mut gpu, &before));
        let bend = learnt.bend(&mut gpu, &units);
        gpu.launch(&activation::dice(from, bend, to));
        let found = y.download(&mut gpu, to);
        prop_assert_eq!(y.difference(&before, &found, &expected, &live, 2e-6), None);
    }

    #[test]
    fn gradients_of_learnt_slopes_agree_with_f64(
        learnt in Learnt::any(), wanted: [bool; 3], accumulate: [bool; 3], seed: u64,
    ) {
        let Learnt { x, y, .. } = &learnt;
        let (all, all_dy, before) = (x.values(seed, 2.0), x.values(seed ^ 1, 1.0), y.values(seed ^ 2, 1.0));
        let (units, n) = (learnt.units(seed ^ 3), x.cols);
        let begin = values(seed ^ 4, 3 * n, 1.0);
        let on_device = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let (from, dy, dx) = (x.upload(&mut gpu, &all), x.upload(&mut gpu, &all_dy), y.upload(&mut gpu, &before));
            let (bend, sums) = (learnt.bend(&mut gpu, &units), gpu.upload(&begin));
            let asked = BendGradients {
                moments: wanted[1].then_some((sums, accumulate[1])),
                slopes: wanted[2].then_some((sums + 8 * n as u64, accumulate[2])),
                scratch: gpu.allocate::<u8>(activation::dice_scratch(x.rows as u32, n as u32) as usize),
            };
            let to_dx = wanted[0].then_some((dx, accumulate[0]));
            for launch in activation::dice_backward(from, bend, dy, to_dx, asked) {
                gpu.launch(&launch);
            }
            (y.download(&mut gpu, dx), gpu.download::<f32>(sums, 3 * n))
        };
        let (found_dx, found_sums) = on_device(seed);

        let (live, dy, base) = (x.live_values(&all), x.live_values(&all_dy), y.live_values(&before));
        let mut dx = Vec::new();
        let (mut sums, mut most) = (vec![0.0f64; 3 * n], vec![0.0f64; 3 * n]);
        for (i, (&v, &d)) in live.iter().zip(&dy).enumerate() {
            let bent = learnt.at(&units, i % n, v);
            dx.push((f64::from(d) * bent.slope + if accumulate[0] { f64::from(base[i]) } else { 0.0 }) as f32);
            for (part, (sum, size)) in bent.sums.iter().zip(bent.sizes).enumerate() {
                sums[part * n + i % n] += f64::from(d) * sum;
                most[part * n + i % n] += f64::from(d).abs() * size;
            }
        }
        let scale = vec![4.0; dx.len()];
        let difference = match wanted[0] {
            true => y.difference(&before, &found_dx, &dx, &scale, 2e-6),
            false => first_difference(&found_dx, &before),
        };
        prop_assert_eq!(difference, None);
        for i in 0..3 * n {
            let which = if i < 2 * n { 1 } else { 2 };
            let base = f64::from(begin[i]);
            let expected = match (wanted[which], accumulate[which]) {
                (false, _) => base,
                (true, false) => sums[i],
                (true, true) => base + sums[i],
            };
            let difference = (f64::from(found_sums[i]) - expected).abs();
            prop_assert!(difference <= 4e-6 * (most[i] + base.abs()), "sum {}: {} {}", i, found_sums[i], expected);
        }
        prop_assert_eq!(on_device(seed ^ 1), (found_dx, found_sums), "the order of warps shows");
    }
}
