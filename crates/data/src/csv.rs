//! The CSV reader: plain or gzip, one record at a time, errors with true line numbers.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use flate2::bufread::MultiGzDecoder;
use manygate_core::{Error, Result};
use manygate_features::{did_you_mean, shown};

use crate::lines::Lines;

/// The first bytes of every gzip file; a name may lie.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 16;

/// Reads the records of a CSV file (RFC 4180, UTF-8, with a header) without holding the file in memory.
pub struct CsvReader {
    path: PathBuf,
    records: Reader<Lines<Box<dyn BufRead + Send>>>,
    header: Vec<String>,
    record: ByteRecord,
    line: u64,
    rows: u64,
}

impl CsvReader {
    /// Opens a file, gzip or not by its first bytes, and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Data`] when it is empty or its header is not UTF-8.
    pub fn open(path: &Path) -> Result<CsvReader> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut file = BufReader::with_capacity(BUFFER, file);
        let gzip = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&GZIP);
        let text: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        // Flexible: the length of records is checked here, where the line is known.
        let records = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(Lines::new(text));
        let path = path.to_path_buf();
        let record = ByteRecord::new();
        let mut reader = CsvReader { path, records, header: Vec::new(), record, line: 0, rows: 0 };
        if !reader.read()? {
            let message = "the file is empty: a header line with the column names is needed";
            return Err(Error::data(&reader.path, None, None, message));
        }
        for name in &reader.record {
            let name = std::str::from_utf8(name).map_err(|_| {
                let message = "a column name is not UTF-8 text: convert the file to UTF-8";
                Error::data(&reader.path, Some(reader.line), None, message)
            })?;
            reader.header.push(name.to_owned());
        }
        Ok(reader)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The column names.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The number of the column called `name`.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none or more than one, with the columns that there are.
    pub fn column(&self, name: &str) -> Result<usize> {
        let mut found = self.header.iter().enumerate().filter(|(_, column)| *column == name);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (Some(_), Some(_)) => {
                let message = "the header has this column twice: rename one of them";
                Err(Error::data(&self.path, Some(1), Some(name), message))
            }
            (None, _) => {
                let hint = did_you_mean(name, self.header.iter().map(String::as_str));
                let columns: Vec<String> = self.header.iter().map(|column| shown(column)).collect();
                let message =
                    format!("there is no such column{hint} (the columns are {})", columns.join(", "));
                Err(Error::data(&self.path, None, Some(name), message))
            }
        }
    }

    /// Moves to the next record. `false` at the end of the file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Data`] for a record that is longer or shorter than the header and for a file that
    /// ends after its header.
    pub fn advance(&mut self) -> Result<bool> {
        if !self.read()? {
            if self.rows == 0 {
                let message = "the file has a header and no rows: at least one row is needed";
                return Err(Error::data(&self.path, None, None, message));
            }
            return Ok(false);
        }
        if self.record.len() != self.header.len() {
            let message = format!(
                "the row has {} values, the header {}: close every quote; a value that holds a comma or line break needs \
                 double quotes around it",
                self.record.len(),
                self.header.len()
            );
            return Err(Error::data(&self.path, Some(self.line), None, message));
        }
        self.rows += 1;
        Ok(true)
    }

    /// The line, from 1, on which the record begins.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The record's value of column number `column`.
    ///
    /// # Errors
    /// [`Error::Data`] when it is not UTF-8.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn cell(&self, column: usize) -> Result<&str> {
        std::str::from_utf8(&self.record[column]).map_err(|_| {
            let message = "the value is not UTF-8 text: convert the file to UTF-8";
            Error::data(&self.path, Some(self.line), Some(&self.header[column]), message)
        })
    }

    /// The record's values of some columns. The vector is the only allocation of a row.
    ///
    /// # Errors
    /// As for [`cell`](CsvReader::cell).
    pub(crate) fn cells(&self, columns: &[usize]) -> Result<Vec<&str>> {
        columns.iter().map(|&column| self.cell(column)).collect()
    }

    fn read(&mut self) -> Result<bool> {
        let more =
            self.records.read_byte_record(&mut self.record).map_err(|error| match error.into_kind() {
                ErrorKind::Io(source) if damaged(&source) => {
                    let message = format!("the gzip data ends or breaks here ({source}): get the file anew, it was cut short or altered");
                    Error::data(&self.path, Some(self.line + 1), None, message)
                }
                ErrorKind::Io(source) => Error::io("read", &self.path)(source),
                // The reader neither parses UTF-8 nor compares lengths, so that no other kind is known.
                other => Error::data(&self.path, Some(self.line + 1), None, format!("{other:?}")),
            })?;
        if more {
            let inside = self.record.as_slice().iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.line = self.records.get_ref().line() - inside;
        }
        Ok(more)
    }
}

/// Whether an error is the decompressor's: reading a plain file gives none of these kinds.
fn damaged(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Counts the rows of a file, checking that all are as long as the header.
pub(crate) fn count_rows(path: &Path) -> Result<u64> {
    let mut reader = CsvReader::open(path)?;
    while reader.advance()? {}
    Ok(reader.rows)
}
