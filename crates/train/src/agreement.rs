//! Whether repeated runs agree with figures that another engine reached under the same protocol.

use crate::config::Config;
use crate::metrics::Ordered;
use crate::repeat::{Repetition, Spread};
use manygate_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Allowed beyond three standard errors: figures are given to four digits, and no two engines draw the same numbers.
const MARGIN: f64 = 0.001;

/// Figures of another engine, by model; the form of `configs/protocol/reference.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Where they come from.
    pub about: String,
    /// By name of the architecture.
    pub models: Ordered<ModelReference>,
}

/// The figures of one architecture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelReference {
    /// Number of seeds behind each figure.
    pub seeds: usize,
    /// By task.
    pub tasks: Ordered<TaskReference>,
}

/// The figures of one task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReference {
    /// Area under the ROC curve.
    pub auc: Figure,
    /// Log loss, nats a row.
    pub logloss: Figure,
}

/// A mean over seeds with its sample standard deviation.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Mean over seeds.
    pub mean: f64,
    /// Sample standard deviation over seeds.
    pub deviation: f64,
}

/// One metric of one task beside its reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The task.
    pub task: String,
    /// `auc` or `logloss`.
    pub metric: &'static str,
    /// Mean here.
    pub mean: f64,
    /// Mean there.
    pub reference: f64,
    /// Standard error of the difference, √(sd²/n + sd_reference²/n_reference).
    pub standard_error: f64,
    /// Largest difference that still agrees: three standard errors and .001.
    pub allowed: f64,
}

impl Cell {
    /// Mean here minus mean there.
    pub fn difference(&self) -> f64 {
        self.mean - self.reference
    }

    /// The difference in standard errors.
    pub fn deviation(&self) -> f64 {
        self.difference() / self.standard_error
    }

    /// Whether it is allowed.
    pub fn agrees(&self) -> bool {
        self.difference().abs() <= self.allowed
    }
}

impl Reference {
    /// Reads a reference file.
    ///
    /// # Errors
    /// When the file cannot be read or has another form.
    pub fn load(path: &Path) -> Result<Reference> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text)
            .map_err(|e| Error::config("--reference", format!("{}: {e}", path.display())))
    }

    /// The figures of the architecture that `config` names.
    ///
    /// # Errors
    /// When there are none, none that count, or for a task that `config` does not have.
    pub fn of(&self, config: &Config) -> Result<&ModelReference> {
        let name = config.model.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        let wrong = |message: String| Error::config("--reference", message);
        let model = self.models.get(name);
        let model = model.ok_or_else(|| wrong(format!("it has no figures for the model `{name}`")))?;
        if model.seeds == 0 || model.tasks.is_empty() {
            return Err(wrong(format!("the figures for `{name}` need at least one seed and one task")));
        }
        match model.tasks.iter().find(|(task, _)| !config.tasks.iter().any(|t| t.name == *task)) {
            Some((task, _)) => Err(wrong(format!("it has the task `{task}`, the configuration has not"))),
            None => Ok(model),
        }
    }
}

impl ModelReference {
    /// Compares every figure with the same one of `repetition`.
    ///
    /// # Errors
    /// When a task or a metric is missing there, or a single seed gives no deviation.
    pub fn compare(&self, repetition: &Repetition) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for (task, reference) in self.tasks.iter() {
            let Some(spread) = repetition.tasks.get(task) else {
                let message = format!("it has the task `{task}`, the configuration has not");
                return Err(Error::config("--reference", message));
            };
            cells.push(self.cell(task, "auc", &spread.auc, reference.auc)?);
            cells.push(self.cell(task, "logloss", &spread.logloss, reference.logloss)?);
        }
        Ok(cells)
    }

    fn cell(&self, task: &str, metric: &'static str, here: &Spread, there: Figure) -> Result<Cell> {
        let count = here.values.iter().flatten().count();
        let (Some(mean), Some(deviation)) = (here.mean, here.deviation) else {
            let message = format!("{metric} of {task} needs values of at least two seeds, there are {count}");
            return Err(Error::config("--seeds", message));
        };
        let variance = deviation.powi(2) / count as f64 + there.deviation.powi(2) / self.seeds as f64;
        let standard_error = variance.sqrt();
        let allowed = 3.0 * standard_error + MARGIN;
        Ok(Cell { task: task.to_owned(), metric, mean, reference: there.mean, standard_error, allowed })
    }
}

/// Whether every cell agrees.
///
/// # Errors
/// [`Error::Unmet`] with the first that does not.
pub fn check(cells: &[Cell]) -> Result<()> {
    match cells.iter().find(|cell| !cell.agrees()) {
        None => Ok(()),
        Some(cell) => Err(Error::Unmet(format!(
            "{} of {} is {:.4}, the reference has {:.4}: more than {:.4} apart; run it again with fresh seeds \
             (--seeds 6,7,8,9,10), outside again is a fault",
            cell.metric, cell.task, cell.mean, cell.reference, cell.allowed
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> ModelReference {
        let figure = Figure { mean: 0.7, deviation: 0.003 };
        let task = TaskReference { auc: figure, logloss: figure };
        ModelReference { seeds: 9, tasks: [("click".to_owned(), task)].into_iter().collect() }
    }

    #[test]
    fn three_standard_errors_and_the_margin_agree() {
        // sd 0.004 over 2 seeds and 0.003 over 9: √(8e-6 + 1e-6) = 0.003.
        let half = 0.004 / 2f64.sqrt();
        let spread = |mean: f64| Spread::of(vec![Some(mean - half), Some(mean + half)]);
        let there = Figure { mean: 0.7, deviation: 0.003 };
        for (mean, agrees) in [(0.7099, true), (0.7101, false), (0.6901, true), (0.6899, false)] {
            let cell = model().cell("click", "auc", &spread(mean), there).unwrap();
            assert!((cell.standard_error - 0.003).abs() < 1e-12);
            assert!((cell.deviation() - (mean - 0.7) / 0.003).abs() < 1e-6);
            assert_eq!(cell.agrees(), agrees, "{mean}");
            assert_eq!(check(&[cell]).is_ok(), agrees);
        }
    }

    #[test]
    fn one_seed_has_no_deviation() {
        let there = Figure { mean: 0.7, deviation: 0.003 };
        let told = model().cell("click", "auc", &Spread::of(vec![Some(0.7)]), there).unwrap_err().to_string();
        assert!(told.contains("at least two seeds"), "{told}");
    }
}
