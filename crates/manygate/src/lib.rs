//! Manygate for other Rust programs: open a trained run folder and predict.
//!
//! ```no_run
//! use manygate::{Model, Serial};
//!
//! # fn main() -> manygate::Result<()> {
//! let model = Model::open("runs/quickstart-1".as_ref())?;
//! let mut predictor = model.predictor(&Serial, 64);
//!
//! // One row, as the text of its cells in the order of `columns()`.
//! let cells: Vec<&str> = model.encoder.columns().iter().map(|_| "").collect();
//! let mut batch = model.encoder.empty_batch(1, false);
//! model.encoder.encode(&cells, &mut batch).map_err(|e| e.at("request", None))?;
//!
//! let mut probabilities = vec![Vec::new(); model.encoder.schema().tasks.len()];
//! predictor.predict(&Serial, &batch, &mut probabilities)?;
//! for (task, p) in model.encoder.schema().tasks.iter().zip(&probabilities) {
//!     println!("{}: {:.4}", task.name, p[0]);
//! }
//! # Ok(())
//! # }
//! ```

pub use manygate_core::{Bag, Batch, Error, Executor, Joins, Pool, Result, Serial};
pub use manygate_runtime::{Model, Predictor};
