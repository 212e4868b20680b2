//! Tests of the plan: gradients, joins, batches, threads, faults, and the check of ops itself.

mod batches;
mod check_detects;
mod compile;
mod describe;
mod faults;
mod gradients;
mod joins;
mod support;
mod threads;
