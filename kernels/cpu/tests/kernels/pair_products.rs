use crate::testing::{close, values};
use manygate_kernels::isa::Isa;
use manygate_kernels::pair_products::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

proptest! {
    #[test]
    fn products_and_gradients_agree_with_f64(
        rows in 0usize..4, fields in 1usize..45, n in 0usize..40, pad in 0usize..3, accumulate: bool, seed: u64,
    ) {
        let pairs = fields * (fields - 1) / 2;
        let (stride, e) = (fields * n + pad, values(seed, rows * (fields * n + pad), 1.0));
        let (dy, before) = (values(seed ^ 1, rows * pairs, 1.0), values(seed ^ 2, rows * stride, 1.0));
        let at = |r: usize, f: usize, i: usize| f64::from(e[r * stride + f * n + i]);
        let (mut y, mut de) = (Vec::new(), before.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        for r in 0..rows {
            if !accumulate {
                de[r * stride..][..fields * n].fill(0.0);
            }
            for (f, g) in (0..fields).flat_map(|f| (f + 1..fields).map(move |g| (f, g))) {
                let slope = f64::from(dy[y.len()]);
                y.push((0..n).map(|i| at(r, f, i) * at(r, g, i)).sum::<f64>());
                for i in 0..n {
                    de[r * stride + f * n + i] += slope * at(r, g, i);
                    de[r * stride + g * n + i] += slope * at(r, f, i);
                }
            }
        }
        let (e, dy) = (Mat::strided(&e, rows, fields * n, stride), Mat::new(&dy, rows, pairs));
        for isa in Isa::available() {
            let mut got = vec![f32::NAN; rows * pairs];
            pair_products(isa, e, fields, MatMut::new(&mut got, rows, pairs));
            let mut slopes = before.clone();
            pair_products_de(isa, e, fields, dy, accumulate, MatMut::strided(&mut slopes, rows, fields * n, stride));
            for (got, expected) in got.iter().zip(&y).chain(slopes.iter().zip(&de)) {
                prop_assert!(close(*got, *expected, 3e-5), "{isa}: {got}, not {expected}");
            }
        }
    }
}
