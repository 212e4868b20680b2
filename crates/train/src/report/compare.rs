//! Results beside what they have to beat: the rows of every table, as text.

use super::Floors;
use crate::metrics::{Evaluation, Metrics, Ordered, constant_log_loss};
use serde::{Deserialize, Serialize};

/// Log loss of always predicting a task's training rate: task -> slice -> nats. Empty slices are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Constants {
    tasks: Ordered<Ordered<f64>>,
}

impl Constants {
    /// The constant's log loss for `task` on `slice`.
    pub fn get(&self, task: &str, slice: &str) -> Option<f64> {
        self.tasks.get(task)?.get(slice).copied()
    }
}

/// What the constant `rates` (task -> share of positives among the counted training rows) reach on the rows of
/// `evaluation`. Labels are 0 or 1, so the counts of an evaluation say all about them.
pub fn constant_log_losses(rates: &Ordered<f64>, evaluation: &Evaluation) -> Constants {
    let of_task = |rate: f64, slices: &Ordered<Metrics>| -> Ordered<f64> {
        let of_slice = |m: &Metrics| constant_log_loss(rate, m.rows, m.positives);
        slices.iter().filter_map(|(slice, m)| Some((slice.to_owned(), of_slice(m)?))).collect()
    };
    let tasks = evaluation.tasks.iter();
    Constants {
        tasks: tasks
            .filter_map(|(task, slices)| Some((task.to_owned(), of_task(*rates.get(task)?, slices))))
            .collect(),
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
    /// AUC of the model minus that of the floor, or log loss of the constant minus that of the model: above 0 is
    /// won. `None` where the model's metric is not defined.
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
    pub(super) slice: &'a str,
    pub(super) metrics: &'a Metrics,
    /// For each baseline, where it was measured.
    pub(super) floors: Vec<Option<Rival>>,
    pub(super) constant: Option<Rival>,
}

/// All lines of `evaluation`, task by task.
pub(super) fn lines<'a>(
    evaluation: &'a Evaluation,
    floors: Option<&Floors>,
    constants: &Constants,
) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (task, slices) in evaluation.tasks.iter() {
        for (slice, metrics) in slices.iter() {
            let floor = |name: &str| Some(Rival::auc(floors?.get(name, task, slice)?, metrics.auc));
            let constant = constants.get(task, slice).map(|value| Rival {
                value,
                gain: metrics.logloss.map(|loss| rounded(value) - rounded(loss)),
            });
            let floors = floors.iter().flat_map(|f| f.names()).map(floor).collect();
            lines.push(Line { task, slice, metrics, floors, constant });
        }
    }
    lines
}

/// One sentence for each rival: how many slices were won. Rivals that meet the model nowhere are left out.
pub(super) fn summary(lines: &[Line<'_>], floors: Option<&Floors>) -> Vec<String> {
    let sentence = |what: String, rivals: Vec<&Rival>| {
        let verdicts: Vec<Verdict> = rivals.iter().filter_map(|rival| rival.verdict()).collect();
        let count = |wanted| verdicts.iter().filter(|v| **v == wanted).count();
        let even = count(Verdict::Even);
        let even = if even > 0 { format!(", even on {even}") } else { String::new() };
        (!verdicts.is_empty())
            .then(|| format!("{what}: won {} of {}{even}", count(Verdict::Won), verdicts.len()))
    };
    let names = floors.iter().flat_map(|f| f.names()).enumerate();
    let mut said: Vec<String> = names
        .filter_map(|(i, name)| {
            let rivals = lines.iter().filter_map(|line| line.floors[i].as_ref()).collect();
            sentence(format!("AUC against {name}"), rivals)
        })
        .collect();
    let rivals = lines.iter().filter_map(|line| line.constant.as_ref()).collect();
    said.extend(sentence("log loss against the constant training rate".to_owned(), rivals));
    said
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
