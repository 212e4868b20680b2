//! The memory of a plan on a device.

use crate::block::SLOTS;
use crate::update::{StepMemory, UpdateSizes, Updates};
use crate::weights::{TableShape, Weights};
use manygate_core::{Error, Result};
use manygate_cuda::Precision;
use manygate_cuda::device::{Device, DeviceBuffer, DeviceError};
use manygate_cuda::embedding::RowSums;
use manygate_graph::Plan;
use manygate_graph::device::{BatchLayout, Capacity, DeviceMemory};

/// An error of a device as one of the engine.
pub(crate) fn failed(error: DeviceError) -> Error {
    Error::Device { message: error.to_string() }
}

/// How much memory a plan's runs need.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// f32 values of the gradients; none where nothing is trained.
    gradients: usize,
    /// The same of each moment; none where nothing moves.
    moments: usize,
    /// What moving needs.
    updates: UpdateSizes,
    arena: usize,
    /// Of the values that exist once, and of their gradients.
    once: [usize; 2],
    kept: Vec<usize>,
    /// Bytes of scratch.
    scratch: u64,
    /// Bytes of what differs from run to run.
    pub(crate) block: u64,
    /// Values of the copies of weights in bf16.
    halves: usize,
    /// Values that a run tells of losses and their gradients, f64.
    pub(crate) told: usize,
    /// The same of outputs, f32.
    pub(crate) outputs: usize,
}

impl Sizes {
    /// For batches of at most `capacity`; `layout` is theirs.
    pub(crate) fn new(
        plan: &Plan,
        capacity: &Capacity,
        layout: &BatchLayout,
        precision: Precision,
        updates: Option<&Updates>,
    ) -> Sizes {
        let params = plan.layout().len();
        let trained = usize::from(plan.is_training());
        let outputs = if plan.is_training() { 0 } else { plan.output_names().count() };
        let of_updates = updates.map_or(UpdateSizes::default(), Updates::sizes);
        Sizes {
            gradients: trained * params,
            moments: updates.map_or(0, |_| params),
            updates: of_updates,
            arena: plan.device_arena_len(),
            once: [plan.device_once_len(), trained * plan.device_once_len()],
            kept: plan.device_kept_len(capacity),
            scratch: plan.device_scratch(capacity).max(of_updates.scratch),
            block: layout.bytes() + updates.map_or(0, Updates::block_bytes),
            halves: if precision == Precision::Bf16 { plan.device_halves_len() } else { 0 },
            told: plan.losses().len() + 1 + of_updates.products,
            outputs: outputs * capacity.rows,
        }
    }

    /// All of it. What differs from run to run lies there a few times.
    fn bytes(&self) -> u64 {
        let Sizes { gradients, moments, updates, arena, once, kept, outputs, .. } = self;
        // Keys of rows, and their numbers for each bucket, which are half as large each.
        let for_updates = updates.by_run + 3 * updates.rows + updates.row_sums;
        let values =
            gradients + 2 * moments + arena + once[0] + once[1] + kept.iter().sum::<usize>() + outputs;
        let values = values + for_updates;
        4 * values as u64 + self.scratch + (1 + SLOTS as u64) * self.block + 2 * self.halves as u64
    }
}

/// The buffers of a plan's runs.
pub(crate) struct Buffers {
    pub(crate) gradients: DeviceBuffer<f32>,
    arena: DeviceBuffer<f32>,
    /// Values that exist once, and their gradients.
    once: [DeviceBuffer<f32>; 2],
    kept: Vec<DeviceBuffer<f32>>,
    scratch: DeviceBuffer<u8>,
    /// Copies of weights in bf16.
    halves: DeviceBuffer<u16>,
    pub(crate) losses: DeviceBuffer<f64>,
    /// Moments of the parameters, laid out as they are; empty where nothing moves.
    pub(crate) moments: [DeviceBuffer<f32>; 2],
    /// The batch, and what else differs from run to run.
    pub(crate) block: DeviceBuffer<u8>,
    /// Gradients of the parameters by run, where losses have gradients of their own.
    by_run: DeviceBuffer<f32>,
    /// Where gradients of rows are summed before anything moves: keys, sums, and how many rows there are and move.
    rows: (DeviceBuffer<u32>, DeviceBuffer<f32>, DeviceBuffer<u32>),
    /// What a run tells: the mean of each part of the loss, whether all are finite (a u32), and products of gradients.
    pub(crate) told: DeviceBuffer<f64>,
    /// The outputs of an evaluation plan, `[rows, outputs]`.
    pub(crate) outputs: DeviceBuffer<f32>,
}

