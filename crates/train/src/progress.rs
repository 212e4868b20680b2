//! How far a run is, and the events that it reports on the way.

use crate::choice::Chosen;
use crate::metrics::Evaluation;
use crate::report::{TrainingPoint, ValidationPoint};
use crate::start_from::Beginning;
use manygate_data::Violation;
use serde::{Deserialize, Serialize};

/// Position and history of a run: what a checkpoint holds beside tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Passes finished.
    pub epoch: u64,
    /// Batches of the current pass that are done.
    pub batch: u64,
    /// Stage that is under way, from 0.
    pub stage: u64,
    /// Steps taken in it.
    pub stage_step: u64,
    /// Its best score so far.
    pub stage_best: Option<f64>,
    /// Validations in a row without a better one.
    pub stage_worse: u64,
    /// Training loss by step.
    pub training: Vec<TrainingPoint>,
    /// Validations so far.
    pub validation: Vec<ValidationPoint>,
    /// The best validation, whose weights are in the model file: of all tasks, or of each where they share nothing.
    pub chosen: Vec<Chosen>,
}

/// What a run tells while it works.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Rows of data read so far.
    Reading {
        /// Rows.
        rows: u64,
    },
    /// The data is encoded and the model is built.
    Ready {
        /// Rows that are trained on.
        fit_rows: usize,
        /// Validation rows.
        valid_rows: usize,
        /// Test rows.
        test_rows: usize,
        /// Name of the architecture.
        model: &'a str,
        /// Dense parameters.
        dense: usize,
        /// Values in tables.
        tables: usize,
        /// Threads.
        threads: usize,
        /// Instruction set.
        isa: String,
        /// Steps of the whole run.
        steps: u64,
        /// Step from which a resumed run goes on.
        resumed_at: Option<u64>,
    },
    /// The run begins with what another one learnt.
    Begun {
        /// How.
        beginning: &'a Beginning,
    },
    /// Rows whose labels contradict what a task comes after; empty where all are in order.
    Violated {
        /// By file and task.
        violations: &'a [Violation],
    },
    /// A stage begins, or goes on.
    Stage {
        /// Its name.
        name: &'a str,
        /// Its number, from 1.
        number: u64,
        /// Number of stages.
        stages: u64,
        /// Its steps, at most.
        steps: u64,
    },
    /// A step is done.
    Step {
        /// Steps so far.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Rows of the step.
        rows: usize,
        /// Weighted loss of the step.
        loss: f64,
        /// Factor of all learning rates in it.
        rate_factor: f64,
    },
    /// How a method weighs the losses, told beside each validation.
    Balanced {
        /// Name and weight of each loss in the last step.
        weights: Vec<(String, f64)>,
    },
    /// Something that does not stop the run and that its owner should know.
    Warning {
        /// What it is and what follows from it.
        message: &'a str,
    },
    /// A validation is done.
    Validated {
        /// Steps so far.
        step: u64,
        /// Passes so far, with fractions.
        epochs: f64,
        /// Metrics.
        evaluation: &'a Evaluation,
        /// What the checkpoint is chosen by, as a mean over tasks: its name, and its value where it is defined.
        score: (&'static str, Option<f64>),
        /// Whether it is the best so far, of all tasks or of one.
        best: bool,
        /// The tasks of which it is, where each is chosen by itself.
        best_of: Vec<&'a str>,
    },
}

/// Receives the events of a run.
pub trait Observer: Send {
    /// Called for each event, on the run's thread.
    fn event(&mut self, event: &Event<'_>);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _event: &Event<'_>) {}
}
