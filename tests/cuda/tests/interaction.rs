//! Interactions of fields on the device against f64, and against the CPU's kernels where there are such.

use manygate_cuda::interaction as cuda;
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::{Gpu, Window};
use manygate_kernels::pair_products::{pair_products, pair_products_de};
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Most difference of a sum, relative to that of the absolute terms.
const TOLERANCE: f32 = 2e-6;

/// Fields of a row, and what is made of them.
#[derive(Clone, Debug)]
struct Fields {
    count: usize,
    width: usize,
    e: Window,
    /// Elements of what is made and of its gradient.
    element: Element,
    accumulate: bool,
    seed: u64,
}

impl Fields {
    fn any() -> impl Strategy<Value = Fields> {
        let width = prop_oneof![0usize..10, Just(16), 30usize..36];
        (Window::any(), 2usize..9, width, any::<[bool; 2]>(), any::<u64>()).prop_map(
            |(window, count, width, [halves, accumulate], seed)| Fields {
                count,
                width,
                e: Window { cols: count * width, ..window },
                element: if halves { Element::Bf16 } else { Element::F32 },
                accumulate,
                seed,
            },
        )
    }

    fn made(&self, cols: usize) -> Window {
        Window { cols, before: self.e.behind, element: self.element, ..self.e }
    }

    fn pairs(&self) -> usize {
        self.count * (self.count - 1) / 2
    }

