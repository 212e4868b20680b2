//! The steps of a run, on the CPU or on a CUDA device.

use crate::learner::Learner;
use manygate_core::{Batch, Error, Executor, Result};
use manygate_data::Splits;
use manygate_graph::Plan;
use manygate_runtime::Predictor;
use manygate_runtime::predictor::CHUNK_ROWS;
use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use crate::device_steps::DeviceSteps;

/// What is said of CUDA where the feature is off.
#[cfg(not(feature = "cuda"))]
pub(crate) const BUILT_WITHOUT_CUDA: &str =
    "this manygate was built without CUDA; build it with `cargo build --release --features cuda`";

/// Where a run takes its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// On the CPU.
    #[default]
    Cpu,
    /// On the CUDA device with this number.
    Cuda(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DeviceChoice, String> {
        let wrong = || format!("`{text}` is neither `cpu`, `cuda` nor `cuda:N`");
        match text.split_once(':') {
            None if text == "cpu" => Ok(DeviceChoice::Cpu),
            None if text == "cuda" => Ok(DeviceChoice::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(DeviceChoice::Cuda).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl DeviceChoice {
    /// Checks that there is such a device and that it multiplies in `precision`, before anything else is done.
    ///
    /// # Errors
    /// When there is none, with what was found.
    pub fn check(self, precision: PrecisionChoice) -> Result<()> {
        match self {
            DeviceChoice::Cpu if precision != PrecisionChoice::F32 => {
                Err(Error::config("--precision", "the CPU multiplies in f32 alone; add `--device cuda`"))
            }
            DeviceChoice::Cpu => Ok(()),
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(ordinal) => crate::device_steps::open(ordinal).map(drop),
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(_) => Err(Error::config("--device", BUILT_WITHOUT_CUDA)),
        }
    }
}

/// What products multiply in on a device; sums are f32 in all of them. The CPU multiplies in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrecisionChoice {
    /// f32, without tensor cores.
    #[default]
    F32,
    /// Operands rounded to 10 bits behind the point.
    Tf32,
    /// Operands rounded to 7 bits behind the point.
    Bf16,
}

#[cfg(feature = "cuda")]
impl PrecisionChoice {
    pub(crate) fn on_device(self) -> manygate_cuda::Precision {
        match self {
            PrecisionChoice::F32 => manygate_cuda::Precision::F32,
            PrecisionChoice::Tf32 => manygate_cuda::Precision::Tf32,
            PrecisionChoice::Bf16 => manygate_cuda::Precision::Bf16,
        }
    }
}

/// A step whose losses are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// Its number in the stage, from 1.
    pub step: u64,
    /// Rows of its batch.
    pub rows: usize,
    /// By part of the loss, unweighted.
    pub losses: Vec<f64>,
}

/// What takes the steps of a stage.
#[derive(Debug)]
pub(crate) enum Steps {
    /// The learner itself.
    Cpu,
    /// A device; the learner's weights are those of the last time that they were brought.
    #[cfg(feature = "cuda")]
    Cuda(Box<DeviceSteps>),
}

impl Steps {
    /// For the stage that `learner` is in, with batches of at most `capacity` of the rows that are fitted, and predictions of
    /// the validation rows by `evaluation`.
    ///
    /// # Errors
    /// When there is no such device, it cannot run the model, or its memory is too small.
    pub(crate) fn new(
        device: DeviceChoice,
        precision: PrecisionChoice,
        learner: &mut Learner,
        evaluation: &Plan,
        splits: &Splits,
        capacity: usize,
    ) -> Result<Steps> {
        match device {
            DeviceChoice::Cpu => {
                learner.reserve_for(&splits.fit.batch);
                Ok(Steps::Cpu)
            }
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(ordinal) => {
                let data = [&splits.fit.batch, &splits.valid.batch];
                let steps = DeviceSteps::new(ordinal, precision, learner, evaluation, data, capacity)?;
                Ok(Steps::Cuda(Box::new(steps)))
            }
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(_) => {
                let _ = (precision, learner, evaluation, splits, capacity);
                Err(Error::config("--device", BUILT_WITHOUT_CUDA))
            }
        }
    }

    /// Takes the learner's next step, on `batch`. A device is given the step and works on it while the caller goes on: what
    /// comes back is the step before, if any.
    ///
    /// # Errors
    /// As [`Learner::step`], for the step that comes back.
    pub(crate) fn step(
        &mut self,
        learner: &mut Learner,
        exec: &dyn Executor,
        batch: &Batch,
    ) -> Result<Option<Stepped>> {
        match self {
            Steps::Cpu => {
                let losses = learner.step(exec, batch)?.to_vec();
                Ok(Some(Stepped { step: learner.step, rows: batch.rows, losses }))
            }
            #[cfg(feature = "cuda")]
            Steps::Cuda(steps) => steps.step(learner, batch),
        }
    }

    /// Waits for the step that is under way, if any.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub(crate) fn finish(&mut self) -> Result<Option<Stepped>> {
        match self {
            Steps::Cpu => Ok(None),
            #[cfg(feature = "cuda")]
            Steps::Cuda(steps) => steps.finish(),
        }
    }

    /// Brings weights and optimiser state after the last step that is finished to the learner, where it lacks them.
    ///
    /// # Errors
    /// When the device failed.
    pub(crate) fn bring(&mut self, learner: &mut Learner) -> Result<()> {
        match self {
            Steps::Cpu => {
                let _ = learner;
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Steps::Cuda(steps) => steps.bring(learner),
        }
    }

    /// Whether the learner has the weights without their being brought.
    pub(crate) fn are_at_hand(&self) -> bool {
        matches!(self, Steps::Cpu)
    }

    /// What `evaluation` predicts of the validation rows after the last step, `[output][row]`.
    ///
    /// # Errors
    /// When the data does not fit the model, a prediction is not finite, or the device fails.
    pub(crate) fn predict(
        &mut self,
        learner: &Learner,
        evaluation: &Plan,
        exec: &dyn Executor,
        data: &Batch,
    ) -> Result<Vec<Vec<f32>>> {
        match self {
            Steps::Cpu => {
                let Learner { params, state, tables, .. } = learner;
                let capacity = CHUNK_ROWS.min(data.rows.max(1));
                Predictor::new(evaluation, params, state, tables, exec, capacity)?.predict_all(exec, data)
            }
            #[cfg(feature = "cuda")]
            Steps::Cuda(steps) => steps.predict(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cpu:0", ""] {
            let told = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(told.contains(&format!("`{wrong}` is neither")), "{told}");
        }
    }
}
