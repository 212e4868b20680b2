//! Running kernels: a launch is run block after block, a block warp after warp, each up to the next barrier.

mod access;
mod atomic;
mod block;
mod copy;
mod exchange;
mod launch;
mod load_store;
mod matrix;
mod product;
mod step;
mod tile;
mod warp;
mod warpgroup;

pub(crate) use launch::launch;
pub use launch::{Launch, Stats};
