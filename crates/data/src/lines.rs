//! Which line a CSV record stands on.
//!
//! A CSV parser reports where the search for a record began: blank lines, and the line feed that ends a CRLF pair,
//! come before the record. Here the parser gets its input in pieces that end with a line feed. When it hands over a
//! record, the pieces given out are exactly the lines up to the record's last one.

use std::io::{self, BufRead, Read};

/// Most bytes of a record: a file without line feeds, or a small one that decompresses to gigabytes, must not fill the
/// memory.
pub(crate) const MAX_ROW_BYTES: usize = 16 << 20;

/// A reader that never gives out more than the rest of one line at a time, nor more than [`MAX_ROW_BYTES`] a record.
pub(crate) struct Lines<R> {
    inner: R,
    /// Bytes given out since the record began.
    bytes: usize,
    feeds: u64,
    inside: bool,
    ended: bool,
}

impl<R> Lines<R> {
    pub(crate) fn new(inner: R) -> Self {
        Lines { inner, bytes: 0, feeds: 0, inside: false, ended: false }
    }

    /// Says that the parser begins with another record.
    pub(crate) fn begin_record(&mut self) {
        self.bytes = 0;
    }

    /// Whether a record was longer than is possible, which ended the input.
    pub(crate) fn is_too_long(&self) -> bool {
        self.bytes > MAX_ROW_BYTES
    }

    /// The line, from 1, of the end of the record that the parser has just handed over. At the end of the file it was
    /// ended by that, and by no line feed.
    pub(crate) fn line(&self) -> u64 {
        self.feeds + u64::from(self.inside || self.ended)
    }
}

impl<R: BufRead> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_too_long() {
            return Err(io::Error::other("the record is too long"));
        }
        let available = self.inner.fill_buf()?;
        let limit = available.len().min(buffer.len());
        let feed = available[..limit].iter().position(|&byte| byte == b'\n');
        let n = feed.map_or(limit, |at| at + 1);
        buffer[..n].copy_from_slice(&available[..n]);
        self.inner.consume(n);
        self.bytes += n;
        self.feeds += u64::from(feed.is_some());
        self.inside = n > 0 && feed.is_none();
        self.ended = n == 0 && !buffer.is_empty();
        Ok(n)
    }
}
