//! Calibration: whether predictions can be taken as probabilities.

use super::Ranked;
use serde::{Deserialize, Serialize};

/// Predicted over observed positives (PCOC): sum of the predictions / number of positives; `None` without positives.
pub fn pcoc(ranked: &Ranked) -> Option<f64> {
    let promised: f64 = ranked.rows().iter().map(|row| f64::from(row.probability)).sum();
    (ranked.positives() > 0).then(|| promised / ranked.positives() as f64)
}

/// Neighbouring rows in the ranking: what was predicted and what came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Mean predicted probability.
    pub predicted: f64,
    /// Share of rows with label 1.
    pub observed: f64,
    /// Rows.
    pub rows: usize,
}

/// Cuts the ranking into about `bins` parts of equal size (10 gives deciles), in rising order of prediction. Rows of
/// equal prediction stay together, so a model that predicts few values gives fewer bins.
pub fn reliability(ranked: &Ranked, bins: usize) -> Vec<ReliabilityBin> {
    let rows = ranked.rows();
    let mut parts = Vec::new();
    let mut start = 0;
    for bin in 1..=bins {
        let mut end = rows.len() * bin / bins;
        if end <= start {
            continue;
        }
        let last = rows[end - 1].probability;
        end += rows[end..].iter().take_while(|row| row.probability == last).count();
        let part = &rows[start..end];
        let n = part.len() as f64;
        parts.push(ReliabilityBin {
            predicted: part.iter().map(|row| f64::from(row.probability)).sum::<f64>() / n,
            observed: part.iter().filter(|row| row.positive).count() as f64 / n,
            rows: part.len(),
        });
        start = end;
    }
    parts
}
