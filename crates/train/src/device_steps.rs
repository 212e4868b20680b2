//! The steps of a stage on a CUDA device.

use crate::learner::Learner;
use crate::optim::first_non_finite;
use crate::steps::{PrecisionChoice, Stepped};
use manygate_core::{Batch, Error, Result};
use manygate_cuda::Precision;
use manygate_cuda::device::Device;
use manygate_device::{DeviceModel, Optimizers, StepConstants, TableShape};
use manygate_graph::device::Capacity;
use manygate_graph::{Draws, Graph, LookupSource, Plan, PlanOptions};
use std::collections::VecDeque;

/// A learner's model on a device. Between two calls of [`settle`](DeviceSteps::settle) the device has the newest weights.
#[derive(Debug)]
pub(crate) struct DeviceSteps {
    model: DeviceModel,
    constants: StepConstants,
    /// Step and rows of the runs under way.
    under_way: VecDeque<(u64, usize)>,
    /// Whether the device has the learner's weights.
    is_current: bool,
}

impl DeviceSteps {
    /// For the stage that `learner` is in, with batches of at most `rows` rows of `data`.
    ///
    /// # Errors
    /// When there is no such device, it cannot run the model or the method of training, or its memory is too small.
    pub(crate) fn new(
        ordinal: usize,
        precision: PrecisionChoice,
        graph: Graph,
        learner: &Learner,
        data: &Batch,
        rows: usize,
    ) -> Result<DeviceSteps> {
        learner.check_device()?;
        let device = open(ordinal)?;
        let options = PlanOptions { tile_rows: rows, lane_rows: rows, ..learner.plan.options().clone() };
        let plan = Plan::compile(graph, options)?;
        let capacity = capacity(&plan, data, rows);
        let tables: Vec<TableShape> = learner
            .tables
            .0
            .iter()
            .map(|t| TableShape { rows: t.spec().rows, dim: t.spec().dim, stride: t.stride() })
            .collect();
        let (pieces, groups) = learner.dense.groups();
        let optimizers = Optimizers { pieces, groups, clip: learner.device_clip() };
        let precision = match precision {
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::Tf32 => Precision::Tf32,
            PrecisionChoice::Bf16 => Precision::Bf16,
        };
        Ok(DeviceSteps {
            model: DeviceModel::new(&device, plan, capacity, precision, &tables, Some(optimizers))?,
            constants: StepConstants::default(),
            under_way: VecDeque::new(),
            is_current: false,
        })
    }

    /// Puts the learner's next step on the device; gives the one before, if the device had it.
    pub(crate) fn step(&mut self, learner: &mut Learner, batch: &Batch) -> Result<Option<Stepped>> {
        if !self.is_current {
            self.upload(learner)?;
        }
        let step = learner.step + 1;
        learner.constants_at(step, &mut self.constants);
        let draws = Draws { seed: learner.seed(), step: learner.earlier_steps + step, caller_rows: &[] };
        self.model.run(batch, learner.seeds(), draws, Some(&self.constants))?;
        learner.step = step;
        self.under_way.push_back((step, batch.rows));
        if self.model.has_room() { Ok(None) } else { self.finish(learner) }
    }

    /// Waits for the step under way and brings weights and optimiser state to the learner.
    pub(crate) fn settle(&mut self, learner: &mut Learner) -> Result<Option<Stepped>> {
        let stepped = self.finish(learner)?;
        if self.is_current {
            self.model.download(&mut learner.params, &mut learner.state)?;
            self.model.download_moments(&mut learner.dense.first, &mut learner.dense.second)?;
            for (t, table) in learner.tables.0.iter_mut().enumerate() {
                self.model.download_table(t, table.values_mut())?;
            }
        }
        Ok(stepped)
    }

    fn upload(&mut self, learner: &Learner) -> Result<()> {
        self.model.upload(&learner.params, &learner.state)?;
        self.model.upload_moments(&learner.dense.first, &learner.dense.second)?;
        for (t, table) in learner.tables.0.iter().enumerate() {
            self.model.upload_table(t, table.values())?;
        }
        self.is_current = true;
        Ok(())
    }

    fn finish(&mut self, learner: &Learner) -> Result<Option<Stepped>> {
        let (Some(finished), Some((step, rows))) = (self.model.finish()?, self.under_way.pop_front()) else {
            return Ok(None);
        };
        if !finished.moved {
            let Some(part) = finished.losses.iter().position(|loss| !loss.is_finite()) else {
                // The step behind may have left its own gradients by now, which can be finite.
                let tensor = first_non_finite(&learner.plan, &self.model.gradients()?);
                let tensor = tensor.unwrap_or_else(|| "a parameter".to_owned());
                return Err(Error::NonFiniteGradient { step, tensor });
            };
            let task = learner.plan.losses()[part].name.clone();
            let op = format!("the loss of {task}");
            return Err(Error::NonFinite { step, task, loss: finished.losses[part], op });
        }
        Ok(Some(Stepped { step, rows, losses: finished.losses }))
    }
}

/// Uses the device with this number.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    Device::open(ordinal).map_err(|found| Error::Device { message: found.to_string() })
}

/// The largest batch of at most `rows` rows out of `data`.
fn capacity(plan: &Plan, data: &Batch, rows: usize) -> Capacity {
    let longest = |bag: &manygate_core::Bag| {
        let lengths = bag.offsets.windows(2).map(|w| (w[1] - w[0]) as usize);
        lengths.max().unwrap_or(0)
    };
    let is_read = |b: usize| {
        plan.sparse_sources().iter().any(|source| match source.source {
            LookupSource::Field(_) => false,
            LookupSource::Bag(bag) | LookupSource::Positions(bag) => bag == b,
        })
    };
    let ids = data.bags.iter().enumerate();
    let ids = ids.map(|(b, bag)| if is_read(b) { rows * longest(bag) } else { 0 });
    Capacity { rows, ids: ids.collect() }
}
