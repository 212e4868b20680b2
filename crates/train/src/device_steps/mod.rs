//! The steps of a stage on a CUDA device.

mod balanced;

use crate::balancer::Balancer;
use crate::learner::Learner;
use crate::optim::first_non_finite;
use crate::steps::{PrecisionChoice, Stepped};
use manygate_core::{Batch, Error, Result};
use manygate_cuda::device::Device;
use manygate_device::{DeviceModel, Finished, Optimizers, StepConstants, TableShape};
use manygate_graph::device::Capacity;
use manygate_graph::{Arranged, Draws, Plan, RowOrder};
use manygate_runtime::DevicePredictor;
use std::collections::VecDeque;

/// A learner's model on a device. Once a step was taken the device has the newest weights, and the learner those that were
/// [brought](DeviceSteps::bring) last.
#[derive(Debug)]
pub struct DeviceSteps {
    model: DeviceModel,
    evaluation: DevicePredictor,
    /// Tells the losses of a batch alone, where a method that weighs them asks for that.
    looks: Option<DeviceModel>,
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
    /// For the stage that `learner` is in, with batches of at most `rows` of the rows of `fit`, and predictions of those of
    /// `valid` by `evaluation`.
    ///
    /// # Errors
    /// When there is no such device, it cannot run the model, or its memory is too small.
    pub fn new(
        ordinal: usize,
        precision: PrecisionChoice,
        learner: &Learner,
        evaluation: &Plan,
        [fit, valid]: [&Batch; 2],
        rows: usize,
    ) -> Result<DeviceSteps> {
        let device = open(ordinal)?;
        let (plan, capacity) = (learner.plan.for_device(rows)?, Capacity::of(&[fit], rows));
        let tables: Vec<TableShape> = learner
            .tables
            .0
            .iter()
            .map(|t| TableShape { rows: t.spec().rows, dim: t.spec().dim, stride: t.stride() })
            .collect();
        let (pieces, groups) = learner.dense.groups();
        let balancer = learner.balancer();
        let by_loss = balancer.and_then(|balancer| balancer.by_loss(&learner.plan));
        let optimizers = Optimizers { pieces, groups, clip: learner.device_clip(), by_loss };
        let precision = precision.on_device();
        let mut model =
            DeviceModel::new(&device, plan, capacity.clone(), precision, &tables, Some(optimizers))?;
        if balancer.is_some_and(Balancer::looks_again) {
            model = model.with_state_apart();
        }
        let losses_alone = balancer.and_then(Balancer::losses_alone);
        let looks = losses_alone.map(|plan| model.sharing(plan.for_device(rows)?, capacity, precision));
        Ok(DeviceSteps {
            looks: looks.transpose()?,
            evaluation: DevicePredictor::sharing(&model, evaluation, &[valid])?,
            model,
            constants: StepConstants::default(),
            order: RowOrder::default(),
            under_way: VecDeque::new(),
            newest: Newest::Learner,
        })
    }

    /// Puts the learner's next step on the device; gives the one before, if the device had it.
    ///
    /// # Errors
    /// As [`Learner::step`], for the step that comes back; also when the device fails.
    pub fn step(&mut self, learner: &mut Learner, batch: &Batch) -> Result<Option<Stepped>> {
        if self.newest == Newest::Learner {
            self.upload(learner)?;
        }
        let step = learner.step + 1;
        learner.constants_at(step, &mut self.constants);
        let Arranged { batch, caller_rows } = self.order.arrange(self.model.plan(), batch)?;
        let draws = Draws { seed: learner.seed(), step: learner.earlier_steps + step, caller_rows };
        let taken = match learner.balancer_mut() {
            Some(balancer) => {
                let Self { model, looks, constants, .. } = self;
                Some(balanced::step(model, looks.as_mut(), balancer, step, batch, draws, constants)?)
            }
            None => {
                self.model.run(batch, learner.seeds(), draws, Some(&self.constants))?;
                self.under_way.push_back((step, batch.rows));
                None
            }
        };
        learner.step = step;
        self.newest = Newest::Device;
        if taken.is_some() || self.model.has_room() { Ok(taken) } else { self.finish() }
    }

    /// Brings weights and optimiser state to the learner, where it lacks them.
    ///
    /// # Errors
    /// When the device failed.
    pub fn bring(&mut self, learner: &mut Learner) -> Result<()> {
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
    ///
    /// # Errors
    /// When the data does not fit the model, a prediction is not finite, or the device fails.
    pub fn predict(&mut self, data: &Batch) -> Result<Vec<Vec<f32>>> {
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

    /// Waits for the oldest step under way; [`None`] where there is none.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn finish(&mut self) -> Result<Option<Stepped>> {
        let (Some(finished), Some((step, rows))) = (self.model.finish()?, self.under_way.pop_front()) else {
            return Ok(None);
        };
        let losses = checked(&self.model, finished, step)?.losses;
        Ok(Some(Stepped { step, rows, losses }))
    }
}

/// Checks that a run of step number `step` moved what it was to move.
fn checked(model: &DeviceModel, finished: Finished, step: u64) -> Result<Finished> {
    if finished.moved {
        return Ok(finished);
    }
    let plan = model.plan();
    let Some(part) = finished.losses.iter().position(|loss| !loss.is_finite()) else {
        // The step behind may have left its own gradients by now, which can be finite; rows of tables have others.
        let tensor = first_non_finite(plan, &model.gradients()?);
        let tensor = tensor.unwrap_or_else(|| "a parameter or a row of a table".to_owned());
        return Err(Error::NonFiniteGradient { step, tensor });
    };
    let task = plan.losses()[part].name.clone();
    let op = format!("the loss of {task}");
    Err(Error::NonFinite { step, task, loss: finished.losses[part], op })
}

/// Uses the device with this number.
pub(crate) fn open(ordinal: usize) -> Result<Device> {
    Device::open(ordinal).map_err(|found| Error::Device { message: found.to_string() })
}
