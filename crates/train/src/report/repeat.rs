//! The tables that repeated runs print: one a task, seeds from top to bottom.

use super::compare::{Rival, or_dash, signed};
use super::terminal::{Look, table};
use super::{Floors, compare};
use crate::metrics::ALL;
use crate::repeat::{ErrorSpread, Repetition, Spread, TaskSpread};

/// For each task AUC and log loss by seed (errors where it predicts numbers), their mean, sample standard deviation and
/// smallest value, and below them the floors with the difference of the mean AUC and whether it was won. Ends with a line
/// feed.
pub fn repetition_tables(repetition: &Repetition, look: Look) -> String {
    let tables: Vec<String> = repetition
        .tasks
        .iter()
        .map(|(task, spread)| {
            let title = format!("{task}, {} rows of {} seeds", repetition.part, repetition.seeds.len());
            let table = match &spread.errors {
                None => table(&["seed", "AUC", "logloss", ""], rows(task, spread, repetition, look), 1, look),
                Some(ErrorSpread { rmse, mae, nmae }) => {
                    let rows = rows_of_seeds(&repetition.seeds, &[rmse, mae, nmae]);
                    table(&["seed", "RMSE", "MAE", "NMAE"], rows, 1, look)
                }
            };
            format!("{title}\n{table}\n")
        })
        .collect();
    tables.join("\n")
}

fn figure(value: Option<f64>) -> String {
    or_dash(value, compare::fraction)
}

/// A row a seed, then their mean, deviation and minimum.
fn rows_of_seeds(seeds: &[u64], spreads: &[&Spread]) -> Vec<Vec<String>> {
    let row = |name: &str, of: &dyn Fn(&Spread) -> Option<f64>| {
        std::iter::once(name.to_owned()).chain(spreads.iter().map(|spread| figure(of(spread)))).collect()
    };
    let mut rows: Vec<Vec<String>> =
        seeds.iter().enumerate().map(|(i, seed)| row(&seed.to_string(), &|s| s.values[i])).collect();
    rows.extend([row("mean", &|s| s.mean), row("deviation", &|s| s.deviation), row("min", &|s| s.min)]);
    rows
}

fn rows(task: &str, spread: &TaskSpread, repetition: &Repetition, look: Look) -> Vec<Vec<String>> {
    let mut rows = rows_of_seeds(&repetition.seeds, &[&spread.auc, &spread.logloss]);
    rows.iter_mut().for_each(|row| row.push(String::new()));
    for name in repetition.floors.iter().flat_map(Floors::names) {
        let Some(value) = repetition.floors.as_ref().and_then(|f| f.get(name, task, ALL)) else { continue };
        let rival = Rival::auc(value, spread.auc.mean);
        let told = rival.gain.zip(rival.verdict());
        let told = told.map(|(gain, verdict)| format!("mean {} {}", signed(gain), look.mark(verdict)));
        rows.push(vec![name.to_owned(), figure(Some(value)), String::new(), told.unwrap_or_default()]);
    }
    rows
}
