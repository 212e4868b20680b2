//! A plan with its memory on a device, and its runs.

mod values;

use crate::block::{SLOTS, Slot};
use crate::by_loss::{ByLoss, LossWeights, flat_gradients};
use crate::memory::{Buffers, Sizes, check_fits, check_fits_beside, failed};
use crate::update::{Optimizers, StepConstants, Updates};
use crate::weights::{TableShape, Weights};
use manygate_core::{Batch, Error, Result};
use manygate_cuda::device::{Device, DeviceBuffer, DeviceError, Recorded, Stream};
use manygate_cuda::elementwise::copy_columns;
use manygate_cuda::loss::losses_finite;
use manygate_cuda::{DeviceMat, Launch, Precision};
use manygate_graph::device::{BatchLayout, Capacity, DeviceMemory};
use manygate_graph::{Draws, Plan};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// A compiled plan on a device: its memory, and its runs.
///
/// A run is put on the device and done later; [`finish`](DeviceModel::finish) waits for the oldest. Bits depend on batch,
/// plan and device. Several plans may [share](DeviceModel::sharing) weights: their runs are done in the order in which they
/// were put on the device.
pub struct DeviceModel {
    plan: Plan,
    precision: Precision,
    capacity: Capacity,
    layout: BatchLayout,
    weights: Arc<Weights>,
    buffers: Buffers,
    memory: DeviceMemory,
    updates: Option<Updates>,
    /// Whether runs of a plan that trains move the state.
    moves_state: bool,
    slots: Vec<Slot>,
    /// Slots of the runs that are under way, and rows of their batches, the oldest first.
    under_way: VecDeque<(usize, usize)>,
    recordings: HashMap<(Capacity, Part), Recorded>,
    /// What launches read that never changes.
    constants: Vec<DeviceBuffer<u8>>,
    copies: Stream,
    stream: Stream,
    device: Device,
}

/// What a run told.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Loss of each part, unweighted.
    pub losses: Vec<f64>,
    /// Whether it moved what it was to move: not where a loss was not finite, nor after such a run.
    pub moved: bool,
    /// Where losses have gradients of their own, behind the run of the last one: the inner products of those that are
    /// multiplied, `[0 0, 1 0, 1 1, 2 0 …]`.
    pub products: Vec<f64>,
    /// Of an evaluation plan: its outputs, `[rows, outputs]` row-major. One of training tells none.
    pub outputs: Vec<f32>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// All of a step, or a prediction.
    Whole,
    /// Keeps the gradients of one of the losses.
    Loss(usize),
    /// Moves everything by what weights make of these.
    Move,
    /// Moves the state.
    State,
}

impl DeviceModel {
    /// Memory for `plan`, which was compiled with tiles of `capacity.rows` rows, and for `tables`; with `optimizers` a run
    /// moves parameters and tables.
    ///
    /// # Errors
    /// When the device cannot run the plan, or its memory is too small.
    pub fn new(
        device: &Device,
        plan: Plan,
        capacity: Capacity,
        precision: Precision,
        tables: &[TableShape],
        optimizers: Option<Optimizers>,
    ) -> Result<DeviceModel> {
        check_plan(&plan, &capacity)?;
        let updates = optimizers
            .map(|optimizers| Updates::new(&plan, &capacity, precision, tables, optimizers))
            .transpose()?;
        let layout = BatchLayout::new(&plan, &capacity);
        let sizes = Sizes::new(&plan, &capacity, &layout, precision, updates.as_ref());
        check_fits(device, &plan, tables, &sizes)?;
        let weights = Arc::new(Weights::new(device, &plan, tables)?);
        let stream = device.stream().map_err(failed)?;
        let runs = Runs { plan, precision, capacity, layout, updates, moves_state: true };
        DeviceModel::over(device, stream, weights, runs, &sizes)
    }

