//! Batch normalisation on the device: element-wise passes have the bits of the CPU's fused instruction sets, sums have
//! another order.

use manygate_cuda::norm::{self as cuda, Groups};
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::values::stored;
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use manygate_kernels::activation::Activation;
use manygate_kernels::norm::{column_moments, norm_dx, norm_gradient_sums, normalise};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

const EPSILON: f32 = 1e-3;

/// Any matrix: of one block or several across and down, some rows not there, aligned to vectors or not.
fn windows() -> impl Strategy<Value = Window> {
    let cols = prop_oneof![0usize..6, 14usize..19, Just(64), 61usize..67, 126usize..140];
    let rows = prop_oneof![2 => 0usize..5, 2 => 20usize..80, 1 => Just(140), 1 => Just(2100)];
    let missing = prop_oneof![Just(0usize), 0usize..100];
    let around = prop_oneof![Just((0, 0)), Just((16, 8)), (0usize..5, 0usize..5)];
    (rows, missing, cols, around, any::<bool>()).prop_map(
        |(rows, missing, cols, (before, behind), is_bf16)| {
            let rows = rows.min(if cols < 6 { 2100 } else { 140 });
            let element = if is_bf16 { Element::Bf16 } else { Element::F32 };
            Window { rows, live: rows.saturating_sub(missing), cols, before, behind, element }
        },
    )
}

fn activations() -> impl Strategy<Value = Activation> {
    use Activation::{Identity, LeakyRelu, Relu, Sigmoid, Tanh};
    prop_oneof![Just(Identity), Just(Relu), Just(LeakyRelu(0.1)), Just(Tanh), Just(Sigmoid)]
}

/// A normalisation by given moments, and a gradient at its output.
struct Normalisation {
    x: Window,
    dz: Window,
    /// Values of the matrices.
    all: [Vec<f32>; 2],
    moments: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

impl Normalisation {
    /// Of a matrix like `x`, with random moments.
    fn new(x: Window, seed: u64) -> Normalisation {
        let cols = x.cols;
        let dz = Window { before: x.behind, behind: x.before, element: Element::F32, ..x };
        let variances = values(seed ^ 3, cols, 1.0).into_iter().map(f32::abs);
        Normalisation {
            x,
            dz,
            all: [x.values(seed, 2.0), dz.values(seed ^ 1, 1.0)],
            moments: values(seed ^ 2, cols, 1.0).into_iter().chain(variances).collect(),
            gamma: values(seed ^ 4, cols, 2.0),
            beta: values(seed ^ 5, cols, 2.0),
        }
    }

    /// The same with the moments of x.
    fn by_batch(mut self) -> Normalisation {
        let live = self.x.live_values(&self.all[0]);
        let rows = self.x.live.max(1) as f64;
        let (sums, squares) = moments_of_cpu(&live, self.x.live, self.x.cols);
        let variances = sums.iter().zip(&squares).map(|(sum, square)| square / rows - (sum / rows).powi(2));
        self.moments = sums.iter().map(|sum| sum / rows).chain(variances).map(|v| v as f32).collect();
        self
    }

    fn mean(&self) -> &[f32] {
        &self.moments[..self.x.cols]
    }

    fn inverse(&self) -> Vec<f32> {
        self.moments[self.x.cols..].iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect()
    }

    /// Live values of x and of dz.
    fn live(&self) -> [Vec<f32>; 2] {
        [self.x.live_values(&self.all[0]), self.dz.live_values(&self.all[1])]
    }

    fn upload(&self, gpu: &mut Gpu) -> OnDevice {
        OnDevice {
            x: self.x.upload(gpu, &self.all[0]),
            dz: self.dz.upload(gpu, &self.all[1]),
            moments: gpu.upload(&self.moments),
            gamma: gpu.upload(&self.gamma),
            beta: gpu.upload(&self.beta),
        }
    }

