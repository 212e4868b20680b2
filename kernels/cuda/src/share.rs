//! How element-wise kernels are launched: each thread takes twice four columns of a row, see `share.cuh`.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::Family;
use crate::view::DeviceMat;

/// Threads of a block.
const THREADS: u32 = 256;

/// That matrices have one shape.
pub(crate) fn assert_alike(kernel: &str, mats: &[DeviceMat]) {
    let shapes = mats.iter().map(|mat| (mat.rows, mat.cols));
    assert!(
        shapes.clone().all(|shape| Some(shape) == shapes.clone().next()),
        "{kernel}: shapes {:?}",
        shapes.collect::<Vec<_>>()
    );
}

/// Blocks that take all of `[rows, cols]`.
pub(crate) fn blocks_of(kernel: &str, rows: u32, cols: u32) -> u32 {
    let quads = u64::from(rows) * u64::from(cols.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{rows}, {cols}] is too large");
    blocks(quads, 2 * THREADS)
}

/// A launch of `kernel` on all of `mat`, whose rows are those that count.
pub(crate) fn launch(
    family: &'static Family,
    kernel: &'static str,
    mat: DeviceMat,
    arguments: Arguments,
) -> Launch {
    Launch::new(family, kernel, blocks_of(kernel, mat.rows, mat.cols), THREADS, arguments)
}
