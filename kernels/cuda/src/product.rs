//! How products are launched: in tiles of an output, see `product.cuh`, and on Hopper in those of kernels that it alone has.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::{Family, GEMM, GEMM_HOPPER, GEMM_HOPPER_WIDE};
use crate::view::DeviceMat;

/// Threads of a block.
pub(crate) const THREADS: u32 = 256;

/// Rows and columns of the output that a block makes: `TILE` of product.cuh.
pub(crate) const TILE: u32 = 128;

/// Blocks that run at once: two on each of the 132 multiprocessors of an H200.
pub(crate) const BLOCKS: u32 = 2 * 132;

/// Bytes of shared memory of a block of gemm_hopper.cu: `SHARED_BYTES` of product_hopper.cuh.
const HOPPER_SHARED: u32 = 3 * (2 * TILE) * 128;

/// Rows of the output that a block of gemm_hopper_wide.cu makes at a time, its threads, and bytes of its shared memory:
/// `WIDE_ROWS`, `WIDE_THREADS` of product_hopper_wide.cuh, and three stages with lines of sums of eight warps.
const WIDE_ROWS: u32 = 256;
pub(crate) const WIDE_THREADS: u32 = 384;
const WIDE_SHARED: u32 = 3 * (WIDE_ROWS + TILE) * 128 + 8 * 16 * (TILE + 8) * 4;

/// Shortest inner index of a product that tiles of so many rows pay for: four pieces, beside which an end is short.
const WIDE_INNER: u32 = 256;

/// A product: kernel, rows and columns of an output, the inner index, and how many there are, of chunks of the inner
/// index and of groups.
pub(crate) struct Product {
    pub(crate) kernel: &'static str,
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    pub(crate) inner: u32,
    pub(crate) chunks: u32,
    pub(crate) groups: u32,
    /// Whether its operands [lie](lie_for_wide_tiles) so.
    pub(crate) lies_for_wide_tiles: bool,
}

impl Product {
    pub(crate) fn launch(&self, arguments: Arguments) -> Launch {
        self.launch_with_more_on_hopper(arguments, |arguments| arguments)
    }

    /// A launch whose kernels for Hopper take `more` arguments.
    pub(crate) fn launch_with_more_on_hopper(
        &self,
        arguments: Arguments,
        more: impl FnOnce(Arguments) -> Arguments,
    ) -> Launch {
        let Product { kernel, rows, cols, chunks, groups, .. } = *self;
        let tiles = blocks(u64::from(rows.div_ceil(TILE)) * u64::from(cols.div_ceil(TILE)), 1);
        assert!(chunks.max(groups) <= 65535, "{kernel}: {chunks} chunks, {groups} groups are too many");
        let launch = launch(&GEMM, kernel, [tiles, chunks, groups], arguments);
        let on_hopper = GEMM_HOPPER.kernels.contains(&kernel).then(|| {
            let arguments = more(launch.arguments.clone());
            let square = Launch { family: &GEMM_HOPPER, shared: HOPPER_SHARED, arguments, ..launch.clone() };
            let is_wide = self.lies_for_wide_tiles && self.has_wide_tiles();
            Box::new(if is_wide { in_wide_tiles(&square) } else { square })
        });
        Launch { on_hopper, ..launch }
    }

    /// Whether there are wide tiles for all multiprocessors, each with enough to multiply.
    fn has_wide_tiles(&self) -> bool {
        let tiles = u64::from(self.rows / WIDE_ROWS) * u64::from(self.cols.div_ceil(TILE));
        let tiles = tiles * u64::from(self.chunks * self.groups);
        self.inner / self.chunks >= WIDE_INNER && tiles >= u64::from(BLOCKS / 2)
    }
}

/// What gemm_hopper_wide.cu runs for a launch of gemm_hopper.cu, if [its operands lie so](lie_for_wide_tiles): large
/// products have it for [Hopper](Launch::on_hopper).
pub fn in_wide_tiles(launch: &Launch) -> Launch {
    let [tiles, chunks, groups] = launch.grid;
    let blocks = u64::from(tiles) * u64::from(chunks) * u64::from(groups);
    let grid = [blocks.min(i32::MAX as u64) as u32, 1, 1];
    let arguments = launch.arguments.clone().with_u32(chunks).with_u32(groups);
    let family = &GEMM_HOPPER_WIDE;
    Launch {
        family,
        grid,
        threads: WIDE_THREADS,
        shared: WIDE_SHARED,
        in_turns: true,
        arguments,
        ..launch.clone()
    }
}

/// Whether lines of the operands of layers begin at multiples of 16 bytes, in each of `groups` groups with so many columns.
pub fn lie_for_wide_tiles(groups: u32, inputs: u32, outputs: u32, operands: [DeviceMat; 2]) -> bool {
    let groups_lie = groups == 1 || (inputs | outputs).is_multiple_of(8);
    groups_lie && operands.iter().all(|mat| mat.address.is_multiple_of(16) && mat.stride.is_multiple_of(8))
}

/// A launch of a kernel of products.
pub(crate) fn launch(
    family: &'static Family,
    kernel: &'static str,
    grid: [u32; 3],
    arguments: Arguments,
) -> Launch {
    Launch { grid, ..Launch::new(family, kernel, 0, THREADS, arguments) }
}
