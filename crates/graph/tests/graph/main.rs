//! Tests of the plan: gradients, joins, batches run once and again, parameter sets, plans in a chain, threads, faults, and
//! the check of ops itself.

mod again;
mod batches;
mod chained_plans;
mod check_detects;
mod compile;
mod describe;
mod draws;
mod faults;
mod gates;
mod gradients;
mod joins;
mod on_device;
mod parameter_sets;
mod scenario_weights;
mod shared_weights;
mod support;
mod threads;
