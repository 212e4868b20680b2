//! What is to be written, and what can be asked for.

use manygate_core::{Error, Result};

/// Groups of items: a history has a favourite one.
pub(super) const TOPICS: u32 = 8;
/// Rate of a task's label, where none is given.
const RATE: f64 = 0.25;
const MAX_TASKS: usize = 64;
const MAX_INPUTS: usize = 10_000;
const MAX_SCENARIOS: usize = 1000;
const MAX_LENGTH: usize = 10_000;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct SynthOptions {
    /// Rows.
    pub rows: u64,
    /// Seed of everything.
    pub seed: u64,
    /// Numbers a row, `x1`, `x2`, and so on.
    pub inputs: usize,
    /// Tasks, `task1`, `task2`, and so on.
    pub tasks: usize,
    /// Cosine between the weights of the first task and those of each other one.
    pub correlation: f64,
    /// Rate of positive labels over all rows: one for all tasks or one a task. Without any, a quarter each, and in a
    /// cascade a quarter of the rate before.
    pub rates: Vec<f64>,
    /// How a target becomes a label.
    pub labels: LabelRule,
    /// Whether the targets are written too, as `target1`, `target2`, and so on.
    pub targets: bool,
    /// Whether a label can be 1 only where that of the task before is.
    pub cascade: bool,
    /// Share of the rows of each scenario; without any there is no scenario column.
    pub scenarios: Vec<f64>,
    /// Different users, and different items; 0 leaves both columns out.
    pub ids: u32,
    /// Most items of a history; 0 leaves the column out.
    pub sequence: usize,
}

/// How a target becomes a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelRule {
    /// It is 1 with a probability that rises with the target.
    Sample,
    /// It is 1 where the target is above a threshold.
    Threshold,
}

impl SynthOptions {
    /// The rate of each task.
    ///
    /// # Errors
    /// [`Error::Config`] that names the first option which cannot be used.
    pub(super) fn check(&self) -> Result<Vec<f64>> {
        let wrong = |option: &str, message: String| Err(Error::config(option, message));
        let sizes = [
            ("--rows", self.rows, 1, u64::from(u32::MAX)),
            ("--inputs", self.inputs as u64, 1, MAX_INPUTS as u64),
            ("--tasks", self.tasks as u64, 1, MAX_TASKS as u64),
            ("--scenarios", self.scenarios.len() as u64, 0, MAX_SCENARIOS as u64),
            ("--sequence", self.sequence as u64, 0, MAX_LENGTH as u64),
        ];
        for (option, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return wrong(option, format!("{value} is not possible: from {least} to {most}"));
            }
        }
        if self.tasks > self.inputs {
            return wrong(
                "--tasks",
                format!("each needs a direction of its own: at most {}, the inputs", self.inputs),
            );
        }
        if !(-1.0..=1.0).contains(&self.correlation) {
            return wrong("--correlation", format!("{} is not a cosine: from -1 to 1", self.correlation));
        }
        if let Some(share) = self.scenarios.iter().find(|share| !(share.is_finite() && **share > 0.0)) {
            return wrong("--scenarios", format!("{share} is not a share: give numbers above 0"));
        }
        if self.sequence > 0 && self.ids < TOPICS {
            return wrong("--sequence", format!("a history needs items: --ids of at least {TOPICS}"));
        }
        self.task_rates()
    }

    fn task_rates(&self) -> Result<Vec<f64>> {
        let wrong = |message: String| Err(Error::config("--rate", message));
        let rates: Vec<f64> = match &self.rates[..] {
            [] if self.cascade => (1..=self.tasks).map(|task| RATE.powi(task as i32)).collect(),
            [] => vec![RATE; self.tasks],
            [rate] if !self.cascade => vec![*rate; self.tasks],
            rates if rates.len() == self.tasks => rates.to_vec(),
            rates => {
                return wrong(format!("{} are given for {} tasks: give one a task", rates.len(), self.tasks));
            }
        };
        if let Some(rate) = rates.iter().find(|rate| !(**rate > 0.0 && **rate < 1.0)) {
            return wrong(format!("{rate} is not a rate: give a number between 0 and 1"));
        }
        if self.cascade && rates.windows(2).any(|pair| pair[1] > pair[0]) {
            return wrong("the rates of a cascade cannot rise".to_owned());
        }
        Ok(rates)
    }
}
