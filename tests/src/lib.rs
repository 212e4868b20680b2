//! Golden cases, the op matrix, end-to-end tests, faults.

pub mod golden;
