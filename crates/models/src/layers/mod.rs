//! Layers that models share. A layer declares ops and parameters; it holds no numbers.

pub mod concat;
pub mod dropout;
pub mod extraction;
pub mod interaction;
pub mod learning;
pub mod linear;
pub mod mlp;
pub mod moe;
pub mod scenario;
pub mod sequence;
pub mod specific;
pub mod tasks;
pub mod towers;
pub mod trunk;
