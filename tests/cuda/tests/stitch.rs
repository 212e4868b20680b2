//! Networks that mix, on the device against those of the CPU.

use manygate_cuda::Element;
use manygate_cuda::stitch::{self as cuda, Weights};
use manygate_cuda_tests::{Gpu, Window, values};
use manygate_kernels::activation::{Activation, activation_dx};
use manygate_kernels::stitch::{stitch, stitch_dweights};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute terms.
const TOLERANCE: f32 = 2e-6;

/// Networks side by side.
#[derive(Clone, Debug)]
struct Networks {
    x: Window,
    /// Of the gradient at the output, or of the output.
    y: Window,
    tasks: usize,
    /// Weights of a pair.
    each: usize,
}

impl Networks {
    fn any() -> impl Strategy<Value = Networks> {
        let units = prop_oneof![1usize..20, Just(16), Just(64), 125usize..140];
        let rows = prop_oneof![3 => Just(None), 1 => Just(Some(300usize))];
        (Window::any(), rows, 1usize..7, units, any::<[bool; 2]>()).prop_map(
            |(window, rows, tasks, units, [per_unit, halves])| {
                let rows = rows.filter(|_| units < 20).unwrap_or(window.rows);
                let live = rows - (window.rows - window.live).min(rows);
                let x = Window { rows, live, cols: tasks * units, ..window };
                let element = if halves { Element::Bf16 } else { Element::F32 };
                let y = Window { before: window.behind, element, ..x };
                Networks { x, y, tasks, each: if per_unit { units } else { 1 } }
            },
        )
    }

    fn weights(&self, seed: u64) -> Vec<f32> {
        values(seed, self.tasks * self.tasks * self.each, 1.0)
    }

    fn upload(&self, gpu: &mut Gpu, weights: &[f32]) -> Weights {
        let cols = self.tasks * self.each;
        Weights::new(gpu.upload_mat(weights, self.tasks, cols, cols))
    }
}

fn absolute(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.abs()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn mixtures_are_those_of_the_cpu(
        networks in Networks::any(), transposed: bool, accumulate: bool, is_masked: bool, seed: u64,
    ) {
        let (Networks { x, y, tasks, .. }, mut gpu) = (&networks, Gpu::with_order(seed));
        let (all_x, weights, before) = (x.values(seed, 1.0), networks.weights(seed ^ 1), y.values(seed ^ 2, 1.0));
        let all_outputs = x.values(seed ^ 3, 1.0);
        let activation = Activation::LeakyRelu(0.25);
        let run = |of: &dyn Fn(&[f32]) -> Vec<f32>| {
            let mut to = if accumulate { of(&y.live_values(&before)) } else { vec![0.0; x.live * x.cols] };
            let (live_x, weights) = (of(&x.live_values(&all_x)), of(&weights));
            let from = Mat::new(&live_x, x.live, x.cols);
            stitch(Isa::best(), *tasks, &weights, transposed, from, true, MatMut::new(&mut to, x.live, x.cols));
            if is_masked {
                let outputs = x.live_values(&all_outputs);
                let outputs = Mat::new(&outputs, x.live, x.cols);
                activation_dx(Isa::best(), activation, outputs, MatMut::new(&mut to, x.live, x.cols));
            }
            to
        };
        let (expected, scale) = (run(&<[f32]>::to_vec), run(&|v| absolute(v)));

        let (from, to) = (x.upload(&mut gpu, &all_x), y.upload(&mut gpu, &before));
        let weights = networks.upload(&mut gpu, &weights);
        let mask = is_masked.then(|| (activation, x.upload(&mut gpu, &all_outputs)));
        gpu.launch(&cuda::stitch(weights, transposed, from, accumulate, mask, to));
        let found = y.download(&mut gpu, to);
        prop_assert_eq!(y.difference(&before, &found, &expected, &scale, TOLERANCE), None);
    }

    #[test]
    fn gradients_of_weights_are_those_of_the_cpu(networks in Networks::any(), accumulate: bool, seed: u64) {
        let Networks { x, y, tasks, .. } = &networks;
        let (all_x, all_dy, before) = (x.values(seed, 1.0), y.values(seed ^ 1, 1.0), networks.weights(seed ^ 2));
        let run = |of: &dyn Fn(&[f32]) -> Vec<f32>| {
            let mut sums = if accumulate { of(&before) } else { vec![0.0; before.len()] };
            let (live_x, live_dy) = (of(&x.live_values(&all_x)), of(&y.live_values(&all_dy)));
            let [x_view, dy_view] = [&live_x, &live_dy].map(|v| Mat::new(v, x.live, x.cols));
            stitch_dweights(Isa::best(), *tasks, x_view, dy_view, &mut sums);
            sums
        };
        let (expected, scale) = (run(&<[f32]>::to_vec), run(&|v| absolute(v)));

        let on_device = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let (from, dy) = (x.upload(&mut gpu, &all_x), y.upload(&mut gpu, &all_dy));
            let to = networks.upload(&mut gpu, &before);
            let bytes = cuda::stitch_dweights_scratch(x.rows as u32, *tasks as u32, (x.cols / tasks) as u32);
            let scratch = gpu.allocate::<u8>(bytes as usize);
            for launch in cuda::stitch_dweights(from, dy, accumulate, to, scratch) {
                gpu.launch(&launch);
            }
            gpu.download::<f32>(to.address, before.len())
        };
        let (found, window) = (on_device(seed), Window::whole(1, before.len()));
        // Long sums of the CPU are f32, in another order.
        prop_assert_eq!(window.difference(&before, &found, &expected, &scale, 10.0 * TOLERANCE), None);
        prop_assert_eq!(on_device(seed ^ 1), found, "the order of warps shows");
    }
}

#[test]
#[should_panic(expected = "weights for")]
fn weights_of_other_units_are_refused() {
    let mut gpu = Gpu::new();
    let (x, a) = (gpu.upload_mat(&[0.0; 6], 1, 6, 6), gpu.upload_mat(&[0.0; 8], 2, 4, 4));
    cuda::stitch(Weights::new(a), false, x, false, None, x);
}
