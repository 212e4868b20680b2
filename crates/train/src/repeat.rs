//! The same configuration with several seeds: how much of a result is luck.

use crate::agreement::{Cell, Signs};
use crate::config::Config;
use crate::metrics::{ALL, Errors, Evaluation, Metrics, Ordered};
use crate::progress::Silent;
use crate::report::Floors;
use crate::trainer::{RunOptions, train};
use manygate_core::{Error, Result};
use manygate_features::{TaskConfig, TaskKind};
use serde::Serialize;
use std::str::FromStr;

/// Which rows are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The test files.
    Test,
    /// The validation rows.
    Valid,
}

/// A finished seed.
#[derive(Clone, Debug)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Step of its chosen checkpoint, the last where each task has its own.
    pub step: u64,
    /// The chosen step of each task, where each has its own.
    pub task_steps: Ordered<u64>,
    /// Metrics of that checkpoint.
    pub evaluation: Evaluation,
    /// Seconds of its run.
    pub seconds: f64,
}

/// Several seeds of one configuration; the JSON of `manygate repeat --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Repetition {
    /// Version of this form.
    pub version: u32,
    /// Name of the architecture.
    pub model: String,
    /// `test` or `valid`.
    pub part: &'static str,
    /// The seeds, in the order of all values below.
    pub seeds: Vec<u64>,
    /// Step of the chosen checkpoint, by seed.
    pub steps: Vec<u64>,
    /// Seconds, by seed.
    pub seconds: Vec<f64>,
    /// Metrics on all rows, by task.
    pub tasks: Ordered<TaskSpread>,
    /// Baselines of the configuration; none beside validation rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floors: Option<Floors>,
    /// Beside the figures of another engine, where these were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Vec<Cell>>,
    /// The directions of all those deviations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
    /// The same with fresh seeds, where some figure was outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again: Option<Box<Repetition>>,
}

/// The metrics of a task over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskSpread {
    /// Area under the ROC curve.
    pub auc: Spread,
    /// Log loss, nats a row.
    pub logloss: Spread,
    /// Of a task whose labels are numbers; probabilities have none of these, as numbers have no AUC and no log loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorSpread>,
}

/// The errors of a task over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorSpread {
    /// Root of the mean squared error.
    pub rmse: Spread,
    /// Mean absolute error.
    pub mae: Spread,
    /// Sum of the absolute errors over that of the labels' absolute values.
    pub nmae: Spread,
}

/// A metric over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// By seed; `null` where it is not defined.
    pub values: Vec<Option<f64>>,
    /// Mean of the defined values.
    pub mean: Option<f64>,
    /// Sample standard deviation (over n - 1), of at least two values.
    pub deviation: Option<f64>,
    /// Smallest value.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
}

impl Spread {
    /// Of these values.
    pub fn of(values: Vec<Option<f64>>) -> Spread {
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        let count = known.len() as f64;
        let mean = (count > 0.0).then(|| known.iter().sum::<f64>() / count);
        let squares = mean.map(|mean| known.iter().map(|v| (v - mean).powi(2)).sum::<f64>());
        Spread {
            deviation: squares.filter(|_| count > 1.0).map(|s| (s / (count - 1.0)).sqrt()),
            min: known.iter().copied().reduce(f64::min),
            max: known.iter().copied().reduce(f64::max),
            mean,
            values,
        }
    }
}

/// The least AUC that a task must reach with every seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The task.
    pub task: String,
    /// Its AUC.
    pub auc: f64,
}

impl Requirement {
    /// That `config` has the task, and that it has an AUC.
    ///
    /// # Errors
    /// [`Error::Config`] when it does not.
    pub fn check(&self, config: &Config) -> Result<()> {
        let name = &self.task;
        let message = match config.tasks.iter().find(|task| task.name == *name) {
            Some(task) if task.kind == TaskKind::Binary => return Ok(()),
            Some(_) => format!("`{name}` is no binary task, so that it has no AUC"),
            None => format!("there is no task `{name}`"),
        };
        Err(Error::config("--require", message))
    }
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Requirement, String> {
        let parts = text.split_once('=').and_then(|(task, auc)| Some((task, auc.parse().ok()?)));
        let (task, auc) = parts.ok_or("needs the form TASK=AUC, as in is_click=0.716")?;
        Ok(Requirement { task: task.to_owned(), auc })
    }
}

impl Repetition {
    /// Whether every seed reached every requirement.
    ///
    /// # Errors
    /// [`Error::Unmet`] with the first that was not; [`Error::Config`] for a task that does not exist.
    pub fn check(&self, requirements: &[Requirement]) -> Result<()> {
        for Requirement { task, auc } in requirements {
            let Some(spread) = self.tasks.get(task) else {
                return Err(Error::config("--require", format!("there is no task `{task}`")));
            };
            for (seed, reached) in self.seeds.iter().zip(&spread.auc.values) {
                if reached.is_none_or(|reached| reached < *auc) {
                    let reached = reached.map_or("none".to_owned(), |r| format!("{r:.4}"));
                    let message = format!("AUC of {task} with seed {seed} is {reached}, {auc} is required");
                    return Err(Error::Unmet(message));
                }
            }
        }
        Ok(())
    }
}

