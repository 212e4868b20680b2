//! What gates do, as tables and as heat maps: a cell for each expert or field and each slice of the rows.

use super::canvas::*;
use super::charts::LEFT;
use super::terminal::{Look, table};
use crate::gates::{Death, Expert, Gate, Gates, Kind};
use plotters::style::RGBColor;

const CELL: (f64, f64) = (58.0, 22.0);
const LABEL_ROOM: f64 = 150.0;
const TOP: f64 = 62.0;
const GAP: f64 = 22.0;
/// Panels stand side by side as far as this width goes.
const PAGE: f64 = 1_100.0;
const VALUE: f64 = 11.0;
/// Above this share of the full colour, white is easier to read on it.
const DARK: f64 = 0.6;

/// A table for each gate, then every expert's largest share, then what is wrong with experts; ends with a line feed.
pub fn gates_table(gates: &Gates, look: Look) -> String {
    let slices: Vec<&str> = gates.slices.iter().map(|slice| slice.name.as_str()).collect();
    let mut text = String::new();
    for gate in &gates.gates {
        let header: Vec<&str> = [gate.name.as_str()].into_iter().chain(slices.iter().copied()).collect();
        let cell = |mean: &Option<f64>| mean.map_or_else(|| "-".to_owned(), |mean| format!("{mean:.4}"));
        let rows = gate.of.iter().zip(&gate.means);
        let rows = rows.map(|(name, means)| {
            [name.clone()].into_iter().chain(means.iter().map(cell)).collect::<Vec<String>>()
        });
        text += &format!("{}\n{}\n\n", meaning(gate.kind), table(&header, rows, 1, look));
    }
    let rows = gates.experts.iter().map(|expert| {
        let place = format!("{}, {}", expert.gate, expert.slice);
        [
            expert.name.clone(),
            place,
            format!("{:.4}", expert.largest_share),
            format!("{:.4}", expert.deviation),
        ]
    });
    if !gates.experts.is_empty() {
        let header = ["expert", "largest mean share in", "share", "deviation of its output"];
        text += &format!("{}\n\n", table(&header, rows.map(Vec::from_iter), 2, look));
    }
    gates.experts.iter().filter_map(complaint).for_each(|line| text += &line);
    for duplicate in &gates.duplicates {
        let [one, other] = &duplicate.experts;
        let correlation = duplicate.correlation;
        text += &format!("duplicates: {one} and {other}, whose outputs correlate by {correlation:.4}\n");
    }
    if !gates.experts.is_empty() && text.ends_with("\n\n") {
        text += "no expert is dead, and no two do the same\n";
    }
    let rows = gates.slices.iter().map(|slice| format!("{} {}", slice.name, slice.rows));
    text + &format!("rows: {}\n", rows.collect::<Vec<_>>().join(", "))
}

fn complaint(expert: &Expert) -> Option<String> {
    let why = match expert.dead? {
        Death::Constant => "its output is the same for every row".to_owned(),
        Death::Unused => format!("no gate gives it more than {:.4} in any slice", expert.largest_share),
    };
    Some(format!("dead: {}, {why}\n", expert.name))
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Shares => "mean share of each expert",
        Kind::Factors => "mean factor of each field",
        Kind::Gain => "how many times as long a field's vector becomes",
    }
}

/// The mean weights of all gates, as one picture.
pub fn gate_heat(gates: &Gates) -> String {
    let width = LEFT + LABEL_ROOM + CELL.0 * gates.slices.len() as f64 + GAP;
    let columns = ((PAGE / width) as usize).clamp(1, gates.gates.len().max(1));
    let height = |gate: &Gate| TOP + CELL.1 * gate.of.len() as f64 + GAP;
    let rows: Vec<&[Gate]> = gates.gates.chunks(columns).collect();
    let tallest = |row: &[Gate]| row.iter().map(height).fold(0.0, f64::max);
    let total = rows.iter().map(|row| tallest(row)).sum();
    document(width * columns as f64, total, &format!("Gates of {}", gates.model), |canvas| {
        let mut y = 0.0;
        for row in rows {
            for (column, gate) in row.iter().enumerate() {
                draw(&canvas.part((width * column as f64, y), width, height(gate)), gates, gate);
            }
            y += tallest(row);
        }
    })
}

