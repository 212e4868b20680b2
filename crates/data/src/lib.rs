//! Readers, splits, encoded data sets and the order of batches.
//!
//! [`load`] reads the files of a `[data]` section twice, fits an [`Encoder`](manygate_features::Encoder) on the rows
//! that are trained on, and returns every split encoded. [`encode_file`] encodes files with an encoder that exists.
//! [`EpochOrder`] says which rows make which batch. [`describe`](describe::describe) says what files hold,
//! [`synth`] writes files with known properties.

mod config;
mod csv;
pub mod describe;
mod files;
mod lines;
mod load;
mod order;
mod sections;
pub mod synth;
mod text;
mod violation;
mod zst;

pub use config::{DataConfig, ValidConfig};
pub use csv::CsvReader;
pub use load::{Dataset, Splits, encode_file, load, load_keeping};
pub use order::EpochOrder;
pub use violation::Violation;
