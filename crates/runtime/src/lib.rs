//! Checkpoint reading and inference, without anything of training.

pub mod inputs;
pub mod model;
pub mod predictor;
pub mod tensors;

pub use inputs::model_inputs;
pub use model::{CONFIG_FILE, MODEL_FILE, Model, VOCAB_FOLDER, Weights};
pub use predictor::Predictor;
pub use tensors::TensorFile;
