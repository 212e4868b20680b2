//! Labels: which cells are a label of a task, by its kind.

use crate::config::TaskKind;
use crate::text::shown;

/// Reads a label of `task`; where there are `positive` texts, those stand for 1 and all others for 0.
///
/// # Errors
/// What is wrong with the cell and what to do.
pub(crate) fn label(kind: TaskKind, positive: &[String], cell: &str, task: &str) -> Result<f32, String> {
    if !positive.is_empty() {
        return match cell.trim().is_empty() {
            true => Err(format!(
                "the label of the task {} is empty: correct the file or leave the row out",
                shown(task)
            )),
            false => Ok(f32::from(positive.iter().any(|text| text == cell))),
        };
    }
    let number = match cell {
        "0" => Some(0.0),
        "1" => Some(1.0),
        _ => finite(cell),
    };
    number.filter(|&number| kind.has_label(number)).ok_or_else(|| {
        let (kind, allowed) = kind.words();
        format!(
            "{} is not a label of the {kind} task {}, which must be {allowed}: correct the file or leave the row out",
            shown(cell),
            shown(task)
        )
    })
}

impl TaskKind {
    /// Whether a number can be a label of such a task.
    pub(crate) fn has_label(self, number: f32) -> bool {
        match self {
            TaskKind::Binary => number == 0.0 || number == 1.0,
            TaskKind::Regression => number.is_finite(),
            TaskKind::Poisson => number.is_finite() && number >= 0.0,
        }
    }

    /// Its name and its labels, for messages.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            TaskKind::Binary => ("binary", "0 or 1"),
            TaskKind::Regression => ("regression", "a finite number within single precision"),
            TaskKind::Poisson => ("poisson", "a finite number from 0 up, as a count is"),
        }
    }
}

/// A number without the sign of zero.
fn finite(cell: &str) -> Option<f32> {
    cell.trim().parse::<f32>().ok().filter(|y| y.is_finite()).map(|y| y + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(kind: TaskKind, cells: &[&str], told: &str) {
        for cell in cells {
            let message = label(kind, &[], cell, "task").unwrap_err();
            assert!(message.starts_with(&format!("`{cell}` is not a label of the {told}")), "{message}");
            assert!(message.ends_with("correct the file or leave the row out"), "{message}");
        }
    }

    #[test]
    fn binary_labels_are_zero_or_one() {
        assert_eq!(label(TaskKind::Binary, &[], "1", "click"), Ok(1.0));
        assert_eq!(label(TaskKind::Binary, &[], " 0.0", "click"), Ok(0.0));
        let zero = label(TaskKind::Binary, &[], "-0", "click").unwrap();
        assert!(zero.is_sign_positive());
        let told = "binary task `task`, which must be 0 or 1";
        refused(TaskKind::Binary, &["2", "", "yes", "NaN", "0.5"], told);
    }

    #[test]
    fn texts_may_stand_for_one() {
        let positive = ["50000+.".to_owned(), "more".to_owned()];
        let label = |cell| label(TaskKind::Binary, &positive, cell, "rich");
        for (cell, want) in [("50000+.", 1.0), ("more", 1.0), ("- 50000.", 0.0), ("1", 0.0), ("more ", 0.0)] {
            assert_eq!(label(cell), Ok(want), "{cell}");
        }
        for empty in ["", " "] {
            let message = label(empty).unwrap_err();
            assert!(message.starts_with("the label of the task `rich` is empty"), "{message}");
        }
    }

    #[test]
    fn regression_labels_are_finite_numbers() {
        for (cell, want) in [("-3.5", -3.5), ("1e3 ", 1000.0), ("0", 0.0)] {
            assert_eq!(label(TaskKind::Regression, &[], cell, "watch"), Ok(want));
        }
        let told = "regression task `task`, which must be a finite number";
        refused(TaskKind::Regression, &["", "long", "NaN", "inf", "1e39"], told);
    }

    #[test]
    fn poisson_labels_are_not_negative() {
        for (cell, want) in [("0", 0.0), ("7", 7.0), ("2.5", 2.5)] {
            assert_eq!(label(TaskKind::Poisson, &[], cell, "plays"), Ok(want));
        }
        let told = "poisson task `task`, which must be a finite number from 0 up";
        refused(TaskKind::Poisson, &["-1", "", "two", "NaN", "inf"], told);
    }
}
