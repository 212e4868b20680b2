//! Cross layers with a vector on the device against those of the CPU.

use manygate_cuda::cross as cuda;
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::{Gpu, Window, first_difference, values};
use manygate_kernels::cross::{Roles, Target, VectorGradients, cross_vector, cross_vector_dx};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute terms.
const TOLERANCE: f32 = 2e-6;

/// A layer: its values with rows, and which of them x0, x and the residual are.
#[derive(Clone, Debug)]
struct Layer {
    windows: [Window; 3],
    places: [usize; 3],
}

impl Layer {
    fn any() -> impl Strategy<Value = Layer> {
        let wide = prop_oneof![4 => Just(None), 1 => (500usize..540).prop_map(Some)];
        let places = prop_oneof![Just([0, 0, 0]), Just([0, 1, 1]), Just([0, 0, 1]), Just([0, 1, 2])];
        (Window::any(), wide, places, any::<[bool; 2]>()).prop_map(|(window, wide, places, halves)| {
            let first = Window { cols: wide.unwrap_or(window.cols), ..window };
            let other = |i: usize| Window {
                before: first.before * i % 8,
                element: if halves[i - 1] { Element::Bf16 } else { Element::F32 },
                ..first
            };
            Layer { windows: [first, other(1), other(2)], places }
        })
    }

    fn count(&self) -> usize {
        1 + self.places.into_iter().max().unwrap_or(0)
    }

    fn roles(&self, i: usize) -> Roles {
        let [factor, inner, residual] = self.places.map(|place| place == i);
        Roles { factor, inner, residual }
    }
}

fn absolute(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| v.abs()).collect()
}

