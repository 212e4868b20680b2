//! The trainer: optimisers, metrics, checkpoints, runs, reports.

pub mod agreement;
pub mod balance;
pub mod balancer;
pub mod bench;
pub mod cancel;
pub mod checkpoint;
pub mod choice;
pub mod config;
#[cfg(feature = "cuda")]
pub mod device_steps;
pub mod devices;
pub mod evaluate;
pub mod gates;
pub mod inspect;
pub mod learner;
pub mod limits;
pub mod loss_gradients;
pub mod metrics;
mod model_predictor;
pub mod optim;
pub mod progress;
pub mod repeat;
pub mod report;
pub mod results;
pub mod run_folder;
pub mod run_lock;
pub mod score;
pub mod selection;
pub mod stage;
pub mod start_from;
pub mod steps;
pub mod trainer;
pub mod workload;

pub use cancel::Cancel;
pub use config::Config;
pub use learner::Learner;
pub use loss_gradients::LossGradients;
pub use progress::{Event, Observer, Silent};
pub use score::PredictOptions;
pub use steps::{DeviceChoice, PrecisionChoice};
pub use trainer::{Outcome, RunOptions, train};
