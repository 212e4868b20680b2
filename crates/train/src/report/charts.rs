//! Charts of a run, each an SVG document: learning curves and reliability; bars are in `bars.rs`.

use super::canvas::*;
use super::{ReportData, bars};
use crate::metrics::{ALL, Evaluation, ReliabilityBin};
use plotters::style::{Color, RGBColor};

pub use bars::{auc_bars, pcoc_bars};

/// Width of every single chart, in pixels: that of a phone, so that texts keep their size there.
pub(super) const WIDTH: f64 = 360.0;
const CURVE_HEIGHT: f64 = 300.0;
/// A long history is drawn through this many means at most.
const DRAWN_POINTS: usize = 400;
pub(super) const LEFT: f64 = 6.0;

/// The learning curve as one picture: validation AUC of the binary tasks, where there are any, then training and
/// validation loss task by task, three charts a row, each with the chosen checkpoint.
pub fn learning_curve(data: &ReportData) -> String {
    let auc = usize::from(data.binary_tasks().next().is_some());
    let charts = auc + data.tasks.len();
    let (columns, rows) = (charts.min(3), charts.div_ceil(3));
    let first = if auc > 0 { auc_height(data) } else { CURVE_HEIGHT };
    let width = WIDTH * columns as f64;
    let height = first + CURVE_HEIGHT * (rows - 1) as f64;
    document(width, height, &format!("Learning curve of {}", data.title), |canvas| {
        for i in 0..charts {
            let (x, row) = (WIDTH * (i % columns) as f64, i / columns);
            let part = match row {
                0 => canvas.part((x, 0.0), WIDTH, first),
                _ => canvas.part((x, first + CURVE_HEIGHT * (row - 1) as f64), WIDTH, CURVE_HEIGHT),
            };
            match i.checked_sub(auc) {
                None => draw_auc(&part, data),
                Some(task) => draw_loss(&part, data, task),
            }
        }
    })
}

/// Validation AUC by step, a line for each binary task and one for the mean of those that are served.
pub fn auc_curve(data: &ReportData) -> String {
    document(WIDTH, auc_height(data), "Validation AUC by step", |canvas| draw_auc(canvas, data))
}

/// Training loss, smoothed, and validation loss by step for task number `task` of `data.tasks`. A number out of
/// range gives an empty chart.
pub fn loss_curve(data: &ReportData, task: usize) -> String {
    let name = data.tasks.get(task).map_or("", String::as_str);
    document(WIDTH, CURVE_HEIGHT, &format!("Training and validation loss of {name} by step"), |canvas| {
        draw_loss(canvas, data, task);
    })
}

/// Share of positives against the mean prediction, with 95 % intervals: on the diagonal, predictions can be taken as
/// probabilities.
pub fn reliability_plot(task: &str, bins: &[ReliabilityBin]) -> String {
    let height = WIDTH + 20.0;
    document(WIDTH, height, &format!("Reliability of {task}"), |canvas| {
        canvas.title(task, (LEFT, 18.0));
        canvas.text("share of positives (bar: 95 % interval)", (LEFT, 38.0), Hold::Left, TEXT, MUTED);
        let highest = bins.iter().map(|b| b.predicted.max(b.observed)).fold(0.0, f64::max);
        if highest <= 0.0 || !highest.is_finite() {
            return nothing(canvas);
        }
        let to = (highest * 1.12).min(1.02);
        let x = Axis { from: 0.0, to, start: 52.0, end: canvas.width - 16.0 };
        let y = Axis { from: 0.0, to, start: canvas.height - 48.0, end: 56.0 };
        frame(canvas, x, y, "mean predicted probability");
        canvas.dashed((x.at(0.0), y.at(0.0)), (x.at(to), y.at(to)), MUTED, 1.0);
        let points: Vec<(f64, f64)> = bins.iter().map(|b| (x.at(b.predicted), y.at(b.observed))).collect();
        canvas.line(&points, COLOURS[0].mix(0.5), 1.5);
        for (bin, &at) in bins.iter().zip(&points) {
            let (low, high) = interval(bin);
            canvas.line(&[(at.0, y.at(low)), (at.0, y.at(high.min(to)))], COLOURS[0], 1.5);
            canvas.mark(at, 0, COLOURS[0]);
        }
    })
}

