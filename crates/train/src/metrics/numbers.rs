//! Rows of one task whose labels are numbers, checked once: what the metrics of regression and of counts read.

use super::wrong;
use manygate_core::Result;

/// One scored row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// Number of the row in the data.
    pub(super) row: u32,
    /// What is predicted, finite.
    pub(super) predicted: f64,
    /// What came, finite.
    pub(super) label: f64,
}

/// The counted rows of one task, in the order of the data.
#[derive(Clone, Debug)]
pub struct Numbers {
    rows: Vec<Number>,
}

impl Numbers {
    /// Checks `predictions` and `labels`, both `[row]`; with `counted` (`[row]`) only rows of 1 stay.
    ///
    /// # Errors
    /// Columns of different lengths, a prediction that is not finite, a counted label that is not.
    pub fn new(predictions: &[f32], labels: &[f32], counted: Option<&[f32]>) -> Result<Numbers> {
        let n = predictions.len();
        if labels.len() != n || counted.is_some_and(|c| c.len() != n) || u32::try_from(n).is_err() {
            let counted = counted.map(|c| format!(", {} counts", c.len())).unwrap_or_default();
            return Err(wrong(format!("{n} predictions, {} labels{counted}", labels.len())));
        }
        let mut rows = Vec::with_capacity(n);
        for (row, (&predicted, &label)) in predictions.iter().zip(labels).enumerate() {
            if !predicted.is_finite() {
                let message = format!("row {row} is predicted {predicted}: the model has diverged");
                return Err(wrong(message));
            }
            if counted.is_some_and(|c| c[row] != 1.0) {
                continue;
            }
            if !label.is_finite() {
                return Err(wrong(format!("row {row} has label {label}, which is not finite")));
            }
            let (predicted, label) = (f64::from(predicted), f64::from(label));
            rows.push(Number { row: row as u32, predicted, label });
        }
        Ok(Numbers { rows })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of rows whose label is not 0.
    pub fn events(&self) -> usize {
        self.rows.iter().filter(|row| row.label != 0.0).count()
    }

    /// The rows of each of `scenarios` scenarios; `scenario` is `[row]` of the whole data, its numbers below `scenarios`.
    pub(super) fn by_scenario(&self, scenario: &[u32], scenarios: usize) -> Vec<Numbers> {
        let mut parts = vec![Numbers { rows: Vec::new() }; scenarios];
        for row in &self.rows {
            parts[scenario[row.row as usize] as usize].rows.push(*row);
        }
        parts
    }

    pub(super) fn rows(&self) -> &[Number] {
        &self.rows
    }

    /// Mean of `f` over the rows; `None` without rows.
    pub(super) fn mean(&self, f: impl Fn(&Number) -> f64) -> Option<f64> {
        (!self.is_empty()).then(|| self.rows.iter().map(f).sum::<f64>() / self.len() as f64)
    }
}
