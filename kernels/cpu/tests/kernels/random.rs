use crate::testing::values;
use manygate_kernels::isa::Isa;
use manygate_kernels::random::*;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

/// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10 rounds).
#[test]
fn philox_known_answers() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    assert_eq!(
        philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

proptest! {
    #[test]
    fn every_instruction_set_draws_what_the_definition_says(
        rows in 0usize..5, cols in 0usize..200, pad in 0usize..3, accumulate: bool, named: bool,
        first_row in prop_oneof![0u64..100, u64::from(u32::MAX) - 2..u64::from(u32::MAX) + 3],
        rate in 0.0f64..1.0, key: [u32; 2], seed: u64,
    ) {
        let x = values(seed, rows * cols, 3.0);
        let before = values(seed ^ 1, rows * (cols + pad), 1.0);
        let names: Vec<u32> = (0..rows as u32).map(|r| r.wrapping_mul(2_654_435_761) ^ key[0]).collect();
        let names = if named { &names[..] } else { &[] };
        let dropping = Dropping::new(rate);
        for isa in Isa::available() {
            let mut y = before.clone();
            dropout(isa, key, first_row, names, dropping, accumulate, Mat::new(&x, rows, cols),
                MatMut::strided(&mut y, rows, cols, cols + pad));
            for (i, &y) in y.iter().enumerate() {
                let (r, c) = (i / (cols + pad), i % (cols + pad));
                if c >= cols {
                    prop_assert_eq!(y, before[i], "padding was written");
                    continue;
                }
                let row = if named { u64::from(names[r]) } else { first_row + r as u64 };
                let number = philox([row as u32, (row >> 32) as u32, c as u32 / 4, 0], key)[c % 4];
                let value = if number < dropping.threshold { 0.0 } else { x[r * cols + c] * dropping.factor };
                let expected = if accumulate { before[i] + value } else { value };
                prop_assert_eq!(y, expected, "{} row {} column {}", isa, r, c);
            }
        }
    }
}

#[test]
fn the_share_of_dropped_values_is_the_rate_and_the_mean_stays() {
    let (rows, cols) = (200, 500);
    let x = vec![1.0; rows * cols];
    for rate in [0.0, 0.1, 0.5, 0.9] {
        let mut y = vec![f32::NAN; x.len()];
        let (x, to) = (Mat::new(&x, rows, cols), MatMut::new(&mut y, rows, cols));
        dropout(Isa::best(), [1, 2], 0, &[], Dropping::new(rate), false, x, to);
        let count = y.len() as f64;
        let dropped = y.iter().filter(|&&v| v == 0.0).count() as f64 / count;
        let mean = y.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        // Four standard deviations.
        let deviation = (rate * (1.0 - rate) / count).sqrt();
        assert!((dropped - rate).abs() <= 4.0 * deviation, "{rate}: {dropped}");
        assert!((mean - 1.0).abs() <= 4.0 * deviation / (1.0 - rate) + 1e-6, "{rate}: {mean}");
    }
}

#[test]
fn rates_at_the_ends_leave_all_values_or_one_number() {
    assert_eq!(Dropping::new(0.0), Dropping { threshold: 0, factor: 1.0 });
    let last = Dropping::new(1.0 - f64::EPSILON);
    assert_eq!((last.threshold, last.factor), (u32::MAX, 4_294_967_296.0));
    assert_eq!((last.factor_of(u32::MAX - 1), last.factor_of(u32::MAX)), (0.0, last.factor));
}

#[test]
fn what_is_not_finite_is_not_hidden() {
    let x = [f32::NAN, f32::INFINITY].repeat(40);
    let mut y = [0.0; 80];
    let (x, to) = (Mat::new(&x, 1, 80), MatMut::new(&mut y, 1, 80));
    dropout(Isa::best(), [3, 4], 0, &[], Dropping::new(0.5), false, x, to);
    assert!(y.iter().all(|v| !v.is_finite()));
}
