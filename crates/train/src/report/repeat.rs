//! The tables that repeated runs print: one a task, seeds from top to bottom.

use super::compare::{Rival, or_dash, signed};
use super::terminal::{Look, table};
use super::{Floors, compare};
use crate::metrics::ALL;
use crate::repeat::{Repetition, Spread, TaskSpread};

/// For each task AUC and log loss by seed, their mean, sample standard deviation and smallest value, and below them
/// the floors with the difference of the mean AUC and whether it was won. Ends with a line feed.
pub fn repetition_tables(repetition: &Repetition, look: Look) -> String {
    let tables: Vec<String> = repetition
        .tasks
        .iter()
        .map(|(task, spread)| {
            let title = format!("{task}, {} rows of {} seeds", repetition.part, repetition.seeds.len());
            let rows = rows(task, spread, repetition, look);
            format!("{title}\n{}\n", table(&["seed", "AUC", "logloss", ""], rows, 1, look))
        })
        .collect();
    tables.join("\n")
}

fn rows(task: &str, spread: &TaskSpread, repetition: &Repetition, look: Look) -> Vec<Vec<String>> {
    let figure = |value: Option<f64>| or_dash(value, compare::fraction);
    let row = |name: String, of: &dyn Fn(&Spread) -> Option<f64>| {
        vec![name, figure(of(&spread.auc)), figure(of(&spread.logloss)), String::new()]
    };
    let seeds = repetition.seeds.iter().enumerate();
    let mut rows: Vec<Vec<String>> = seeds.map(|(i, seed)| row(seed.to_string(), &|s| s.values[i])).collect();
    rows.push(row("mean".to_owned(), &|s| s.mean));
    rows.push(row("deviation".to_owned(), &|s| s.deviation));
    rows.push(row("min".to_owned(), &|s| s.min));
    for name in repetition.floors.iter().flat_map(Floors::names) {
        let Some(value) = repetition.floors.as_ref().and_then(|f| f.get(name, task, ALL)) else { continue };
        let rival = Rival::auc(value, spread.auc.mean);
        let told = rival.gain.zip(rival.verdict());
        let told = told.map(|(gain, verdict)| format!("mean {} {}", signed(gain), look.mark(verdict)));
        rows.push(vec![name.to_owned(), figure(Some(value)), String::new(), told.unwrap_or_default()]);
    }
    rows
}
