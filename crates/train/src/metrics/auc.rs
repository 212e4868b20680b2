//! AUC: the share of (positive, negative) pairs that are in the right order.

use super::{Ranked, ranked::Row};

/// Area under the ROC curve, exact: (pairs with the positive above + half the ties) / (positives x negatives).
/// `None` when a class is missing.
pub fn auc(ranked: &Ranked) -> Option<f64> {
    of_rising(ranked.rows())
}

/// [`auc`] of rows in rising order of prediction. Pairs are counted in integers (twice, so that a tie counts 1),
/// which makes the result independent of the order of rows to the last bit.
pub(super) fn of_rising(rows: &[Row]) -> Option<f64> {
    let (mut positives, mut negatives, mut twice_won) = (0u64, 0u64, 0u64);
    for tied in rows.chunk_by(|a, b| a.probability == b.probability) {
        let positive = tied.iter().filter(|row| row.positive).count() as u64;
        let negative = tied.len() as u64 - positive;
        twice_won += positive * (2 * negatives + negative);
        positives += positive;
        negatives += negative;
    }
    let pairs = positives * negatives;
    (pairs > 0).then(|| twice_won as f64 / (2.0 * pairs as f64))
}
