//! How kernels are launched that sum over rows twice for each column, see `column_sums.cuh`.
//!
//! Sums are f64, cut into chunks by the capacity of a matrix, never by the rows that are there: the same batch gives the
//! same bits.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::Family;
use crate::view::DeviceMat;

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;
/// Rows that a thread reads at a time: `ROWS` of column_sums.cuh.
pub(crate) const ROWS: u32 = 4;
/// Columns of a block that adds chunks: `COLUMNS` of column_sums.cuh.
const COLUMNS: u32 = 16;
/// Blocks that sum: two on each of the 132 multiprocessors of an H200.
const BLOCKS: u32 = 2 * 132;
/// Fewest rows of a thread that sums.
const CHUNK_ROWS: u32 = 2 * ROWS;

/// Threads of a block side by side, four columns each: a power of two.
pub(crate) fn across(cols: u32) -> u32 {
    cols.div_ceil(4).next_power_of_two().min(32)
}

/// Blocks side by side.
pub(crate) fn tiles(cols: u32) -> u32 {
    cols.div_ceil(4 * across(cols))
}

/// Chunks that the rows of sums are divided into.
pub(crate) fn chunks(rows: u32, cols: u32) -> u32 {
    let chunk_rows = CHUNK_ROWS * (THREADS / across(cols));
    (BLOCKS / tiles(cols).max(1)).clamp(1, rows.div_ceil(chunk_rows).max(1))
}

/// Bytes that the sums of so many chunks take: two f64 values for each column, and group of rows.
pub(crate) fn sums_bytes(groups: usize, chunks: u32, cols: u32) -> u64 {
    16 * groups as u64 * u64::from(chunks) * u64::from(cols)
}

/// A launch of a kernel that sums over so many chunks of the rows of `x`.
pub(crate) fn sum(
    family: &'static Family,
    kernel: &'static str,
    [chunks, groups]: [u32; 2],
    x: DeviceMat,
    arguments: Arguments,
) -> Launch {
    let grid = [chunks, tiles(x.cols), groups];
    Launch { grid, ..Launch::new(family, kernel, 0, THREADS, arguments) }
}

/// A launch of a kernel that adds chunks.
pub(crate) fn finish(
    family: &'static Family,
    kernel: &'static str,
    groups: u32,
    x: DeviceMat,
    arguments: Arguments,
) -> Launch {
    let grid = [blocks(x.cols.into(), COLUMNS), 1, groups];
    Launch { grid, ..Launch::new(family, kernel, 0, THREADS, arguments) }
}

/// A `Gradient` of column_sums.cuh: its address, 0 for none, and whether it is added to.
pub(crate) fn gradient_bytes(gradient: Option<(u64, bool)>) -> [u8; 16] {
    let (address, accumulate) = gradient.unwrap_or((0, false));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8] = accumulate.into();
    bytes
}
