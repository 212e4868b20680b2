//! Manygate for other Rust programs: train on arrays, open a run folder, predict.
//!
//! Nothing here panics on bad input: what does not fit is an [`Error`] that says what, where, and what to do. A program
//! that only predicts leaves the default feature `train` out (`default-features = false`); training, reports, and reading
//! of files are then not even compiled.
//!
//! | to | see |
//! |---|---|
//! | predict with a run folder, on one thread or many | [`Model`], [`Session`] |
//! | turn arrays into batches | [`Columns`], [`Schema`] |
//! | turn the text of a request into a batch | [`Encoder`], below |
//! | train in memory, in epochs or step by step | `Trainer` (feature `train`) |
//! | bring one's own threads | [`Workers`]; [`Joins`] inside of a rayon pool |
//! | write an op, an architecture | [`graph`], [`models`] |
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/downstream/fixture");
//! use manygate::{Model, Session};
//! use std::sync::Arc;
//!
//! let model = Arc::new(Model::open(folder.as_ref())?);
//! let mut session = Session::new(Arc::clone(&model), 64)?;
//!
//! // A request: the text of its cells, in the order of the columns.
//! assert_eq!(model.encoder.columns(), ["user", "item", "history", "age", "tab"]);
//! let mut batch = model.encoder.empty_batch(64, false);
//! for item in ["3", "14"] {
//!     let cells = ["7", item, "1|2", "0.4", "feed"];
//!     model.encoder.encode(&cells, &mut batch).map_err(|e| e.at("request", None))?;
//! }
//! let outputs = session.predict(&batch)?.to_owned(); // [rows, outputs]
//! let names: Vec<&str> = session.output_names().collect();
//! assert_eq!((names, outputs.dim()), (vec!["click", "buy"], (2, 2)));
//! # Ok::<(), manygate::Error>(())
//! ```

/// The example of the README, compiled.
#[cfg(all(doctest, feature = "train"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod columns;
#[cfg(feature = "train")]
mod folder;
pub mod graph;
pub mod models;
mod session;
#[cfg(feature = "train")]
mod trainer;

pub use columns::{Columns, UNKNOWN};
pub use manygate_core::{Bag, Batch, Error, Executor, Joins, Pool, Result, Serial, Workers};
pub use manygate_features::{BagField, CellError, Encoder, Field, ListKind, Pooling, Schema, Table, Task};
pub use manygate_runtime::{Model, Predictor, Weights};
#[cfg(feature = "train")]
pub use manygate_train::{
    metrics::{Evaluation, Metrics},
    optim::{GroupConfig, Method, OptimizerConfig},
};
pub use ndarray;
pub use session::Session;
pub use toml;
#[cfg(feature = "train")]
pub use trainer::{Epoch, Fitted, Options, Threads, Trainer};
