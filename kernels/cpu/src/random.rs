//! Counter-based random numbers, Philox 4x32-10, and dropout.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011. A number
//! is a function of a key and a counter alone, so every instruction set draws the same bits, whatever it draws at once.

use crate::dispatch;
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The four numbers at `counter`, of the family `key`.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let a = u64::from(counter[0]) * MULTIPLIERS[0];
        let b = u64::from(counter[2]) * MULTIPLIERS[1];
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = next_key(key);
    }
    counter
}

#[inline(always)]
fn next_key(key: [u32; 2]) -> [u32; 2] {
    [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])]
}

/// Which values dropout leaves, and what it multiplies them by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropping {
    /// Values whose number is below it are dropped.
    pub threshold: u32,
    /// Factor of the others.
    pub factor: f32,
}

impl Dropping {
    /// Each value with the probability `rate`, 0 ≤ `rate` < 1, to the nearest 2^-32; the others times the inverse of the
    /// probability to be left, so that the expectation of a value is itself.
    pub fn new(rate: f64) -> Dropping {
        const NUMBERS: f64 = 4_294_967_296.0;
        // The conversion saturates: a rate next to 1 leaves one number.
        let threshold = (rate * NUMBERS).round() as u32;
        Dropping { threshold, factor: (NUMBERS / (NUMBERS - f64::from(threshold))) as f32 }
    }

    /// What a value with this number is multiplied by: 0 or the factor.
    #[inline(always)]
    pub fn factor_of(self, number: u32) -> f32 {
        if number < self.threshold { 0.0 } else { self.factor }
    }
}

/// Blocks of four numbers that are drawn side by side: as many as fill the pipelines. The end of a row, and a narrow row,
/// draws some that nobody reads, which costs less than a second form would.
const BLOCKS: usize = 32;
/// Columns that they cover.
const COLUMNS: usize = 4 * BLOCKS;

/// The numbers of [`COLUMNS`] columns of a row, from column `4 * first_block` on.
///
/// A lane is a u64 whose upper half is left as it falls: products read the lower halves alone, which is the form that
/// vector instruction sets multiply in.
#[inline(always)]
fn numbers(mut key: [u32; 2], row: u64, first_block: u32) -> [u32; COLUMNS] {
    const LOW: u64 = 0xFFFF_FFFF;
    let mut c = [[0u64; BLOCKS]; 4];
    for i in 0..BLOCKS {
        (c[0][i], c[1][i]) = (row, row >> 32);
        c[2][i] = u64::from(first_block) + i as u64;
    }
    for _ in 0..ROUNDS {
        for i in 0..BLOCKS {
            let a = (c[0][i] & LOW) * MULTIPLIERS[0];
            let b = (c[2][i] & LOW) * MULTIPLIERS[1];
            (c[0][i], c[1][i]) = ((b >> 32) ^ c[1][i] ^ u64::from(key[0]), b);
            (c[2][i], c[3][i]) = ((a >> 32) ^ c[3][i] ^ u64::from(key[1]), a);
        }
        key = next_key(key);
    }
    let mut out = [0; COLUMNS];
    for i in 0..BLOCKS {
        for j in 0..4 {
            out[4 * i + j] = c[j][i] as u32;
        }
    }
    out
}

dispatch! {
    /// `y = x ⊙ m`, or `y += x ⊙ m` with `accumulate`: m is 0 where a value is dropped, and the factor elsewhere. What
    /// is dropped is multiplied by 0, so that it is NaN still where it is not finite.
    ///
    /// The number of the value in row r, column c is word `c % 4` of the Philox block with the counter
    /// `[r low, r high, c / 4, 0]`, where the row r counts from `first_row`, or is the one named in `rows` unless that is
    /// empty.
    ///
    /// # Panics
    /// When the shapes differ, or `rows` names another number of rows.
    pub fn dropout(
        key: [u32; 2], first_row: u64, rows: &[u32], dropping: Dropping, accumulate: bool, x: Mat<'_>, y: MatMut<'_>,
    ) = dropout_body;
}

#[inline(always)]
fn dropout_body<S: Simd>(
    _: S,
    key: [u32; 2],
    first_row: u64,
    rows: &[u32],
    dropping: Dropping,
    accumulate: bool,
    x: Mat<'_>,
    mut y: MatMut<'_>,
) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "dropout: x and y differ in shape");
    assert!(rows.is_empty() || rows.len() == x.rows(), "dropout: {} of {} rows named", rows.len(), x.rows());
    for r in 0..x.rows() {
        let row = if rows.is_empty() { first_row + r as u64 } else { u64::from(rows[r]) };
        let (x, y) = (x.row(r), y.row_mut(r));
        for from in (0..x.len()).step_by(COLUMNS) {
            let numbers = numbers(key, row, (from / 4) as u32);
            let count = COLUMNS.min(x.len() - from);
            let (x, y) = (&x[from..from + count], &mut y[from..from + count]);
            for c in 0..count {
                let value = x[c] * dropping.factor_of(numbers[c]);
                y[c] = if accumulate { y[c] + value } else { value };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::values;
    use proptest::prelude::*;

    /// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10 rounds).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
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
}
