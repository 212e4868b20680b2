//! The table of repeated runs beside another engine's figures.

use super::compare::signed;
use super::terminal::{Look, table};
use crate::agreement::{Cell, Signs};

/// A row a task and metric: both means, their difference, that in standard errors, and what is allowed; below
/// them a line of what [`Signs`] says. Ends with a line feed.
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
    let table = table(&header, rows, 1, look);
    format!("beside the reference\n{table}\n{}\n", signs_line(&Signs::of(cells)))
}

/// `signs: 5 of 8 better, 3 worse: no common direction`.
fn signs_line(signs: &Signs) -> String {
    let count = signs.better + signs.worse;
    let (Some(side), mean) = (signs.common(), signs.mean.abs()) else {
        return format!(
            "signs: {} of {count} better, {} worse: no common direction",
            signs.better, signs.worse
        );
    };
    let verdict = match signs.limit {
        None => "too few to judge".to_owned(),
        Some(limit) if signs.agree() => format!("a common direction within luck, which reaches {limit:.1}"),
        Some(limit) => format!("A COMMON DIRECTION, luck reaches {limit:.1}"),
    };
    format!("signs: {count} of {count} {side}, by {mean:.1} standard errors on average: {verdict}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_signs() {
        let line = |better, worse, mean, limit| signs_line(&Signs { better, worse, mean, limit });
        assert_eq!(line(5, 3, 0.2, Some(3.0)), "signs: 5 of 8 better, 3 worse: no common direction");
        let common = "signs: 8 of 8 worse, by 1.3 standard errors on average: a common direction within luck, which \
                      reaches 3.0";
        assert_eq!(line(0, 8, -1.34, Some(3.0)), common);
        assert!(
            line(8, 0, 3.1, Some(3.0))
                .ends_with("by 3.1 standard errors on average: A COMMON DIRECTION, luck reaches 3.0")
        );
        assert!(
            line(2, 0, 9.0, None)
                .ends_with("2 of 2 better, by 9.0 standard errors on average: too few to judge")
        );
    }
}
