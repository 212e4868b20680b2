//! From files to encoded splits: one pass to fit, one to encode. The text of a file is never held.

use std::path::{Path, PathBuf};

use manygate_core::{Batch, Error, Result};
use manygate_features::{Encoder, FeatureConfig, Fitter, Numbering, Roles, TaskConfig};

use crate::config::{DataConfig, ValidConfig};
use crate::csv::{CsvReader, count_rows};
use crate::files::expand;
use crate::violation::{self, Violation};

/// Rows between two calls of a progress function.
pub(crate) const PROGRESS_STEP: u64 = 8192;

/// Encoded rows, in the order of the files.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The rows.
    pub batch: Batch,
    /// Group number of each row for the grouped AUC: distinct users numbered by first appearance, those that no fit
    /// row has included. Empty without a user column or without labels.
    pub users: Vec<u32>,
    /// Rows whose labels contradict `after` of a task, by file and task.
    pub violations: Vec<Violation>,
}

/// The splits of a `[data]` section and the encoder that was fitted on the first of them.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Schema, vocabularies and statistics, from the fit rows alone.
    pub encoder: Encoder,
    /// Rows to train on.
    pub fit: Dataset,
    /// Rows of the training files to choose an epoch by.
    pub valid: Dataset,
    /// Rows of the test files.
    pub test: Option<Dataset>,
}

/// Reads and encodes the files of a `[data]` section. `progress` is told now and then how many rows were read so far,
/// each row once a pass.
///
/// # Errors
/// [`Error::Config`] for a configuration that cannot be used, [`Error::Io`] and [`Error::Data`] for files, the latter
/// with file, line and column.
pub fn load(
    config: &DataConfig,
    features: &[FeatureConfig],
    tasks: &[TaskConfig],
    progress: &mut dyn FnMut(u64),
) -> Result<Splits> {
    load_keeping(config, features, tasks, None, progress)
}

/// The same with the vocabularies, statistics and scenarios of an encoder that is there; what it has not is fitted.
///
/// # Errors
/// As [`load`]; and for a scenario that it does not have.
pub fn load_keeping(
    config: &DataConfig,
    features: &[FeatureConfig],
    tasks: &[TaskConfig],
    known: Option<Encoder>,
    progress: &mut dyn FnMut(u64),
) -> Result<Splits> {
    let roles = Roles {
        scenario: config.scenario.as_deref(),
        unknown_scenario: config.unknown_scenario.as_deref(),
        scenario_weights: Some(&config.scenario_weights),
        user: config.user.as_deref(),
    };
    let mut fitter = Fitter::new(roles, features, tasks)?;
    if let Some(known) = known {
        fitter = fitter.keeping(known);
    }
    let (columns, labels) = (fitter.columns().to_vec(), fitter.label_columns().to_vec());
    let wanted = Wanted {
        inputs: &columns,
        labels: &labels,
        user: config.user.as_deref(),
        time: config.time.as_deref(),
        valid: None,
    };
    let train = expand("data.train", &config.train)?;
    let test = if config.test.is_empty() { Vec::new() } else { expand("data.test", &config.test)? };
    let rule = ValidRule::new(&config.valid, &train)?;
    let of_train = Wanted { valid: rule.column(), ..wanted };
    // A column that a file lacks should not come to light after a long fit.
    for (paths, wanted) in [(&test, wanted), (&train, of_train)] {
        for path in paths {
            wanted.find(&CsvReader::open(path)?)?;
        }
    }
    let mut scan = Scan { progress, rows: 0 };
    let (mut fit_rows, mut valid_rows) = (0, 0);
    scan.files(&train, of_train, |row| {
        row.check_time()?;
        if rule.holds(row)? {
            valid_rows += 1;
            return Ok(());
        }
        fit_rows += 1;
        fitter.observe(&row.inputs()?).map_err(|error| error.at(row.reader.path(), Some(row.reader.line())))
    })?;
    rule.check_split(fit_rows, valid_rows)?;

    let encoder = fitter.finish()?;
    let mut users = Numbering::default();
    let (mut fit, mut valid) =
        (Dataset::new(&encoder, fit_rows, true), Dataset::new(&encoder, valid_rows, true));
    scan.files(&train, of_train, |row| {
        let part = if rule.holds(row)? { &mut valid } else { &mut fit };
        part.push(&encoder, row, &mut users)
    })?;
    let mut tested = None;
    if !test.is_empty() {
        let part = tested.insert(Dataset::new(&encoder, 0, true));
        scan.files(&test, wanted, |row| {
            row.check_time()?;
            part.push(&encoder, row, &mut users)
        })?;
    }
    Ok(Splits { encoder, fit, valid, test: tested })
}

