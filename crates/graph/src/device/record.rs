//! Turns the steps of a plan into launches.

use super::batch::{Capacity, DeviceBatch};
use super::places::Places;
use super::step::DeviceStep;
use super::{DeviceOp, missing};
use crate::graph::Value;
use crate::op::Reduction;
use crate::plan::{JoinStep, Place, Plan, SparseSource, Step};
use crate::shape::Shape;
use manygate_core::{Error, Result};
use manygate_cuda::embedding::DeviceTable;
use manygate_cuda::gemm::{Casts, to_bf16};
use manygate_cuda::{DeviceMat, Launch, Precision, elementwise};

/// Where the memory of a plan lies on the device.
#[derive(Clone, Debug, Default)]
pub struct DeviceMemory {
    /// Parameters, f32, laid out as on the host.
    pub params: u64,
    /// Their gradients; those that no step writes are expected to be 0.
    pub gradients: u64,
    /// State, f32.
    pub state: u64,
    /// Values and gradients of the whole batch: [`Plan::device_arena_len`] f32.
    pub arena: u64,
    /// Values that exist once, and their gradients: [`Plan::device_once_len`] f32 each.
    pub once: [u64; 2],
    /// By kept buffer: [`Plan::device_kept_len`] f32.
    pub kept: Vec<u64>,
    /// Scratch of [`Plan::device_scratch`] bytes, aligned to 256.
    pub scratch: u64,
    /// In bf16: copies of the weights, [`Plan::device_halves_len`] values of two bytes.
    pub halves: u64,
    /// Sums of losses, f64, by part and group: 0 before the first launch.
    pub losses: u64,
    /// The tables, in the plan's order.
    pub tables: Vec<DeviceTable>,
    /// The batch.
    pub batch: DeviceBatch,
}

/// The launches of a plan.
#[derive(Debug, Default)]
pub struct Recording {
    /// In order.
    pub launches: Vec<Launch>,
}

/// Puts bytes into device memory, where they stay as long as the recording is used; gives their address.
pub(crate) type Upload<'a> = dyn FnMut(&[u8]) -> Result<u64> + 'a;

impl Plan {
    /// Checks that a device can run every step.
    ///
    /// # Errors
    /// When ops have no CUDA kernel, or not for losses by scenario.
    pub fn check_device(&self) -> Result<()> {
        let (mut first, mut lacking) = (None, Vec::new());
        for step in self.device_steps() {
            let op = self.op(step.node).0;
            if op.on_device().is_none() && !lacking.contains(&op.name()) {
                first.get_or_insert(step.node);
                lacking.push(op.name());
            }
        }
        if let Some(node) = first {
            return Err(missing(&self.graph.nodes[node].name, &lacking));
        }
        for step in self.device_steps() {
            let (op, inputs) = self.op(step.node);
            if let Some(why) = op.on_device().and_then(|op| op.refuses(&self.shapes(inputs))) {
                let message = format!("{why}; run it with `--device cpu`");
                return Err(Error::graph(&self.graph.nodes[step.node].name, message));
            }
        }
        for step in self.device_steps() {
            let op = self.op(step.node).0;
            let part = op.loss().map(|loss| &self.losses()[loss.index()]);
            let by_scenario = op.on_device().is_some_and(DeviceOp::sums_by_scenario);
            if let Some(part) = part.filter(|part| part.groups() > 1 && !by_scenario) {
                let message = format!(
                    "is the sum of means over scenarios, or weighs them, which the kernels of `{}` do not yet; run it \
                     with `--device cpu`",
                    op.name()
                );
                return Err(Error::graph(format!("the loss of {}", part.name), message));
            }
        }
        Ok(())
    }

    /// The steps in the order in which a device takes them: it has one lane, so that a reduction is complete where its
    /// phase has it, sums of lanes are there already, and nothing is packed.
    pub(super) fn device_steps(&self) -> impl Iterator<Item = &Step> {
        fn computed(join: &[JoinStep]) -> impl Iterator<Item = &Step> {
            join.iter().filter_map(|join| if let JoinStep::Run(step) = join { Some(step) } else { None })
        }
        let moments = self.joins.iter().zip(&self.phases);
        let last = computed(&self.joins[self.phases.len()]);
        moments.flat_map(|(join, phase)| computed(join).chain(phase)).chain(last)
    }

    /// f32 values of the arena.
    pub fn device_arena_len(&self) -> usize {
        self.scratch_offset
    }

    /// f32 values of all that exists once and is computed.
    pub fn device_once_len(&self) -> usize {
        self.once_len
    }

    /// The launches that move the state by what a run saw (running statistics, centres of clusters); with `go_on`, the address
    /// of a u32 that is 0 where nothing may move. For a plan that trains, after the launches of the run.
    pub fn record_state(&self, memory: &DeviceMemory, go_on: u64) -> Vec<Launch> {
        let mut launches = Vec::new();
        for step in self.device_steps().filter(|step| !step.backward) {
            let (op, inputs) = self.op(step.node);
            let state = op.reduction().and_then(Reduction::state).or(op.next_state());
            if let (Some(state), Some(on_device), Place::Once { offset, rows, cols, .. }) =
                (state, op.on_device(), step.output)
            {
                let output = memory.once[0] + 4 * offset as u64;
                let output = DeviceMat::new(output, rows as u32, cols as u32);
                let state = memory.state + 4 * self.state_layout.offset(state) as u64;
                let cols = self.graph.cols(inputs[0]) as u32;
                launches.extend(on_device.update_state(&memory.batch, go_on, output, state, cols));
            }
        }
        launches
    }

