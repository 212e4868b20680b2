//! The table of repeated runs beside another engine's figures.

use super::compare::signed;
use super::terminal::{Look, table};
use crate::agreement::Cell;

/// A row a task and metric: both means, their difference, that in standard errors, and what is allowed. Ends with a
/// line feed.
pub fn agreement_table(cells: &[Cell], look: Look) -> String {
    let rows = cells.iter().map(|cell| {
        vec![
            format!("{} {}", cell.task, cell.metric),
            format!("{:.4}", cell.mean),
            format!("{:.4}", cell.reference),
            signed(cell.difference()),
            format!("{:+.1}", cell.deviation()),
            format!("{:.4}", cell.allowed),
            if cell.agrees() { "agrees" } else { "OUTSIDE" }.to_owned(),
        ]
    });
    let header = ["", "mean", "reference", "difference", "in standard errors", "allowed", ""];
    format!("beside the reference\n{}\n", table(&header, rows, 1, look))
}