impl Buffers {
    /// # Errors
    /// When the device's memory is too small.
    pub(crate) fn new(device: &Device, plan: &Plan, sizes: &Sizes) -> Result<Buffers> {
        // Until a loss is not finite, runs move what they are to move.
        let mut told = vec![0.0; sizes.told];
        told[plan.losses().len()] = f64::from_bits(1);
        let zeros = |len: usize| device.zeros::<f32>(len).map_err(failed);
        Ok(Buffers {
            gradients: zeros(sizes.gradients)?,
            arena: device.allocate(sizes.arena).map_err(failed)?,
            once: [zeros(sizes.once[0])?, zeros(sizes.once[1])?],
            kept: sizes
                .kept
                .iter()
                .map(|&len| device.allocate(len).map_err(failed))
                .collect::<Result<_>>()?,
            scratch: device.allocate(sizes.scratch as usize).map_err(failed)?,
            halves: device.allocate(sizes.halves).map_err(failed)?,
            losses: device
                .zeros(plan.device_loss_begins().last().map_or(0, |&sums| sums as usize))
                .map_err(failed)?,
            moments: [zeros(sizes.moments)?, zeros(sizes.moments)?],
            block: device.zeros(sizes.block as usize).map_err(failed)?,
            by_run: zeros(sizes.updates.by_run)?,
            rows: (
                device.allocate(sizes.updates.rows).map_err(failed)?,
                device.allocate(sizes.updates.row_sums).map_err(failed)?,
                device.allocate(2).map_err(failed)?,
            ),
            told: device.upload(&told).map_err(failed)?,
            outputs: device.allocate(sizes.outputs).map_err(failed)?,
        })
    }

    /// Their addresses, and those of the weights.
    pub(crate) fn addresses(&self, layout: &BatchLayout, weights: &Weights) -> DeviceMemory {
        DeviceMemory {
            params: weights.params.address(),
            gradients: self.gradients.address(),
            state: weights.state.address(),
            arena: self.arena.address(),
            once: [self.once[0].address(), self.once[1].address()],
            kept: self.kept.iter().map(DeviceBuffer::address).collect(),
            scratch: self.scratch.address(),
            halves: self.halves.address(),
            losses: self.losses.address(),
            tables: weights.device_tables(),
            batch: layout.at(self.block.address()),
        }
    }

    /// What moving reads and writes beside `memory`.
    pub(crate) fn step_memory<'a>(
        &self,
        plan: &'a Plan,
        memory: &'a DeviceMemory,
        capacity: &'a Capacity,
        block: u64,
    ) -> StepMemory<'a> {
        let (keys, sums, counts) = &self.rows;
        let go_on = self.go_on(plan);
        StepMemory {
            plan,
            memory,
            capacity,
            block,
            moments: [self.moments[0].address(), self.moments[1].address()],
            go_on,
            by_run: self.by_run.address(),
            rows: RowSums { keys: keys.address(), sums: sums.address(), distinct: counts.address() },
            products: go_on + 8,
        }
    }

    /// Address of a u32 that is 0 from the first loss of `plan` on that is not finite.
    pub(crate) fn go_on(&self, plan: &Plan) -> u64 {
        self.told.address() + 8 * plan.losses().len() as u64
    }

    /// The kept buffer that holds `address`, and the number of the value there.
    pub(crate) fn kept_at(&self, address: u64) -> Option<(&DeviceBuffer<f32>, usize)> {
        self.kept.iter().find_map(|buffer| {
            let offset = address.checked_sub(buffer.address())? as usize / 4;
            (offset < buffer.len()).then_some((buffer, offset))
        })
    }
}

/// That weights, and what their runs need, fit what is free.
///
/// # Errors
/// With what is needed and what there is.
pub(crate) fn check_fits(device: &Device, plan: &Plan, tables: &[TableShape], sizes: &Sizes) -> Result<()> {
    let free = device.free_memory().map_err(failed)?;
    let in_tables: usize = tables.iter().map(|table| table.device_len()).sum();
    let (tables, rest) = (4 * in_tables as u64, 4 * plan.layout().len() as u64 + sizes.bytes());
    if tables + rest <= free {
        return Ok(());
    }
    let largest = plan.tables().iter().max_by_key(|t| t.rows * t.dim);
    let largest = largest.map(|t| format!(", the largest is `{}` with {} rows of {}", t.name, t.rows, t.dim));
    let message = format!(
        "the model needs {} of tables with their optimiser's state{} and {} beside them, and {} of the device's {} are \
         free; take narrower or smaller tables, a smaller batch, or `--device cpu`",
        told(tables),
        largest.unwrap_or_default(),
        told(rest),
        told(free),
        told(device.description().memory),
    );
    Err(Error::Device { message })
}

/// That what runs over weights that are there need fits what is free.
///
/// # Errors
/// With what is needed and what there is.
pub(crate) fn check_fits_beside(device: &Device, sizes: &Sizes) -> Result<()> {
    let (free, needed) = (device.free_memory().map_err(failed)?, sizes.bytes());
    if needed <= free {
        return Ok(());
    }
    let message = format!(
        "predictions need {} beside the model that is trained, and {} of the device's {} are free; take narrower or \
         smaller tables, a smaller batch, or `--device cpu`",
        told(needed),
        told(free),
        told(device.description().memory),
    );
    Err(Error::Device { message })
}

/// A number of bytes in words.
fn told(bytes: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20)].into_iter().find(|(_, power)| bytes >= 1 << power);
    let (unit, power) = unit.unwrap_or(("KiB", 10));
    format!("{:.1} {unit}", bytes as f64 / (1u64 << power) as f64)
}