fn draw(canvas: &Canvas<'_, '_>, gates: &Gates, gate: &Gate) {
    canvas.title(&gate.name, (LEFT, 16.0));
    canvas.text(meaning(gate.kind), (LEFT, 34.0), Hold::Left, TEXT, MUTED);
    for (column, slice) in gates.slices.iter().enumerate() {
        let x = LEFT + LABEL_ROOM + CELL.0 * (column as f64 + 0.5);
        canvas.text(&fitted(&slice.name, VALUE, CELL.0), (x, TOP - 9.0), Hold::Center, VALUE, MUTED);
    }
    let reach = reach(gate);
    for (row, (name, means)) in gate.of.iter().zip(&gate.means).enumerate() {
        let y = TOP + CELL.1 * row as f64;
        let middle = y + CELL.1 / 2.0;
        let label = fitted(name, TEXT, LABEL_ROOM - 8.0);
        canvas.text(&label, (LEFT + LABEL_ROOM - 8.0, middle), Hold::Right, TEXT, INK);
        for (column, mean) in means.iter().enumerate() {
            let x = LEFT + LABEL_ROOM + CELL.0 * column as f64;
            let centre = (x + CELL.0 / 2.0, middle);
            let Some(mean) = *mean else {
                canvas.text("n/a", centre, Hold::Center, VALUE, MUTED);
                continue;
            };
            let (colour, strength) = colour(gate.kind, mean, reach);
            canvas.rect((x + 0.5, y + 0.5), (x + CELL.0 - 0.5, y + CELL.1 - 0.5), colour, strength);
            let ink = if strength > DARK { RGBColor(255, 255, 255) } else { INK };
            canvas.text(&format!("{mean:.3}"), centre, Hold::Center, VALUE, ink);
        }
    }
}

/// What the full colour stands for: the largest share, or the largest distance of a factor from 1 as a ratio.
fn reach(gate: &Gate) -> f64 {
    let means = gate.means.iter().flatten().flatten();
    match gate.kind {
        Kind::Shares => means.fold(1e-9, |largest, mean| mean.max(largest)),
        Kind::Factors | Kind::Gain => means.map(|mean| mean.max(1e-9).ln().abs()).fold(1e-9, f64::max),
    }
}

/// Shares are blue; factors above 1 are orange, below 1 blue.
fn colour(kind: Kind, mean: f64, reach: f64) -> (RGBColor, f64) {
    let (distance, colour) = match kind {
        Kind::Shares => (mean, COLOURS[0]),
        Kind::Factors | Kind::Gain => (mean.max(1e-9).ln(), if mean > 1.0 { COLOURS[1] } else { COLOURS[0] }),
    };
    (colour, (distance.abs() / reach).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gates::Slice;

    #[test]
    fn a_panel_for_each_gate_and_a_cell_for_each_mean() {
        let gate = |name: &str, kind| Gate {
            name: name.into(),
            kind,
            of: vec!["a".into(), "<b>".into()],
            means: vec![vec![Some(0.25), None], vec![Some(0.75), Some(1.0)]],
        };
        let slice = |name: &str| Slice { name: name.into(), rows: 3 };
        let gates = Gates {
            version: 1,
            model: "mmoe".into(),
            slices: vec![slice("all"), slice("tab=1")],
            gates: vec![gate("gates.click", Kind::Shares), gate("domain", Kind::Gain)],
            experts: Vec::new(),
            duplicates: Vec::new(),
        };
        let svg = gate_heat(&gates);
        for text in ["gates.click", "domain", "&lt;b&gt;", "0.250", "n/a", "tab=1"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert_eq!(svg.matches("0.750").count(), 2);
        assert!(!svg.contains("<b>"));
    }
}
