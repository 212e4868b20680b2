//! Layers that models share. A layer declares ops and parameters; it holds no numbers.

pub mod concat;
pub mod cross;
pub mod deep_cross;
pub mod dropout;
pub mod extraction;
pub mod gate_unit;
pub mod generated;
pub mod interaction;
pub mod learning;
pub mod linear;
pub mod mlp;
pub mod moe;
pub mod scenario;
pub mod scenario_norm;
pub mod sequence;
pub mod star;
pub mod tasks;
pub mod towers;
pub mod trunk;
