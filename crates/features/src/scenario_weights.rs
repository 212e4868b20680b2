//! How much the rows of each scenario count in the losses.

use std::collections::BTreeMap;

use manygate_core::{Error, Result};

use crate::config::{Roles, TaskConfig};
use crate::text::{did_you_mean, shown};

/// Scenarios that a message lists at most.
const LISTED: usize = 20;

/// Weights by value of the scenario column, as the configuration gives them.
#[derive(Clone, Debug)]
pub(crate) struct ScenarioWeights {
    /// Key of the configuration, and the weights that stand there: those for all tasks, then each task's own.
    sections: Vec<(String, BTreeMap<String, f32>)>,
}

impl ScenarioWeights {
    /// # Errors
    /// [`Error::Config`] for a weight that is none, or where there are no scenarios.
    pub(crate) fn new(roles: Roles<'_>, tasks: &[TaskConfig]) -> Result<ScenarioWeights> {
        let all = ("data.scenario_weights".to_owned(), roles.scenario_weights.cloned().unwrap_or_default());
        let own = tasks.iter().enumerate();
        let own =
            own.map(|(t, task)| (format!("tasks[{t}].scenario_weights"), task.scenario_weights.clone()));
        let sections: Vec<_> = std::iter::once(all).chain(own).collect();
        for (key, weights) in &sections {
            if !weights.is_empty() && roles.scenario.is_none() {
                let message = "there is no scenario column: set `data.scenario` or remove this key";
                return Err(Error::config(key, message));
            }
            if let Some((scenario, weight)) = weights.iter().find(|(_, w)| !(w.is_finite() && **w >= 0.0)) {
                let message =
                    format!("{weight} is not a weight of {}: give a finite number from 0", shown(scenario));
                return Err(Error::config(key, message));
            }
        }
        Ok(ScenarioWeights { sections })
    }

    /// For each task its weights in the order of `scenarios`; empty where no scenario has one.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the scenarios when one is named that the data does not have.
    pub(crate) fn resolve(&self, scenarios: &[&str]) -> Result<Vec<Vec<f32>>> {
        for (key, weights) in &self.sections {
            let Some(unknown) = weights.keys().find(|name| !scenarios.contains(&name.as_str())) else {
                continue;
            };
            let hint = did_you_mean(unknown, scenarios.iter().copied());
            let listed: Vec<String> = scenarios.iter().take(LISTED).map(|name| shown(name)).collect();
            let more = if scenarios.len() > LISTED { ", ..." } else { "" };
            let message = format!(
                "no fit row has the scenario {}{hint}; the scenarios are: {}{more}",
                shown(unknown),
                listed.join(", ")
            );
            return Err(Error::config(key, message));
        }
        let (_, all) = &self.sections[0];
        let of_task = |(_, own): &(String, BTreeMap<String, f32>)| -> Vec<f32> {
            if all.is_empty() && own.is_empty() {
                return Vec::new();
            }
            let weight =
                |weights: &BTreeMap<String, f32>, name: &str| weights.get(name).copied().unwrap_or(1.0);
            scenarios.iter().map(|name| weight(all, name) * weight(own, name)).collect()
        };
        Ok(self.sections[1..].iter().map(of_task).collect())
    }
}
