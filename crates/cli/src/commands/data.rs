//! `manygate data`.

use crate::args::{Describe, Rule, Synth};
use crate::output;
use crate::progress::Rows;
use manygate_core::{Error, Pool, Result};
use manygate_data::describe::{Column, DescribeOptions, Description, LabelRates, describe as describe_files};
use manygate_data::synth::{self, LabelRule, SynthOptions};
use manygate_train::Config;
use manygate_train::report::terminal::{Look, table};
use std::fs::File;
use std::io::Write;
use std::path::Path;

pub(crate) fn describe(args: &Describe) -> Result<()> {
    let mut options =
        DescribeOptions { scenario: args.scenario.clone(), labels: args.labels.clone(), rows: args.rows };
    let mut files = args.files.clone();
    if let [config] = &args.files[..]
        && config.extension().is_some_and(|extension| extension == "toml")
    {
        let config = Config::load(config, &[])?;
        files = config.data.train;
        options.scenario = options.scenario.or(config.data.scenario);
        if options.labels.is_empty() {
            let labels = config.tasks.into_iter().map(|task| task.column.unwrap_or(task.name));
            options.labels = labels.collect();
        }
    }
    let mut rows = Rows::new("read");
    let description = describe_files(&files, &options, &mut |read| rows.tell(read))?;
    for warning in &description.warnings {
        output::say(warning);
    }
    if let Some(path) = &args.config {
        write_new(path, &description.config)?;
    }
    if args.json {
        return output::json(&description);
    }
    let mut parts = vec![summary(&description), columns(&description.columns)];
    parts.extend(rates(&description.labels));
    if args.config.is_none() {
        parts.push(format!(
            "A configuration (--config FILE.toml writes it)\n\n{}",
            description.config.trim_end()
        ));
    }
    output::result(&parts.join("\n\n"))
}

pub(crate) fn synth(args: &Synth) -> Result<()> {
    let options = SynthOptions {
        rows: args.rows,
        seed: args.seed,
        inputs: args.inputs,
        tasks: args.tasks,
        correlation: args.correlation,
        rates: args.rates.clone(),
        labels: match args.labels {
            Rule::Sample => LabelRule::Sample,
            Rule::Threshold => LabelRule::Threshold,
        },
        targets: args.targets,
        cascade: args.cascade,
        scenarios: args.scenarios.clone(),
        ids: args.ids,
        sequence: args.sequence,
    };
    let config = synth::configuration(&options, &args.out)?;
    if let Some(path) = &args.config {
        write_new(path, &config)?;
    }
    let mut rows = Rows::new("written");
    Pool::new(args.threads)?
        .enter(|exec| synth::write_file(&options, &args.out, exec, &mut |written| rows.tell(written)))?;
    output::say(&format!("{} rows are in {}", options.rows, args.out.display()));
    if args.config.is_none() { output::result(config.trim_end()) } else { Ok(()) }
}

/// Writes a configuration, and never over one that somebody may have edited.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create_new(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::config("--config", format!("`{}` exists; name another file", path.display()))
        }
        _ => Error::io("create", path)(e),
    })?;
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))
}

fn summary(description: &Description) -> String {
    let files: Vec<String> = description.files.iter().map(|file| file.display().to_string()).collect();
    let first = if description.complete { "" } else { "the first " };
    format!("{}: {first}{} rows, {} columns", files.join(", "), description.rows, description.columns.len())
}

fn columns(columns: &[Column]) -> String {
    let rows = columns.iter().map(|c| {
        let number = |x: Option<f64>| x.map_or_else(String::new, figure);
        let about = if c.distinct.exact { "" } else { "~" };
        [
            c.name.clone(),
            c.kind.word().to_owned(),
            shortened(&c.examples.join("  ")),
            format!("{:.1} %", c.missing * 100.0),
            format!("{about}{}", c.distinct.count),
            number(c.least),
            number(c.mean),
            number(c.largest),
        ]
    });
    let header = ["column", "kind", "first values", "missing", "different", "least", "mean", "largest"];
    table(&header, rows, 3, Look::detect())
}

fn rates(labels: &[LabelRates]) -> Option<String> {
    let first = labels.first()?;
    let mut header = vec!["rows with".to_owned(), "rows".to_owned()];
    header.extend(labels.iter().map(|label| label.label.clone()));
    let percent = |rate: f64| format!("{:.2} %", rate * 100.0);
    let mut rows = vec![[String::from("all"), String::new()].into_iter().collect::<Vec<_>>()];
    rows[0].extend(labels.iter().map(|label| percent(label.rate)));
    for (number, scenario) in first.scenarios.iter().enumerate() {
        let mut row = vec![scenario.scenario.clone(), scenario.rows.to_string()];
        row.extend(labels.iter().map(|label| percent(label.scenarios[number].rate)));
        rows.push(row);
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Some(table(&header, rows, 1, Look::detect()))
}

/// The table fits 120 columns with most names.
fn shortened(examples: &str) -> String {
    const LENGTH: usize = 24;
    match examples.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &examples[..end]),
        None => examples.to_owned(),
    }
}

/// Up to five digits, with an exponent where the number needs one.
fn figure(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e7).contains(&size) && x.fract() == 0.0 => format!("{x}"),
        size if (1e-3..1e5).contains(&size) => format!("{x:.3}"),
        _ => format!("{x:.3e}"),
    }
}
