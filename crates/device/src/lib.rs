//! Plans on a CUDA device: memory, recorded steps, updates of parameters and tables.
//!
//! A [`DeviceModel`] holds a compiled plan's memory on a device and runs it batch by batch. All launches of a run are
//! recorded once for each bucket of batch sizes, as a CUDA graph, and replayed; what differs from one run to the next lies
//! in one block of device memory, which the host fills while the device works on the run before.

pub mod bench;
mod block;
mod by_loss;
mod memory;
mod model;
mod update;
mod weights;

pub use by_loss::{ByLoss, LossWeights};
pub use model::{DeviceModel, Finished};
pub use update::{Clip, Limit, Optimizers, StepConstants};
pub use weights::TableShape;
