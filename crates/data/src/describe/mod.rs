//! What files hold, in one pass and bounded memory, and a configuration that fits them.

mod column;
mod distinct;
mod kind;
mod names;
mod suggest;

use std::path::{Path, PathBuf};

use manygate_core::{Error, Result};
use manygate_features::{Numbering, shown};
use serde::Serialize;

use crate::csv::CsvReader;
use crate::files::expand;
use crate::load::PROGRESS_STEP;
use column::{Association, Sketch};

pub use distinct::Distinct;
pub use kind::Kind;

/// Most scenarios that label rates are counted for.
const MAX_SCENARIOS: usize = 64;
/// Most labels that columns are compared with.
const MAX_LABELS: usize = 8;
/// Correlation with a label from which on a column hardly tells anything else.
const TELLING: f64 = 0.9;
/// Characters of an example.
const EXAMPLE_LENGTH: usize = 24;

/// What is known beforehand.
#[derive(Clone, Debug, Default)]
pub struct DescribeOptions {
    /// The scenario column. Without it, one with a usual name is taken.
    pub scenario: Option<String>,
    /// The label columns. Without them, those of 0 and 1 with a usual name are taken.
    pub labels: Vec<String>,
    /// How many rows are looked at, the first ones; all when absent.
    pub rows: Option<u64>,
}

/// What files hold; the JSON of `manygate data describe --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// Version of this form.
    pub version: u32,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Rows looked at.
    pub rows: u64,
    /// Whether there are no others.
    pub complete: bool,
    /// The columns of the first file, in its order.
    pub columns: Vec<Column>,
    /// The scenario column.
    pub scenario: Option<String>,
    /// Rates of the labels.
    pub labels: Vec<LabelRates>,
    /// What deserves a look.
    pub warnings: Vec<String>,
    /// A configuration that reads the files, as TOML.
    pub config: String,
}

/// A column.
#[derive(Clone, Debug, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Share of cells that are empty or have a text that means "missing".
    pub missing: f64,
    /// Different values, empty cells aside.
    pub distinct: Distinct,
    /// Least number, where all cells that are not missing are numbers.
    pub least: Option<f64>,
    /// Largest number.
    pub largest: Option<f64>,
    /// Mean of the numbers.
    pub mean: Option<f64>,
    /// The first values, shortened.
    pub examples: Vec<String>,
    /// Why the configuration does not use it.
    pub left_out: Option<String>,
}

/// How often a label is 1.
#[derive(Clone, Debug, Serialize)]
pub struct LabelRates {
    /// The label column.
    pub label: String,
    /// Over all rows.
    pub rate: f64,
    /// By scenario, in the order in which they appear.
    pub scenarios: Vec<ScenarioRate>,
}

/// How often a label is 1 in a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioRate {
    /// Value of the scenario column.
    pub scenario: String,
    /// Its rows.
    pub rows: u64,
    /// The rate.
    pub rate: f64,
}

/// A column with all that was noted of it.
struct Sketched {
    column: Column,
    sketch: Sketch,
    is_label: bool,
}