/// Trains `config` once a seed, each in a temporary folder that is removed at the end; `finished` is told of each.
///
/// # Errors
/// When there are no seeds or one is given twice, there are no test rows to score, a run fails, or the run is asked to
/// stop: then nothing is kept.
pub fn repeat(
    config: &Config,
    seeds: &[u64],
    rows: Rows,
    options: &RunOptions,
    finished: &mut dyn FnMut(&SeedResult),
) -> Result<Repetition> {
    let wrong = |message: String| Err(Error::config("--seeds", message));
    if seeds.is_empty() {
        return wrong("at least one seed is needed, as in --seeds 1,2,3".to_owned());
    }
    if let Some(seed) =
        seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)).map(|(_, seed)| seed)
    {
        return wrong(format!("{seed} is given twice; the same seed gives the same result"));
    }
    if rows == Rows::Test && config.data.test.is_empty() {
        let message = "test: the configuration names no test files; set `data.test`, or use --part valid";
        return Err(Error::config("--part", message));
    }
    // A floor that cannot be read should not come to light after the last seed.
    let floors =
        config.report.floors.as_ref().filter(|_| rows == Rows::Test).map(Floors::load).transpose()?;
    let mut results = Vec::with_capacity(seeds.len());
    for &seed in seeds {
        let result = run(config, seed, rows, options)?;
        finished(&result);
        results.push(result);
    }
    let (model, _) = manygate_models::from_table(&config.model)?;
    Ok(Repetition {
        version: 1,
        model: model.name.to_owned(),
        part: match rows {
            Rows::Test => "test",
            Rows::Valid => "valid",
        },
        seeds: seeds.to_vec(),
        steps: results.iter().map(|r| r.step).collect(),
        seconds: results.iter().map(|r| r.seconds).collect(),
        tasks: config.tasks.iter().map(|t| (t.name.clone(), spread(t, &results))).collect(),
        floors,
        agreement: None,
        signs: None,
        again: None,
    })
}

fn run(config: &Config, seed: u64, rows: Rows, options: &RunOptions) -> Result<SeedResult> {
    let config = Config { seed, ..config.clone() };
    let parent = std::env::temp_dir();
    let folder = tempfile::Builder::new()
        .prefix("manygate-repeat-")
        .tempdir()
        .map_err(Error::io("create a temporary folder in", parent))?;
    let outcome = train(&config, folder.path(), options.clone(), &mut Silent)?;
    let part = match rows {
        Rows::Test => outcome.test.unwrap_or_default(),
        Rows::Valid => outcome.valid,
    };
    Ok(SeedResult {
        seed,
        step: outcome.step,
        task_steps: outcome.task_steps,
        evaluation: part.evaluation,
        seconds: outcome.seconds,
    })
}

fn spread(task: &TaskConfig, results: &[SeedResult]) -> TaskSpread {
    let values = |of: &dyn Fn(&Metrics) -> Option<f64>| {
        Spread::of(results.iter().map(|r| r.evaluation.get(&task.name, ALL).and_then(of)).collect())
    };
    let errors = |of: fn(Errors) -> Option<f64>| values(&move |m| m.errors.and_then(of));
    TaskSpread {
        auc: values(&|m| m.auc),
        logloss: values(&|m| m.logloss),
        errors: (task.kind != TaskKind::Binary).then(|| ErrorSpread {
            rmse: errors(|e| e.rmse),
            mae: errors(|e| e.mae),
            nmae: errors(|e| e.nmae),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_hold_for_every_seed() {
        let task = |auc| TaskSpread { auc: Spread::of(auc), logloss: Spread::of(vec![]), errors: None };
        let repetition = Repetition {
            version: 1,
            model: "mmoe".into(),
            part: "test",
            seeds: vec![3, 4],
            steps: vec![1, 1],
            seconds: vec![0.0, 0.0],
            tasks: [("click".to_owned(), task(vec![Some(0.8), Some(0.7)]))].into_iter().collect(),
            floors: None,
            agreement: None,
            signs: None,
            again: None,
        };
        let check = |text: &str| repetition.check(&[text.parse().unwrap()]).map_err(|e| e.to_string());
        assert_eq!(check("click=0.7"), Ok(()));
        assert_eq!(check("click=0.71"), Err("AUC of click with seed 4 is 0.7000, 0.71 is required".into()));
        assert!(check("buy=0.5").unwrap_err().contains("no task `buy`"));
        assert!("click".parse::<Requirement>().is_err());
    }

    #[test]
    fn the_spread_of_values() {
        let spread = Spread::of(vec![Some(1.0), None, Some(3.0), Some(2.0)]);
        assert_eq!((spread.mean, spread.min, spread.max), (Some(2.0), Some(1.0), Some(3.0)));
        assert_eq!(spread.deviation, Some(1.0));
        let single = Spread::of(vec![Some(0.7)]);
        assert_eq!((single.mean, single.deviation), (Some(0.7), None));
        assert_eq!(Spread::of(vec![None]).mean, None);
    }
}
