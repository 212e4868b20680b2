//! Results beside what they have to beat: the rows of every table, as text.

use super::{Floors, Part};
use crate::metrics::{Evaluation, Metrics, Ordered, constant_log_loss, constant_rmse};
use serde::{Deserialize, Serialize};

/// What always predicting a task's mean label in training reaches: task -> slice -> log loss in nats or, where labels are
/// numbers, RMSE. Empty slices are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Constants {
    tasks: Ordered<Ordered<f64>>,
}

impl Constants {
    /// Of the constants `means` (task -> mean label of the counted training rows) on the rows of `evaluation`, which says
    /// all of their labels that is needed.
    pub fn of(means: &Ordered<f64>, evaluation: &Evaluation) -> Constants {
        let of_slice = |mean: f64, m: &Metrics| match m.errors {
            None => constant_log_loss(mean, m.rows, m.positives),
            Some(errors) => Some(constant_rmse(mean, errors.label_mean?, errors.label_deviation?)),
        };
        let of_task = |mean: f64, slices: &Ordered<Metrics>| -> Ordered<f64> {
            slices.iter().filter_map(|(slice, m)| Some((slice.to_owned(), of_slice(mean, m)?))).collect()
        };
        let tasks = evaluation.tasks.iter();
        let tasks = tasks.filter_map(|(task, s)| Some((task.to_owned(), of_task(*means.get(task)?, s))));
        Constants { tasks: tasks.collect() }
    }

    /// What the constant reaches for `task` on `slice`.
    pub fn get(&self, task: &str, slice: &str) -> Option<f64> {
        self.tasks.get(task)?.get(slice).copied()
    }
}

/// Whether the model beat what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Won,
    Lost,
    /// Equal to the four decimals that are shown.
    Even,
}

impl Verdict {
    fn of(gain: f64) -> Verdict {
        match (gain * 1e4).round() {
            0.0 => Verdict::Even,
            g if g > 0.0 => Verdict::Won,
            _ => Verdict::Lost,
        }
    }
}

/// A value to beat, and how that went.
pub(super) struct Rival {
    pub(super) value: f64,
    /// AUC of the model minus that of the floor, or log loss (RMSE) of the constant minus that of the model: above 0
    /// is won. `None` where the model's metric is not defined.
    pub(super) gain: Option<f64>,
}

impl Rival {
    /// A floor, and the AUC that has to beat it.
    pub(super) fn auc(value: f64, auc: Option<f64>) -> Rival {
        Rival { value, gain: auc.map(|auc| rounded(auc) - rounded(value)) }
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.gain.map(Verdict::of)
    }
}

/// One line of a table: a task on a slice.
pub(super) struct Line<'a> {
    pub(super) task: &'a str,
    /// Whether the task is one that is not served.
    pub(super) auxiliary: bool,
    pub(super) slice: &'a str,
    pub(super) metrics: &'a Metrics,
    /// For each baseline, where it was measured.
    pub(super) floors: Vec<Option<Rival>>,
    pub(super) constant: Option<Rival>,
}

impl Line<'_> {
    /// What stands in the column of tasks.
    pub(super) fn name(&self) -> String {
        if self.auxiliary { format!("{} (auxiliary)", self.task) } else { self.task.to_owned() }
    }
}

/// The lines of a part, task by task, of two tables: tasks that predict probabilities, and those that predict numbers.
pub(super) struct Lines<'a> {
    pub(super) probabilities: Vec<Line<'a>>,
    pub(super) numbers: Vec<Line<'a>>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(part: &'a Part, floors: Option<&Floors>) -> Lines<'a> {
        let mut lines = Lines { probabilities: Vec::new(), numbers: Vec::new() };
        for (task, slices) in part.evaluation.tasks.iter() {
            let auxiliary = part.auxiliary.iter().any(|name| name == task);
            for (slice, metrics) in slices.iter() {
                let floor = |name: &str| Some(Rival::auc(floors?.get(name, task, slice)?, metrics.auc));
                let reached = metrics.errors.map_or(metrics.logloss, |errors| errors.rmse);
                let constant = part.constants.get(task, slice).map(|value| Rival {
                    value,
                    gain: reached.map(|reached| rounded(value) - rounded(reached)),
                });
                let floors = floors.iter().flat_map(|f| f.names()).map(floor).collect();
                let line = Line { task, auxiliary, slice, metrics, floors, constant };
                match metrics.errors {
                    None => lines.probabilities.push(line),
                    Some(_) => lines.numbers.push(line),
                }
            }
        }
        lines
    }

    /// One sentence for each rival: how many slices were won. Rivals that meet the model nowhere are left out.
    pub(super) fn summary(&self, floors: Option<&Floors>) -> Vec<String> {
        let names = floors.iter().flat_map(|f| f.names()).enumerate();
        let floors = names.map(|(i, name)| {
            let rivals = self.probabilities.iter().filter_map(|line| line.floors[i].as_ref());
            sentence(&format!("AUC against {name}"), rivals)
        });
        let constants = [
            ("log loss against the constant training rate", &self.probabilities),
            ("RMSE against the constant training mean", &self.numbers),
        ]
        .map(|(what, lines)| sentence(what, lines.iter().filter_map(|line| line.constant.as_ref())));
        floors.chain(constants).flatten().collect()
    }
}

fn sentence<'a>(what: &str, rivals: impl Iterator<Item = &'a Rival>) -> Option<String> {
    let verdicts: Vec<Verdict> = rivals.filter_map(Rival::verdict).collect();
    let count = |wanted| verdicts.iter().filter(|v| **v == wanted).count();
    let even = count(Verdict::Even);
    let even = if even > 0 { format!(", even on {even}") } else { String::new() };
    (!verdicts.is_empty()).then(|| format!("{what}: won {} of {}{even}", count(Verdict::Won), verdicts.len()))
}

/// To the four decimals that are shown, so that a difference is that of the figures beside it.
fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// `.7197`, `1.0234`, `-.0012`.
pub(super) fn fraction(x: f64) -> String {
    let text = format!("{x:.4}");
    match text.strip_prefix("-0.") {
        Some(digits) => format!("-.{digits}"),
        None => text.strip_prefix('0').map(str::to_owned).unwrap_or(text),
    }
}

/// `+.0012`, `-.0012`.
pub(super) fn signed(x: f64) -> String {
    if x < 0.0 { fraction(x) } else { format!("+{}", fraction(x)) }
}

/// `1.03`.
pub(super) fn ratio(x: f64) -> String {
    format!("{x:.2}")
}

/// The value in words of its column, or a dash where it is not defined.
pub(super) fn or_dash(value: Option<f64>, show: fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}
