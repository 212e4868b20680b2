//! Reports: the table that a run prints, and `report.html`, a page that needs nothing but itself.
//!
//! Both set each result beside what it has to beat: [`Floors`] (AUC of named baselines) and [`Constants`] (log loss
//! of always predicting the training rate). [`ReportData`] holds everything that a page shows; kept as JSON it can
//! be drawn again. [`charts`] makes each picture by itself as an SVG document.

pub mod agreement;
mod bars;
mod canvas;
pub mod charts;
mod compare;
mod floors;
pub mod html;
pub mod repeat;
pub mod terminal;

pub use compare::{Constants, constant_log_losses};
pub use floors::Floors;

use crate::metrics::{Evaluation, Ordered, ReliabilityBin};
use serde::{Deserialize, Serialize};

/// Training loss at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Step, counted from 1.
    pub step: u64,
    /// Loss of the batch by part, in the order of [`ReportData::losses`], nats.
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
    /// Log loss of the constant training rate, by task and slice.
    #[serde(default)]
    pub constants: Constants,
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
    /// Step of the checkpoint that was chosen.
    pub chosen_step: Option<u64>,
    /// Results on the test part.
    pub test: Option<Part>,
    /// Results of the chosen checkpoint on the validation part.
    pub valid: Option<Part>,
    /// AUC of named baselines on the test part.
    pub floors: Option<Floors>,
    /// Predicted against observed rates on the test part, by task.
    pub reliability: Ordered<Vec<ReliabilityBin>>,
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
