//! Every product on every instruction set of this machine: against the reference, against another library, and the
//! promise about bits.

use crate::testing::values;
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::*;
use manygate_kernels::{Isa, Mat, MatMut};
use proptest::prelude::*;

/// Sizes around the widths of vectors, panels and tiles.
fn size() -> impl Strategy<Value = usize> {
    // Miri interprets every product: there, sizes end after one panel.
    let blocks = if cfg!(miri) { vec![17, 32] } else { vec![31, 32, 33, 47, 48, 49, 63, 64, 65, 80, 95, 97] };
    let large = if cfg!(miri) { 31..34usize } else { 100..140 };
    prop_oneof![
        4 => 0usize..20,
        2 => prop::sample::select(blocks),
        1 => large,
    ]
}

fn activation() -> impl Strategy<Value = Activation> {
    prop::sample::select(vec![
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.2),
        Activation::Tanh,
        Activation::Sigmoid,
    ])
}

/// A matrix in a wider buffer, so that a stray write shows.
#[derive(Clone)]
struct Wide {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Wide {
    fn new(seed: u64, rows: usize, cols: usize, pad: usize) -> Self {
        let stride = cols + pad;
        Self { data: values(seed, rows * stride, 1.0), rows, cols, stride }
    }

    fn mat(&self) -> Mat<'_> {
        Mat::strided(&self.data, self.rows, self.cols, self.stride)
    }

    fn mat_mut(&mut self) -> MatMut<'_> {
        MatMut::strided(&mut self.data, self.rows, self.cols, self.stride)
    }
}

/// Compares what a kernel and the reference left in equal buffers; `terms` were summed.
fn agree(got: &Wide, expected: &Wide, terms: usize, what: &str) -> Result<(), TestCaseError> {
    let tolerance = 4e-7 * (terms as f32 + 8.0);
    for (i, (&g, &e)) in got.data.iter().zip(&expected.data).enumerate() {
        let (row, col) = (i / got.stride, i % got.stride);
        if col >= got.cols {
            prop_assert_eq!(g, e, "{}: padding at {}, {}", what, row, col);
        }
        prop_assert!((g - e).abs() <= tolerance * e.abs().max(1.0), "{what}: {g} for {e} at {row}, {col}");
    }
    Ok(())
}

fn packed_transposed(isa: Isa, groups: usize, weight: Mat<'_>) -> Vec<f32> {
    // NaN, so that padding left unwritten would show.
    let mut packed = vec![f32::NAN; grouped_packed_len(groups, weight.cols(), weight.rows() / groups)];
    grouped_pack_transposed(isa, groups, weight, &mut packed);
    packed
}

