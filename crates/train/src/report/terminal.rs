//! The table that a run prints: one line for each task and scenario.

use super::compare::{Line, Rival, Verdict, fraction, lines, or_dash, ratio, signed, summary};
use super::{Constants, Floors};
use crate::metrics::Evaluation;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};
use std::io::IsTerminal;

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// ASCII, no colours; verdicts are words.
    Plain,
    /// Rules and marks in Unicode, verdicts coloured.
    Terminal,
}

impl Look {
    /// [`Look::Terminal`] when standard output is a terminal and `NO_COLOR` is unset or empty.
    pub fn detect() -> Look {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !refused { Look::Terminal } else { Look::Plain }
    }

    pub(super) fn mark(self, verdict: Verdict) -> &'static str {
        match (self, verdict) {
            (Look::Plain, Verdict::Won) => "won",
            (Look::Plain, Verdict::Lost) => "lost",
            (Look::Plain, Verdict::Even) => "even",
            (Look::Terminal, Verdict::Won) => "✓",
            (Look::Terminal, Verdict::Lost) => "✗",
            (Look::Terminal, Verdict::Even) => "=",
        }
    }
}

/// A table with one line for each task and slice of `evaluation`: rows, positives, AUC, beside it each floor with the
/// difference and whether it was won, GAUC, log loss, beside it the constant's, and PCOC. Columns that hold nothing
/// (no floors, no users) are left out. Four tasks and two floors fit 120 columns. A title stands above, counts of
/// what was won below; the text ends with a line feed.
pub fn task_scenario_table(
    title: &str,
    evaluation: &Evaluation,
    floors: Option<&Floors>,
    constants: &Constants,
    look: Look,
) -> String {
    let lines = lines(evaluation, floors, constants);
    let shown = Shown {
        gauc: lines.iter().any(|line| line.metrics.gauc.is_some()),
        constant: lines.iter().any(|line| line.constant.is_some()),
        look,
    };
    let mut previous = "";
    let rows = lines.iter().map(|line| {
        let first = line.task != previous;
        previous = line.task;
        shown.row(line, first)
    });
    let drawn = table(&shown.header(floors), rows, 2, look);
    let mut text = format!("{title}\n{drawn}\n");
    for sentence in summary(&lines, floors) {
        text += &sentence;
        text.push('\n');
    }
    text
}

/// A table in the style of all that is printed: `left` columns of words, then columns of figures. No line feed at the
/// end.
pub fn table<R: Into<Row>>(
    header: &[&str],
    rows: impl IntoIterator<Item = R>,
    left: usize,
    look: Look,
) -> String {
    let mut table = Table::new();
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.load_style(match look {
        Look::Plain => presets::ASCII_HORIZONTAL_ONLY,
        Look::Terminal => presets::UTF8_HORIZONTAL_ONLY,
    });
    let style = table.style_mut();
    (style.row_separator, style.header_separator) = (Default::default(), style.bottom_border);
    table.force_no_tty();
    if look == Look::Terminal {
        table.enforce_styling();
    }
    table.set_header(header);
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if i >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Which columns a table has, and how it looks.
struct Shown {
    gauc: bool,
    constant: bool,
    look: Look,
}

impl Shown {
    fn header<'a>(&self, floors: Option<&'a Floors>) -> Vec<&'a str> {
        let mut header = vec!["task", "scenario", "rows", "pos.", "AUC"];
        header.extend(floors.iter().flat_map(|f| f.names()));
        header.extend(self.gauc.then_some("GAUC"));
        header.push("logloss");
        header.extend(self.constant.then_some("constant"));
        header.push("PCOC");
        header
    }

    fn row(&self, line: &Line<'_>, first: bool) -> Vec<Cell> {
        let m = line.metrics;
        let mut cells = vec![
            Cell::new(if first { line.task } else { "" }),
            Cell::new(line.slice),
            Cell::new(m.rows),
            Cell::new(m.positives),
            Cell::new(or_dash(m.auc, fraction)),
        ];
        cells.extend(line.floors.iter().map(|floor| self.rival(floor.as_ref(), true)));
        cells.extend(self.gauc.then(|| Cell::new(or_dash(m.gauc, fraction))));
        cells.push(Cell::new(or_dash(m.logloss, fraction)));
        cells.extend(self.constant.then(|| self.rival(line.constant.as_ref(), false)));
        cells.push(Cell::new(or_dash(m.pcoc, ratio)));
        cells
    }

    fn rival(&self, rival: Option<&Rival>, difference: bool) -> Cell {
        let Some(rival) = rival else { return Cell::new("-") };
        let mut text = fraction(rival.value);
        let Some((gain, verdict)) = rival.gain.zip(rival.verdict()) else { return Cell::new(text) };
        if difference {
            text = format!("{text} {}", signed(gain));
        }
        // The words are of unequal length: padded, the figures of a column stand below each other.
        let width = if self.look == Look::Plain { 4 } else { 1 };
        let cell = Cell::new(format!("{text} {:width$}", self.look.mark(verdict)));
        match (self.look, verdict) {
            (Look::Plain, _) | (_, Verdict::Even) => cell,
            (Look::Terminal, Verdict::Won) => cell.fg(Color::DarkGreen),
            (Look::Terminal, Verdict::Lost) => cell.fg(Color::DarkRed),
        }
    }
}
