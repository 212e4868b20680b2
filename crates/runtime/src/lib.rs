//! Checkpoint reading and inference, without anything of training.

#[cfg(feature = "cuda")]
pub mod device_predictor;
pub mod inputs;
pub mod model;
pub mod predictor;
pub mod tensors;

#[cfg(feature = "cuda")]
pub use device_predictor::DevicePredictor;
pub use inputs::model_inputs;
pub use model::{CONFIG_FILE, MODEL_FILE, Model, VOCAB_FOLDER, Weights};
pub use predictor::Predictor;
pub use tensors::TensorFile;