    /// Memory for another plan of the same model over the same weights, as for its evaluation beside training: what this one
    /// moves, that one reads, and what was put on the device first is done first. That one moves nothing.
    ///
    /// # Errors
    /// When the plan declares others, the device cannot run it, or what is free of its memory is too small.
    pub fn sharing(&self, plan: Plan, capacity: Capacity, precision: Precision) -> Result<DeviceModel> {
        check_plan(&plan, &capacity)?;
        if plan.layout() != self.plan.layout()
            || plan.state_layout() != self.plan.state_layout()
            || plan.tables() != self.plan.tables()
        {
            let message = "a plan that shares weights must declare the same parameters, state and tables";
            return Err(Error::graph("device", message));
        }
        let layout = BatchLayout::new(&plan, &capacity);
        let sizes = Sizes::new(&plan, &capacity, &layout, precision, None);
        check_fits_beside(&self.device, &sizes)?;
        let runs = Runs { plan, precision, capacity, layout, updates: None, moves_state: false };
        DeviceModel::over(&self.device, self.stream.clone(), Arc::clone(&self.weights), runs, &sizes)
    }

    fn over(
        device: &Device,
        stream: Stream,
        weights: Arc<Weights>,
        Runs { plan, precision, capacity, layout, updates, moves_state }: Runs,
        sizes: &Sizes,
    ) -> Result<DeviceModel> {
        let buffers = Buffers::new(device, &plan, sizes)?;
        let slots = (0..SLOTS).map(|_| Slot::new(device, sizes));
        let model = DeviceModel {
            memory: buffers.addresses(&layout, &weights),
            slots: slots.collect::<Result<_>>()?,
            plan,
            precision,
            capacity,
            layout,
            weights,
            buffers,
            updates,
            moves_state,
            under_way: VecDeque::new(),
            recordings: HashMap::new(),
            constants: Vec::new(),
            copies: device.stream().map_err(failed)?,
            stream,
            device: device.clone(),
        };
        model.check_outputs()?;
        Ok(model)
    }

