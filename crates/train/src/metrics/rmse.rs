//! RMSE: root of the mean squared error.

use super::Numbers;

/// `mean (p - y)^2`, the loss of regression; `None` without rows.
pub fn mean_squared_error(numbers: &Numbers) -> Option<f64> {
    numbers.mean(|row| (row.predicted - row.label).powi(2))
}

/// RMSE of predicting `constant` for rows whose labels have this mean and standard deviation: what any model has to beat.
pub fn constant_rmse(constant: f64, mean: f64, deviation: f64) -> f64 {
    deviation.hypot(mean - constant)
}
