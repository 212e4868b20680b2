//! Predictions of a finished model, on the CPU or on a CUDA device.

use crate::steps::{DeviceChoice, PrecisionChoice};
use manygate_core::{Batch, Executor, Result};
use manygate_runtime::predictor::CHUNK_ROWS;
use manygate_runtime::{Model, Predictor};

#[cfg(not(feature = "cuda"))]
use crate::steps::BUILT_WITHOUT_CUDA;
#[cfg(feature = "cuda")]
use manygate_runtime::DevicePredictor;

/// What predicts with a model.
pub(crate) enum ModelPredictor<'m> {
    Cpu(Box<Predictor<'m>>, &'m dyn Executor),
    #[cfg(feature = "cuda")]
    Cuda(Box<DevicePredictor>),
}

impl<'m> ModelPredictor<'m> {
    /// For rows with lists as long as those of `data`.
    ///
    /// # Errors
    /// When there is no such device, it cannot run the model, or its memory is too small.
    pub(crate) fn new(
        model: &'m Model,
        device: DeviceChoice,
        precision: PrecisionChoice,
        exec: &'m dyn Executor,
        data: &[&Batch],
    ) -> Result<ModelPredictor<'m>> {
        match device {
            DeviceChoice::Cpu => Ok(ModelPredictor::Cpu(Box::new(model.predictor(exec, CHUNK_ROWS)?), exec)),
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(ordinal) => {
                let device = crate::device_steps::open(ordinal)?;
                let predictor = DevicePredictor::new(&device, model, precision.on_device(), data)?;
                Ok(ModelPredictor::Cuda(Box::new(predictor)))
            }
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(_) => {
                let _ = (precision, data);
                Err(manygate_core::Error::config("--device", BUILT_WITHOUT_CUDA))
            }
        }
    }

    /// Predicts any number of rows: `[output][row]`.
    ///
    /// # Errors
    /// When the data does not fit the model, a number or a prediction is not finite, or the device fails.
    pub(crate) fn predict_all(&mut self, data: &Batch) -> Result<Vec<Vec<f32>>> {
        match self {
            ModelPredictor::Cpu(predictor, exec) => predictor.predict_all(*exec, data),
            #[cfg(feature = "cuda")]
            ModelPredictor::Cuda(predictor) => predictor.predict_all(data),
        }
    }
}
