//! The tables that a run prints: one line for each task and scenario.

use super::compare::{Line, Lines, Rival, Verdict, fraction, or_dash, ratio, signed};
use super::{Floors, Part};
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

/// Tables with one line for each task and slice of `part`. Tasks that predict probabilities: rows, positives, AUC, beside
/// it each floor with the difference and whether it was won, GAUC, log loss, beside it the constant's, and PCOC. Tasks
/// that predict numbers: rows, mean label, RMSE, beside it the constant's, MAE, NMAE, and for counts deviance and PCOC.
/// Columns that hold nothing (no floors, no users) are left out. Four tasks and two floors fit 120 columns. A title stands
/// above, counts of what was won below; the text ends with a line feed.
pub fn task_scenario_table(title: &str, part: &Part, floors: Option<&Floors>, look: Look) -> String {
    let lines = Lines::of(part, floors);
    let mut text = format!("{title}\n");
    let mut draw = |lines: &[Line<'_>], header: Vec<&str>, row: &dyn Fn(&Line<'_>) -> Vec<Cell>| {
        let mut previous = "";
        let rows = lines.iter().map(|line| {
            let name = if line.task == previous { String::new() } else { line.name() };
            previous = line.task;
            [vec![Cell::new(name), Cell::new(line.slice), Cell::new(line.metrics.rows)], row(line)].concat()
        });
        if !lines.is_empty() {
            let header = [vec!["task", "scenario", "rows"], header].concat();
            text += &table(&header, rows, 2, look);
            text.push('\n');
        }
    };
    let shown = Shown::new(&lines.probabilities, look);
    draw(&lines.probabilities, shown.header(floors), &|line| shown.row(line));
    let shown = ShownNumbers::new(&lines.numbers, look);
    draw(&lines.numbers, shown.header(), &|line| shown.row(line));
    for sentence in lines.summary(floors) {
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

/// Which columns the table of probabilities has, and how it looks.
struct Shown {
    gauc: bool,
    constant: bool,
    /// Whether a task comes after another.
    cascade: bool,
    look: Look,
}

impl Shown {
    fn new(lines: &[Line<'_>], look: Look) -> Shown {
        Shown {
            gauc: lines.iter().any(|line| line.metrics.gauc.is_some()),
            constant: lines.iter().any(|line| line.constant.is_some()),
            cascade: lines.iter().any(|line| line.metrics.above_earlier.is_some()),
            look,
        }
    }

    fn header<'a>(&self, floors: Option<&'a Floors>) -> Vec<&'a str> {
        let mut header = vec!["pos.", "AUC"];
        header.extend(floors.iter().flat_map(|f| f.names()));
        header.extend(self.gauc.then_some("GAUC"));
        header.push("logloss");
        header.extend(self.constant.then_some("constant"));
        header.push("PCOC");
        header.extend(self.cascade.then_some("above"));
        header
    }

    fn row(&self, line: &Line<'_>) -> Vec<Cell> {
        let m = line.metrics;
        let mut cells = vec![Cell::new(m.positives), Cell::new(or_dash(m.auc, fraction))];
        cells.extend(line.floors.iter().map(|floor| rival(floor.as_ref(), true, self.look)));
        cells.extend(self.gauc.then(|| Cell::new(or_dash(m.gauc, fraction))));
        cells.push(Cell::new(or_dash(m.logloss, fraction)));
        cells.extend(self.constant.then(|| rival(line.constant.as_ref(), false, self.look)));
        cells.push(Cell::new(or_dash(m.pcoc, ratio)));
        cells.extend(self.cascade.then(|| Cell::new(or_dash(m.above_earlier, fraction))));
        cells
    }
}

/// Which columns the table of numbers has, and how it looks.
struct ShownNumbers {
    constant: bool,
    /// Whether there are counts.
    counts: bool,
    look: Look,
}

impl ShownNumbers {
    fn new(lines: &[Line<'_>], look: Look) -> ShownNumbers {
        ShownNumbers {
            constant: lines.iter().any(|line| line.constant.is_some()),
            counts: lines.iter().any(|line| line.metrics.errors.is_some_and(|e| e.deviance.is_some())),
            look,
        }
    }

    fn header(&self) -> Vec<&'static str> {
        let mut header = vec!["mean", "RMSE"];
        header.extend(self.constant.then_some("constant"));
        header.extend(["MAE", "NMAE"]);
        header.extend(self.counts.then_some(["deviance", "PCOC"]).into_iter().flatten());
        header
    }

    fn row(&self, line: &Line<'_>) -> Vec<Cell> {
        let errors = line.metrics.errors.unwrap_or_default();
        let figure = |value: Option<f64>| Cell::new(or_dash(value, fraction));
        let mut cells = vec![figure(errors.label_mean), figure(errors.rmse)];
        cells.extend(self.constant.then(|| rival(line.constant.as_ref(), false, self.look)));
        cells.extend([figure(errors.mae), figure(errors.nmae)]);
        if self.counts {
            cells.extend([figure(errors.deviance), Cell::new(or_dash(line.metrics.pcoc, ratio))]);
        }
        cells
    }
}

fn rival(rival: Option<&Rival>, difference: bool, look: Look) -> Cell {
    let Some(rival) = rival else { return Cell::new("-") };
    let mut text = fraction(rival.value);
    let Some((gain, verdict)) = rival.gain.zip(rival.verdict()) else { return Cell::new(text) };
    if difference {
        text = format!("{text} {}", signed(gain));
    }
    // The words are of unequal length: padded, the figures of a column stand below each other.
    let width = if look == Look::Plain { 4 } else { 1 };
    let cell = Cell::new(format!("{text} {:width$}", look.mark(verdict)));
    match (look, verdict) {
        (Look::Plain, _) | (_, Verdict::Even) => cell,
        (Look::Terminal, Verdict::Won) => cell.fg(Color::DarkGreen),
        (Look::Terminal, Verdict::Lost) => cell.fg(Color::DarkRed),
    }
}
