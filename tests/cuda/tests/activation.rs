//! Activation functions on the device: the bits of the CPU's fused instruction sets.

use manygate_cuda::{Element, activation};
use manygate_cuda_tests::{Gpu, Window, first_difference};
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