    /// Sums of dz and of dz x̂ by column, on the CPU.
    fn sums(&self) -> [Vec<f64>; 2] {
        let (rows, cols) = (self.x.live, self.x.cols);
        let [x, dz] = self.live();
        let (x, dz) = (Mat::new(&x, rows, cols), Mat::new(&dz, rows, cols));
        let (mut sum, mut sum_xhat) = (vec![0.0; cols], vec![0.0; cols]);
        norm_gradient_sums(Isa::Scalar, dz, x, self.mean(), &self.inverse(), &mut sum, &mut sum_xhat);
        [sum, sum_xhat]
    }

    /// What [`norm_dx`] makes of `before`, or writes, with the means of dz and of dz x̂.
    fn dx(&self, means: [&[f32]; 2], before: Option<Vec<f32>>) -> Vec<f32> {
        let (rows, cols) = (self.x.live, self.x.cols);
        let [x, dz] = self.live();
        let accumulate = before.is_some();
        let mut dx = before.unwrap_or_else(|| vec![0.0; rows * cols]);
        norm_dx(
            Isa::Scalar,
            Mat::new(&dz, rows, cols),
            Mat::new(&x, rows, cols),
            self.mean(),
            &self.inverse(),
            &self.gamma,
            means[0],
            means[1],
            accumulate,
            MatMut::new(&mut dx, rows, cols),
        );
        dx
    }
}

/// Where a [`Normalisation`] lies.
struct OnDevice {
    x: DeviceMat,
    dz: DeviceMat,
    moments: u64,
    gamma: u64,
    beta: u64,
}

fn run(gpu: &mut Gpu, launches: &[Launch]) {
    launches.iter().for_each(|launch| gpu.launch(launch));
}

/// Sums and sums of squares of the columns.
fn moments_of_cpu(x: &[f32], rows: usize, cols: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut squares) = (vec![0.0; cols], vec![0.0; cols]);
    column_moments(Isa::Scalar, Mat::new(x, rows, cols), &mut sums, &mut squares);
    (sums, squares)
}

fn moments_of_device(x: Window, all: &[f32], order: u64) -> Vec<f32> {
    let mut gpu = Gpu::with_order(order);
    let (mat, moments) = (x.upload(&mut gpu, all), gpu.allocate::<f32>(2 * x.cols));
    let scratch = gpu.allocate::<u8>(cuda::batch_moments_scratch(1, mat.rows, mat.cols) as usize);
    run(&mut gpu, &cuda::batch_moments(Groups::ONE, mat, moments, scratch));
    gpu.download(moments, 2 * x.cols)
}

/// Checks means and variances against two passes in f64.
fn check_moments(x: Window, all: &[f32], found: &[f32]) -> Result<(), TestCaseError> {
    let live = x.live_values(all);
    let rows = x.live.max(1) as f64;
    for c in 0..x.cols {
        let column = || (0..x.live).map(|r| f64::from(live[r * x.cols + c]));
        let mean = column().sum::<f64>() / rows;
        let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / rows;
        let (found_mean, found_variance) = (f64::from(found[c]), f64::from(found[x.cols + c]));
        let size = column().map(f64::abs).fold(0.0, f64::max);
        let is_mean = (found_mean - mean).abs() <= 6e-8 * mean.abs() + 1e-15 * size;
        prop_assert!(is_mean, "mean of column {}: {} {}", c, found_mean, mean);
        let is_variance = (found_variance - variance).abs() <= 6e-8 * variance + 1e-14 * size * size;
        prop_assert!(is_variance, "variance of column {}: {} {}", c, found_variance, variance);
    }
    Ok(())
}

