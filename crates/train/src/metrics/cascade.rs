//! Whether predictions respect that one task's event cannot happen without another's.

use super::Ranked;

/// Share of rows whose prediction is above that of the task before, `before` being `[row]` of the whole data; `None`
/// without rows.
///
/// # Panics
/// When `before` is shorter than the data that `ranked` was made from.
pub fn above_earlier(ranked: &Ranked, before: &[f32]) -> Option<f64> {
    let above = ranked.rows().iter().filter(|row| row.probability > before[row.row as usize]).count();
    (!ranked.is_empty()).then(|| above as f64 / ranked.len() as f64)
}
