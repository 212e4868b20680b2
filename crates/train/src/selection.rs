//! By what a checkpoint is chosen among the validations.

use crate::config::Config;
use crate::metrics::{ALL, Evaluation, Metrics};
use manygate_core::{Error, Result};
use manygate_features::{TaskConfig, TaskKind, TaskRole};
use serde::{Deserialize, Serialize};

/// How the checkpoint is chosen among the validations; the first of equals wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// Largest mean AUC over binary tasks.
    Auc,
    /// Smallest mean log loss over binary tasks.
    Logloss,
    /// Smallest mean loss over tasks of any kind, weighted as in training.
    Loss,
}

impl Select {
    /// What is compared, in words.
    pub fn name(self) -> &'static str {
        match self {
            Select::Auc => "AUC",
            Select::Logloss => "log loss",
            Select::Loss => "loss",
        }
    }

    /// What is compared of a task, so that larger is better.
    pub(crate) fn value(self, metrics: &Metrics) -> Option<f64> {
        match self {
            Select::Auc => metrics.auc,
            Select::Logloss => metrics.logloss.map(|loss| -loss),
            Select::Loss => metrics.loss().map(|loss| -loss),
        }
    }
}

/// What a validation reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Larger is better; [`None`] where nothing tells validations apart.
    pub value: Option<f64>,
    /// What was compared.
    pub by: Select,
    /// Why that is not what the configuration says.
    pub warning: Option<&'static str>,
}

impl Config {
    /// The tasks that decide which checkpoint is chosen.
    pub fn deciding_tasks(&self) -> impl Iterator<Item = &TaskConfig> {
        let named = &self.train.select_tasks;
        let decides = |task: &&TaskConfig| task.role == TaskRole::Primary && named_or_all(named, &task.name);
        self.tasks.iter().filter(decides)
    }

    /// By what the checkpoint is chosen.
    pub fn selection(&self) -> Select {
        let all_binary = self.deciding_tasks().all(|task| task.kind == TaskKind::Binary);
        self.train.select.unwrap_or(if all_binary { Select::Auc } else { Select::Loss })
    }

    /// That what decides can be measured of every task that is named, or of some where none is.
    pub(crate) fn check_selection(&self) -> Result<()> {
        let named = &self.train.select_tasks;
        let is_named = |task: &&TaskConfig| named.contains(&task.name);
        if let Some(task) = self.tasks.iter().filter(is_named).find(|t| t.role == TaskRole::Auxiliary) {
            let message = format!("`{}` is auxiliary: it is not served, so it cannot decide", task.name);
            return Err(Error::config("train.select_tasks", message));
        }
        let select = self.selection();
        if select == Select::Loss {
            return Ok(());
        }
        let number = |task: &TaskConfig| task.kind != TaskKind::Binary;
        let wrong = |message: String| Err(Error::config("train.select", message));
        let name = select.name();
        if let Some(task) = self.tasks.iter().filter(is_named).find(|task| number(task)) {
            return wrong(format!("`{}` is no binary task and has no {name}: use \"loss\"", task.name));
        }
        if self.deciding_tasks().next().is_some() && self.deciding_tasks().all(number) {
            return wrong(format!("no task that decides is binary, so that none has {name}: use \"loss\""));
        }
        Ok(())
    }

    /// What the choice of the checkpoint maximises.
    pub fn score(&self, evaluation: &Evaluation) -> Score {
        let by = self.selection();
        let value = self.score_by(by, evaluation);
        if value.is_some() {
            return Score { value, by, warning: None };
        }
        match self.score_by(Select::Logloss, evaluation).filter(|_| by == Select::Auc) {
            None => {
                let warning =
                    "no validation row counts for a selected task: the last checkpoint is the chosen one";
                Score { value: None, by, warning: Some(warning) }
            }
            value => {
                let warning = "no selected task has both labels in the validation rows, so that no AUC is defined: the \
                               checkpoint is chosen by log loss";
                Score { value, by: Select::Logloss, warning: Some(warning) }
            }
        }
    }

    /// The mean over the deciding tasks that have the metric.
    fn score_by(&self, select: Select, evaluation: &Evaluation) -> Option<f64> {
        let (mut sum, mut weights) = (0.0, 0.0);
        for task in self.deciding_tasks() {
            let metrics = evaluation.get(&task.name, ALL);
            let Some(value) = metrics.and_then(|metrics| select.value(metrics)) else { continue };
            let weight = if select == Select::Loss { f64::from(task.weight) } else { 1.0 };
            (sum, weights) = (sum + weight * value, weights + weight);
        }
        (weights > 0.0).then(|| sum / weights)
    }
}

fn named_or_all(names: &[String], name: &String) -> bool {
    names.is_empty() || names.contains(name)
}
