//! What plans on a device share: parameters, state and tables.

use crate::memory::failed;
use manygate_core::Result;
use manygate_cuda::device::{Device, DeviceBuffer, DeviceError, Stream};
use manygate_cuda::embedding::DeviceTable;
use manygate_graph::Plan;

/// What a plan declares, wherever it is trained and evaluated.
pub(crate) struct Weights {
    pub(crate) params: DeviceBuffer<f32>,
    pub(crate) state: DeviceBuffer<f32>,
    pub(crate) tables: Vec<DeviceBuffer<f32>>,
    pub(crate) shapes: Vec<TableShape>,
}

impl Weights {
    /// Zeros.
    pub(crate) fn new(device: &Device, plan: &Plan, shapes: &[TableShape]) -> Result<Weights> {
        let zeros = |len: usize| device.zeros::<f32>(len).map_err(failed);
        Ok(Weights {
            params: zeros(plan.layout().len())?,
            state: zeros(plan.state_layout().len())?,
            tables: shapes.iter().map(|shape| zeros(shape.device_len())).collect::<Result<_>>()?,
            shapes: shapes.to_vec(),
        })
    }

    /// The tables, as kernels are given them.
    pub(crate) fn device_tables(&self) -> Vec<DeviceTable> {
        let pairs = self.shapes.iter().zip(&self.tables);
        pairs.map(|(shape, buffer)| shape.at(buffer.address())).collect()
    }
}

/// A table on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Rows.
    pub rows: usize,
    /// Weights of a row.
    pub dim: usize,
    /// Values from one row to the next: weights, then the optimiser's state.
    pub stride: usize,
}

impl TableShape {
    /// Values from one row to the next on the device: rows begin where four values are read at once.
    fn device_stride(self) -> usize {
        self.stride.next_multiple_of(4)
    }

    /// Values on the device.
    pub(crate) fn device_len(self) -> usize {
        self.rows * self.device_stride()
    }

    /// The table at `address`.
    pub(crate) fn at(self, address: u64) -> DeviceTable {
        let (rows, dim, stride) = (self.rows as u32, self.dim as u32, self.device_stride() as u32);
        DeviceTable { address, rows, dim, stride }
    }

    /// Copies all rows, `values` as the host has them, to the device.
    pub(crate) fn upload(
        self,
        stream: &Stream,
        values: &[f32],
        to: &DeviceBuffer<f32>,
    ) -> std::result::Result<(), DeviceError> {
        let (own, wide) = (self.stride.max(1), self.device_stride());
        if own == wide {
            return to.upload(stream, 0, values);
        }
        let mut padded = vec![0.0; ROWS_AT_ONCE.min(values.len() / own) * wide];
        for (piece, rows) in values.chunks(ROWS_AT_ONCE * own).enumerate() {
            let padded = &mut padded[..rows.len() / own * wide];
            padded
                .chunks_exact_mut(wide)
                .zip(rows.chunks_exact(own))
                .for_each(|(to, row)| to[..own].copy_from_slice(row));
            to.upload(stream, piece * ROWS_AT_ONCE * wide, padded)?;
        }
        Ok(())
    }

    /// Copies all rows from the device into `values`.
    pub(crate) fn download(
        self,
        stream: &Stream,
        from: &DeviceBuffer<f32>,
        values: &mut [f32],
    ) -> std::result::Result<(), DeviceError> {
        let (own, wide) = (self.stride.max(1), self.device_stride());
        if own == wide {
            return from.download(stream, 0, values);
        }
        let mut padded = vec![0.0; ROWS_AT_ONCE.min(values.len() / own) * wide];
        for (piece, rows) in values.chunks_mut(ROWS_AT_ONCE * own).enumerate() {
            let padded = &mut padded[..rows.len() / own * wide];
            from.download(stream, piece * ROWS_AT_ONCE * wide, padded)?;
            rows.chunks_exact_mut(own)
                .zip(padded.chunks_exact(wide))
                .for_each(|(row, from)| row.copy_from_slice(&from[..own]));
        }
        Ok(())
    }
}

/// Rows of a table that are copied at once.
const ROWS_AT_ONCE: usize = 1 << 16;
