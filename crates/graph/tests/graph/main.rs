//! Tests of the plan: gradients, joins, batches run once and again, threads, faults, and the check of ops itself.

mod again;
mod batches;
mod check_detects;
mod compile;
mod describe;
mod faults;
mod gradients;
mod joins;
mod support;
mod threads;