/// Wilson's 95 % interval of an observed share.
fn interval(bin: &ReliabilityBin) -> (f64, f64) {
    let (z, n, p) = (1.96, bin.rows.max(1) as f64, bin.observed);
    let scale = 1.0 / (1.0 + z * z / n);
    let (centre, half) =
        (p + z * z / (2.0 * n), z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).max(0.0).sqrt());
    (((centre - half) * scale).max(0.0), (centre + half) * scale)
}

/// Each task, and the mean where there are several: what the chart of AUC shows.
fn auc_entries(data: &ReportData) -> Vec<(String, Key)> {
    let key = |t: usize| Key::Line(COLOURS[t % COLOURS.len()], Some(t));
    let tasks = data.binary_tasks().enumerate().map(|(t, task)| (task.to_owned(), key(t)));
    tasks.chain((served(data).count() > 1).then(|| ("mean".to_owned(), Key::Dashed(INK)))).collect()
}

/// The binary tasks whose mean is drawn.
fn served(data: &ReportData) -> impl Iterator<Item = &str> {
    data.binary_tasks().filter(|task| !data.is_auxiliary(task))
}

/// A legend of many tasks takes no room from the curves.
fn auc_height(data: &ReportData) -> f64 {
    CURVE_HEIGHT + (legend_height(WIDTH - LEFT, &auc_entries(data)) - 36.0).max(0.0)
}

fn draw_auc(canvas: &Canvas<'_, '_>, data: &ReportData) {
    canvas.title("Validation AUC", (LEFT, 18.0));
    canvas.text("AUC on all validation rows", (LEFT, 38.0), Hold::Left, TEXT, MUTED);
    let history = |value: &dyn Fn(&Evaluation) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = data.validation.iter();
        points.filter_map(|p| Some((p.step as f64, value(&p.evaluation)?))).collect()
    };
    let tasks: Vec<_> = data.binary_tasks().map(|task| history(&|e| e.get(task, ALL)?.auc)).collect();
    let Some(range) = range(tasks.iter().flatten().map(|p| p.1)) else { return nothing(canvas) };
    let (x, y) = curve_axes(canvas, data, data.chosen_step, range, &auc_entries(data));
    let place = |p: &(f64, f64)| (x.at(p.0), y.at(p.1));
    for (t, points) in tasks.iter().enumerate() {
        let points: Vec<_> = points.iter().map(place).collect();
        draw_marked(canvas, &points, COLOURS[t % COLOURS.len()], t);
    }
    if served(data).count() > 1 {
        let mean: Vec<_> = history(&|e| e.mean_auc(served(data))).iter().map(place).collect();
        mean.windows(2).for_each(|w| canvas.dashed(w[0], w[1], INK, 1.5));
    }
}