/// That `found` are the f32 nearest to `expected`, whose sums may have another order, added to `before`.
fn check_sums(found: &[f32], expected: &[f64], sizes: &[f64], before: &[f32]) -> Result<(), TestCaseError> {
    for (i, &found) in found.iter().enumerate() {
        let sum = expected[i] as f32 + before[i];
        let allowed = 2.4e-7 * (f64::from(sum).abs() + expected[i].abs()) + 1e-14 * sizes[i];
        prop_assert!(f64::from(found - sum).abs() <= allowed, "value {}: {} {}", i, found, sum);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn moments_agree_with_f64(x in windows(), shift in prop_oneof![Just(0.0f32), Just(1000.0)], seed: u64) {
        let all: Vec<f32> = x.values(seed, 3.0).into_iter().map(|v| stored(x.element, v + shift)).collect();
        let found = moments_of_device(x, &all, 0);
        check_moments(x, &all, &found)?;
        prop_assert_eq!(first_difference(&moments_of_device(x, &all, seed | 1), &found), None, "the order of warps");
    }

    #[test]
    fn values_have_the_bits_of_the_cpu(x in windows(), to_bf16: bool, act in activations(), seed: u64) {
        let case = Normalisation::new(x, seed);
        let element = if to_bf16 { Element::Bf16 } else { Element::F32 };
        let output = Window { before: x.behind, behind: x.before, element, ..x };
        let mut gpu = Gpu::with_order(seed);
        let at = case.upload(&mut gpu);
        let before = output.values(seed ^ 9, 1.0);
        let y = output.upload(&mut gpu, &before);
        gpu.launch(&cuda::normalise(Groups::ONE, at.x, at.moments, at.gamma, at.beta, EPSILON, act, y));

        let (rows, cols) = (x.live, x.cols);
        let (live, mut expected) = (x.live_values(&case.all[0]), vec![0.0; rows * cols]);
        normalise(Isa::Scalar, Mat::new(&live, rows, cols), case.mean(), &case.inverse(), &case.gamma, &case.beta, act,
            MatMut::new(&mut expected, rows, cols));
        let found = output.download(&mut gpu, y);
        prop_assert_eq!(first_difference(&found, &output.replaced(&before, &expected)), None);
    }

    #[test]
    fn sums_of_gradients_agree_with_the_cpu(
        x in windows(), asked in any::<[Option<bool>; 3]>(), seed: u64,
    ) {
        let case = Normalisation::new(x, seed);
        let cols = x.cols;
        let before = [2 * cols, cols, cols].map(|len| values(seed ^ 7, len, 1.0));
        let sums = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let at = case.upload(&mut gpu);
            let to: Vec<u64> = before.iter().map(|before| gpu.upload(before)).collect();
            let asked = |i: usize| asked[i].map(|accumulate| (to[i], accumulate));
            let scratch = gpu.allocate::<u8>(cuda::normalise_sums_scratch(1, at.x.rows, at.x.cols) as usize);
            let launches = cuda::normalise_sums(
                Groups::ONE, at.x, at.moments, at.gamma, EPSILON, at.dz, asked(0), asked(1), asked(2), scratch,
            );
            run(&mut gpu, &launches);
            [0, 1, 2].map(|i| gpu.download::<f32>(to[i], before[i].len()))
        };
        let found = sums(0);

        let [sum, sum_xhat] = case.sums();
        let inverse = case.inverse();
        let scale: Vec<f64> = (0..cols).map(|c| f64::from(case.gamma[c] * inverse[c])).collect();
        let d_mean = (0..cols).map(|c| -scale[c] * sum[c]);
        let d_variance = (0..cols).map(|c| -0.5 * scale[c] * f64::from(inverse[c]) * sum_xhat[c]);
        let expected = [d_mean.chain(d_variance).collect(), sum_xhat, sum];
        // At most: |gamma| is below 2, an inverse deviation below 32, |x - mean| below 3.
        let sizes = [2.0 * 32.0 * 32.0 * 96.0, 96.0, 1.0].map(|size| vec![size * x.live as f64; 2 * cols]);
        for i in 0..3 {
            let zeros = vec![0.0; before[i].len()];
            match asked[i] {
                None => prop_assert_eq!(&found[i], &before[i]),
                Some(accumulate) => {
                    let before = if accumulate { &before[i] } else { &zeros };
                    check_sums(&found[i], &expected[i], &sizes[i], before)?;
                }
            }
        }
        prop_assert_eq!(sums(seed | 1), found, "the order of warps shows");
    }

    #[test]
    fn gradients_of_inputs_have_the_bits_of_the_cpu(
        x in windows(), to_bf16: bool, accumulate: bool, seed: u64,
    ) {
        let case = Normalisation::new(x, seed);
        let element = if to_bf16 { Element::Bf16 } else { Element::F32 };
        let output = Window { element, ..x };
        let mut gpu = Gpu::with_order(seed);
        let at = case.upload(&mut gpu);
        let all = output.values(seed ^ 9, 1.0);
        let before = accumulate.then(|| output.live_values(&all));
        let dx = output.upload(&mut gpu, &all);
        gpu.launch(&cuda::normalise_dx(Groups::ONE, at.x, at.moments, at.gamma, EPSILON, at.dz, accumulate, dx));
        let zeros = vec![0.0; x.cols];
        let expected = case.dx([&zeros, &zeros], before.clone());
        let found = output.download(&mut gpu, dx);
        prop_assert_eq!(first_difference(&found, &output.replaced(&all, &expected)), None);

        let gradient = values(seed ^ 10, 2 * x.cols, 1.0);
        let (d_moments, dx) = (gpu.upload(&gradient), output.upload(&mut gpu, &all));
        gpu.launch(&cuda::batch_moments_dx(Groups::ONE, at.x, at.moments, d_moments, accumulate, dx));
        let scale = 1.0 / x.live as f32;
        let [live, _] = case.live();
        let expected: Vec<f32> = live.iter().enumerate().map(|(i, value)| {
            let c = i % x.cols;
            let add = scale * (gradient[c] + 2.0 * gradient[x.cols + c] * (value - case.moments[c]));
            before.as_ref().map_or(add, |before| before[i] + add)
        }).collect();
        let found = output.download(&mut gpu, dx);
        prop_assert_eq!(first_difference(&found, &output.replaced(&all, &expected)), None);
    }

    #[test]
    fn the_passes_together_are_the_gradient_of_a_batch_normalisation(x in windows(), seed: u64) {
        let case = Normalisation::new(x, seed).by_batch();
        let mut gpu = Gpu::with_order(seed);
        let at = case.upload(&mut gpu);
        let output = Window { element: Element::F32, ..x };
        let all = output.values(seed ^ 9, 1.0);
        let (dx, d_moments) = (output.upload(&mut gpu, &all), gpu.allocate::<f32>(2 * x.cols));
        let scratch = gpu.allocate::<u8>(cuda::normalise_sums_scratch(1, at.x.rows, at.x.cols) as usize);
        let to = Some((d_moments, false));
        let sums = cuda::normalise_sums(Groups::ONE, at.x, at.moments, at.gamma, EPSILON, at.dz, to, None, None, scratch);
        run(&mut gpu, &sums);
        gpu.launch(&cuda::normalise_dx(Groups::ONE, at.x, at.moments, at.gamma, EPSILON, at.dz, false, dx));
        gpu.launch(&cuda::batch_moments_dx(Groups::ONE, at.x, at.moments, d_moments, true, dx));

        let rows = x.live.max(1) as f64;
        let means = case.sums().map(|sums| sums.iter().map(|sum| (sum / rows) as f32).collect::<Vec<_>>());
        let expected = output.replaced(&all, &case.dx([&means[0], &means[1]], None));
        let inverse = case.inverse();
        for (i, (found, expected)) in output.download(&mut gpu, dx).iter().zip(&expected).enumerate() {
            let c = (i % x.stride()).saturating_sub(x.before).min(x.cols.saturating_sub(1));
            let allowed = 1e-6 * (1.0 + inverse.get(c).unwrap_or(&0.0) * 8.0);
            prop_assert!((found - expected).abs() <= allowed, "value {}: {} {}", i, found, expected);
        }
    }

    #[test]
    fn running_moments_move_as_on_the_cpu(
        rows in 0u32..4, cols in prop_oneof![0usize..5, 126usize..131], momentum in 0.0f32..1.0, unbiased: bool,
        go_on in 0u32..2, seed: u64,
    ) {
        let (moments, before) = (values(seed, 2 * cols, 1.0), values(seed ^ 1, 2 * cols, 1.0));
        let mut gpu = Gpu::with_order(seed);
        let (at, state) = (gpu.upload(&moments), gpu.upload(&before));
        let (flag, starts) = (gpu.upload(&[go_on]), gpu.upload(&[0, rows]));
        gpu.launch(&cuda::move_running(flag, Groups::of(starts, 1), cols as u32, at, momentum, unbiased, state));

        let mut expected = before;
        for c in 0..cols {
            if go_on == 1 && rows > 0 {
                expected[c] += momentum * (moments[c] - expected[c]);
            }
            if go_on == 1 && rows > u32::from(unbiased) {
                let scale = if unbiased { rows as f32 / (rows - 1) as f32 } else { 1.0 };
                let (to, v) = (cols + c, moments[cols + c]);
                expected[to] += momentum * (v * scale - expected[to]);
            }
        }
        prop_assert_eq!(first_difference(&gpu.download(state, 2 * cols), &expected), None);
    }
}

