//! `report.html`: one page about one run, with its charts inside. It loads nothing, so it can be mailed and kept.

use super::canvas::{escape, thousands};
use super::compare::{Line, Lines, Rival, Verdict, fraction, or_dash, ratio, signed};
use super::{Floors, Part, ReportData, charts};
use crate::metrics::ALL;

/// The page as HTML.
pub fn report(data: &ReportData) -> String {
    let title = escape(&data.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    page += &facts(data);
    if let Some(test) = results(&data.test) {
        page += "<h2>Test results</h2>\n";
        page += &table(test, data.floors.as_ref());
        if data.binary_tasks().next().is_some() {
            page += "<h2>AUC by task and scenario</h2>\n";
            page += &figures(data.binary_tasks().map(|task| charts::auc_bars(data, task)));
        }
    }
    page += &learning_curve(data);
    page += &calibration(data);
    if let Some(valid) = results(&data.valid) {
        page += "<h2>Validation results</h2>\n<p>Of the chosen checkpoint, which was chosen on these rows: a little \
                 too good.</p>\n";
        page += &table(valid, None);
    }
    page += NOTES;
    page += "</main>\n</body>\n</html>\n";
    page
}

fn results(part: &Option<Part>) -> Option<&Part> {
    part.as_ref().filter(|part| !part.evaluation.tasks.is_empty())
}

fn facts(data: &ReportData) -> String {
    if data.facts.is_empty() {
        return String::new();
    }
    let fact = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
    };
    format!("<dl>\n{}</dl>\n", data.facts.iter().map(fact).collect::<String>())
}

fn learning_curve(data: &ReportData) -> String {
    if data.training.is_empty() && data.validation.is_empty() {
        return String::new();
    }
    let auc = data.binary_tasks().next().map(|_| charts::auc_curve(data));
    let losses = (0..data.tasks.len()).map(|task| charts::loss_curve(data, task));
    let curves = auc.into_iter().chain(losses);
    format!(
        "<h2>Learning curve</h2>\n<p>The thin line is the training loss as recorded, the thick one its moving mean. \
         What leaves the axis is cut, as the first steps, which fall from where nothing is learnt (ln 2 for a binary \
         task).</p>\n{}",
        figures(curves)
    )
}

fn calibration(data: &ReportData) -> String {
    let mut section = String::new();
    if let Some(test) = results(&data.test) {
        let judged = test.evaluation.tasks.iter().filter(|(_, slices)| {
            slices.get(ALL).is_some_and(|all| all.errors.is_none() || all.pcoc.is_some())
        });
        section += &figures(judged.map(|(task, _)| charts::pcoc_bars(data, task)));
    }
    if !data.reliability.is_empty() {
        section += "<h3>Reliability</h3>\n<p>Test rows in order of prediction, cut into parts of equal size. Below \
                    the dashed diagonal the model promises too much.</p>\n";
        section += &figures(data.reliability.iter().map(|(task, bins)| charts::reliability_plot(task, bins)));
    }
    if section.is_empty() { section } else { format!("<h2>Calibration</h2>\n{section}") }
}

fn figures(charts: impl Iterator<Item = String>) -> String {
    let figures: String = charts.map(|svg| format!("<figure>{svg}</figure>\n")).collect();
    format!("<div class=\"charts\">\n{figures}</div>\n")
}

fn table(part: &Part, floors: Option<&Floors>) -> String {
    let lines = Lines::of(part, floors);
    let mut html = String::new();
    if !lines.probabilities.is_empty() {
        html += &table_of_probabilities(&lines.probabilities, floors);
    }
    if !lines.numbers.is_empty() {
        html += &table_of_numbers(&lines.numbers);
    }
    let said = lines.summary(floors);
    if !said.is_empty() {
        html += &format!("<p class=\"sum\">{}.</p>\n", escape(&said.join("; ")));
    }
    html
}

