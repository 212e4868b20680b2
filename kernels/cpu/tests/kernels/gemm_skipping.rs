use crate::testing::values;
use manygate_kernels::activation::Activation;
use manygate_kernels::gemm::*;
use manygate_kernels::gemm::{pack_transposed, packed_len, reference};
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

proptest! {
    #[test]
    fn what_is_skipped_changes_no_bit(
        rows in 0usize..=SKIPPING_ROWS, inner in prop_oneof![0usize..70, 500usize..530],
        cols in 0usize..140, pad in 0usize..3, biased: bool, zeros in 0usize..=10, seed: u64,
        act in prop::sample::select(vec![Activation::Identity, Activation::Relu, Activation::Tanh]),
    ) {
        let stride = inner + pad;
        let mut x = values(seed, rows * stride, 1.0);
        // Most zeros are in all rows, some in one alone.
        for (i, x) in x.iter_mut().enumerate() {
            let k = (i % stride.max(1)) as u64;
            let draw = |by: u64| (k.wrapping_mul(by) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
            if draw(3) < zeros as u64 || draw(5 + i as u64 / 3) == 0 {
                *x = 0.0;
            }
        }
        let (w, bias) = (values(seed ^ 1, cols * inner, 1.0), values(seed ^ 2, cols, 1.0));
        let bias = if biased { &bias[..] } else { &[] };
        let (x, w) = (Mat::strided(&x, rows, inner, stride), Mat::new(&w, cols, inner));
        let mut expected = vec![0.0; rows * cols];
        reference::linear(x, w, bias, act, MatMut::new(&mut expected, rows, cols));
        for isa in Isa::available() {
            let mut packed = vec![f32::NAN; packed_len(inner, cols)];
            pack_transposed(isa, w, &mut packed);
            let weight = Packed::new(&packed, inner, cols);
            let (mut plain, mut y) = (vec![7.0; rows * cols], values(seed ^ 3, rows * (cols + pad), 1.0));
            let untouched = y.clone();
            linear(isa, x, weight, bias, act, MatMut::new(&mut plain, rows, cols));
            linear_skipping(isa, x, weight, bias, act, MatMut::strided(&mut y, rows, cols, cols + pad));
            for (i, (&got, &before)) in y.iter().zip(&untouched).enumerate() {
                let (row, col) = (i / (cols + pad), i % (cols + pad));
                if col >= cols {
                    prop_assert_eq!(got, before, "padding was written");
                    continue;
                }
                let (plain, exact) = (plain[row * cols + col], expected[row * cols + col]);
                prop_assert_eq!(got, plain, "{} at {}, {}", isa, row, col);
                prop_assert!((got - exact).abs() <= 4e-7 * (inner as f32 + 8.0) * exact.abs().max(1.0));
            }
        }
    }
}

#[test]
fn what_is_not_a_number_counts() {
    for isa in Isa::available() {
        let mut packed = vec![0.0; packed_len(3, 2)];
        pack_transposed(isa, Mat::new(&[1.0; 6], 2, 3), &mut packed);
        let mut y = [0.0; 2];
        let x = [0.0, f32::NAN, 1.0];
        let (weight, y_mat) = (Packed::new(&packed, 3, 2), MatMut::new(&mut y, 1, 2));
        linear_skipping(isa, Mat::new(&x, 1, 3), weight, &[], Activation::Identity, y_mat);
        assert!(y.iter().all(|y| y.is_nan()), "{isa}: {y:?}");
    }
}