#[test]
fn more_chunks_than_are_added_side_by_side() {
    let x = Window { live: 1190, ..Window::whole(1280, 128) };
    let all = x.values(3, 2.0);
    check_moments(x, &all, &moments_of_device(x, &all, 0)).expect("agrees");
}

#[test]
fn a_batch_without_rows_has_zeros_and_one_value_no_variance() {
    let empty = Window { live: 0, ..Window::whole(3, 5) };
    assert_eq!(moments_of_device(empty, &[7.0; 15], 0), [0.0; 10]);
    let alike = Window::whole(50, 1);
    assert_eq!(moments_of_device(alike, &[0.1; 50], 0), [0.1, 0.0]);
}

#[test]
fn outputs_may_lie_where_inputs_do() {
    let case = Normalisation::new(Window::whole(9, 7), 5);
    let mut gpu = Gpu::new();
    let at = case.upload(&mut gpu);
    gpu.launch(&cuda::normalise_dx(Groups::ONE, at.x, at.moments, at.gamma, EPSILON, at.dz, false, at.dz));
    let zeros = [0.0; 7];
    assert_eq!(gpu.download_mat(at.dz), case.dx([&zeros, &zeros], None));
    gpu.launch(&cuda::normalise(
        Groups::ONE,
        at.x,
        at.moments,
        at.gamma,
        at.beta,
        EPSILON,
        Activation::Relu,
        at.x,
    ));
    let mut y = vec![0.0; 63];
    let x = Mat::new(&case.all[0], 9, 7);
    let (inverse, to) = (case.inverse(), MatMut::new(&mut y, 9, 7));
    normalise(Isa::Scalar, x, case.mean(), &inverse, &case.gamma, &case.beta, Activation::Relu, to);
    assert_eq!(gpu.download_mat(at.x), y);
}

