//! Bar charts by scenario: AUC beside its floors, and calibration.
//!
//! Bars lie flat: any number of scenarios, with names of any length, keeps the width of a page.

use super::ReportData;
use super::canvas::*;
use super::charts::{LEFT, WIDTH, nothing};
use super::compare::{fraction, ratio};
use crate::metrics::{ALL, Metrics};
use plotters::style::RGBColor;

const BAR: f64 = 12.0;
const GROUP_GAP: f64 = 10.0;
/// Size of the figures beside bars, and the room for one.
const VALUE: f64 = 11.0;
const VALUE_ROOM: f64 = 42.0;
const LABEL_ROOM: f64 = 110.0;
/// Scenarios that a chart shows at most: the largest.
const MOST_SCENARIOS: usize = 15;
/// Below this many positives (or negatives, where labels are 0 or 1) AUC and PCOC are mostly noise: such bars are pale.
const FEW: usize = 20;

/// AUC of `task` on the test part, slice by slice, against the floors. Bars start at 0.5, chance.
pub fn auc_bars(data: &ReportData, task: &str) -> String {
    let mut groups = groups(data, task);
    let floors: Vec<&str> = data.floors.iter().flat_map(|f| f.names()).collect();
    let mut used = vec![false; floors.len()];
    for group in &mut groups {
        group.bars = vec![(group.metrics.auc, COLOURS[0])];
        for (i, name) in floors.iter().enumerate() {
            if let Some(auc) = data.floors.as_ref().and_then(|f| f.get(name, task, group.slice)) {
                group.bars.push((Some(auc), floor_colour(i)));
                used[i] = true;
            }
        }
    }
    let mut entries = vec![("this model".to_owned(), Key::Bar(COLOURS[0]))];
    let in_use = floors.iter().enumerate().filter(|(i, _)| used[*i]);
    entries.extend(in_use.map(|(i, name)| ((*name).to_owned(), Key::Bar(floor_colour(i)))));
    let head = Head {
        task,
        unit: "test AUC; bars start at 0.5, chance",
        notes: notes(data, task, &groups),
        entries,
    };

    let height = head.height() + bars_height(&groups);
    document(WIDTH, height, &format!("Test AUC of {task} by scenario"), |canvas| {
        let top = head.draw(canvas);
        let known = groups.iter().flat_map(|g| &g.bars).filter_map(|bar| bar.0);
        let Some((low, high)) = known.map(|v| (v, v)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
            return nothing(canvas);
        };
        let start = label_end(&groups);
        let x = Axis { from: low.min(0.5), to: high.max(0.55), start, end: canvas.width - VALUE_ROOM };
        let bottom = grid(canvas, &groups, x, top, &x.ticks(5), "AUC");
        let chance = x.at(0.5);
        for (group, mut y) in groups.iter().zip(group_tops(&groups, top)) {
            for &(value, colour) in &group.bars {
                match value {
                    None => canvas.text("n/a", (chance + 4.0, y + BAR / 2.0), Hold::Left, VALUE, MUTED),
                    Some(value) => {
                        let (from, to) = (x.at(value.min(0.5)), x.at(value.max(0.5)));
                        canvas.rect((from, y + 0.5), (to, y + BAR - 0.5), colour, group.opacity());
                        canvas.text(&fraction(value), (to + 4.0, y + BAR / 2.0), Hold::Left, VALUE, INK);
                    }
                }
                y += BAR;
            }
        }
        canvas.line(&[(chance, top), (chance, bottom)], MUTED, 1.0);
    })
}

/// Predicted over observed positives (or counts) of `task` on the test part, slice by slice, on a logarithmic axis: bars to the
/// right of 1 promise too much, to the left too little.
pub fn pcoc_bars(data: &ReportData, task: &str) -> String {
    let groups = groups(data, task);
    let unit = "predicted / observed positives; 1 is calibrated";
    let head = Head { task, unit, notes: notes(data, task, &groups), entries: Vec::new() };
    let height = head.height() + bars_height(&groups);
    document(WIDTH, height, &format!("Calibration of {task} by scenario"), |canvas| {
        let top = head.draw(canvas);
        let logs = groups.iter().filter_map(|g| g.metrics.pcoc).map(|pcoc| pcoc.ln().abs());
        let Some(widest) = logs.reduce(f64::max) else { return nothing(canvas) };
        let reach = widest.clamp(1.25f64.ln(), 10f64.ln()) * 1.02;
        let start = label_end(&groups) + VALUE_ROOM;
        let x = Axis { from: -reach, to: reach, start, end: canvas.width - VALUE_ROOM };
        let marks: &[f64] = match reach.exp() {
            r if r < 1.6 => &[0.8, 1.0, 1.25],
            r if r < 3.0 => &[0.5, 0.7, 1.0, 1.4, 2.0],
            _ => &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
        };
        let shown = marks.iter().filter(|m| m.ln().abs() <= reach);
        let ticks: Vec<(f64, String)> = shown.map(|m| (m.ln(), m.to_string())).collect();
        let bottom = grid(canvas, &groups, x, top, &ticks, "PCOC (logarithmic)");
        let one = x.at(0.0);
        for (group, y) in groups.iter().zip(group_tops(&groups, top)) {
            let middle = y + BAR / 2.0;
            let Some(pcoc) = group.metrics.pcoc else {
                canvas.text("n/a", (one + 4.0, middle), Hold::Left, VALUE, MUTED);
                continue;
            };
            let end = x.at(pcoc.ln().clamp(-reach, reach));
            let (colour, hold, place) = match pcoc > 1.0 {
                true => (COLOURS[1], Hold::Left, end + 4.0),
                false => (COLOURS[0], Hold::Right, end - 4.0),
            };
            let (from, to) = (end.min(one), end.max(one));
            canvas.rect((from, y + 0.5), (to, y + BAR - 0.5), colour, group.opacity());
            canvas.text(&ratio(pcoc), (place, middle), hold, VALUE, INK);
        }
        canvas.line(&[(one, top), (one, bottom)], INK, 1.0);
    })
}