    /// That a launch from `inputs` to `to` gives what `expected` does of their values and of what was there, to within
    /// what it gives of absolute values.
    fn check(
        &self,
        inputs: &[Window],
        to: Window,
        launch: impl Fn(&[DeviceMat], DeviceMat) -> Launch,
        expected: impl Fn(&[Vec<f32>], Vec<f32>) -> Vec<f32>,
    ) -> Result<(), TestCaseError> {
        let mut gpu = Gpu::with_order(self.seed);
        let all: Vec<Vec<f32>> =
            inputs.iter().enumerate().map(|(i, window)| window.values(self.seed ^ i as u64, 1.0)).collect();
        let live: Vec<Vec<f32>> =
            inputs.iter().zip(&all).map(|(window, all)| window.live_values(all)).collect();
        let before = to.values(self.seed ^ 9, 1.0);
        let was = to.live_values(&before);
        let start = if self.accumulate { was } else { vec![0.0; was.len()] };
        let absolute = |v: &Vec<f32>| v.iter().map(|v| v.abs()).collect::<Vec<_>>();
        let scale = expected(&live.iter().map(absolute).collect::<Vec<_>>(), absolute(&start));
        let expected = expected(&live, start);
        let from: Vec<DeviceMat> =
            inputs.iter().zip(&all).map(|(window, all)| window.upload(&mut gpu, all)).collect();
        let at = to.upload(&mut gpu, &before);
        gpu.launch(&launch(&from, at));
        let found = to.download(&mut gpu, at);
        prop_assert_eq!(to.difference(&before, &found, &expected, &scale, TOLERANCE), None);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bi_interactions(fields in Fields::any()) {
        let Fields { count, width, .. } = fields;
        let fields = Fields { accumulate: false, ..fields };
        let launch = |x: &[DeviceMat], y| cuda::bi_interaction(count as u32, x[0], y);
        fields.check(&[fields.e], fields.made(width), launch, |x, mut y| {
            for (row, y) in x[0].chunks_exact((count * width).max(1)).zip(y.chunks_exact_mut(width.max(1))) {
                for (f, g) in (0..count).flat_map(|f| (f + 1..count).map(move |g| (f, g))) {
                    (0..width).for_each(|i| y[i] += row[f * width + i] * row[g * width + i]);
                }
            }
            y
        })?;
    }

    #[test]
    fn gradients_of_bi_interactions(fields in Fields::any()) {
        let Fields { count, width, accumulate, .. } = fields;
        let launch = |x: &[DeviceMat], to| cuda::bi_interaction_de(count as u32, x[0], x[1], accumulate, to);
        let to = Window { element: fields.element, ..fields.e };
        fields.check(&[fields.e, fields.made(width)], to, launch, |x, mut to| {
            let rows = x[0].chunks_exact((count * width).max(1)).zip(x[1].chunks_exact(width.max(1)));
            for ((e, dy), to) in rows.zip(to.chunks_exact_mut((count * width).max(1))) {
                for (f, g) in (0..count).flat_map(|f| (0..count).map(move |g| (f, g))).filter(|(f, g)| f != g) {
                    (0..width).for_each(|i| to[f * width + i] += dy[i] * e[g * width + i]);
                }
            }
            to
        })?;
    }

    #[test]
    fn sums_of_columns(fields in Fields::any(), is_wide: bool) {
        let x = Window { cols: if is_wide { 200 } else { fields.e.cols }, ..fields.e };
        let launch = |from: &[DeviceMat], y| cuda::sum_columns(from[0], fields.accumulate, y);
        let y = Window { cols: 1, element: Element::F32, ..fields.made(1) };
        fields.check(&[x], y, launch, |from, mut y| {
            let rows = from[0].chunks_exact(x.cols.max(1)).zip(&mut y);
            rows.for_each(|(row, y)| *y += row.iter().sum::<f32>());
            y
        })?;
    }

    #[test]
    fn gradients_of_sums_of_columns(fields in Fields::any()) {
        let dy = Window { element: Element::F32, ..fields.made(1) };
        let launch = |from: &[DeviceMat], dx| cuda::sum_columns_dx(from[0], fields.accumulate, dx);
        fields.check(&[dy], fields.e, launch, |from, mut dx| {
            let rows = dx.chunks_exact_mut(fields.e.cols.max(1)).zip(&from[0]);
            rows.for_each(|(row, d)| row.iter_mut().for_each(|to| *to += d));
            dx
        })?;
    }

    #[test]
    fn products_of_pairs(fields in Fields::any()) {
        let (count, pairs) = (fields.count, fields.pairs());
        let fields = Fields { accumulate: false, ..fields };
        let launch = |x: &[DeviceMat], y| cuda::pair_products(x[0], count as u32, y);
        fields.check(&[fields.e], fields.made(pairs), launch, |x, mut y| {
            let rows = fields.e.live;
            let e = Mat::new(&x[0], rows, fields.e.cols);
            pair_products(Isa::best(), e, count, MatMut::new(&mut y, rows, pairs));
            y
        })?;
    }

    #[test]
    fn gradients_of_products_of_pairs(fields in Fields::any()) {
        let (count, pairs, accumulate) = (fields.count, fields.pairs(), fields.accumulate);
        let launch = |x: &[DeviceMat], to| cuda::pair_products_de(x[0], count as u32, x[1], accumulate, to);
        let to = Window { element: fields.element, ..fields.e };
        fields.check(&[fields.e, fields.made(pairs)], to, launch, |x, mut to| {
            let (rows, cols) = (fields.e.live, fields.e.cols);
            let (e, dy) = (Mat::new(&x[0], rows, cols), Mat::new(&x[1], rows, pairs));
            pair_products_de(Isa::best(), e, count, dy, true, MatMut::new(&mut to, rows, cols));
            to
        })?;
    }
}

#[test]
fn wide_rows_take_fewer_at_once_and_too_wide_ones_are_refused() {
    let mut gpu = Gpu::new();
    let (fields, width) = (40, 100);
    let e = Window::whole(3, fields * width);
    let y = Window::whole(3, fields * (fields - 1) / 2);
    let from = e.upload(&mut gpu, &vec![0.5; e.len()]);
    let to = y.upload(&mut gpu, &vec![0.0; y.len()]);
    let launch = cuda::pair_products(from, fields as u32, to);
    assert_eq!((launch.grid[0], launch.threads), (1, 96));
    gpu.launch(&launch);
    assert!(gpu.download_mat(to).iter().all(|&v| v == 25.0));
    let refused = std::panic::catch_unwind(|| {
        cuda::pair_products(DeviceMat::new(0, 1, 40_000), 2, DeviceMat::new(0, 1, 1))
    });
    assert!(refused.is_err());
}