fn packed_as_is(isa: Isa, groups: usize, weight: Mat<'_>) -> Vec<f32> {
    let mut packed = vec![f32::NAN; grouped_packed_len(groups, weight.rows() / groups, weight.cols())];
    grouped_pack(isa, groups, weight, &mut packed);
    packed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]

    #[test]
    fn linear_agrees(rows in size(), inputs in size(), outputs in size(), pad in 0usize..3, with_bias: bool,
        act in activation(), seed: u64)
    {
        let (x, weight) = (Wide::new(seed, rows, inputs, pad), Wide::new(seed ^ 1, outputs, inputs, pad));
        let bias = if with_bias { values(seed ^ 2, outputs, 1.0) } else { Vec::new() };
        let before = Wide::new(seed ^ 3, rows, outputs, pad);
        let mut expected = before.clone();
        reference::linear(x.mat(), weight.mat(), &bias, act, expected.mat_mut());
        for isa in Isa::available() {
            let packed = packed_transposed(isa, 1, weight.mat());
            let mut y = before.clone();
            linear(isa, x.mat(), Packed::new(&packed, inputs, outputs), &bias, act, y.mat_mut());
            agree(&y, &expected, inputs, &format!("{isa}"))?;
        }
    }

    #[test]
    fn linear_dx_agrees(rows in size(), inputs in size(), outputs in size(), pad in 0usize..3, accumulate: bool,
        act in prop::option::of(activation()), seed: u64)
    {
        let (dy, weight) = (Wide::new(seed, rows, outputs, pad), Wide::new(seed ^ 1, outputs, inputs, pad));
        let (y, before) = (Wide::new(seed ^ 2, rows, inputs, pad), Wide::new(seed ^ 3, rows, inputs, pad));
        let mask = act.map(|act| (act, y.mat()));
        let mut expected = before.clone();
        reference::linear_dx(dy.mat(), weight.mat(), accumulate, mask, expected.mat_mut());
        for isa in Isa::available() {
            let packed = packed_as_is(isa, 1, weight.mat());
            let mut dx = before.clone();
            linear_dx(isa, dy.mat(), Packed::new(&packed, outputs, inputs), accumulate, mask, dx.mat_mut());
            agree(&dx, &expected, outputs, &format!("{isa}"))?;
        }
    }

    #[test]
    fn linear_dw_and_column_sums_agree(rows in size(), inputs in size(), outputs in size(), pad in 0usize..3,
        accumulate: bool, seed: u64)
    {
        let (dy, x) = (Wide::new(seed, rows, outputs, pad), Wide::new(seed ^ 1, rows, inputs, pad));
        let before = Wide::new(seed ^ 2, outputs, inputs, pad);
        let sums_before = Wide::new(seed ^ 3, 1, outputs, 0);
        let (mut expected, mut expected_sums) = (before.clone(), sums_before.clone());
        reference::linear_dw(dy.mat(), x.mat(), accumulate, expected.mat_mut());
        reference::column_sums(dy.mat(), accumulate, &mut expected_sums.data);
        for isa in Isa::available() {
            let mut dw = before.clone();
            let mut scratch = vec![f32::NAN; linear_dw_scratch(rows, inputs)];
            linear_dw(isa, dy.mat(), x.mat(), accumulate, dw.mat_mut(), &mut scratch);
            agree(&dw, &expected, rows, &format!("{isa}"))?;
            let mut sums = sums_before.clone();
            column_sums(isa, dy.mat(), accumulate, &mut sums.data);
            agree(&sums, &expected_sums, rows, &format!("{isa} sums"))?;
        }
    }

    #[test]
    fn groups_are_layers_side_by_side(groups in 1usize..5, rows in size(), inputs in 0usize..20,
        outputs in 0usize..20, with_bias: bool, accumulate: bool, seed: u64)
    {
        let (x, dy) = (Wide::new(seed, rows, groups * inputs, 1), Wide::new(seed ^ 1, rows, groups * outputs, 2));
        let weight = Wide::new(seed ^ 2, groups * outputs, inputs, 1);
        let bias = if with_bias { values(seed ^ 3, groups * outputs, 1.0) } else { Vec::new() };
        let act = Activation::Tanh;
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
        for g in 0..groups {
            let group_x = x.mat().columns(g * inputs, inputs);
            let group_dy = dy.mat().columns(g * outputs, outputs);
            let group_weight = weight.mat().row_range(g * outputs, outputs);
            let group_bias = if with_bias { &bias[g * outputs..][..outputs] } else { &[] };
            reference::linear(group_x, group_weight, group_bias, act, y.mat_mut().columns(g * outputs, outputs));
            let group_dx = &mut dx.mat_mut();
            let group_dx = group_dx.columns(g * inputs, inputs);
            reference::linear_dx(group_dy, group_weight, accumulate, Some((act, group_x)), group_dx);
            reference::linear_dw(group_dy, group_x, accumulate, dw.mat_mut().row_range(g * outputs, outputs));
        }
        for isa in Isa::available() {
            let transposed = packed_transposed(isa, groups, weight.mat());
            let transposed = GroupedPacked::new(&transposed, groups, inputs, outputs);
            let as_is = packed_as_is(isa, groups, weight.mat());
            let as_is = GroupedPacked::new(&as_is, groups, outputs, inputs);
            let (mut got_y, mut got_dx, mut got_dw) = (dy.clone(), x.clone(), weight.clone());
            grouped_linear(isa, x.mat(), transposed, &bias, act, got_y.mat_mut());
            agree(&got_y, &y, inputs, &format!("{isa} y"))?;
            let mask = Some((act, x.mat()));
            grouped_linear_dx(isa, dy.mat(), as_is, accumulate, mask, got_dx.mat_mut());
            agree(&got_dx, &dx, outputs, &format!("{isa} dx"))?;
            let mut scratch = vec![f32::NAN; linear_dw_scratch(rows, inputs)];
            grouped_linear_dw(isa, groups, dy.mat(), x.mat(), accumulate, got_dw.mat_mut(), &mut scratch);
            agree(&got_dw, &dw, rows, &format!("{isa} dw"))?;
        }
    }

    #[test]
    fn a_row_alone_and_every_fused_instruction_set_have_the_same_bits(rows in 1usize..40, inputs in size(), outputs in size(),
        pick: prop::sample::Index, seed: u64)
    {
        let (x, weight) = (Wide::new(seed, rows, inputs, 0), Wide::new(seed ^ 1, outputs, inputs, 0));
        let bias = values(seed ^ 2, outputs, 1.0);
        let row = pick.index(rows);
        let mut scalar = None;
        for isa in Isa::available() {
            let packed = packed_transposed(isa, 1, weight.mat());
            let packed = Packed::new(&packed, inputs, outputs);
            let (mut all, mut one) = (Wide::new(0, rows, outputs, 0), Wide::new(0, 1, outputs, 0));
            linear(isa, x.mat(), packed, &bias, Activation::Relu, all.mat_mut());
            linear(isa, x.mat().row_range(row, 1), packed, &bias, Activation::Relu, one.mat_mut());
            prop_assert_eq!(all.mat().row(row), one.mat().row(0), "{}", isa);
            if isa.is_fused() {
                prop_assert_eq!(&all.data, scalar.get_or_insert_with(|| all.data.clone()), "{}", isa);
            }
        }
    }
}

