//! Which weights a run keeps: those of the best validation, of all tasks together or, where they share nothing, of each
//! task by itself.

use crate::checkpoint::{write_model, write_model_in_part};
use crate::learner::Learner;
use crate::metrics::{ALL, Evaluation, Ordered};
use crate::selection::Select;
use manygate_core::Result;
use manygate_models::{Architecture, Inputs};
use manygate_runtime::TensorFile;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A validation that is the best so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// Its step.
    pub step: u64,
    /// What it reached; larger is better. [`None`] where the metric is not defined.
    pub score: Option<f64>,
}

/// What is chosen together: everything, or what belongs to a task.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Name of each task and what the names of its tensors begin with; none where all are chosen together.
    owners: Vec<(String, String)>,
}

impl Choice {
    pub(crate) fn of(architecture: &dyn Architecture, inputs: &Inputs) -> Choice {
        let owner = |task: &str| Some((task.to_owned(), architecture.own_prefix(task)?));
        Choice { owners: inputs.task_names().map(owner).collect::<Option<_>>().unwrap_or_default() }
    }

    /// What is compared: the score of all tasks, or that of each.
    pub(crate) fn scores(
        &self,
        of_all: Option<f64>,
        evaluation: &Evaluation,
        select: Select,
    ) -> Vec<Option<f64>> {
        if self.owners.is_empty() {
            return vec![of_all];
        }
        let score = |task: &str| {
            let metrics = evaluation.get(task, ALL)?;
            // Where a task has no AUC, as all may have none.
            select.value(metrics).or_else(|| Select::Logloss.value(metrics))
        };
        self.owners.iter().map(|(task, _)| score(task)).collect()
    }

    /// Which of the scores are better than before.
    pub(crate) fn better(chosen: &[Chosen], scores: &[Option<f64>]) -> Vec<bool> {
        scores.iter().enumerate().map(|(i, &score)| improves(chosen.get(i), score)).collect()
    }

    /// Takes over what is `better`: the weights into the model file at `path`, the scores into `chosen`.
    ///
    /// # Errors
    /// When the file system refuses, or the file is not the model that was written before.
    pub(crate) fn keep(
        &self,
        better: &[bool],
        path: &Path,
        learner: &Learner,
        chosen: &mut Vec<Chosen>,
        step: u64,
        scores: &[Option<f64>],
    ) -> Result<()> {
        if !better.contains(&false) {
            write_model(path, learner)?;
        } else if better.contains(&true) {
            let before = TensorFile::read(path, "model")?;
            let replaced = |tensor: &str| self.owner(tensor).is_none_or(|owner| better[owner]);
            write_model_in_part(path, learner, &before, replaced)?;
        }
        let now = scores.iter().map(|&score| Chosen { step, score });
        *chosen = now
            .zip(better)
            .enumerate()
            .map(|(i, (now, &better))| chosen.get(i).filter(|_| !better).cloned().unwrap_or(now))
            .collect();
        Ok(())
    }

    /// The task that a tensor belongs to: a task's name may begin like another's.
    fn owner(&self, tensor: &str) -> Option<usize> {
        let owners = self.owners.iter().enumerate().filter(|(_, (_, prefix))| tensor.starts_with(prefix));
        owners.max_by_key(|(_, (_, prefix))| prefix.len()).map(|(task, _)| task)
    }

    /// Names of the tasks that are chosen by themselves, where `better` says so.
    pub(crate) fn names_of(&self, better: &[bool]) -> Vec<&str> {
        let tasks = self.owners.iter().zip(better).filter(|(_, better)| **better);
        tasks.map(|((task, _), _)| task.as_str()).collect()
    }

    /// The chosen step of each task; none where all have the same.
    pub(crate) fn task_steps(&self, chosen: &[Chosen]) -> Ordered<u64> {
        self.owners.iter().zip(chosen).map(|((task, _), chosen)| (task.clone(), chosen.step)).collect()
    }
}

/// Whether a score is better than the best before; without one before it is.
pub(crate) fn improves(best: Option<&Chosen>, score: Option<f64>) -> bool {
    best.and_then(|best| best.score).is_none_or(|best| score.is_some_and(|score| score > best))
}

/// What to say of the chosen steps: `step 150`, or `step 100 of click, 150 of buy`.
pub fn told(step: u64, task_steps: &Ordered<u64>) -> String {
    let of_tasks: Vec<String> = task_steps.iter().map(|(task, step)| format!("{step} of {task}")).collect();
    if of_tasks.is_empty() { format!("step {step}") } else { format!("step {}", of_tasks.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_better_than_a_lower_one_and_than_none() {
        let chosen = |score| Chosen { step: 1, score };
        assert!(improves(None, Some(0.5)) && improves(None, None));
        assert!(improves(Some(&chosen(Some(0.5))), Some(0.6)));
        assert!(!improves(Some(&chosen(Some(0.5))), Some(0.5)) && !improves(Some(&chosen(Some(0.5))), None));
        assert!(improves(Some(&chosen(None)), Some(-1.0)) && improves(Some(&chosen(None)), None));
    }

    #[test]
    fn a_tensor_belongs_to_the_task_with_the_longest_name() {
        let owners = ["click", "click.late", "buy"].map(|task| (task.to_owned(), format!("{task}.")));
        let choice = Choice { owners: owners.to_vec() };
        assert_eq!(choice.owner("click.bottom.0.weight"), Some(0));
        assert_eq!(choice.owner("click.late.bottom.0.weight"), Some(1));
        assert_eq!(choice.owner("buyer.0.weight"), None);
        assert_eq!(choice.names_of(&[true, false, true]), ["click", "buy"]);
    }

    #[test]
    fn steps_are_told_once_or_by_task() {
        assert_eq!(told(150, &Ordered::default()), "step 150");
        let steps = [("click".to_owned(), 100), ("buy".to_owned(), 150)].into_iter().collect();
        assert_eq!(told(150, &steps), "step 100 of click, 150 of buy");
    }
}