#[test]
#[should_panic(expected = "normalise: shapes")]
fn another_shape_is_refused() {
    let mats = [3, 4].map(|cols| DeviceMat::new(0, 2, cols));
    cuda::normalise(Groups::ONE, mats[0], 0, 0, 0, EPSILON, Activation::Identity, mats[1]);
}

/// What a normalisation by the moments of groups makes: moments; y; of a gradient dz those of moments, gamma and beta; dx
/// through the moments; and running moments.
fn passes(gpu: &mut Gpu, groups: Groups, count: usize, at: &OnDevice, starts: u64) -> [Vec<f32>; 7] {
    let (rows, cols) = (at.x.rows, at.x.cols);
    let vector = |gpu: &mut Gpu, parts: usize| gpu.upload(&vec![0.5f32; parts * count * cols as usize]);
    let [moments, d_moments, state] = [0; 3].map(|_| vector(gpu, 2));
    let [d_gamma, d_beta] = [0; 2].map(|_| vector(gpu, 1));
    let scratch = gpu.allocate::<u8>(cuda::batch_moments_scratch(count, rows, cols) as usize);
    run(gpu, &cuda::batch_moments(groups, at.x, moments, scratch));
    let like = |gpu: &mut Gpu| {
        let address = gpu.upload(&vec![7.0f32; (rows * cols) as usize]);
        DeviceMat { live_rows: at.x.live_rows, ..DeviceMat::new(address, rows, cols) }
    };
    let (y, dx) = (like(gpu), like(gpu));
    gpu.launch(&cuda::normalise(groups, at.x, moments, at.gamma, at.beta, EPSILON, Activation::Tanh, y));
    let to = [d_moments, d_gamma, d_beta].map(|to| Some((to, true)));
    run(
        gpu,
        &cuda::normalise_sums(groups, at.x, moments, at.gamma, EPSILON, at.dz, to[0], to[1], to[2], scratch),
    );
    gpu.launch(&cuda::normalise_dx(groups, at.x, moments, at.gamma, EPSILON, at.dz, false, dx));
    gpu.launch(&cuda::batch_moments_dx(groups, at.x, moments, d_moments, true, dx));
    let flag = gpu.upload(&[1u32]);
    gpu.launch(&cuda::move_running(flag, Groups::of(starts, count), cols, moments, 0.3, true, state));
    let vectors = [(moments, 2), (d_moments, 2), (d_gamma, 1), (d_beta, 1), (state, 2)];
    let [moments, d_moments, d_gamma, d_beta, state] =
        vectors.map(|(address, parts)| gpu.download(address, parts * count * cols as usize));
    [moments, gpu.download_mat(y), d_moments, d_gamma, d_beta, gpu.download_mat(dx), state]
}

