//! Golden cases, the op matrix, end-to-end tests, faults.

pub mod golden;
pub mod small_models;
