//! Schema, vocabularies and encoders: raw values to ids and numbers.
//!
//! A [`Fitter`] sees every training row once and becomes an [`Encoder`]: the [`Schema`] that models are built from,
//! one vocabulary a table, and the statistics of the numbers. An encoder appends rows to a
//! [`Batch`](manygate_core::Batch) and is saved beside the parameters of a model. Nothing here knows where rows
//! come from: a row is a slice of texts, one for each of [`Encoder::columns`].

mod bucket;
mod by_hand;
mod config;
mod declare;
mod declare_tasks;
mod encode;
mod fit;
mod label;
mod number;
mod numbering;
mod recipe;
mod scenario_weights;
mod schema;
mod store;
mod text;
mod vocabulary;

pub use bucket::MAX_BOUNDARIES;
pub use by_hand::ID_SEPARATOR;
pub use config::{FeatureConfig, Pooling, Roles, TaskConfig, TaskKind, TaskRole, Transform};
pub use encode::{CellError, Encoder};
pub use fit::Fitter;
pub use numbering::Numbering;
pub use schema::{BagField, Field, ListKind, Schema, Table, Task};
pub use text::{did_you_mean, shown};