/// Encodes files with an encoder that exists, one after the other into one data set; names may be patterns. Without
/// `need_labels`, neither labels nor users are read and their columns may be missing. `progress` is as for [`load`].
///
/// # Errors
/// [`Error::Config`] without files or for a pattern that matches none, [`Error::Io`] and [`Error::Data`] as for [`load`].
pub fn encode_file(
    encoder: &Encoder,
    paths: &[PathBuf],
    need_labels: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Dataset> {
    let paths = expand("data", paths)?;
    let wanted = Wanted {
        inputs: encoder.columns(),
        labels: if need_labels { encoder.label_columns() } else { &[] },
        user: encoder.schema().user.as_deref().filter(|_| need_labels),
        time: None,
        valid: None,
    };
    let mut dataset = Dataset::new(encoder, 0, need_labels);
    let mut users = Numbering::default();
    Scan { progress, rows: 0 }.files(&paths, wanted, |row| dataset.push(encoder, row, &mut users))?;
    Ok(dataset)
}

impl Splits {
    /// What the labels of all splits violate, by file and task.
    pub fn violations(&self) -> Vec<Violation> {
        let parts = [Some(&self.fit), Some(&self.valid), self.test.as_ref()];
        violation::merged(parts.into_iter().flatten().flat_map(|part| &part.violations))
    }
}

impl Dataset {
    fn new(encoder: &Encoder, rows: usize, labels: bool) -> Dataset {
        Dataset { batch: encoder.empty_batch(rows, labels), users: Vec::new(), violations: Vec::new() }
    }

    fn push(&mut self, encoder: &Encoder, row: &Row<'_>, users: &mut Numbering) -> Result<()> {
        let (path, line) = (row.reader.path(), Some(row.reader.line()));
        if u32::try_from(self.batch.rows).is_err() {
            return Err(Error::data(path, line, None, "more than 4294967295 rows: split the files"));
        }
        encoder.encode(&row.inputs()?, &mut self.batch).map_err(|error| error.at(path, line))?;
        let labels = row.reader.cells(&row.found.labels)?;
        encoder.encode_labels(&labels, &mut self.batch).map_err(|error| error.at(path, line))?;
        violation::note(&mut self.violations, encoder.schema(), &self.batch, path, row.reader.line());
        if let Some(column) = row.found.user {
            self.users.push(users.number(row.reader.cell(column)?));
        }
        Ok(())
    }
}

/// The columns that a pass needs.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    inputs: &'a [String],
    labels: &'a [String],
    user: Option<&'a str>,
    time: Option<&'a str>,
    valid: Option<&'a str>,
}

/// The numbers that those columns have in one file.
struct Found {
    inputs: Vec<usize>,
    labels: Vec<usize>,
    user: Option<usize>,
    time: Option<usize>,
    valid: Option<usize>,
}

impl Wanted<'_> {
    fn find(&self, reader: &CsvReader) -> Result<Found> {
        let all = |names: &[String]| names.iter().map(|name| reader.column(name)).collect::<Result<Vec<_>>>();
        let one = |name: Option<&str>| name.map(|name| reader.column(name)).transpose();
        Ok(Found {
            inputs: all(self.inputs)?,
            labels: all(self.labels)?,
            user: one(self.user)?,
            time: one(self.time)?,
            valid: one(self.valid)?,
        })
    }
}

