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
