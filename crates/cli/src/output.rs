//! Where words go: results to stdout, the rest to stderr. A reader that has seen enough (`| head`) ends neither a run
//! nor the program with a panic.

use manygate_core::{Error, Result};
use manygate_train::metrics::{ALL, Evaluation};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints a result, with a line feed at its end.
pub(crate) fn result(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", "stdout")(e)),
        _ => Ok(()),
    }
}

/// Prints a result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::format("stdout", e.to_string()))?;
    result(&text)
}

/// Says something beside the result. Nobody listening is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What stands for each task in a line, on all rows: `AUC click 0.7123 buy 0.6541, RMSE watch 1.2345`.
pub(crate) fn figures(evaluation: &Evaluation) -> String {
    let all = evaluation.tasks.iter().filter_map(|(task, slices)| Some((task, slices.get(ALL)?)));
    let (numbers, probabilities): (Vec<_>, Vec<_>) = all.partition(|(_, metrics)| metrics.errors.is_some());
    let told = |name: &str, values: Vec<(&str, Option<f64>)>| {
        let value = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
        let each: Vec<String> = values.iter().map(|(task, v)| format!("{task} {}", value(*v))).collect();
        (!each.is_empty()).then(|| format!("{name} {}", each.join(" ")))
    };
    let auc = told("AUC", probabilities.iter().map(|(task, m)| (*task, m.auc)).collect());
    let rmse = numbers.iter().map(|(task, m)| (*task, m.errors.and_then(|errors| errors.rmse)));
    [auc, told("RMSE", rmse.collect())].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