fn draw_loss(canvas: &Canvas<'_, '_>, data: &ReportData, task: usize) {
    let Some(name) = data.tasks.get(task) else { return };
    canvas.title(&format!("Loss of {name}"), (LEFT, 18.0));
    let number = data.predicts_number(name);
    let unit = if number { "mean over rows, as it is trained" } else { "log loss, nats a row" };
    canvas.text(unit, (LEFT, 38.0), Hold::Left, TEXT, MUTED);
    // A part with another name is another function of the task, beside which validation would mean nothing.
    let part = data.losses.iter().position(|loss| loss == name);
    let training: Vec<(f64, f64)> = data
        .training
        .iter()
        .filter_map(|p| Some((p.step as f64, *p.loss.get(part?)?)).filter(|p| p.1.is_finite()))
        .collect();
    let raw = thinned(&training, DRAWN_POINTS);
    let smooth = smoothed(&raw, (raw.len() / 12).max(1));
    let validation: Vec<(f64, f64)> = data
        .validation
        .iter()
        .filter_map(|p| Some((p.step as f64, p.evaluation.get(name, ALL)?.loss()?)))
        .collect();
    // That of a number is an RMSE, and no loss.
    let constant = data.valid.as_ref().filter(|_| !number).and_then(|part| part.constants.get(name, ALL));
    // The first steps fall from ln 2 and would flatten all that matters: they do not stretch the axis.
    let settled = smooth.iter().skip(smooth.len() / 8).map(|p| p.1);
    let Some((from, to)) = range(settled.chain(validation.iter().map(|p| p.1)).chain(constant)) else {
        return nothing(canvas);
    };
    let (train, valid) = (COLOURS[0], COLOURS[1]);
    let mut entries =
        Vec::from_iter((!training.is_empty()).then(|| ("training".to_owned(), Key::Line(train, None))));
    entries.push(("validation".to_owned(), Key::Line(valid, Some(0))));
    entries.extend(constant.map(|_| ("constant rate".to_owned(), Key::Dashed(MUTED))));
    let chosen = data.chosen_by_task.get(name).copied().or(data.chosen_step);
    let (x, y) = curve_axes(canvas, data, chosen, (from, to), &entries);
    if let Some(constant) = constant {
        canvas.dashed((x.start, y.at(constant)), (x.end, y.at(constant)), MUTED, 1.5);
    }
    let place = |p: &(f64, f64)| (x.at(p.0), y.at(p.1));
    for (line, opacity, width) in [(&raw, 0.25, 1.0), (&smooth, 1.0, 2.0)] {
        for piece in clipped(line, from, to) {
            canvas.line(&piece.iter().map(place).collect::<Vec<_>>(), train.mix(opacity), width);
        }
    }
    draw_marked(canvas, &validation.iter().map(place).collect::<Vec<_>>(), valid, 0);
}

fn draw_marked(canvas: &Canvas<'_, '_>, points: &[(f64, f64)], colour: RGBColor, kind: usize) {
    canvas.line(points, colour, 2.0);
    // Marks are there to tell lines apart: with many validations a dozen is enough.
    let every = points.len().div_ceil(12).max(1);
    for &at in points.iter().rev().step_by(every) {
        canvas.mark(at, kind, colour);
    }
}

/// Legend, frame and the chosen step of a learning curve; returns its axes.
fn curve_axes(
    canvas: &Canvas<'_, '_>,
    data: &ReportData,
    chosen_step: Option<u64>,
    (from, to): (f64, f64),
    entries: &[(String, Key)],
) -> (Axis, Axis) {
    let top = 58.0 + legend(canvas, (LEFT, 58.0), entries);
    let steps = data.training.iter().map(|p| p.step).chain(data.validation.iter().map(|p| p.step));
    let last = steps.chain(chosen_step).max().unwrap_or(1).max(1);
    let x = Axis { from: 0.0, to: last as f64, start: 52.0, end: canvas.width - 24.0 };
    let y = Axis { from, to, start: canvas.height - 48.0, end: top + 10.0 };
    frame(canvas, x, y, "training step");
    if let Some(step) = chosen_step {
        let at = x.at(step as f64);
        canvas.dashed((at, y.start), (at, y.end), INK, 1.0);
        let text = format!("chosen: step {}", thousands(&step.to_string()));
        canvas.centred(&text, (at, y.end - 9.0), INK);
    }
    (x, y)
}

/// Grid lines, tick labels and the title of the horizontal axis.
fn frame(canvas: &Canvas<'_, '_>, x: Axis, y: Axis, x_title: &str) {
    for (value, label) in y.ticks(7) {
        canvas.line(&[(x.start, y.at(value)), (x.end, y.at(value))], GRID, 1.0);
        canvas.text(&label, (x.start - 6.0, y.at(value)), Hold::Right, TEXT, MUTED);
    }
    for (value, label) in x.ticks(5) {
        let at = x.at(value);
        canvas.line(&[(at, y.start), (at, y.start + 4.0)], MUTED, 1.0);
        canvas.centred(&label, (at, y.start + 14.0), MUTED);
    }
    canvas.line(&[(x.start, y.start), (x.end, y.start)], MUTED, 1.0);
    canvas.centred(x_title, ((x.start + x.end) / 2.0, y.start + 34.0), INK);
}

