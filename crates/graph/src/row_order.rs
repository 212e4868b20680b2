//! Rows in the order that a plan reads them.

use crate::plan::Plan;
use manygate_core::{Batch, Result};

/// A batch in the order that a plan reads.
#[derive(Clone, Copy, Debug)]
pub struct Arranged<'a> {
    /// The rows.
    pub batch: &'a Batch,
    /// The caller's row of each; empty where nothing was moved.
    pub caller_rows: &'a [u32],
}

/// Arranges batches for plans that multiply a row by a weight of its scenario: rows of one scenario stand together, in
/// the caller's order among themselves, so that a tile has one weight. For other plans a batch stays as it is.
#[derive(Debug, Default)]
pub struct RowOrder {
    /// Caller's row of each arranged row; empty where nothing was moved.
    order: Vec<u32>,
    arranged: Batch,
}

impl RowOrder {
    /// Makes room for batches of `rows` rows out of `data`.
    pub fn reserve_for(&mut self, plan: &Plan, data: &Batch, rows: usize) {
        if plan.orders_rows() {
            self.order.reserve(rows);
            self.arranged = Batch::empty_like(data);
            self.arranged.reserve_for(data, rows);
        }
    }

    /// `batch` in the order that `plan` reads.
    ///
    /// # Errors
    /// When columns of the batch differ in length.
    pub fn arrange<'a>(&'a mut self, plan: &Plan, batch: &'a Batch) -> Result<Arranged<'a>> {
        self.order.clear();
        if !plan.orders_rows() || batch.scenario.is_sorted() {
            return Ok(Arranged { batch, caller_rows: &[] });
        }
        batch.validate()?;
        self.order.extend(0..batch.rows as u32);
        self.order.sort_unstable_by_key(|&row| (batch.scenario[row as usize], row));
        if !self.arranged.has_columns_of(batch) {
            self.arranged = Batch::empty_like(batch);
        }
        self.arranged.gather(batch, &self.order);
        Ok(Arranged { batch: &self.arranged, caller_rows: &self.order })
    }

    /// The caller's row that stands at `row` of the batch arranged last.
    pub fn caller_row(&self, row: usize) -> usize {
        self.order.get(row).map_or(row, |&r| r as usize)
    }
}
