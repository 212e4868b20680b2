//! The steps of a stage on a CUDA device.

use crate::learner::Learner;
use crate::optim::first_non_finite;
use crate::steps::{PrecisionChoice, Stepped};
use manygate_core::{Batch, Error, Result};
use manygate_cuda::device::Device;
use manygate_data::Splits;
use manygate_device::{DeviceModel, Optimizers, StepConstants, TableShape};
use manygate_graph::device::Capacity;
use manygate_graph::{Arranged, Draws, Plan, RowOrder};
use manygate_runtime::DevicePredictor;
use std::collections::VecDeque;

/// A learner's model on a device. Once a step was taken the device has the newest weights, and the learner those that were
/// [brought](DeviceSteps::bring) last.
#[derive(Debug)]
pub(crate) struct DeviceSteps {
    model: DeviceModel,
    evaluation: DevicePredictor,
    constants: StepConstants,
    order: RowOrder,
    /// Step and rows of the runs under way.
    under_way: VecDeque<(u64, usize)>,
    /// Who has the newest weights.
    newest: Newest,
}

/// Who has the newest weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newest {
    Learner,
    Device,
    Both,
}

impl DeviceSteps {
    /// For the stage that `learner` is in, with batches of at most `rows` of the rows that are fitted, and predictions of the
    /// validation rows by `evaluation`.
    ///
    /// # Errors
    /// When there is no such device, it cannot run the model or the method of training, or its memory is too small.
    pub(crate) fn new(
        ordinal: usize,
        precision: PrecisionChoice,
        learner: &Learner,
        evaluation: &Plan,
        splits: &Splits,
        rows: usize,
    ) -> Result<DeviceSteps> {
        learner.check_device()?;
        let device = open(ordinal)?;
        let (plan, capacity) = (learner.plan.for_device(rows)?, Capacity::of(&[&splits.fit.batch], rows));
        let tables: Vec<TableShape> = learner
            .tables
            .0
            .iter()
            .map(|t| TableShape { rows: t.spec().rows, dim: t.spec().dim, stride: t.stride() })
            .collect();
        let (pieces, groups) = learner.dense.groups();
        let optimizers = Optimizers { pieces, groups, clip: learner.device_clip() };
        let precision = precision.on_device();
        let model = DeviceModel::new(&device, plan, capacity, precision, &tables, Some(optimizers))?;
        Ok(DeviceSteps {
            evaluation: DevicePredictor::sharing(&model, evaluation, &[&splits.valid.batch])?,
            model,
            constants: StepConstants::default(),
            order: RowOrder::default(),
            under_way: VecDeque::new(),
            newest: Newest::Learner,
        })
    }

    /// Puts the learner's next step on the device; gives the one before, if the device had it.
    pub(crate) fn step(&mut self, learner: &mut Learner, batch: &Batch) -> Result<Option<Stepped>> {
        if self.newest == Newest::Learner {
            self.upload(learner)?;
        }
        let step = learner.step + 1;
        learner.constants_at(step, &mut self.constants);
        let Arranged { batch, caller_rows } = self.order.arrange(self.model.plan(), batch)?;
        let draws = Draws { seed: learner.seed(), step: learner.earlier_steps + step, caller_rows };
        self.model.run(batch, learner.seeds(), draws, Some(&self.constants))?;
        self.under_way.push_back((step, batch.rows));
        learner.step = step;
        self.newest = Newest::Device;
        if self.model.has_room() { Ok(None) } else { self.finish(learner) }
    }

    /// Brings weights and optimiser state to the learner, where it lacks them.
    pub(crate) fn bring(&mut self, learner: &mut Learner) -> Result<()> {
        if self.newest != Newest::Device {
            return Ok(());
        }
        self.model.download(&mut learner.params, &mut learner.state)?;
        self.model.download_moments(&mut learner.dense.first, &mut learner.dense.second)?;
        for (t, table) in learner.tables.0.iter_mut().enumerate() {
            self.model.download_table(t, table.values_mut())?;
        }
        self.newest = Newest::Both;
        Ok(())
    }

    /// What the evaluation plan predicts with the weights on the device, which has taken a step: `[output][row]`.
    pub(crate) fn predict(&mut self, data: &Batch) -> Result<Vec<Vec<f32>>> {
        self.evaluation.predict_all(data)
    }

    fn upload(&mut self, learner: &Learner) -> Result<()> {
        self.model.upload(&learner.params, &learner.state)?;
        self.model.upload_moments(&learner.dense.first, &learner.dense.second)?;
        for (t, table) in learner.tables.0.iter().enumerate() {
            self.model.upload_table(t, table.values())?;
        }
        self.newest = Newest::Both;
        Ok(())
    }

    /// Waits for the oldest step under way.
    pub(crate) fn finish(&mut self, learner: &Learner) -> Result<Option<Stepped>> {
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
