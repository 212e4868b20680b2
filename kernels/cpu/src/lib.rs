//! CPU kernels of Manygate: numbers in, numbers out; no graph, no allocation, no threads, no I/O.
//!
//! Each kernel takes the instruction set first, so that a caller can force one; [`isa::Isa::best`] is the usual
//! choice. A kernel is one generic body over [`simd::Simd`], compiled for every set by [`dispatch!`]; the scalar
//! instance of the same body, or a plain loop beside it where the fast one is organised differently, is its reference.

pub mod activation;
pub mod amplitude;
pub mod attention;
pub mod cross;
pub mod embedding;
pub mod gate;
pub mod gemm;
pub mod isa;
mod lanes;
pub mod loss;
pub mod math;
pub mod norm;
pub mod optim;
pub mod pair_products;
pub mod peak;
pub mod random;
pub mod row_product;
pub mod sequence;
pub mod simd;
pub mod stitch;
pub mod view;

pub use isa::Isa;
pub use view::{Mat, MatMut};