/// Products by another library, `[m, k]` times `[k, n]`; the steps lead to the next row and the next column.
fn sgemm(
    a: &Wide,
    (rsa, csa): (usize, usize),
    b: &Wide,
    (rsb, csb): (usize, usize),
    [m, k, n]: [usize; 3],
) -> Wide {
    let mut c = Wide { data: vec![0.0; m * n], rows: m, cols: n, stride: n };
    let [rsa, csa, rsb, csb, rsc] = [rsa, csa, rsb, csb, n].map(|step| step as isize);
    let (a, b, to) = (a.data.as_ptr(), b.data.as_ptr(), c.data.as_mut_ptr());
    // SAFETY: the steps address `[m, k]` in `a` and `[k, n]` in `b`, and `c` is a dense `[m, n]`.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, rsa, csa, b, rsb, csb, 0.0, to, rsc, 1) };
    c
}

/// The three products of a layer on every instruction set, against another library.
fn layer_agrees_with_another_library(
    [rows, inputs, outputs]: [usize; 3],
    pad: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    let (x, weight) = (Wide::new(seed, rows, inputs, pad), Wide::new(seed ^ 1, outputs, inputs, 0));
    let dy = Wide::new(seed ^ 2, rows, outputs, pad + 2);
    let y = sgemm(&x, (x.stride, 1), &weight, (1, weight.stride), [rows, inputs, outputs]);
    let dx = sgemm(&dy, (dy.stride, 1), &weight, (weight.stride, 1), [rows, outputs, inputs]);
    let dw = sgemm(&dy, (1, dy.stride), &x, (x.stride, 1), [outputs, rows, inputs]);
    for isa in Isa::available() {
        let (mut got_y, mut got_dx, mut got_dw) = (y.clone(), dx.clone(), dw.clone());
        let packed = packed_transposed(isa, 1, weight.mat());
        let packed = Packed::new(&packed, inputs, outputs);
        linear(isa, x.mat(), packed, &[], Activation::Identity, got_y.mat_mut());
        agree(&got_y, &y, inputs, &format!("{isa} y"))?;
        let packed = packed_as_is(isa, 1, weight.mat());
        linear_dx(isa, dy.mat(), Packed::new(&packed, outputs, inputs), false, None, got_dx.mat_mut());
        agree(&got_dx, &dx, outputs, &format!("{isa} dx"))?;
        let mut scratch = vec![f32::NAN; linear_dw_scratch(rows, inputs)];
        linear_dw(isa, dy.mat(), x.mat(), false, got_dw.mat_mut(), &mut scratch);
        agree(&got_dw, &dw, rows, &format!("{isa} dw"))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn products_agree_with_another_library(rows in size(), inputs in size(), outputs in size(), pad in 0usize..3, seed: u64)
    {
        layer_agrees_with_another_library([rows, inputs, outputs], pad, seed)?;
    }
}

/// Sizes past every block: the inner index, the rows, the rows and outputs of a weight gradient.
#[test]
#[cfg_attr(miri, ignore = "large products")]
fn large_products_agree_with_another_library() {
    layer_agrees_with_another_library([563, 1100, 230], 3, 1).unwrap();
}

/// Every number of rows that has a tile of its own, past the widest tile and past a block of the inner index.
#[test]
fn few_rows_agree_with_another_library() {
    for rows in 1..=8 {
        layer_agrees_with_another_library([rows, 530, 150], 1, 7).unwrap();
    }
}

#[test]
fn packed_layouts_are_the_same_for_every_instruction_set() {
    let weight = Wide::new(5, 37, 41, 2);
    let (first, second) =
        (packed_transposed(Isa::Scalar, 1, weight.mat()), packed_as_is(Isa::Scalar, 1, weight.mat()));
    for isa in Isa::available() {
        assert_eq!(packed_transposed(isa, 1, weight.mat()), first, "{isa}");
        assert_eq!(packed_as_is(isa, 1, weight.mat()), second, "{isa}");
    }
}

#[test]
#[should_panic(expected = "a packed [3, 5]")]
fn packed_data_of_another_size_is_refused() {
    Packed::new(&[0.0; 15], 3, 5);
}
