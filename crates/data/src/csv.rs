//! The CSV reader: one record at a time, errors with true line numbers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use manygate_core::{Error, Result};
use manygate_features::{did_you_mean, shown};

use crate::lines::{Lines, MAX_ROW_BYTES};
use crate::text;

/// Most columns of a file.
const MAX_COLUMNS: usize = 1 << 16;
/// Most columns that a message lists.
const LISTED: usize = 40;

/// Reads the records of a CSV file (RFC 4180, UTF-8, with a header) without holding the file in memory.
pub struct CsvReader {
    path: PathBuf,
    compression: Option<&'static str>,
    records: Reader<Lines<Box<dyn BufRead + Send>>>,
    header: Vec<String>,
    /// The number of each column; none where two have the name.
    columns: HashMap<String, Option<usize>>,
    record: ByteRecord,
    line: u64,
    /// The line on which the record ends.
    end: u64,
    rows: u64,
}

impl CsvReader {
    /// Opens a file, plain, gzip or Zstandard by its first bytes, and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Data`] when it is empty or its header is not UTF-8, too long,
    /// or of more than 65,536 columns.
    pub fn open(path: &Path) -> Result<CsvReader> {
        let text = text::open(path)?;
        // Flexible: the length of records is checked here, where the line is known.
        let lines = Lines::new(text.reader);
        let records = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(lines);
        let mut reader = CsvReader {
            path: path.to_path_buf(),
            compression: text.compression,
            records,
            header: Vec::new(),
            columns: HashMap::new(),
            record: ByteRecord::new(),
            line: 0,
            end: 0,
            rows: 0,
        };
        if !reader.read()? {
            let message = "the file is empty: a header line with the column names is needed";
            return Err(Error::data(&reader.path, None, None, message));
        }
        reader.read_header()?;
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<()> {
        let wrong = |message: &str| Error::data(&self.path, Some(self.line), None, message);
        if self.record.len() > MAX_COLUMNS {
            let columns = self.record.len();
            return Err(wrong(&format!(
                "{columns} columns are more than {MAX_COLUMNS}, the most that is possible"
            )));
        }
        for (index, name) in self.record.iter().enumerate() {
            let name = std::str::from_utf8(name)
                .map_err(|_| wrong("a column name is not UTF-8 text: convert the file to UTF-8"))?;
            self.header.push(name.to_owned());
            match self.columns.entry(name.to_owned()) {
                Entry::Vacant(free) => _ = free.insert(Some(index)),
                Entry::Occupied(mut taken) => _ = taken.insert(None),
            }
        }
        Ok(())
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
        match self.columns.get(name) {
            Some(Some(index)) => Ok(*index),
            Some(None) => {
                let message = "the header has this column twice: rename one of them";
                Err(Error::data(&self.path, Some(1), Some(name), message))
            }
            None => {
                let hint = did_you_mean(name, self.header.iter().map(String::as_str));
                let columns: Vec<String> =
                    self.header.iter().take(LISTED).map(|column| shown(column)).collect();
                let more = match self.header.len() - columns.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let message =
                    format!("there is no such column{hint} (the columns are {}{more})", columns.join(", "));
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
        self.records.get_mut().begin_record();
        let more = self.records.read_byte_record(&mut self.record).map_err(|error| {
            let next = Some(self.end + 1);
            match error.into_kind() {
                ErrorKind::Io(source) => self.unreadable(source),
                // The reader neither parses UTF-8 nor compares lengths, so that no other kind is known.
                other => Error::data(&self.path, next, None, format!("{other:?}")),
            }
        })?;
        if more {
            let inside = self.record.as_slice().iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.end = self.records.get_ref().line();
            self.line = self.end - inside;
        }
        Ok(more)
    }

    /// What is wrong when the text of the next record cannot be had.
    fn unreadable(&self, source: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof, Unsupported};
        let message = match (self.compression, source.kind()) {
            _ if self.records.get_ref().is_too_long() => format!(
                "the row that begins here is longer than {} MiB, the most that is possible: close every quote, and \
                 shorten what is too long",
                MAX_ROW_BYTES >> 20
            ),
            (Some(compression), InvalidData | InvalidInput | UnexpectedEof) => format!(
                "the {compression} data ends or breaks here ({source}): get the file anew, it was cut short or altered"
            ),
            (Some(compression), Unsupported) => format!(
                "the {compression} data cannot be read ({source}): compress it without a dictionary and with a window \
                 of at most 128 MiB"
            ),
            _ => return Error::io("read", &self.path)(source),
        };
        Error::data(&self.path, Some(self.end + 1), None, message)
    }
}

/// Counts the rows of a file, checking that all are as long as the header.
pub(crate) fn count_rows(path: &Path) -> Result<u64> {
    let mut reader = CsvReader::open(path)?;
    while reader.advance()? {}
    Ok(reader.rows)
}
