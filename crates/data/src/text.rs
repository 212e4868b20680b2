//! The text of a file, whatever it is compressed with.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use manygate_core::{Error, Result};

use crate::zst::{Zstd, is_zstd};

/// The first bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 16;

/// A file's text as a stream.
pub(crate) struct Text {
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// Name of the compression.
    pub(crate) compression: Option<&'static str>,
}

/// Opens a file: plain, gzip or Zstandard by its first bytes; a name may lie.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub(crate) fn open(path: &Path) -> Result<Text> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut file = BufReader::with_capacity(BUFFER, file);
    let first = file.fill_buf().map_err(Error::io("read", path))?;
    let (gzip, zstd) = (first.starts_with(&GZIP), is_zstd(first));
    Ok(if gzip {
        let reader = Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)));
        Text { reader, compression: Some("gzip") }
    } else if zstd {
        let reader = Box::new(BufReader::with_capacity(BUFFER, Zstd::new(file)));
        Text { reader, compression: Some("zstd") }
    } else {
        Text { reader: Box::new(file), compression: None }
    })
}
