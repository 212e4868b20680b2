//! What each instruction computes, what is refused, which faults are found, and kernels of the CUDA compiler.

mod support;
mod threads;

mod atomics;
mod bits;
mod compare;
mod control;
mod convert;
mod copies;
mod faults;
mod float;
mod integer;
mod kernels;
mod matrices;
mod memory;
mod parse_errors;
mod products;
mod races;
mod warp;
mod warpgroups;
