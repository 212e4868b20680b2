use crate::testing::{close, values};
use manygate_kernels::isa::Isa;
use manygate_kernels::row_product::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

/// Offsets of a list for each sample, of lengths that vary, from a start that is not 0.
fn lists(samples: usize, seed: u64) -> Vec<u32> {
    let length = |i: usize| (seed >> (3 * i % 60)) as u32 % 7;
    let mut end = 5;
    std::iter::once(5)
        .chain((0..samples).map(|i| {
            end += length(i);
            end
        }))
        .collect()
}

proptest! {
    #[test]
    fn products_and_their_gradients_agree_with_f64(
        samples in 0usize..5, groups in 1usize..6, inner in 0usize..70, out in prop_oneof![0usize..3, 0usize..70],
        pad in 0usize..3,
        list: bool, transposed: bool, start in 0usize..3, seed: u64,
    ) {
        let offsets = lists(samples, seed);
        let of = Vectors { groups, offsets: list.then_some(&offsets[..]) };
        let rows = of.rows(samples);
        let (x_cols, y_cols) = (groups * inner, groups * out);
        let x = values(seed, rows * (x_cols + pad), 1.0);
        let dy = values(seed ^ 1, rows * (y_cols + pad), 1.0);
        let weight = values(seed ^ 2, samples * (inner * out + pad), 1.0);
        let bias = values(seed ^ 3, samples * out, 1.0);
        let before = values(seed ^ 4, rows * (y_cols + pad), 1.0);
        let d_before = values(seed ^ 5, samples * (inner * out + pad), 1.0);
        let x_at = |row: usize, g: usize, i: usize| f64::from(x[row * (x_cols + pad) + g * inner + i]);
        let dy_at = |row: usize, g: usize, o: usize| f64::from(dy[row * (y_cols + pad) + g * out + o]);
        let place = |o: usize, i: usize| if transposed { i * out + o } else { o * inner + i };
        let (mut expected, mut d_expected, mut sums) = (before.clone(), d_before.clone(), bias.clone());
        for sample in 0..samples {
            let of_sample = |at: usize| sample * (inner * out + pad) + at;
            for (row, g) in of.rows_of(sample).flat_map(|row| (0..groups).map(move |g| (row, g))) {
                for o in 0..out {
                    let at = row * (y_cols + pad) + g * out + o;
                    let begun = [0.0, bias[sample * out + o], before[at]][start];
                    let term = |i: usize| f64::from(weight[of_sample(place(o, i))]) * x_at(row, g, i);
                    expected[at] = (f64::from(begun) + (0..inner).map(term).sum::<f64>()) as f32;
                }
            }
            for o in 0..out {
                let pairs = of.rows_of(sample).flat_map(|row| (0..groups).map(move |g| (row, g)));
                let begun = if start == 2 { f64::from(bias[sample * out + o]) } else { 0.0 };
                sums[sample * out + o] = (begun + pairs.map(|(row, g)| dy_at(row, g, o)).sum::<f64>()) as f32;
            }
            for (o, i) in (0..out).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                let begun = if start == 2 { f64::from(d_before[of_sample(place(o, i))]) } else { 0.0 };
                let pairs = of.rows_of(sample).flat_map(|row| (0..groups).map(move |g| (row, g)));
                let sum: f64 = pairs.map(|(row, g)| dy_at(row, g, o) * x_at(row, g, i)).sum();
                d_expected[of_sample(place(o, i))] = (begun + sum) as f32;
            }
        }
        let x = Mat::strided(&x, rows, x_cols, x_cols + pad);
        let dy = Mat::strided(&dy, rows, y_cols, y_cols + pad);
        let weight = Mat::strided(&weight, samples, inner * out, inner * out + pad);
        let begin = [Start::Zero, Start::Bias(Mat::new(&bias, samples, out)), Start::Output][start];
        for isa in Isa::available() {
            let mut y = before.clone();
            row_product(isa, x, weight, of, transposed, begin,
                MatMut::strided(&mut y, rows, y_cols, y_cols + pad));
            let mut dw = d_before.clone();
            let (a, b) = if transposed { (x, dy) } else { (dy, x) };
            row_outer(isa, a, b, of, start == 2,
                MatMut::strided(&mut dw, samples, inner * out, inner * out + pad));
            let mut db = bias.clone();
            row_sums(isa, dy, of, start == 2, MatMut::new(&mut db, samples, out));
            let gradients = dw.iter().zip(&d_expected).chain(db.iter().zip(&sums));
            for (got, expected) in y.iter().zip(&expected).chain(gradients) {
                prop_assert!(close(*got, f64::from(*expected), 3e-5), "{isa}: {got}, not {expected}");
            }
        }
    }
}