/// Floors are grey, then the lighter colours: the model's dark blue stands out.
fn floor_colour(i: usize) -> RGBColor {
    [RGBColor(150, 150, 150), COLOURS[4], COLOURS[3], COLOURS[5], COLOURS[2]][i % 5]
}

/// The bars of one slice; a bar without a value is one that could not be measured.
struct Group<'a> {
    slice: &'a str,
    /// What stands beside its bars.
    label: &'a str,
    metrics: &'a Metrics,
    bars: Vec<(Option<f64>, RGBColor)>,
}

impl Group<'_> {
    fn few(&self) -> bool {
        let binary = self.metrics.errors.is_none();
        self.metrics.positives < FEW
            || binary && self.metrics.rows.saturating_sub(self.metrics.positives) < FEW
    }

    fn opacity(&self) -> f64 {
        if self.few() { 0.45 } else { 1.0 }
    }

    fn height(&self) -> f64 {
        self.bars.len() as f64 * BAR + GROUP_GAP
    }
}

fn slices<'a>(data: &'a ReportData, task: &str) -> impl Iterator<Item = (&'a str, &'a Metrics)> {
    data.test.as_ref().and_then(|part| part.evaluation.tasks.get(task)).into_iter().flat_map(|s| s.iter())
}

/// The slices that a chart shows, in their order, each with one bar.
fn groups<'a>(data: &'a ReportData, task: &str) -> Vec<Group<'a>> {
    let mut sizes: Vec<usize> = slices(data, task).filter(|s| s.0 != ALL).map(|s| s.1.rows).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let smallest = sizes.get(MOST_SCENARIOS - 1).copied().unwrap_or(0);
    let shown: Vec<(&str, &Metrics)> = slices(data, task)
        .filter(|(slice, metrics)| *slice == ALL || metrics.rows >= smallest)
        .take(MOST_SCENARIOS + 1)
        .collect();
    // Names that do not fit differ at their end: `column=` is what can go.
    let fit = shown.iter().all(|(slice, _)| text_width(slice, TEXT) <= LABEL_ROOM);
    let label =
        |slice: &'a str| if fit { slice } else { slice.split_once('=').map_or(slice, |(_, value)| value) };
    let group = |(slice, metrics)| Group { slice, label: label(slice), metrics, bars: vec![(None, INK)] };
    shown.into_iter().map(group).collect()
}

fn notes(data: &ReportData, task: &str, groups: &[Group<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    if groups.iter().any(Group::few) {
        notes.push(format!("pale: fewer than {FEW} rows of one class"));
    }
    let all = slices(data, task).count();
    if all > groups.len() {
        notes.push(format!("the {} largest of {} scenarios", groups.len() - 1, all - 1));
    }
    notes
}

/// What stands above the bars.
struct Head<'a> {
    task: &'a str,
    unit: &'a str,
    notes: Vec<String>,
    entries: Vec<(String, Key)>,
}

impl Head<'_> {
    fn height(&self) -> f64 {
        56.0 + 18.0 * self.notes.len() as f64 + legend_height(WIDTH - LEFT, &self.entries)
    }

    /// Returns where the bars begin.
    fn draw(&self, canvas: &Canvas<'_, '_>) -> f64 {
        canvas.title(self.task, (LEFT, 18.0));
        let mut y = 38.0;
        for line in std::iter::once(self.unit).chain(self.notes.iter().map(String::as_str)) {
            canvas.text(line, (LEFT, y), Hold::Left, TEXT, MUTED);
            y += 18.0;
        }
        legend(canvas, (LEFT, y + 2.0), &self.entries);
        self.height()
    }
}

/// Height of all groups and of the axis below.
fn bars_height(groups: &[Group<'_>]) -> f64 {
    groups.iter().map(Group::height).sum::<f64>().max(BAR) + 52.0
}

/// Where the bars of each group begin.
fn group_tops(groups: &[Group<'_>], top: f64) -> impl Iterator<Item = f64> {
    groups.iter().scan(top + GROUP_GAP / 2.0, |next, group| {
        let y = *next;
        *next += group.height();
        Some(y)
    })
}

/// Where the names of the slices end.
fn label_end(groups: &[Group<'_>]) -> f64 {
    let widest = groups.iter().map(|group| text_width(group.label, TEXT)).fold(0.0, f64::max);
    LEFT + widest.min(LABEL_ROOM) + 8.0
}

/// Names of the slices, grid lines and axis; returns where the bars end.
fn grid(
    canvas: &Canvas<'_, '_>,
    groups: &[Group<'_>],
    x: Axis,
    top: f64,
    ticks: &[(f64, String)],
    title: &str,
) -> f64 {
    let bottom = top + groups.iter().map(Group::height).sum::<f64>();
    for (value, label) in ticks {
        canvas.line(&[(x.at(*value), top), (x.at(*value), bottom)], GRID, 1.0);
        canvas.centred(label, (x.at(*value), bottom + 12.0), MUTED);
    }
    canvas.centred(title, ((x.start + x.end) / 2.0, bottom + 32.0), INK);
    for (group, y) in groups.iter().zip(group_tops(groups, top)) {
        let middle = y + (group.height() - GROUP_GAP) / 2.0;
        canvas.text(&fitted(group.label, TEXT, LABEL_ROOM), (LEFT, middle), Hold::Left, TEXT, INK);
    }
    bottom
}
