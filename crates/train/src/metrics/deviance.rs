//! What rates cost: the loss of counts, and their deviance.

use super::Numbers;

/// Rates are raised to this, the smallest normal f32, so that one that was rounded to 0 does not cost infinity.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// `mean λ - y ln λ`, the loss of a poisson task; `None` without rows. It may be negative.
pub fn poisson_loss(numbers: &Numbers) -> Option<f64> {
    numbers.mean(|row| {
        let rate = row.predicted.max(SMALLEST);
        rate - row.label * rate.ln()
    })
}

/// `2 mean (y ln (y / λ) - (y - λ))`, 0 for rates that equal the counts; `None` without rows.
pub fn deviance(numbers: &Numbers) -> Option<f64> {
    let best = numbers.mean(|row| row.label - if row.label > 0.0 { row.label * row.label.ln() } else { 0.0 });
    poisson_loss(numbers).zip(best).map(|(loss, best)| (2.0 * (loss - best)).max(0.0))
}

/// Sum of the rates over that of the counts: above 1 the model promises too much; `None` where all counts are 0.
pub fn predicted_over_observed(numbers: &Numbers) -> Option<f64> {
    let came: f64 = numbers.rows().iter().map(|row| row.label).sum();
    let promised: f64 = numbers.rows().iter().map(|row| row.predicted).sum();
    (came > 0.0).then(|| promised / came)
}