/// The record that a reader stands on.
struct Row<'a> {
    reader: &'a CsvReader,
    found: &'a Found,
    /// Its number, from 0, in all files of the pass.
    number: u64,
}

impl Row<'_> {
    fn inputs(&self) -> Result<Vec<&str>> {
        self.reader.cells(&self.found.inputs)
    }

    fn check_time(&self) -> Result<()> {
        let Some(column) = self.found.time else { return Ok(()) };
        let cell = self.reader.cell(column)?;
        if cell.trim().parse::<i64>().is_err() {
            let message = format!(
                "{} is not an integer time: correct the file, or leave `data.time` out",
                manygate_features::shown(cell)
            );
            let (path, name) = (self.reader.path(), self.reader.header()[column].as_str());
            return Err(Error::data(path, Some(self.reader.line()), Some(name), message));
        }
        Ok(())
    }
}

/// Passes over files, with progress.
struct Scan<'a> {
    progress: &'a mut dyn FnMut(u64),
    rows: u64,
}

impl Scan<'_> {
    fn files(
        &mut self,
        paths: &[PathBuf],
        wanted: Wanted<'_>,
        mut visit: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut number = 0;
        for path in paths {
            let mut reader = CsvReader::open(path)?;
            let found = wanted.find(&reader)?;
            while reader.advance()? {
                visit(&Row { reader: &reader, found: &found, number })?;
                number += 1;
                self.rows += 1;
                if self.rows.is_multiple_of(PROGRESS_STEP) {
                    (self.progress)(self.rows);
                }
            }
        }
        (self.progress)(self.rows);
        Ok(())
    }
}

/// Says which training rows are for validation.
enum ValidRule<'a> {
    Values { column: &'a str, values: &'a [String] },
    From { first: u64, fraction: f64 },
}

impl<'a> ValidRule<'a> {
    fn new(valid: &'a ValidConfig, train: &[PathBuf]) -> Result<ValidRule<'a>> {
        match valid {
            ValidConfig::Column { column, values } => Ok(ValidRule::Values { column, values }),
            ValidConfig::LastFraction(fraction) if !(*fraction > 0.0 && *fraction < 1.0) => {
                let message = format!("{fraction} is not a fraction: give a number between 0 and 1");
                Err(Error::config("data.valid.last_fraction", message))
            }
            ValidConfig::LastFraction(fraction) => {
                let rows = total_rows(train)?;
                let first = rows - (rows as f64 * fraction).floor() as u64;
                Ok(ValidRule::From { first, fraction: *fraction })
            }
        }
    }

    fn column(&self) -> Option<&'a str> {
        match self {
            ValidRule::Values { column, .. } => Some(column),
            ValidRule::From { .. } => None,
        }
    }

    fn holds(&self, row: &Row<'_>) -> Result<bool> {
        match (self, row.found.valid) {
            (ValidRule::Values { values, .. }, Some(column)) => {
                let cell = row.reader.cell(column)?;
                Ok(values.iter().any(|value| value == cell))
            }
            (ValidRule::Values { .. }, None) => Ok(false),
            (ValidRule::From { first, .. }, _) => Ok(row.number >= *first),
        }
    }

    fn check_split(&self, fit_rows: usize, valid_rows: usize) -> Result<()> {
        let rows = match (fit_rows, valid_rows) {
            (0, _) => "all training rows are",
            (_, 0) => "no training row is",
            _ => return Ok(()),
        };
        let rule = match self {
            ValidRule::Values { column, values } => format!("`{column}` in {values:?}"),
            ValidRule::From { fraction, .. } => format!("the last {fraction} of the rows"),
        };
        Err(Error::config(
            "data.valid",
            format!("{rows} for validation ({rule}): choose some rows and leave others"),
        ))
    }
}

fn total_rows(paths: &[impl AsRef<Path>]) -> Result<u64> {
    paths.iter().map(|path| count_rows(path.as_ref())).sum()
}