fn table_of_probabilities(lines: &[Line<'_>], floors: Option<&Floors>) -> String {
    let gauc = lines.iter().any(|line| line.metrics.gauc.is_some());
    let constant = lines.iter().any(|line| line.constant.is_some());
    let cascade = lines.iter().any(|line| line.metrics.above_earlier.is_some());
    let mut header = ["rows", "positives", "AUC"].map(str::to_owned).to_vec();
    header.extend(floors.iter().flat_map(|f| f.names()).map(|name| format!("{} AUC", escape(name))));
    header.extend(gauc.then(|| "GAUC (users)".to_owned()));
    header.push("log loss".to_owned());
    header.extend(constant.then(|| "constant rate".to_owned()));
    header.push("PCOC".to_owned());
    header.extend(cascade.then(|| "above the earlier".to_owned()));
    drawn(&header, lines, |line| {
        let m = line.metrics;
        let mut cells = vec![thousands(&m.rows.to_string()), thousands(&m.positives.to_string())];
        cells.push(format!("<b>{}</b>", or_dash(m.auc, fraction)));
        cells.extend(line.floors.iter().map(|floor| rival(floor.as_ref(), true)));
        if gauc {
            let users = m.gauc.map(|_| format!(" <small>({})</small>", thousands(&m.gauc_users.to_string())));
            cells.push(format!("{}{}", or_dash(m.gauc, fraction), users.unwrap_or_default()));
        }
        cells.push(format!("<b>{}</b>", or_dash(m.logloss, fraction)));
        cells.extend(constant.then(|| rival(line.constant.as_ref(), false)));
        cells.push(or_dash(m.pcoc, ratio));
        cells.extend(cascade.then(|| or_dash(m.above_earlier, fraction)));
        cells
    })
}

fn table_of_numbers(lines: &[Line<'_>]) -> String {
    let constant = lines.iter().any(|line| line.constant.is_some());
    let counts = lines.iter().any(|line| line.metrics.errors.is_some_and(|e| e.deviance.is_some()));
    let mut header = vec!["rows", "mean label", "RMSE"];
    header.extend(constant.then_some("constant mean"));
    header.extend(["MAE", "NMAE"]);
    header.extend(counts.then_some(["deviance", "PCOC"]).into_iter().flatten());
    let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    drawn(&header, lines, |line| {
        let errors = line.metrics.errors.unwrap_or_default();
        let figure = |value: Option<f64>| or_dash(value, fraction);
        let mut cells = vec![thousands(&line.metrics.rows.to_string()), figure(errors.label_mean)];
        cells.push(format!("<b>{}</b>", figure(errors.rmse)));
        cells.extend(constant.then(|| rival(line.constant.as_ref(), false)));
        cells.extend([figure(errors.mae), figure(errors.nmae)]);
        if counts {
            cells.extend([figure(errors.deviance), or_dash(line.metrics.pcoc, ratio)]);
        }
        cells
    })
}

/// Task and scenario, then the cells of each line.
fn drawn(header: &[String], lines: &[Line<'_>], cells: impl Fn(&Line<'_>) -> Vec<String>) -> String {
    let mut html = String::from("<div class=\"wide\"><table>\n<thead><tr><th>task</th><th>scenario</th>");
    html.extend(header.iter().map(|name| format!("<th>{name}</th>")));
    html += "</tr></thead>\n<tbody>\n";
    let mut previous = "";
    for line in lines {
        let first = line.task != previous;
        previous = line.task;
        html += if first { "<tr class=\"first\">" } else { "<tr>" };
        let name = if first { escape(&line.name()) } else { String::new() };
        html += &format!("<th>{name}</th><td>{}</td>", escape(line.slice));
        html.extend(cells(line).iter().map(|cell| format!("<td class=\"n\">{cell}</td>")));
        html += "</tr>\n";
    }
    html + "</tbody></table></div>\n"
}

/// The value to beat, the difference, and a mark that does not need its colour.
fn rival(rival: Option<&Rival>, difference: bool) -> String {
    let Some(rival) = rival else { return "-".to_owned() };
    let value = fraction(rival.value);
    let Some((gain, verdict)) = rival.gain.zip(rival.verdict()) else { return value };
    let (class, mark) = match verdict {
        Verdict::Won => ("won", "✓"),
        Verdict::Lost => ("lost", "✗"),
        Verdict::Even => ("even", "="),
    };
    let gain = if difference { format!("{} ", signed(gain)) } else { String::new() };
    format!("{value} <span class=\"{class}\">{gain}{mark}</span>")
}

const NOTES: &str = "<h2>What the figures mean</h2>\n<ul class=\"notes\">\n\
<li><b>AUC</b>: chance that a random positive row is ranked above a random negative one; ties count half.</li>\n\
<li><b>GAUC</b>: AUC within users who have both classes (their number in brackets), weighted by impressions.</li>\n\
<li><b>log loss</b>: mean binary cross-entropy in nats a row, predictions clipped to [1e-7, 1 - 1e-7]; \
<b>constant rate</b>: that of always predicting the task's training rate.</li>\n\
<li><b>PCOC</b>: predicted over observed positives (or counts); above 1 the model promises too much.</li>\n\
<li><b>above the earlier</b>: share of rows whose prediction exceeds that of the task without which this one cannot \
happen.</li>\n\
<li><b>RMSE</b>, <b>MAE</b>: root of the mean squared error, mean absolute error, in the unit of the labels; <b>constant \
mean</b>: RMSE of always predicting the task's training mean; <b>NMAE</b>: sum of absolute errors over that of the labels; \
<b>deviance</b>: of rates from counts, 0 at best.</li>\n\
<li>A task that is auxiliary helps to train the others and is not served.</li>\n\
<li>✓ better than the value beside it, ✗ worse, = equal to four decimals; the signed number is the difference in \
AUC. A dash: not defined, or not measured.</li>\n</ul>\n";

const STYLE: &str = "
:root{color-scheme:light}
body{margin:0;background:#fff;color:#222;font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1300px;margin:0 auto;padding:16px}
h1{font-size:1.6rem;line-height:1.25;margin:.4em 0}
h2{font-size:1.25rem;margin:2em 0 .5em;padding-top:.6em;border-top:1px solid #ddd}
h3{font-size:1.05rem;margin:1.2em 0 .3em}
p{margin:.4em 0;max-width:75ch}
dl{display:flex;flex-wrap:wrap;gap:8px 32px;margin:12px 0}
dt{font-size:.8rem;color:#555}
dd{margin:0;overflow-wrap:anywhere}
.charts{display:flex;flex-wrap:wrap;gap:12px}
figure{margin:0;flex:1 1 340px;max-width:422px}
svg{display:block;width:100%;height:auto}
svg text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:left;white-space:nowrap}
thead th{color:#555;font-weight:600;border-bottom:2px solid #999}
thead th:nth-child(n+3),.n{text-align:right}
tr.first>*{border-top:1px solid #ccc}
.won{color:#00634a}
.lost{color:#a63c00}
.even,small{color:#555}
.sum{margin-top:.8em;font-weight:600}
.notes{padding-left:1.2em;max-width:75ch}
";