/// Reads files and describes them. `progress` is told now and then how many rows were read.
///
/// # Errors
/// [`Error::Config`] when no file is named, a pattern matches none, or a column that `options` names does not hold what
/// it should; [`Error::Io`] and [`Error::Data`] when a file cannot be read, with file, line and column.
pub fn describe(
    names: &[PathBuf],
    options: &DescribeOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Description> {
    let files = expand("FILE", names)?;
    let mut pass = Pass::new(&files[0], options)?;
    for file in &files {
        if !pass.read(file, options.rows, progress)? {
            break;
        }
    }
    progress(pass.rows);
    pass.finish(files, options)
}

/// One pass over the files.
struct Pass {
    header: Vec<String>,
    sketches: Vec<Sketch>,
    /// Columns that may be labels.
    labels: Vec<usize>,
    scenario: Option<usize>,
    scenarios: Numbering,
    /// Whether there are more than are counted for.
    too_many_scenarios: bool,
    /// Rows and positives `[label][scenario]`.
    counts: Vec<Vec<(u64, u64)>>,
    /// `[column][label]`.
    associations: Vec<Vec<Association>>,
    rows: u64,
    complete: bool,
}

impl Pass {
    fn new(first: &Path, options: &DescribeOptions) -> Result<Pass> {
        let reader = CsvReader::open(first)?;
        let header = reader.header().to_vec();
        let scenario = match &options.scenario {
            Some(name) => Some(reader.column(name)?),
            None => header.iter().position(|name| names::is_scenario(name)),
        };
        let labels: Vec<usize> = if options.labels.is_empty() {
            (0..header.len()).filter(|&c| names::is_label(&header[c])).take(MAX_LABELS).collect()
        } else {
            options.labels.iter().map(|name| reader.column(name)).collect::<Result<_>>()?
        };
        Ok(Pass {
            sketches: vec![Sketch::default(); header.len()],
            scenario,
            scenarios: Numbering::default(),
            too_many_scenarios: false,
            counts: vec![Vec::new(); labels.len()],
            associations: vec![vec![Association::default(); labels.len()]; header.len()],
            rows: 0,
            complete: true,
            labels,
            header,
        })
    }

    /// Reads a file. `false` when as many rows were read as are wanted.
    fn read(&mut self, file: &Path, most: Option<u64>, progress: &mut dyn FnMut(u64)) -> Result<bool> {
        let mut reader = CsvReader::open(file)?;
        let columns: Vec<usize> =
            self.header.iter().map(|name| reader.column(name)).collect::<Result<_>>()?;
        while reader.advance()? {
            if most.is_some_and(|most| self.rows >= most) {
                self.complete = false;
                return Ok(false);
            }
            self.add(&reader.cells(&columns)?);
            self.rows += 1;
            if self.rows.is_multiple_of(PROGRESS_STEP) {
                progress(self.rows);
            }
        }
        Ok(true)
    }

    fn add(&mut self, cells: &[&str]) {
        let label = |&column: &usize| match cells[column].trim().parse::<f64>() {
            Ok(label) if label == 0.0 || label == 1.0 => Some(label),
            _ => None,
        };
        let labels: Vec<Option<f64>> = self.labels.iter().map(label).collect();
        for ((sketch, associations), &cell) in self.sketches.iter_mut().zip(&mut self.associations).zip(cells)
        {
            let number = sketch.add(cell);
            for (association, label) in associations.iter_mut().zip(&labels) {
                if let Some(label) = label {
                    association.add(cell, number, *label);
                }
            }
        }
        if let Some(column) = self.scenario {
            self.count(cells[column], &labels);
        }
    }

    fn count(&mut self, scenario: &str, labels: &[Option<f64>]) {
        let known = self.scenarios.get(scenario);
        if known.is_none() && self.scenarios.len() == MAX_SCENARIOS {
            self.too_many_scenarios = true;
            return;
        }
        let number = self.scenarios.number(scenario) as usize;
        for (counts, label) in self.counts.iter_mut().zip(labels) {
            counts.resize(self.scenarios.len().max(counts.len()), (0, 0));
            counts[number].0 += 1;
            counts[number].1 += u64::from(*label == Some(1.0));
        }
    }

    fn finish(mut self, files: Vec<PathBuf>, options: &DescribeOptions) -> Result<Description> {
        let mut warnings = Vec::new();
        self.check_scenario(options.scenario.is_some(), &mut warnings)?;
        let labels = self.find_labels(options, &mut warnings)?;
        let columns: Vec<Sketched> =
            (0..self.header.len()).map(|column| self.column(column, &labels, &mut warnings)).collect();
        let scenario = self.scenario.map(|column| self.header[column].clone());
        let roles = suggest::Roles {
            files: &files,
            scenario: scenario.as_deref(),
            labels: labels.iter().map(|&label| self.header[label].as_str()).collect(),
        };
        let config = suggest::configuration(&roles, &columns)?;
        Ok(Description {
            version: 1,
            rows: self.rows,
            complete: self.complete,
            columns: columns.into_iter().map(|c| c.column).collect(),
            labels: labels.iter().map(|&label| self.rates(label)).collect(),
            scenario,
            warnings,
            config,
            files,
        })
    }

    /// A scenario column that was guessed and has one value or very many is none.
    fn check_scenario(&mut self, given: bool, warnings: &mut Vec<String>) -> Result<()> {
        let Some(column) = self.scenario else { return Ok(()) };
        let name = shown(&self.header[column]);
        if self.too_many_scenarios && given {
            let message = format!("{name} has more than {MAX_SCENARIOS} values: name a column with a few");
            return Err(Error::config("--scenario", message));
        }
        if self.too_many_scenarios || (!given && self.scenarios.len() < 2) {
            self.scenario = None;
        } else if !given {
            warnings.push(format!(
                "{name} is taken for the scenario by its name; --scenario names another column"
            ));
        }
        Ok(())
    }

    /// The columns that are labels: those named, those with a usual name, or the last of 0 and 1.
    fn find_labels(&self, options: &DescribeOptions, warnings: &mut Vec<String>) -> Result<Vec<usize>> {
        let is_binary = |column: &usize| self.sketches[*column].is_binary();
        if !options.labels.is_empty() {
            return match self.labels.iter().find(|column| !is_binary(column)) {
                Some(&column) => {
                    let message = format!(
                        "{} has other values than 0 and 1: {}",
                        shown(&self.header[column]),
                        examples(&self.sketches[column]).join(", ")
                    );
                    Err(Error::config("--label", message))
                }
                None => Ok(self.labels.clone()),
            };
        }
        let found: Vec<usize> = self.labels.iter().copied().filter(is_binary).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let last = (0..self.header.len()).rev().find(is_binary);
        warnings.push(match last {
            Some(column) => format!(
                "no column of 0 and 1 has the name of a label: the last one, {}, is taken; --label names another",
                shown(&self.header[column])
            ),
            None => "no column holds 0 and 1 alone: the configuration needs a label column".to_owned(),
        });
        Ok(last.into_iter().collect())
    }

    fn column(&self, column: usize, labels: &[usize], warnings: &mut Vec<String>) -> Sketched {
        let (name, sketch) = (&self.header[column], &self.sketches[column]);
        let kind = Kind::of(name, sketch);
        let is_label = labels.contains(&column);
        let told = self.labels.iter().zip(&self.associations[column]);
        let told =
            told.filter(|(label, association)| labels.contains(label) && association.strength() > TELLING);
        let told = told.map(|(&label, association)| (&self.header[label], association.strength())).next();
        let left_out = match kind {
            _ if is_label => None,
            Kind::Constant => Some("it has one value".to_owned()),
            Kind::Time => Some("it is a time".to_owned()),
            Kind::Unique => Some("its values are all different".to_owned()),
            _ if names::is_spent(name) => Some("by its name it is measured after the event".to_owned()),
            Kind::Binary if names::is_label(name) => Some("it reads like a label".to_owned()),
            _ => told.map(|(label, strength)| {
                let label = shown(label);
                warnings.push(format!(
                    "{} nearly tells {label} (correlation {strength:.2}): is it known before the event?",
                    shown(name)
                ));
                format!("it nearly tells {label}")
            }),
        };
        let of_numbers = |x: f64| sketch.is_numeric().then_some(x);
        let column = Column {
            name: name.clone(),
            kind,
            missing: (sketch.empty + sketch.said_missing) as f64 / sketch.rows.max(1) as f64,
            distinct: sketch.values.distinct(),
            least: of_numbers(sketch.numbers.least),
            largest: of_numbers(sketch.numbers.largest),
            mean: of_numbers(sketch.numbers.mean),
            examples: examples(sketch),
            left_out,
        };
        Sketched { column, sketch: sketch.clone(), is_label }
    }

    fn rates(&self, label: usize) -> LabelRates {
        let counts = self.labels.iter().position(|&other| other == label).map(|l| &self.counts[l]);
        let named = self.scenarios.texts().into_iter().zip(counts.into_iter().flatten());
        let scenarios = named.filter(|_| self.scenario.is_some()).map(|(scenario, &(rows, positives))| {
            ScenarioRate { scenario: scenario.to_owned(), rows, rate: positives as f64 / rows as f64 }
        });
        LabelRates {
            label: self.header[label].clone(),
            rate: self.sketches[label].numbers.mean,
            scenarios: scenarios.collect(),
        }
    }
}

fn examples(sketch: &Sketch) -> Vec<String> {
    let shorten = |text: &String| {
        let mut short: String = text.chars().take(EXAMPLE_LENGTH).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    };
    sketch.examples.iter().map(shorten).collect()
}
