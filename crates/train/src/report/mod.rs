//! Reports: the table that a run prints, and `report.html`, a page that needs nothing but itself.
//!
//! Both set each result beside what it has to beat: [`Floors`] (AUC of named baselines) and [`Constants`] (log loss or
//! RMSE of always predicting the training mean). [`ReportData`] holds everything that a page shows; kept as JSON it can
//! be drawn again. [`charts`] makes each picture by itself as an SVG document.

pub mod agreement;
mod bars;
mod canvas;
pub mod charts;
mod compare;
mod floors;
pub mod gates;
pub mod html;
pub mod repeat;
pub mod terminal;

pub use compare::Constants;
pub use floors::Floors;

use crate::metrics::{ALL, Evaluation, Ordered, ReliabilityBin};
use serde::{Deserialize, Serialize};

/// Training loss at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Step, counted from 1.
    pub step: u64,
    /// Loss of the batch by part, in the order of [`ReportData::losses`].
    pub loss: Vec<f64>,
}

/// A validation during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationPoint {
    /// Steps taken before it.
    pub step: u64,
    /// Its metrics; a report reads the slice `all`.
    pub evaluation: Evaluation,
}

/// Metrics of one part of the data, and what a constant prediction reaches there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Metrics by task and slice.
    pub evaluation: Evaluation,
    /// What the constant training mean reaches, by task and slice.
    #[serde(default)]
    pub constants: Constants,
    /// Names of the tasks that are scored and not served.
    #[serde(default)]
    pub auxiliary: Vec<String>,
}

/// Everything that a report shows. What is missing or empty is left out of the page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportData {
    /// Headline: model and data.
    pub title: String,
    /// Names and values for the head of the page: model, data, seed, date, duration, parameters ...
    pub facts: Vec<(String, String)>,
    /// Names of the tasks, in the schema's order.
    pub tasks: Vec<String>,
    /// Names of the parts of the training loss; those of tasks are drawn.
    pub losses: Vec<String>,
    /// History of the training loss.
    pub training: Vec<TrainingPoint>,
    /// History of the validation metrics.
    pub validation: Vec<ValidationPoint>,
    /// Step of the checkpoint that was chosen for all tasks.
    pub chosen_step: Option<u64>,
    /// Step of the checkpoint of each task, where each has its own.
    pub chosen_by_task: Ordered<u64>,
    /// Results on the test part.
    pub test: Option<Part>,
    /// Results of the chosen checkpoint on the validation part.
    pub valid: Option<Part>,
    /// AUC of named baselines on the test part.
    pub floors: Option<Floors>,
    /// Predicted against observed rates on the test part, by task.
    pub reliability: Ordered<Vec<ReliabilityBin>>,
}

impl ReportData {
    /// Tasks that predict probabilities; all where nothing was scored.
    pub fn binary_tasks(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(String::as_str).filter(|task| !self.predicts_number(task))
    }

    /// Whether any score of `task` is one of numbers.
    pub(crate) fn predicts_number(&self, task: &str) -> bool {
        let parts = [&self.test, &self.valid].into_iter().flatten().map(|part| &part.evaluation);
        let mut all = parts.chain(self.validation.iter().map(|point| &point.evaluation));
        all.any(|evaluation| evaluation.get(task, ALL).is_some_and(|metrics| metrics.errors.is_some()))
    }

    /// Whether `task` is scored and not served.
    pub(crate) fn is_auxiliary(&self, task: &str) -> bool {
        let mut parts = [&self.valid, &self.test].into_iter().flatten();
        parts.any(|part| part.auxiliary.iter().any(|name| name == task))
    }
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
