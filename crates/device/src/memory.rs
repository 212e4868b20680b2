//! The memory of a plan on a device.

use manygate_core::{Error, Result};
use manygate_cuda::device::{Device, DeviceBuffer, DeviceError, Stream};
use manygate_cuda::embedding::DeviceTable;
use manygate_graph::Plan;
use manygate_graph::device::{BatchLayout, Capacity, DeviceMemory};

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
    fn device_len(self) -> usize {
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

/// An error of a device as one of the engine.
pub(crate) fn failed(error: DeviceError) -> Error {
    Error::Device { message: error.to_string() }
}

/// Sizes that a plan does not know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Bytes of scratch.
    pub(crate) scratch: u64,
    /// Bytes of what differs from run to run.
    pub(crate) block: u64,
    /// Whether parameters move.
    pub(crate) moments: bool,
    /// Values of the copies of weights in bf16.
    pub(crate) halves: usize,
}

/// The buffers of a plan.
pub(crate) struct Buffers {
    pub(crate) params: DeviceBuffer<f32>,
    pub(crate) gradients: DeviceBuffer<f32>,
    pub(crate) state: DeviceBuffer<f32>,
    arena: DeviceBuffer<f32>,
    /// Values that exist once, and their gradients.
    once: [DeviceBuffer<f32>; 2],
    kept: Vec<DeviceBuffer<f32>>,
    scratch: DeviceBuffer<u8>,
    /// Copies of weights in bf16.
    halves: DeviceBuffer<u16>,
    pub(crate) losses: DeviceBuffer<f64>,
    pub(crate) tables: Vec<DeviceBuffer<f32>>,
    /// Moments of the parameters, laid out as they are; empty where nothing moves.
    pub(crate) moments: [DeviceBuffer<f32>; 2],
    /// The batch, and what else differs from run to run.
    pub(crate) block: DeviceBuffer<u8>,
    /// What a run tells: the mean of each part of the loss, and whether all are finite (a u32).
    pub(crate) told: DeviceBuffer<f64>,
}

impl Buffers {
    /// For batches of at most `capacity`.
    ///
    /// # Errors
    /// When the device's memory is too small: with what is needed and what there is.
    pub(crate) fn new(
        device: &Device,
        plan: &Plan,
        capacity: &Capacity,
        tables: &[TableShape],
        sizes: Sizes,
    ) -> Result<Buffers> {
        let Sizes { scratch, block, moments, halves } = sizes;
        let params = plan.layout().len();
        let kept = plan.device_kept_len(capacity);
        let in_tables: usize = tables.iter().map(|table| table.device_len()).sum();
        let values = (2 + 2 * usize::from(moments)) * params
            + plan.device_arena_len()
            + 2 * plan.device_once_len()
            + kept.iter().sum::<usize>();
        let rest = 4 * values as u64 + scratch + block + 2 * halves as u64;
        check_fits(device, plan, 4 * in_tables as u64, rest)?;
        // Until a loss is not finite, runs move what they are to move.
        let told: Vec<f64> = plan.losses().iter().map(|_| 0.0).chain([f64::from_bits(1)]).collect();
        let zeros = |len: usize| device.zeros::<f32>(len).map_err(failed);
        Ok(Buffers {
            params: zeros(params)?,
            gradients: zeros(params)?,
            state: zeros(plan.state_layout().len())?,
            arena: device.allocate(plan.device_arena_len()).map_err(failed)?,
            once: [zeros(plan.device_once_len())?, zeros(plan.device_once_len())?],
            kept: kept.iter().map(|&len| device.allocate(len).map_err(failed)).collect::<Result<_>>()?,
            scratch: device.allocate(scratch as usize).map_err(failed)?,
            halves: device.allocate(halves).map_err(failed)?,
            losses: device
                .zeros(plan.device_loss_begins().last().map_or(0, |&sums| sums as usize))
                .map_err(failed)?,
            tables: tables.iter().map(|t| zeros(t.device_len())).collect::<Result<_>>()?,
            moments: [zeros(if moments { params } else { 0 })?, zeros(if moments { params } else { 0 })?],
            block: device.zeros(block as usize).map_err(failed)?,
            told: device.upload(&told).map_err(failed)?,
        })
    }

    /// Their addresses.
    pub(crate) fn addresses(&self, layout: &BatchLayout, tables: &[TableShape]) -> DeviceMemory {
        let table = |(shape, buffer): (&TableShape, &DeviceBuffer<f32>)| shape.at(buffer.address());
        DeviceMemory {
            params: self.params.address(),
            gradients: self.gradients.address(),
            state: self.state.address(),
            arena: self.arena.address(),
            once: [self.once[0].address(), self.once[1].address()],
            kept: self.kept.iter().map(DeviceBuffer::address).collect(),
            scratch: self.scratch.address(),
            halves: self.halves.address(),
            losses: self.losses.address(),
            tables: tables.iter().zip(&self.tables).map(table).collect(),
            batch: layout.at(self.block.address()),
        }
    }
}

impl Buffers {
    /// The kept buffer that holds `address`, and the number of the value there.
    pub(crate) fn kept_at(&self, address: u64) -> Option<(&DeviceBuffer<f32>, usize)> {
        self.kept.iter().find_map(|buffer| {
            let offset = address.checked_sub(buffer.address())? as usize / 4;
            (offset < buffer.len()).then_some((buffer, offset))
        })
    }
}

/// That the memory of tables and of everything else fits what is free.
fn check_fits(device: &Device, plan: &Plan, tables: u64, rest: u64) -> Result<()> {
    let free = device.free_memory().map_err(failed)?;
    if tables + rest <= free {
        return Ok(());
    }
    let size = |bytes: u64| {
        let unit = [("GiB", 30), ("MiB", 20)].into_iter().find(|(_, power)| bytes >= 1 << power);
        let (unit, power) = unit.unwrap_or(("KiB", 10));
        format!("{:.1} {unit}", bytes as f64 / (1u64 << power) as f64)
    };
    let largest = plan.tables().iter().max_by_key(|t| t.rows * t.dim);
    let largest = largest.map(|t| format!(", the largest is `{}` with {} rows of {}", t.name, t.rows, t.dim));
    let message = format!(
        "the model needs {} of tables with their optimiser's state{} and {} beside them, and {} of the device's {} are \
         free; take narrower or smaller tables, a smaller batch, or `--device cpu`",
        size(tables),
        largest.unwrap_or_default(),
        size(rest),
        size(free),
        size(device.description().memory),
    );
    Err(Error::Device { message })
}
