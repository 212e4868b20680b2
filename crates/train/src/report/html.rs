//! `report.html`: one page about one run, with its charts inside. It loads nothing, so it can be mailed and kept.

use super::canvas::{escape, thousands};
use super::compare::{Line, Rival, Verdict, fraction, lines, or_dash, ratio, signed, summary};
use super::{Floors, Part, ReportData, charts};

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
        page += "<h2>AUC by task and scenario</h2>\n";
        page += &figures(test.evaluation.tasks.iter().map(|(task, _)| charts::auc_bars(data, task)));
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
    let curves = std::iter::once(charts::auc_curve(data))
        .chain((0..data.tasks.len()).map(|task| charts::loss_curve(data, task)));
    format!(
        "<h2>Learning curve</h2>\n<p>The thin line is the training loss as recorded, the thick one its moving mean. \
         What leaves the axis is cut, as the first steps, which fall from ln 2.</p>\n{}",
        figures(curves)
    )
}

fn calibration(data: &ReportData) -> String {
    let mut section = String::new();
    if let Some(test) = results(&data.test) {
        section += &figures(test.evaluation.tasks.iter().map(|(task, _)| charts::pcoc_bars(data, task)));
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
    let lines = lines(&part.evaluation, floors, &part.constants);
    let gauc = lines.iter().any(|line| line.metrics.gauc.is_some());
    let constant = lines.iter().any(|line| line.constant.is_some());
    let mut header = vec!["task".to_owned(), "scenario".to_owned()];
    header.extend(["rows", "positives", "AUC"].map(str::to_owned));
    header.extend(floors.iter().flat_map(|f| f.names()).map(|name| format!("{} AUC", escape(name))));
    header.extend(gauc.then(|| "GAUC (users)".to_owned()));
    header.push("log loss".to_owned());
    header.extend(constant.then(|| "constant rate".to_owned()));
    header.push("PCOC".to_owned());

    let mut html = String::from("<div class=\"wide\"><table>\n<thead><tr>");
    html.extend(header.iter().map(|name| format!("<th>{name}</th>")));
    html += "</tr></thead>\n<tbody>\n";
    let mut previous = "";
    for line in &lines {
        let first = line.task != previous;
        html += if first { "<tr class=\"first\">" } else { "<tr>" };
        html += &row(line, first, gauc, constant);
        html += "</tr>\n";
        previous = line.task;
    }
    html += "</tbody></table></div>\n";
    let said = summary(&lines, floors);
    if !said.is_empty() {
        html += &format!("<p class=\"sum\">{}.</p>\n", escape(&said.join("; ")));
    }
    html
}

fn row(line: &Line<'_>, first: bool, gauc: bool, constant: bool) -> String {
    let m = line.metrics;
    let mut html = format!(
        "<th>{}</th><td>{}</td>",
        if first { escape(line.task) } else { String::new() },
        escape(line.slice)
    );
    let mut number = |text: &str| html += &format!("<td class=\"n\">{text}</td>");
    number(&thousands(&m.rows.to_string()));
    number(&thousands(&m.positives.to_string()));
    number(&format!("<b>{}</b>", or_dash(m.auc, fraction)));
    for floor in &line.floors {
        number(&rival(floor.as_ref(), true));
    }
    if gauc {
        let users = m.gauc.map(|_| format!(" <small>({})</small>", thousands(&m.gauc_users.to_string())));
        number(&format!("{}{}", or_dash(m.gauc, fraction), users.unwrap_or_default()));
    }
    number(&format!("<b>{}</b>", or_dash(m.logloss, fraction)));
    if constant {
        number(&rival(line.constant.as_ref(), false));
    }
    number(&or_dash(m.pcoc, ratio));
    html
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
<li><b>PCOC</b>: predicted over observed positives; above 1 the model promises too much.</li>\n\
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
