//! Rows of one task, checked once and sorted once: what every metric reads.

use super::wrong;
use manygate_core::Result;

/// One scored row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Number of the row in the data.
    pub(super) row: u32,
    /// Predicted probability, in [0, 1].
    pub(super) probability: f32,
    /// Whether its label is 1.
    pub(super) positive: bool,
}

/// The counted rows of one task in rising order of prediction. Predictions are numbers in [0, 1] and labels are 0 or
/// 1, so no metric has to ask.
#[derive(Clone, Debug)]
pub struct Ranked {
    rows: Vec<Row>,
    positives: usize,
}

impl Ranked {
    /// Checks and sorts `probabilities` and `labels`, both `[row]`; with `counted` (`[row]`) only rows of 1 stay.
    ///
    /// # Errors
    /// Columns of different lengths, a prediction that is not a number in [0, 1], a counted label that is neither 0
    /// nor 1.
    pub fn new(probabilities: &[f32], labels: &[f32], counted: Option<&[f32]>) -> Result<Ranked> {
        let n = probabilities.len();
        if labels.len() != n || counted.is_some_and(|c| c.len() != n) || u32::try_from(n).is_err() {
            let counted = counted.map(|c| format!(", {} counts", c.len())).unwrap_or_default();
            return Err(wrong(format!("{n} predictions, {} labels{counted}", labels.len())));
        }
        let mut keys = Vec::with_capacity(n);
        for (row, &p) in probabilities.iter().enumerate() {
            if !(0.0..=1.0).contains(&p) {
                return Err(wrong(format!(
                    "row {row} is predicted {p}, which is no probability: the model has diverged, or logits were \
                     passed where probabilities belong"
                )));
            }
            if counted.is_some_and(|c| c[row] != 1.0) {
                continue;
            }
            if labels[row] != 0.0 && labels[row] != 1.0 {
                return Err(wrong(format!(
                    "row {row} has label {}, only 0 and 1 can be ranked",
                    labels[row]
                )));
            }
            // The bits of numbers from 0 up rise with the number (the sum turns -0 into 0), so one integer sort
            // orders by prediction, and rows of equal prediction by row.
            keys.push(u64::from((p + 0.0).to_bits()) << 32 | row as u64);
        }
        keys.sort_unstable();
        Ok(Self::of(keys.into_iter().map(|key| {
            let row = key as u32;
            Row {
                row,
                probability: f32::from_bits((key >> 32) as u32),
                positive: labels[row as usize] == 1.0,
            }
        })))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of rows with label 1.
    pub fn positives(&self) -> usize {
        self.positives
    }

    /// The rows of each of `scenarios` scenarios, in one pass: a stable distribution keeps the order.
    /// `scenario` is `[row]` of the whole data, its numbers below `scenarios`.
    pub(super) fn by_scenario(&self, scenario: &[u32], scenarios: usize) -> Vec<Ranked> {
        let mut parts = vec![Vec::new(); scenarios];
        for row in &self.rows {
            parts[scenario[row.row as usize] as usize].push(*row);
        }
        parts.into_iter().map(Self::of).collect()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn of(rows: impl IntoIterator<Item = Row>) -> Ranked {
        let rows: Vec<Row> = rows.into_iter().collect();
        let positives = rows.iter().filter(|row| row.positive).count();
        Ranked { rows, positives }
    }
}
