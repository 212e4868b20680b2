//! Foundations of Manygate: errors, batches, aligned memory, counter-based random numbers, the executor, whole files.

pub mod arena;
pub mod batch;
pub mod divide;
pub mod error;
pub mod executor;
pub mod files;
pub mod rng;
pub mod workers;

pub use arena::Buffer;
pub use batch::{Bag, Batch};
pub use divide::run_parts;
pub use error::{Error, Result};
pub use executor::{Executor, Joins, Pool, Serial};
pub use files::write_atomically;
pub use rng::Stream;
pub use workers::Workers;
