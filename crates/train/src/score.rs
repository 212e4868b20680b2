//! A trained model applied to files: metrics of labelled rows, predictions of any.

use crate::config::Config;
use crate::evaluate::{evaluate_outputs, part};
use crate::model_predictor::ModelPredictor;
use crate::report::{Floors, Part};
use crate::results::label_means;
use crate::steps::{DeviceChoice, PrecisionChoice};
use manygate_core::{Batch, Error, Pool, Result, write_atomically};
use manygate_data::encode_file;
use manygate_runtime::{CONFIG_FILE, Model};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a model predicts.
#[derive(Clone, Copy, Debug, Default)]
pub struct PredictOptions {
    /// Threads; 0 means one for each core.
    pub threads: usize,
    /// The CPU or a device.
    pub device: DeviceChoice,
    /// What products multiply in there.
    pub precision: PrecisionChoice,
}

impl PredictOptions {
    /// What the model predicts of the rows: `[output][row]`.
    fn predict(&self, model: &Model, rows: &Batch) -> Result<Vec<Vec<f32>>> {
        let &PredictOptions { threads, device, precision } = self;
        Pool::new(threads)?
            .enter(|exec| ModelPredictor::new(model, device, precision, exec, &[rows])?.predict_all(rows))
    }
}

/// Metrics of some files.
#[derive(Clone, Debug)]
pub struct Score {
    /// The metrics, and what a constant prediction of the training means reaches (where the run knows those).
    pub part: Part,
    /// Baselines, where the files are the test files of the run's configuration: they were measured on those.
    pub floors: Option<Floors>,
}

/// Scores the model of a run folder on labelled files, on none the test files of its configuration.
///
/// # Errors
/// When the run cannot be opened, it names no test files, the data does not fit the model, or a device cannot run it.
pub fn score(folder: &Path, files: &[PathBuf], options: &PredictOptions) -> Result<Score> {
    options.device.check(options.precision)?;
    let model = Model::open_to_score(folder)?;
    let mut floors = None;
    let files = if files.is_empty() {
        let config = Config::load(&folder.join(CONFIG_FILE), &[])?;
        if config.data.test.is_empty() {
            return Err(Error::config("--data", "is needed: the run's configuration names no test files"));
        }
        floors = config.report.floors.map(Floors::load).transpose()?;
        config.data.test
    } else {
        files.to_vec()
    };
    let data = encode_file(&model.encoder, &files, true, &mut |_| {})?;
    let means = label_means(folder)?.unwrap_or_default();
    let schema = model.encoder.schema();
    let outputs = options.predict(&model, &data.batch)?;
    let (evaluation, _) = evaluate_outputs(&model.plan, outputs, schema, &data)?;
    Ok(Score { part: part(schema, evaluation, &means), floors })
}

/// Writes a CSV file with the model's predictions: a header with the primary tasks, then a line for each row of `files`
/// with probabilities, values or rates, as the kinds of the tasks are, each number with the digits that give its f32
/// back. Returns the number of rows. The file appears whole or not at all.
///
/// # Errors
/// When the run cannot be opened, the data does not fit the model, a device cannot run it, or the file system refuses.
pub fn predict(folder: &Path, files: &[PathBuf], out: &Path, options: &PredictOptions) -> Result<usize> {
    options.device.check(options.precision)?;
    if out.exists() && !out.is_file() {
        // A device or pipe would be replaced by the rename.
        return Err(Error::config("--out", format!("`{}` is not a regular file; name one", out.display())));
    }
    let same = |file: &PathBuf| {
        file.canonicalize().is_ok_and(|file| out.canonicalize().is_ok_and(|out| file == out))
    };
    if files.iter().any(same) {
        let message =
            format!("`{}` is a file of the data, and would be replaced; name another", out.display());
        return Err(Error::config("--out", message));
    }
    let model = Model::open(folder)?;
    let data = encode_file(&model.encoder, files, false, &mut |_| {})?;
    let predictions = options.predict(&model, &data.batch)?;
    let names: Vec<&str> = model.plan.output_names().collect();
    write_atomically(out, &csv(&names, &predictions, data.batch.rows))?;
    Ok(data.batch.rows)
}

/// `columns[c][row]` as CSV.
fn csv(names: &[&str], columns: &[Vec<f32>], rows: usize) -> Vec<u8> {
    let mut text = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",").into_bytes();
    text.push(b'\n');
    for row in 0..rows {
        for (c, column) in columns.iter().enumerate() {
            if c > 0 {
                text.push(b',');
            }
            // The shortest digits that read back as the same f32; a vector refuses nothing.
            let _ = write!(text, "{}", column[row]);
        }
        text.push(b'\n');
    }
    text
}

/// A name as a CSV value.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_keeps_every_bit_and_quotes_names() {
        let columns = [vec![0.1, f32::MIN_POSITIVE], vec![1.0 / 3.0, 0.999_999_9]];
        let text = String::from_utf8(csv(&["click", "a,\"b\""], &columns, 2)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "click,\"a,\"\"b\"\"\"");
        for (row, line) in lines[1..].iter().enumerate() {
            let values: Vec<f32> = line.split(',').map(|v| v.parse().unwrap()).collect();
            assert_eq!(values, [columns[0][row], columns[1][row]]);
        }
        assert_eq!(lines.len(), 3);
    }
}
