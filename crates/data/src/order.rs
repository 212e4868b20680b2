//! The order of rows in training: a function of seed, epoch and batch, so that a run can be resumed anywhere.

use manygate_core::{Error, Result, Stream};

/// Distinguishes this use of the seed from all others.
const PURPOSE: u64 = u64::from_le_bytes(*b"roworder");

/// Which rows make which batch: every row once an epoch, in an order that depends on seed and epoch alone.
#[derive(Clone, Debug)]
pub struct EpochOrder {
    seed: u64,
    batch_size: usize,
    /// The epoch that `order` belongs to; none before the first batch.
    epoch: Option<u64>,
    order: Vec<u32>,
}

impl EpochOrder {
    /// The orders of `rows` rows in batches of `batch_size`; the last batch of an epoch may be shorter.
    ///
    /// # Errors
    /// [`Error::Config`] when the batch size is 0, or the rows are more than 2^32.
    pub fn new(seed: u64, rows: usize, batch_size: usize) -> Result<EpochOrder> {
        if batch_size == 0 {
            return Err(Error::config("batch_size", "must be at least 1"));
        }
        let rows =
            u32::try_from(rows).map_err(|_| Error::config("data.train", "more than 4294967295 rows"))?;
        Ok(EpochOrder { seed, batch_size, epoch: None, order: (0..rows).collect() })
    }

    /// Batches an epoch.
    pub fn batches(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// The rows of batch number `index` of `epoch`, both from 0; `None` past the last batch. Nothing is allocated;
    /// only the first batch asked of an epoch costs more than a slice.
    pub fn batch(&mut self, epoch: u64, index: usize) -> Option<&[u32]> {
        if self.epoch != Some(epoch) {
            // From the plain order, not from that of the epoch before: a resumed run has not seen it.
            for (row, slot) in self.order.iter_mut().enumerate() {
                *slot = row as u32;
            }
            Stream::new(self.seed, epoch, PURPOSE).shuffle(&mut self.order);
            self.epoch = Some(epoch);
        }
        self.order.chunks(self.batch_size).nth(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_row_once_and_keeps_the_short_batch() {
        let mut order = EpochOrder::new(7, 50, 16).unwrap();
        assert_eq!(order.batches(), 4);
        let mut rows = Vec::new();
        for index in 0..4 {
            rows.extend_from_slice(order.batch(0, index).unwrap());
        }
        assert_eq!(order.batch(0, 3).unwrap().len(), 2);
        assert_eq!(order.batch(0, 4), None);
        assert!(!rows.is_sorted());
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..50));
    }

    #[test]
    fn a_resumed_run_sees_the_same_batches() {
        let mut whole = EpochOrder::new(7, 50, 16).unwrap();
        let first = whole.batch(0, 2).unwrap().to_vec();
        let later = whole.batch(3, 2).unwrap().to_vec();
        let mut resumed = EpochOrder::new(7, 50, 16).unwrap();
        assert_eq!(resumed.batch(3, 2).unwrap(), later);
        assert_eq!(resumed.batch(0, 2).unwrap(), first);
        assert_ne!(first, later);
        assert_ne!(EpochOrder::new(8, 50, 16).unwrap().batch(0, 2).unwrap(), first);
    }

    #[test]
    fn odd_sizes() {
        assert!(EpochOrder::new(1, 5, 0).is_err());
        assert_eq!(EpochOrder::new(1, 0, 4).unwrap().batch(0, 0), None);
        assert_eq!(EpochOrder::new(1, 3, 100).unwrap().batch(0, 0).unwrap().len(), 3);
    }
}
