//! Buckets: numbers that become rows of a table.
//!
//! Row 0 is the unknown row, which no number uses; row 1 is that of missing cells, and it learns like any other; row
//! `2 + b` is that of numbers with exactly `b` boundaries at or below them, so that bucket `b` is
//! `boundaries[b - 1] <= x < boundaries[b]`.

use serde::{Deserialize, Serialize};

use crate::number::read_number;

/// The row of a missing cell.
const MISSING_ROW: u32 = 1;
/// Most boundaries of a column.
pub const MAX_BOUNDARIES: usize = 65_536;

/// How the cells of a column become rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Buckets {
    /// Rising finite numbers.
    pub(crate) boundaries: Vec<f64>,
    /// Texts that mean "missing", beside the empty one.
    pub(crate) missing: Vec<String>,
}

impl Buckets {
    /// Rows of the table, the unknown row included.
    pub(crate) fn rows(&self) -> usize {
        self.boundaries.len() + 3
    }

    /// The row of a cell.
    ///
    /// # Errors
    /// What is wrong with a cell that is neither a number nor missing, and what to do.
    pub(crate) fn row(&self, cell: &str) -> Result<u32, String> {
        let Some(number) = read_number(cell, &self.missing)? else { return Ok(MISSING_ROW) };
        let below = self.boundaries.partition_point(|&boundary| boundary <= number);
        Ok(MISSING_ROW + 1 + below as u32)
    }

    /// Checks that the boundaries are finite, rise and are few enough.
    ///
    /// # Errors
    /// The first boundary that is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.boundaries.len() > MAX_BOUNDARIES {
            let count = self.boundaries.len();
            return Err(format!("{count} are more than {MAX_BOUNDARIES}, the most that is possible"));
        }
        if let Some(wrong) = self.boundaries.iter().find(|boundary| !boundary.is_finite()) {
            return Err(format!("{wrong} is not a finite number"));
        }
        match self.boundaries.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(format!("must rise, and {} does not stand below {}", pair[0], pair[1])),
            None => Ok(()),
        }
    }
}

/// Boundaries that divide `numbers` into `parts` buckets of as many numbers each, as far as equal numbers permit: the
/// `k`-th is the number with `⌊k n / parts⌋` others before it in order. A boundary that would leave a bucket without
/// numbers is left out.
pub(crate) fn quantiles(mut numbers: Vec<f64>, parts: u32) -> Vec<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let Some(&least) = numbers.first() else { return Vec::new() };
    let at = |k: u64| numbers[(u128::from(k) * numbers.len() as u128 / u128::from(parts)) as usize];
    let mut boundaries: Vec<f64> =
        (1..u64::from(parts)).map(at).filter(|&boundary| boundary > least).collect();
    boundaries.dedup();
    boundaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_on_a_boundary_is_above_it() {
        let buckets = Buckets { boundaries: vec![0.0, 10.0], missing: vec!["?".into()] };
        assert_eq!(buckets.rows(), 5);
        for (cell, row) in
            [("-1", 2), ("-0", 3), ("0", 3), ("9.9", 3), ("10", 4), ("1e9", 4), ("", 1), ("?", 1)]
        {
            assert_eq!(buckets.row(cell), Ok(row), "{cell}");
        }
        assert!(buckets.row("ten").unwrap_err().starts_with("`ten` is not a number"));
    }

    #[test]
    fn boundaries_must_rise() {
        let message = |boundaries: &[f64]| {
            Buckets { boundaries: boundaries.to_vec(), missing: vec![] }.check().unwrap_err()
        };
        assert_eq!(message(&[1.0, 3.0, 2.0]), "must rise, and 3 does not stand below 2");
        assert_eq!(message(&[1.0, 1.0]), "must rise, and 1 does not stand below 1");
        assert_eq!(message(&[1.0, f64::NAN]), "NaN is not a finite number");
    }

    #[test]
    fn quantiles_divide_evenly_and_leave_no_bucket_empty() {
        let hundred: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(quantiles(hundred, 4), [25.0, 50.0, 75.0]);
        assert_eq!(quantiles(vec![1.0; 9], 4), [0.0; 0]);
        assert_eq!(quantiles(vec![0.0, 0.0, 0.0, 5.0], 4), [5.0]);
        assert_eq!(quantiles(vec![], 4), [0.0; 0]);
        assert_eq!(quantiles(vec![3.0, 1.0], 10), [3.0], "more parts than numbers");
    }
}
