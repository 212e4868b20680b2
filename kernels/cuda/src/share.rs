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

/// A launch of `kernel` on all of `mat`, whose rows are those that count.
pub(crate) fn launch(
    family: &'static Family,
    kernel: &'static str,
    mat: DeviceMat,
    arguments: Arguments,
) -> Launch {
    let quads = u64::from(mat.rows) * u64::from(mat.cols.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", mat.rows, mat.cols);
    Launch::new(family, kernel, blocks(quads, 2 * THREADS), THREADS, arguments)
}