pub(super) fn nothing(canvas: &Canvas<'_, '_>) {
    canvas.centred("nothing was recorded", (canvas.width / 2.0, canvas.height / 2.0), MUTED);
}

/// The span of the finite values with a margin, not below 0 where no value is; `None` without any. It never gets so
/// narrow that its labels need more than five decimals.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let margin = (0.08 * (high - low)).max(1e-3 * high.abs()).max(1e-4);
    let from = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
    (low <= high).then_some((from, high + margin))
}

/// At most `count` points: the means of equal parts.
fn thinned(points: &[(f64, f64)], count: usize) -> Vec<(f64, f64)> {
    let part = points.len().div_ceil(count).max(1);
    points.chunks(part).map(mean).collect()
}

/// A moving mean over `window` points, centred. At the start it narrows, to follow the fall; at the end it reaches
/// back, to stay steady.
fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let half = window / 2;
    let around = |i: usize| {
        let back = half.min(i);
        let ahead = back.min(points.len() - 1 - i);
        (points[i].0, mean(&points[i - back..=i + ahead]).1)
    };
    (0..points.len()).map(around).collect()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

/// The pieces of a line that lie between the heights `low` and `high`.
fn clipped(points: &[(f64, f64)], low: f64, high: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut connected = false;
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let Some((start, end)) = inside(a.1, b.1, low, high) else {
            connected = false;
            continue;
        };
        let at = |t: f64| (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1));
        match pieces.last_mut() {
            Some(piece) if connected => piece.push(at(end)),
            _ => pieces.push(vec![at(start), at(end)]),
        }
        connected = end == 1.0;
    }
    pieces
}

/// Which part of a segment from height `a` to height `b` lies between `low` and `high`, as shares of its length.
fn inside(a: f64, b: f64, low: f64, high: f64) -> Option<(f64, f64)> {
    if a == b {
        return (low..=high).contains(&a).then_some((0.0, 1.0));
    }
    let (enters, leaves) = if a < b { (low, high) } else { (high, low) };
    let crossed = |height: f64| ((height - a) / (b - a)).clamp(0.0, 1.0);
    let (start, end) = (crossed(enters), crossed(leaves));
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_leaves_the_axis() {
        let points = [(0.0, 4.0), (1.0, 0.0), (2.0, 0.0), (3.0, -2.0), (4.0, 2.0), (5.0, 9.0)];
        let pieces = clipped(&points, -1.0, 2.0);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0], [(0.5, 2.0), (1.0, 0.0), (2.0, 0.0), (2.5, -1.0)]);
        assert_eq!(pieces[1], [(3.25, -1.0), (4.0, 2.0)]);
        assert!(clipped(&[(0.0, 5.0), (1.0, 5.0)], 0.0, 1.0).is_empty());
        assert!(clipped(&[(0.0, 0.5)], 0.0, 1.0).is_empty());
    }

    #[test]
    fn long_histories_are_thinned_and_smoothed_without_a_shift() {
        let line: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        let thin = thinned(&line, 400);
        assert!(thin.len() <= 400 && thin.iter().all(|p| p.1 == 2.0 * p.0));
        let smooth = smoothed(&line, 11);
        assert_eq!(smooth.len(), line.len());
        assert!(smooth[..990].iter().all(|p| (p.1 - 2.0 * p.0).abs() < 1e-9));
        assert!(thinned(&[], 400).is_empty() && smoothed(&[], 5).is_empty());
    }

    #[test]
    fn intervals_hold_the_share_and_stay_probabilities() {
        for (observed, rows) in [(0.0, 10), (1.0, 10), (0.3, 1000), (0.5, 0)] {
            let (low, high) = interval(&ReliabilityBin { predicted: 0.5, observed, rows });
            assert!(low <= observed && observed <= high + 1e-12 && low >= 0.0 && high <= 1.0 + 1e-12);
        }
    }
}
