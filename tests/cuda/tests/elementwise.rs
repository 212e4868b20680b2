//! Element-wise arithmetic on the device: the bits of plain loops, as the ops on the CPU are.

use manygate_cuda::elementwise;
use manygate_cuda::{DeviceMat, Element, Launch};
use manygate_cuda_tests::{Gpu, Window, first_difference};
use proptest::prelude::*;

/// Checks that a kernel of some inputs gives what `expected` does of each of their elements and of what was there.
fn check(
    output: Window,
    inputs: usize,
    seed: u64,
    launch: impl Fn(&[DeviceMat], DeviceMat) -> Vec<Launch>,
    expected: impl Fn(&[f32], f32) -> f32,
) -> Result<(), TestCaseError> {
    let mut gpu = Gpu::with_order(seed);
    let window = |i: usize| Window {
        before: output.before * i % 8,
        element: if i.is_multiple_of(2) { output.element } else { Element::F32 },
        ..output
    };
    let all: Vec<Vec<f32>> = (0..inputs).map(|i| window(i).values(seed ^ i as u64, 2.0)).collect();
    let mats: Vec<DeviceMat> = (0..inputs).map(|i| window(i).upload(&mut gpu, &all[i])).collect();
    let live: Vec<Vec<f32>> = (0..inputs).map(|i| window(i).live_values(&all[i])).collect();
    let before = output.values(seed ^ 99, 1.0);
    let y = output.upload(&mut gpu, &before);
    for launch in launch(&mats, y) {
        gpu.launch(&launch);
    }
    let of_element = |(i, was): (usize, f32)| {
        let operands: Vec<f32> = live.iter().map(|values| values[i]).collect();
        expected(&operands, was)
    };
    let results: Vec<f32> = output.live_values(&before).into_iter().enumerate().map(of_element).collect();
    let found = output.download(&mut gpu, y);
    prop_assert_eq!(first_difference(&found, &output.replaced(&before, &results)), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn copies(window in Window::any(), accumulate: bool, seed: u64) {
        let launch = |x: &[DeviceMat], y| vec![elementwise::copy_columns(x[0], accumulate, y)];
        check(window, 1, seed, launch, |x, was| if accumulate { was + x[0] } else { x[0] })?;
    }

    #[test]
    fn sums_of_any_number_of_values(window in Window::any(), inputs in 1usize..9, seed: u64) {
        // What is written between two launches would be rounded.
        let window = Window { element: Element::F32, ..window };
        check(window, inputs, seed, elementwise::add, |x, _| x.iter().copied().reduce(|a, b| a + b).unwrap_or(0.0))?;
    }

    #[test]
    fn scaled_sums(window in Window::any(), factor in -2.0f32..2.0, accumulate: bool, seed: u64) {
        let launch = |x: &[DeviceMat], y| vec![elementwise::add_scaled(x[0], factor, x[1], y)];
        check(window, 2, seed, launch, |x, _| x[0] + factor * x[1])?;
        let launch = |x: &[DeviceMat], y| vec![elementwise::scale(factor, x[0], accumulate, y)];
        check(window, 1, seed, launch, |x, was| if accumulate { was + factor * x[0] } else { factor * x[0] })?;
    }

    #[test]
    fn products(window in Window::any(), accumulate: bool, seed: u64) {
        let launch = |x: &[DeviceMat], y| vec![elementwise::multiply(x[0], x[1], accumulate, y)];
        check(window, 2, seed, launch, |x, was| if accumulate { was + x[0] * x[1] } else { x[0] * x[1] })?;
    }

    #[test]
    fn one_vector_or_number_for_all_rows_or_a_one_in_each(window in Window::any(), seed: u64) {
        let mut gpu = Gpu::with_order(seed);
        let vector = Window { rows: 1, live: 1, before: window.behind, ..window };
        let (w, before) = (vector.values(seed, 1.0), window.values(seed ^ 1, 1.0));
        let (from, to) = (vector.upload(&mut gpu, &w), window.upload(&mut gpu, &before));
        gpu.launch(&elementwise::broadcast(from, to));
        let rows = vector.live_values(&w).repeat(window.live);
        let found = window.download(&mut gpu, to);
        prop_assert_eq!(first_difference(&found, &window.replaced(&before, &rows)), None);

        let ids: Vec<u32> = (0..window.rows as u32).map(|row| row * 7 % (window.cols as u32 + 1)).collect();
        let ids_there = gpu.upload(&ids);
        gpu.launch(&elementwise::one_hot(ids_there, to));
        let found = window.download(&mut gpu, to);
        let ones = |row: usize| (0..window.cols).map(move |col| (row, col));
        let ones = (0..window.live).flat_map(ones).map(|(row, col)| f32::from(u8::from(ids[row] as usize == col)));
        prop_assert_eq!(first_difference(&found, &window.replaced(&before, &ones.collect::<Vec<_>>())), None);

        gpu.launch(&elementwise::fill(0.5, to));
        let found = window.download(&mut gpu, to);
        let halves = vec![0.5; window.live * window.cols];
        prop_assert_eq!(first_difference(&found, &window.replaced(&before, &halves)), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn matrices_the_other_way_round(
        rows in 0usize..70, cols in 0usize..70, count in 0usize..3, pad in 0usize..3, accumulate: bool, seed: u64,
    ) {
        let mut gpu = Gpu::with_order(seed);
        let (from, to) = (Window::whole(count, rows * cols + pad), Window::whole(count, rows * cols));
        let (all, before) = (from.values(seed, 1.0), to.values(seed ^ 1, 1.0));
        let matrices = |window: Window, mat: DeviceMat, rows: usize, cols: usize| {
            let first = DeviceMat::new(mat.address, rows as u32, cols as u32);
            elementwise::Matrices { first, count: count as u32, next: window.cols as u32 }
        };
        let (x, y) = (from.upload(&mut gpu, &all), to.upload(&mut gpu, &before));
        let (x, of_y) = (matrices(from, x, rows, cols), matrices(to, y, cols, rows));
        gpu.launch(&elementwise::transpose(x, accumulate, of_y));
        let mut expected = before.clone();
        for (m, r, c) in places(count, rows, cols) {
            let (value, to) = (all[m * from.cols + r * cols + c], &mut expected[m * to.cols + c * rows + r]);
            *to = if accumulate { *to + value } else { value };
        }
        prop_assert_eq!(first_difference(&gpu.download_mat(y), &expected), None);
    }
}

/// Every place of `count` matrices: matrix, row, column.
fn places(count: usize, rows: usize, cols: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..count).flat_map(move |m| (0..rows).flat_map(move |r| (0..cols).map(move |c| (m, r, c))))
}

#[test]
fn an_operand_may_be_the_output() {
    let mut gpu = Gpu::new();
    let mut mat = |values: &[f32]| gpu.upload_mat(values, 1, 9, 9);
    let (a, b) = (mat(&[1.0; 9]), mat(&[2.0; 9]));
    gpu.launch(&elementwise::multiply(a, b, true, a));
    gpu.launch(&elementwise::add_scaled(b, 0.5, a, a));
    for launch in elementwise::add(&[a, b, b, b, b, b], a) {
        gpu.launch(&launch);
    }
    assert_eq!(gpu.download_mat(a), [13.5; 9]);
}

#[test]
#[should_panic(expected = "broadcast: the vector has another shape")]
fn a_vector_of_another_width_is_refused() {
    elementwise::broadcast(DeviceMat::new(0, 1, 3), DeviceMat::new(0, 2, 4));
}
