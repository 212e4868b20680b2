//! What the random numbers inside a run are keyed by.

use manygate_core::Stream;
use std::ops::Range;

/// The numbers of a step: seed and step here, the op that draws them by its name, and the caller's row and a column as
/// the counter. A run with the same draws gives the same numbers, on whatever tiles, lanes, threads, order of rows or
/// plan: the gradients of several losses, a second look at the losses, and the search for the first value that is not
/// finite all see the masks of the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draws<'a> {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the step in the run.
    pub step: u64,
    /// The caller's row of each row of the batch, see [`Arranged`](crate::row_order::Arranged); empty where nothing was
    /// moved.
    pub caller_rows: &'a [u32],
}

impl<'a> Draws<'a> {
    /// The numbers of the op with the key `op`, see [`Op::draws`](crate::Op::draws).
    pub fn stream(&self, op: u64) -> Stream {
        Stream::new(self.seed, self.step, op)
    }

    /// The caller's row that stands at `row` of the batch.
    pub fn caller_row(&self, row: usize) -> u64 {
        self.caller_rows.get(row).map_or(row as u64, |&r| u64::from(r))
    }

    /// The caller's rows of some rows of the batch; empty where nothing was moved.
    pub fn caller_rows_of(&self, rows: Range<usize>) -> &'a [u32] {
        if self.caller_rows.is_empty() { &[] } else { &self.caller_rows[rows] }
    }
}
