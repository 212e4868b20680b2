//! Log loss: mean binary cross-entropy, natural logarithm.

use super::Ranked;

/// Predictions are clipped to [CLIP, 1 - CLIP], so that a certain and wrong one costs 16.1 and not infinity.
const CLIP: f64 = 1e-7;

/// Mean over rows of -ln(the probability given to what happened), in nats; `None` without rows.
pub fn log_loss(ranked: &Ranked) -> Option<f64> {
    let cost = |p: f64, positive: bool| if positive { -p.ln() } else { -(1.0 - p).ln() };
    let sum: f64 =
        ranked.rows().iter().map(|row| cost(clipped(f64::from(row.probability)), row.positive)).sum();
    (!ranked.is_empty()).then(|| sum / ranked.len() as f64)
}

/// Log loss of predicting the constant `rate` for `rows` rows of which `positives` have label 1: what any model has
/// to beat. `None` without rows or when `rate` is no probability.
pub fn constant_log_loss(rate: f64, rows: usize, positives: usize) -> Option<f64> {
    if rows == 0 || !(0.0..=1.0).contains(&rate) {
        return None;
    }
    let (p, share) = (clipped(rate), positives as f64 / rows as f64);
    Some(-share * p.ln() - (1.0 - share) * (1.0 - p).ln())
}

fn clipped(p: f64) -> f64 {
    p.clamp(CLIP, 1.0 - CLIP)
}
