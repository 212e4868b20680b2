//! Embedding tables: storage, sparse gradients, row optimisers.
//!
//! A table never sees a dense gradient. A plan keeps the gradient of looked-up columns; [`SparseGradients`] sorts the
//! look-ups by id, sums each id's rows and applies a fused row optimiser whose state lies beside the row.

pub mod by_loss;
pub mod id_map;
pub mod sparse;
pub mod table;

pub use by_loss::GradientsByLoss;
pub use id_map::IdMap;
pub use manygate_kernels::embedding::RowOptimizer;
pub use sparse::SparseGradients;
pub use table::{Table, Tables};