    /// The same, whose runs leave the state as it is until [`move_state`](DeviceModel::move_state) is called.
    #[must_use]
    pub fn with_state_apart(self) -> DeviceModel {
        DeviceModel { moves_state: false, ..self }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// That what an evaluation plan tells is one number a row.
    fn check_outputs(&self) -> Result<()> {
        for (index, name) in self.plan.output_names().enumerate().take(self.outputs()) {
            let output = self.plan.device_output(&self.memory, &self.capacity, index);
            if output.cols != 1 || output.live_rows != self.memory.batch.rows {
                let message = format!("is [{}, {}], not one number a row", output.rows, output.cols);
                return Err(Error::graph(format!("output {name}"), message));
            }
        }
        Ok(())
    }

    /// Outputs that a run tells.
    fn outputs(&self) -> usize {
        if self.plan.is_training() { 0 } else { self.plan.output_names().count() }
    }

    /// Puts a run over `batch` on the device, with the factor of each part of the loss in `seeds`; `step` is what the
    /// optimisers do. Waits only where as many runs as possible are under way.
    ///
    /// # Errors
    /// When the batch does not fit, or the device fails.
    ///
    /// # Panics
    /// When there is no [room](DeviceModel::has_room): finish a run first.
    pub fn run(
        &mut self,
        batch: &Batch,
        seeds: &[f32],
        draws: Draws<'_>,
        step: Option<&StepConstants>,
    ) -> Result<()> {
        self.put(Part::Whole, batch, |layout, plan, updates, block| {
            let (of_batch, of_step) = block.split_at_mut(layout.bytes() as usize);
            layout.fill(plan, batch, seeds, draws, of_batch)?;
            if let (Some(updates), Some(step)) = (updates, step) {
                updates.fill(step, None, of_step);
            }
            Ok(())
        })
    }

    /// Runs of a step that keep the gradients of losses; 0 where these have none of their own.
    pub fn runs_of_losses(&self) -> usize {
        self.updates.as_ref().and_then(Updates::by_loss).map_or(0, ByLoss::runs)
    }

    /// Puts run number `run` of those that keep the gradients of losses on the device: all of them, in order, over one
    /// batch. Nothing moves.
    ///
    /// # Errors
    /// As [`run`](DeviceModel::run).
    ///
    /// # Panics
    /// As [`run`](DeviceModel::run), and when there is no such run.
    pub fn run_of_loss(&mut self, run: usize, batch: &Batch, draws: Draws<'_>) -> Result<()> {
        assert!(run < self.runs_of_losses(), "run {run} of {} of losses", self.runs_of_losses());
        self.put(Part::Loss(run), batch, |layout, plan, updates, block| {
            let seeds = updates.and_then(Updates::by_loss).map_or(&[][..], |by_loss| &by_loss.seeds[run]);
            layout.fill(plan, batch, seeds, draws, block)
        })
    }

    /// Moves everything by the gradients that those runs kept of this batch, each times its weight.
    ///
    /// # Errors
    /// As [`run`](DeviceModel::run).
    ///
    /// # Panics
    /// As [`run`](DeviceModel::run), and when losses have no gradients of their own.
    pub fn move_by(
        &mut self,
        weights: LossWeights<'_>,
        batch: &Batch,
        draws: Draws<'_>,
        step: &StepConstants,
    ) -> Result<()> {
        assert!(self.runs_of_losses() > 0, "losses have no gradients of their own");
        self.put(Part::Move, batch, |layout, plan, updates, block| {
            let (of_batch, of_step) = block.split_at_mut(layout.bytes() as usize);
            layout.fill(plan, batch, &no_seeds(plan), draws, of_batch)?;
            if let Some(updates) = updates {
                updates.fill(step, Some(weights), of_step);
            }
            Ok(())
        })
    }

    /// Moves the state by what the run before, over this batch, saw.
    ///
    /// # Errors
    /// As [`run`](DeviceModel::run).
    ///
    /// # Panics
    /// As [`run`](DeviceModel::run).
    pub fn move_state(&mut self, batch: &Batch, draws: Draws<'_>) -> Result<()> {
        self.put(Part::State, batch, |layout, plan, _, block| {
            layout.fill(plan, batch, &no_seeds(plan), draws, block)
        })
    }

    fn put(
        &mut self,
        part: Part,
        batch: &Batch,
        fill: impl FnOnce(&BatchLayout, &Plan, Option<&Updates>, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        assert!(self.under_way.len() < SLOTS, "{SLOTS} runs are under way; finish one first");
        let slot = self.under_way.back().map_or(0, |(last, _)| (last + 1) % SLOTS);
        let key = (self.capacity.bucket(batch), part);
        if !self.recordings.contains_key(&key) {
            let launches = self.launches(&key.0, part)?;
            let recorded = self.record(&launches).map_err(failed)?;
            self.recordings.insert(key.clone(), recorded);
        }
        let (layout, plan, updates) = (&self.layout, &self.plan, self.updates.as_ref());
        self.slots[slot].send(&self.copies, &self.stream, &self.buffers.block, |block| {
            fill(layout, plan, updates, block)
        })?;
        // SAFETY: what is replayed reads and writes buffers of `self`, and weights that only models on this stream use, see
        // `launches`; all of it is on that stream, and the copies that surround it wait by events.
        unsafe { self.recordings[&key].launch() }.map_err(failed)?;
        let (stream, Buffers { told, outputs, .. }) = (&self.stream, &self.buffers);
        let (told_outputs, to) = (batch.rows * self.outputs(), &mut self.slots[slot]);
        let done = told.download_pinned(stream, 0..told.len(), &mut to.told, 0);
        done.and_then(|()| outputs.download_pinned(stream, 0..told_outputs, &mut to.outputs, 0))
            .map_err(failed)?;
        self.under_way.push_back((slot, batch.rows));
        Ok(())
    }

    /// Whether another run can be put on the device before one is finished.
    pub fn has_room(&self) -> bool {
        self.under_way.len() < SLOTS
    }

    /// Waits for the oldest run under way; [`None`] where there is none.
    ///
    /// # Errors
    /// When the device failed.
    pub fn finish(&mut self) -> Result<Option<Finished>> {
        let Some((slot, rows)) = self.under_way.pop_front() else { return Ok(None) };
        let told = self.slots[slot].told.as_slice().map_err(failed)?;
        let outputs = &self.slots[slot].outputs.as_slice().map_err(failed)?[..rows * self.outputs()];
        let (losses, behind) = told.split_at(self.plan.losses().len());
        let (moved, products) = (behind[0].to_bits() as u32 == 1, behind[1..].to_vec());
        Ok(Some(Finished { losses: losses.to_vec(), moved, products, outputs: outputs.to_vec() }))
    }

    /// The launches of a run over a batch in `bucket`. All of them keep to the buffers of `self` and the weights: their
    /// matrices are places of the plan in memory made for it, and rows and ids that a batch has were checked against capacity
    /// and tables.
    fn launches(&mut self, bucket: &Capacity, part: Part) -> Result<Vec<Launch>> {
        let Self { plan, memory, precision, device, constants, updates, buffers, .. } = self;
        let mut upload = |bytes: &[u8]| {
            let buffer = device.upload(bytes).map_err(failed)?;
            constants.push(buffer);
            Ok(constants.last().map_or(0, DeviceBuffer::address))
        };
        let block = memory.batch.row_range + self.layout.bytes();
        let go_on = buffers.go_on(plan);
        let at = buffers.step_memory(plan, memory, bucket, block);
        if part == Part::State {
            return Ok(plan.record_state(memory, go_on));
        }
        let by_loss = updates.as_ref().and_then(|updates| Some((updates, updates.by_loss()?)));
        if let (Part::Move, Some((updates, by_loss))) = (part, by_loss) {
            let mut launches = updates.combine(by_loss, &at, &mut upload)?;
            launches.extend(plan.record_state(memory, go_on));
            return Ok(launches);
        }
        let own = match part {
            Part::Loss(run) => {
                DeviceMemory { gradients: flat_gradients(plan, at.by_run).of_loss(run), ..memory.clone() }
            }
            Part::Whole | Part::Move | Part::State => memory.clone(),
        };
        let mut launches = plan.record(&own, bucket, *precision, &mut upload)?.launches;
        if !plan.is_training() {
            launches.extend(self.tell_outputs(bucket));
            return Ok(launches);
        }
        let parts = plan.losses().len() as u32;
        let bytes: Vec<u8> = plan.device_loss_begins().iter().flat_map(|begin| begin.to_le_bytes()).collect();
        let (means, begins) = (buffers.told.address(), Some(upload(&bytes)?));
        launches.push(losses_finite(memory.losses, memory.batch.divisors, begins, parts, means, go_on));
        if let (Part::Loss(run), Some((updates, by_loss))) = (part, by_loss) {
            launches.extend(updates.keep(by_loss, run, &at, &mut upload)?);
            return Ok(launches);
        }
        if let Some(updates) = updates {
            launches.extend(updates.launches(&at, &mut upload)?);
        }
        // Behind them: a gradient that is not finite lets nothing move.
        if self.moves_state {
            launches.extend(plan.record_state(memory, go_on));
        }
        Ok(launches)
    }

    /// The launches that lay the outputs side by side.
    fn tell_outputs(&self, bucket: &Capacity) -> Vec<Launch> {
        let count = self.outputs();
        let told = |index: usize| {
            let output = self.plan.device_output(&self.memory, bucket, index);
            let address = self.buffers.outputs.address() + 4 * index as u64;
            copy_columns(output, false, DeviceMat { address, stride: count as u32, ..output })
        };
        (0..count).map(told).collect()
    }

    /// Records launches, whose kernels are loaded before: a recording must not wait for the device.
    fn record(&self, launches: &[Launch]) -> std::result::Result<Recorded, DeviceError> {
        for launch in launches {
            self.device.load_for(launch)?;
        }
        self.stream.record(|stream| {
            self.buffers.losses.fill_zeros(stream, 0..self.buffers.losses.len())?;
            launches.iter().try_for_each(|launch| {
                // SAFETY: recorded for `run`, which keeps what it asks for.
                unsafe { stream.launch(launch) }
            })
        })
    }
}

/// A plan and what its runs are like.
struct Runs {
    plan: Plan,
    precision: Precision,
    capacity: Capacity,
    layout: BatchLayout,
    updates: Option<Updates>,
    moves_state: bool,
}

/// Factors of a run without losses.
fn no_seeds(plan: &Plan) -> Vec<f32> {
    vec![0.0; plan.losses().len()]
}

fn check_plan(plan: &Plan, capacity: &Capacity) -> Result<()> {
    plan.check_device()?;
    if plan.options().tile_rows < capacity.rows {
        let message = format!("tiles of {} rows, {} are needed", plan.options().tile_rows, capacity.rows);
        return Err(Error::graph("device", message));
    }
    Ok(())
}

impl fmt::Debug for DeviceModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, capacity, precision, .. } = self;
        let mut told = f.debug_struct("DeviceModel");
        told.field("device", device).field("capacity", capacity).field("precision", precision);
        told.finish_non_exhaustive()
    }
}
