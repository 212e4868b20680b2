//! MAE and NMAE: mean absolute error, as it is and beside the size of the labels.

use super::Numbers;

/// `mean |p - y|`; `None` without rows.
pub fn mae(numbers: &Numbers) -> Option<f64> {
    numbers.mean(|row| (row.predicted - row.label).abs())
}

/// `Σ |p - y| / Σ |y|`, which does not depend on the unit of the labels; `None` where all labels are 0.
pub fn nmae(numbers: &Numbers) -> Option<f64> {
    let size: f64 = numbers.rows().iter().map(|row| row.label.abs()).sum();
    let missed: f64 = numbers.rows().iter().map(|row| (row.predicted - row.label).abs()).sum();
    (size > 0.0).then(|| missed / size)
}