fn row(gpu: &mut Gpu, values: &[f32]) -> DeviceMat {
    gpu.upload_mat(values, 1, values.len(), values.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn layers_are_those_of_the_cpu(layer in Layer::any(), seed: u64) {
        let mut gpu = Gpu::with_order(seed);
        let Window { rows, live, cols, .. } = layer.windows[0];
        let all: Vec<Vec<f32>> = (0..3).map(|i| layer.windows[i].values(seed ^ i as u64, 1.0)).collect();
        let inside: Vec<Vec<f32>> = (0..3).map(|i| layer.windows[i].live_values(&all[i])).collect();
        let (w, bias) = (values(seed ^ 5, cols, 1.0), values(seed ^ 6, cols, 1.0));
        let run = |of: &dyn Fn(&[f32]) -> Vec<f32>| {
            let inside: Vec<Vec<f32>> = inside.iter().map(|v| of(v)).collect();
            let [x0, x, residual] = layer.places.map(|i| Mat::new(&inside[i], live, cols));
            let (mut dots, mut y) = (vec![0.0; live], vec![0.0; live * cols]);
            cross_vector(Isa::best(), x0, x, residual, &of(&w), &of(&bias), MatMut::new(&mut dots, live, 1),
                MatMut::new(&mut y, live, cols));
            (dots, y)
        };
        let (expected, scale) = (run(&<[f32]>::to_vec), run(&|v| absolute(v)));

        let on_device: Vec<DeviceMat> = (0..3).map(|i| layer.windows[i].upload(&mut gpu, &all[i])).collect();
        let [x0, x, residual] = layer.places.map(|i| on_device[i]);
        let (w, bias) = (row(&mut gpu, &w), row(&mut gpu, &bias));
        let (dots, y) = (Window { live, ..Window::whole(rows, 1) }, Window { before: 4, ..layer.windows[0] });
        let before = [dots.values(seed ^ 7, 1.0), y.values(seed ^ 8, 1.0)];
        let to = [dots.upload(&mut gpu, &before[0]), y.upload(&mut gpu, &before[1])];
        gpu.launch(&cuda::cross_vector(x0, x, residual, w, bias, to[0], to[1]));
        let found = [dots.download(&mut gpu, to[0]), y.download(&mut gpu, to[1])];
        prop_assert_eq!(dots.difference(&before[0], &found[0], &expected.0, &scale.0, TOLERANCE), None, "dots");
        prop_assert_eq!(y.difference(&before[1], &found[1], &expected.1, &scale.1, TOLERANCE), None, "y");
    }

    #[test]
    fn gradients_are_those_of_the_cpu(
        layer in Layer::any(), accumulate: [bool; 3], wanted: [bool; 3], seed: u64,
    ) {
        let mut gpu = Gpu::with_order(seed);
        let Window { rows, live, cols, .. } = layer.windows[0];
        let count = layer.count();
        let all: Vec<Vec<f32>> = (0..2).map(|i| layer.windows[i].values(seed ^ i as u64, 1.0)).collect();
        let inside: Vec<Vec<f32>> = (0..2).map(|i| layer.windows[i].live_values(&all[i])).collect();
        let (w, dots) = (values(seed ^ 5, cols, 1.0), Window { live, ..Window::whole(rows, 1) });
        let numbers = dots.values(seed ^ 6, 1.0);
        let before: Vec<Vec<f32>> = (0..3).map(|i| layer.windows[i].values(seed ^ (7 + i as u64), 1.0)).collect();
        let run = |of: &dyn Fn(&[f32]) -> Vec<f32>| {
            let [x0, dy, w] = [of(&inside[0]), of(&inside[1]), of(&w)];
            let numbers = of(&numbers[..live]);
            let mut to: Vec<Vec<f32>> = (0..3).map(|i| of(&layer.windows[i].live_values(&before[i]))).collect();
            let mut targets: Vec<(Roles, Option<Target<'_>>)> = to.iter_mut().enumerate().take(count).map(|(i, to)| {
                let to = MatMut::new(to, live, cols);
                (layer.roles(i), Some(Target { to, accumulate: accumulate[i] }))
            }).collect();
            let (x0, dy) = (Mat::new(&x0, live, cols), Mat::new(&dy, live, cols));
            let sums = VectorGradients { weight: None, bias: None };
            cross_vector_dx(Isa::best(), x0, x0, &w, Mat::new(&numbers, live, 1), dy, sums, &mut targets);
            let inner = |r: usize| x0.row(r).iter().zip(dy.row(r)).map(|(x, d)| x * d).sum();
            let inner: Vec<f32> = (0..live).map(inner).collect();
            (inner, to)
        };
        let (expected, scale) = (run(&<[f32]>::to_vec), run(&|v| absolute(v)));

        let [x0, dy] = [0, 1].map(|i| layer.windows[i].upload(&mut gpu, &all[i]));
        let (w, numbers) = (row(&mut gpu, &w), dots.upload(&mut gpu, &numbers));
        let before_inner = dots.values(seed ^ 11, 1.0);
        let inner = dots.upload(&mut gpu, &before_inner);
        let to = [0, 1, 2].map(|i| layer.windows[i].upload(&mut gpu, &before[i]));
        let target = |i: usize| (layer.roles(i), wanted[i].then_some((to[i], accumulate[i])));
        let targets: Vec<cuda::Target> = (0..count).map(target).collect();
        gpu.launch(&cuda::cross_vector_dx(x0, w, numbers, dy, inner, &targets));
        let found = dots.download(&mut gpu, inner);
        prop_assert_eq!(dots.difference(&before_inner, &found, &expected.0, &scale.0, TOLERANCE), None, "inner");
        for i in 0..3 {
            let (window, found) = (layer.windows[i], layer.windows[i].download(&mut gpu, to[i]));
            let difference = match wanted[i] && i < count {
                true => window.difference(&before[i], &found, &expected.1[i], &scale.1[i], TOLERANCE),
                false => first_difference(&found, &before[i]),
            };
            prop_assert_eq!(difference, None, "gradient {}", i);
        }
    }
}

#[test]
#[should_panic(expected = "not one row")]
fn a_vector_of_another_width_is_refused() {
    let mut gpu = Gpu::new();
    let (x, w) = (gpu.upload_mat(&[0.0; 6], 2, 3, 3), gpu.upload_mat(&[0.0; 2], 1, 2, 2));
    let dots = gpu.upload_mat(&[0.0; 2], 2, 1, 1);
    cuda::cross_vector(x, x, x, w, w, dots, x);
}
