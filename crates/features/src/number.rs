//! Numbers in cells.

use crate::text::shown;

/// The number in `cell`; [`None`] where it is empty or one of the texts in `missing`.
///
/// # Errors
/// What is wrong with the cell and what to do.
pub(crate) fn read_number(cell: &str, missing: &[String]) -> Result<Option<f64>, String> {
    let text = cell.trim();
    if text.is_empty() || missing.iter().any(|m| m == text || m == cell) {
        return Ok(None);
    }
    finite(text).map(Some)
}

/// Reads a number that f32 can hold, so that sums of squares in f64 stay finite as well.
fn finite(text: &str) -> Result<f64, String> {
    let remedy = "correct the file, leave the cell empty if it is missing, or add its text to `missing` of the feature";
    match text.parse::<f64>() {
        Ok(number) if number.abs() <= f64::from(f32::MAX) => Ok(number),
        Ok(_) => Err(format!("{} is not a finite number within single precision: {remedy}", shown(text))),
        Err(_) => Err(format!("{} is not a number: {remedy}", shown(text))),
    }
}