#[test]
fn groups_have_what_they_would_have_alone() {
    const COUNTS: [usize; 4] = [3, 0, 150, 1];
    let (cols, rows) = (19, COUNTS.iter().sum::<usize>());
    let case = Normalisation::new(Window::whole(rows, cols), 3);
    let vectors = [values(8, 4 * cols, 1.0), values(9, 4 * cols, 1.0)];
    let mut gpu = Gpu::new();
    let starts: Vec<u32> = (0..=4).map(|group| COUNTS[..group].iter().sum::<usize>() as u32).collect();
    let address = gpu.upload(&starts);
    let [gamma, beta] = [0, 1].map(|i| gpu.upload(&vectors[i]));
    let all = OnDevice { gamma, beta, ..case.upload(&mut gpu) };
    let together = passes(&mut gpu, Groups::of(address, 4), 4, &all, address);
    for (group, &count) in COUNTS.iter().enumerate() {
        let first = starts[group] as usize;
        // With room for as many rows, so that they are summed in the same chunks.
        let own = |all: &[f32]| {
            let mut values = all[first * cols..(first + count) * cols].to_vec();
            values.resize(rows * cols, 0.0);
            values
        };
        let window = Window { live: count, ..Window::whole(rows, cols) };
        let alone = Normalisation {
            x: window,
            dz: window,
            all: [0, 1].map(|i| own(&case.all[i])),
            ..Normalisation::new(window, 3)
        };
        let own = group * cols..(group + 1) * cols;
        let [gamma, beta] = [0, 1].map(|i| gpu.upload(&vectors[i][own.clone()]));
        let alone = OnDevice { gamma, beta, ..alone.upload(&mut gpu) };
        let starts = gpu.upload(&[0, count as u32]);
        let expected = passes(&mut gpu, Groups::ONE, 1, &alone, starts);
        for (part, (together, alone)) in together.iter().zip(&expected).enumerate() {
            let found = match together.len() / cols {
                4 => together[own.clone()].to_vec(),
                8 => [&together[own.clone()], &together[4 * cols..][own.clone()]].concat(),
                _ => together[first * cols..(first + count) * cols].to_vec(),
            };
            let alone = &alone[..found.len()];
            assert_eq!(first_difference(&found, alone), None, "part {part} of group {group}");
        }
    }
}
