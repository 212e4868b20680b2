//! CUDA kernels: their PTX, and launches of them as data.
//!
//! A family of kernels is a file `<family>.cu`, what a pinned compiler makes of it in `ptx/<family>.ptx`, and
//! `src/<family>.rs`, where each kernel has a function of the same name and arguments as on the CPU that gives its
//! [`Launch`]: which kernel, how many blocks, which bytes. Making one needs no device; running it does (`device`, with
//! the feature `driver`).

pub mod activation;
pub mod amplitude;
pub mod attention;
pub mod cluster;
mod column_sums;
pub mod cross;
#[cfg(feature = "driver")]
pub mod device;
pub mod elementwise;
pub mod embedding;
pub mod gate;
pub mod gemm;
pub mod gemm_by_scenario;
pub mod gemm_gradients;
pub mod interaction;
pub mod launch;
pub mod layer_norm;
pub mod loss;
pub mod loss_gradients;
pub mod mixture;
pub mod module;
pub mod norm;
pub mod optim;
pub mod peak;
mod product;
pub mod random;
pub mod row;
pub mod row_product;
pub mod scenario;
pub mod sequence;
mod share;
pub mod signature;
pub mod stitch;
pub mod transfer;
pub mod view;

pub use launch::{Arguments, Launch};
pub use module::{FAMILIES, Family};
pub use view::{DeviceMat, Element, Precision};
