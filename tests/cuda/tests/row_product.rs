//! Products of vectors with matrices of their samples, on the device against those of the CPU.

use manygate_cuda::row_product::{self as cuda, Start};
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::{Gpu, Window};
use manygate_kernels::activation::{Activation, activate};
use manygate_kernels::row_product::{self as cpu, Vectors, row_outer, row_product, row_sums};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute terms.
const TOLERANCE: f32 = 2e-6;

/// Matrices of samples, and their vectors.
#[derive(Clone, Debug)]
struct Layer {
    /// Of the matrices.
    weight: Window,
    inner: usize,
    out: usize,
    groups: usize,
    /// Of lists, where each sample has one.
    offsets: Option<Vec<u32>>,
    transposed: bool,
    accumulate: bool,
    halves: bool,
    seed: u64,
}

impl Layer {
    fn any() -> impl Strategy<Value = Layer> {
        let size = || prop_oneof![0usize..4, Just(8), 5usize..20];
        let sizes =
            prop_oneof![4 => (size(), size()), 1 => (Just(140usize), size()), 1 => (size(), Just(140))];
        let lists = prop::option::of(prop::collection::vec(0u32..4, 40));
        (Window::any(), sizes, 1usize..7, lists, any::<[bool; 3]>(), any::<u64>()).prop_map(
            |(window, (inner, out), groups, lengths, [transposed, accumulate, halves], seed)| {
                let offsets = |lengths: Vec<u32>| {
                    let ends = lengths[..window.rows].iter().scan(0, |end, length| {
                        *end += length;
                        Some(*end)
                    });
                    std::iter::once(0).chain(ends).collect()
                };
                let offsets = lengths.map(offsets);
                let weight = Window { cols: inner * out, ..window };
                Layer { weight, inner, out, groups, offsets, transposed, accumulate, halves, seed }
            },
        )
    }

    /// Of a value with a vector of `width` values for each group.
    fn vectors(&self, width: usize) -> Window {
        let rows = |samples: usize| self.offsets.as_ref().map_or(samples, |ends| ends[samples] as usize);
        let Window { rows: samples, live, before, behind, .. } = self.weight;
        let element = if self.halves { Element::Bf16 } else { Element::F32 };
        let cols = width * self.groups;
        Window { rows: rows(samples), live: rows(live), cols, before: behind, behind: before, element }
    }

    /// Of a value with a row for each sample.
    fn samples(&self, cols: usize) -> Window {
        Window { cols, element: self.vectors(1).element, ..self.weight }
    }

    /// Of the samples that are there, on the CPU.
    fn on_cpu(&self) -> Vectors<'_> {
        Vectors { groups: self.groups, offsets: self.offsets.as_ref().map(|ends| &ends[..=self.weight.live]) }
    }

    /// That a launch from `inputs` to `to` gives what `expected` does of their values and of what was there, to within
    /// what it gives of absolute values.
    fn check(
        &self,
        inputs: &[Window],
        to: Window,
        launch: impl Fn(cuda::Vectors, &[DeviceMat], DeviceMat) -> Launch,
        expected: impl Fn(&[Mat<'_>], MatMut<'_>),
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().enumerate().map(|(i, window)| window.values(self.seed ^ i as u64, 1.0)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let run = |of: fn(f32) -> f32| {
            let live =
                |(window, all): (&Window, &Vec<f32>)| window.live_values(all).into_iter().map(of).collect();
            let values: Vec<Vec<f32>> = inputs.iter().zip(&all).map(live).collect();
            let views: Vec<Mat<'_>> =
                values.iter().zip(inputs).map(|(values, of)| Mat::new(values, of.live, of.cols)).collect();
            let mut found: Vec<f32> = to.live_values(&before).into_iter().map(of).collect();
            expected(&views, MatMut::new(&mut found, to.live, to.cols));
            found
        };
        let (expected, scale) = (run(|v| v), run(f32::abs));

        let offsets = self.offsets.as_ref().map(|ends| gpu.upload(ends));
        let from: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(of, all)| of.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        gpu.launch(&launch(cuda::Vectors { groups: self.groups as u32, offsets }, &from, at));
        let found = to.download(&mut gpu, at);
        prop_assert_eq!(to.difference(&before, &found, &expected, &scale, TOLERANCE), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products_are_those_of_the_cpu(layer in Layer::any(), has_bias: bool, is_activated: bool) {
        let Layer { transposed, accumulate, .. } = layer;
        let act = if is_activated { Activation::LeakyRelu(0.25) } else { Activation::Identity };
        let inputs = [layer.vectors(layer.inner), layer.weight, layer.samples(layer.out)];
        let launch = |of: cuda::Vectors, from: &[DeviceMat], y| {
            let start = match (accumulate, has_bias) {
                (true, _) => Start::Output,
                (false, true) => Start::Bias(from[2]),
                (false, false) => Start::Zero,
            };
            cuda::row_product(from[0], from[1], of, transposed, start, act, y)
        };
        let to = Window { element: Element::F32, ..layer.vectors(layer.out) };
        layer.check(&inputs, to, launch, |from, mut y| {
            let start = match (accumulate, has_bias) {
                (true, _) => cpu::Start::Output,
                (false, true) => cpu::Start::Bias(from[2]),
                (false, false) => cpu::Start::Zero,
            };
            row_product(Isa::best(), from[0], from[1], layer.on_cpu(), transposed, start, y.reborrow());
            activate(Isa::best(), act, y);
        })?;
    }

    #[test]
    fn gradients_of_matrices_are_those_of_the_cpu(layer in Layer::any()) {
        let inputs = [layer.vectors(layer.out), layer.vectors(layer.inner)];
        let launch = |of: cuda::Vectors, from: &[DeviceMat], to| {
            cuda::row_outer(from[0], from[1], of, layer.accumulate, to)
        };
        layer.check(&inputs, layer.weight, launch, |from, to| {
            row_outer(Isa::best(), from[0], from[1], layer.on_cpu(), layer.accumulate, to);
        })?;
    }

    #[test]
    fn gradients_of_biases_are_those_of_the_cpu(layer in Layer::any()) {
        let launch = |of: cuda::Vectors, from: &[DeviceMat], to| {
            cuda::row_sums(from[0], of, layer.accumulate, to)
        };
        layer.check(&[layer.vectors(layer.out)], layer.samples(layer.out), launch, |from, to| {
            row_sums(Isa::best(), from[0], layer.on_cpu(), layer.accumulate, to);
        })?;
    }
}

#[test]
#[should_panic(expected = "weights of [2, 3]")]
fn matrices_of_another_shape_are_refused() {
    let mut gpu = Gpu::new();
    let mut mat = |cols: usize| gpu.upload_mat(&vec![0.0; cols], 1, cols, cols);
    let (x, weight, y) = (mat(3), mat(5), mat(2));
    cuda::row_product(x, weight, cuda::Vectors::ONE, false, Start::Zero, Activation::Identity, y);
}