    /// By kept buffer, f32 values for batches of at most `capacity`.
    pub fn device_kept_len(&self, capacity: &Capacity) -> Vec<usize> {
        let rows = |rows_a_sample: usize| capacity.rows * rows_a_sample;
        self.kept.iter().map(|kept| kept.stride * rows(kept.rows_a_sample)).collect()
    }

    /// Bytes of scratch for batches of at most `capacity`.
    pub fn device_scratch(&self, capacity: &Capacity) -> u64 {
        let of_step = |step: &Step| {
            let (op, inputs) = self.op(step.node);
            op.on_device().map_or(0, |op| op.scratch(capacity, &self.shapes(inputs)))
        };
        self.device_steps().map(of_step).max().unwrap_or(0)
    }

    fn shapes(&self, values: &[Value]) -> Vec<Shape> {
        values.iter().map(|&value| self.graph.shape(value)).collect()
    }

    /// Values of the copies of weights in bf16.
    pub fn device_halves_len(&self) -> usize {
        Places::halves_len(self)
    }

    /// Where the sums of each part of the loss begin among all of them; and their number, at the end.
    pub fn device_loss_begins(&self) -> Vec<u32> {
        let begins = self.loss_sums.iter().map(|sums| sums.start);
        begins.chain([self.loss_sums_len()]).map(|begin| begin as u32).collect()
    }

    /// The keys of the ops that draw random numbers.
    pub(crate) fn draws(&self) -> Vec<u64> {
        let mut keys: Vec<u64> =
            self.device_steps().filter_map(|step| self.op(step.node).0.draws()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The launches of a run over a batch of at most `capacity`, with memory made for the largest batch.
    ///
    /// # Errors
    /// When a device cannot run the plan, see [`Plan::check_device`], or `upload` fails.
    ///
    /// # Panics
    /// When an op drops a gradient.
    pub fn record(
        &self,
        memory: &DeviceMemory,
        capacity: &Capacity,
        precision: Precision,
        upload: &mut Upload<'_>,
    ) -> Result<Recording> {
        self.check_device()?;
        let places = Places::new(self, memory, capacity, precision);
        let mut launches = Vec::new();
        if precision == Precision::Bf16 {
            let casts = Casts::new(&places.weights_and_halves());
            launches.push(to_bf16(&casts, upload(casts.bytes())?));
        }
        for step in self.device_steps() {
            record_step(&places, step, precision, upload, &mut launches)?;
        }
        for range in &self.frozen {
            let at = memory.gradients + 4 * range.start as u64;
            launches.push(elementwise::fill(0.0, DeviceMat::new(at, 1, range.len() as u32)));
        }
        Ok(Recording { launches })
    }

    /// The rows of a source of look-ups' gradients, from the last run: `[rows of the batch, dim]`, or `[ids, dim]`.
    pub fn device_sparse_gradient(
        &self,
        memory: &DeviceMemory,
        capacity: &Capacity,
        precision: Precision,
        source: &SparseSource,
    ) -> DeviceMat {
        Places::new(self, memory, capacity, precision).kept(source.place)
    }

    /// The gradient of the value tapped as `name`, from the last run: `[rows of the batch, width]`.
    ///
    /// # Errors
    /// When there is no such tap, or no gradient reaches it.
    pub fn device_tapped_gradient(
        &self,
        memory: &DeviceMemory,
        capacity: &Capacity,
        precision: Precision,
        name: &str,
    ) -> Result<DeviceMat> {
        let place = self.tap(name)?;
        Ok(Places::new(self, memory, capacity, precision).kept(place))
    }

    /// Output number `index`, see [`Plan::output_names`], of the last run: `[rows of the batch, width]`.
    pub fn device_output(&self, memory: &DeviceMemory, capacity: &Capacity, index: usize) -> DeviceMat {
        Places::new(self, memory, capacity, Precision::F32).kept(self.outputs[index].1)
    }
}

fn record_step(
    places: &Places<'_>,
    step: &Step,
    precision: Precision,
    upload: &mut Upload<'_>,
    launches: &mut Vec<Launch>,
) -> Result<()> {
    let (op, inputs) = places.plan.op(step.node);
    let name = &places.plan.graph.nodes[step.node].name;
    let on_device = op.on_device().ok_or_else(|| missing(name, &[op.name()]))?;
    let mut at = DeviceStep { places, inputs, step, precision, launches, upload, failure: None, taken: 0 };
    if step.backward {
        for &place in &step.zero {
            at.launch(elementwise::fill(0.0, places.all_of(place)));
        }
        on_device.backward(&mut at);
        let dropped = step.wanted & !at.taken;
        assert!(dropped == 0, "{name} ({}): its backward launches drop the gradient of an input", op.name());
    } else {
        on_device.forward(&mut at);
    }
    at.failure.map_or(Ok(()), Err)
}
