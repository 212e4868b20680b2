//! Gradients of several losses of one batch: their inner products and their sums with weights; and clipped gradients of
//! rows. Those of the parameters are flat vectors, cut into [`Piece`]s, those of tables lie by distinct row.

use crate::embedding::{RowSums, SparseGradients, SparseMemory};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::LOSS_GRADIENTS;
use crate::optim::{Clipping, Piece};

/// Threads of a block.
const THREADS: u32 = 256;
/// Rows of a block.
const ROWS: u32 = 256;

/// Pieces of the parameters in device memory. The group of each is what a kernel wants to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatPieces {
    /// Address of the [`Piece`]s, a multiple of 16.
    pub address: u64,
    /// Their number.
    pub count: u32,
}

/// Gradients of the parameters by several losses, one vector behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatGradients {
    /// Address of the first, a multiple of 16.
    pub address: u64,
    /// Values from one to the next, a multiple of 4.
    pub stride: u64,
}

impl FlatGradients {
    /// Address of those of loss number `loss`.
    pub fn of_loss(self, loss: usize) -> u64 {
        self.address + 4 * self.stride * loss as u64
    }
}

/// Gradients of distinct rows by several losses, one matrix behind the other: those of `sums` are the first.
#[derive(Clone, Copy, Debug)]
pub struct LossRows<'a> {
    /// The look-ups.
    pub gradients: &'a SparseGradients,
    /// Where their descriptions lie.
    pub memory: SparseMemory,
    /// The rows, the same for each loss, and where their gradients begin.
    pub sums: RowSums,
    /// Address of a u32 for each table: what a kernel wants to know of it.
    pub kinds: u64,
}

impl LossRows<'_> {
    /// Those from loss number `loss` on.
    pub fn of_loss(self, loss: u32) -> Self {
        let sums = self.sums.sums + 4 * u64::from(loss) * self.stride();
        LossRows { sums: RowSums { sums, ..self.sums }, ..self }
    }

    /// Values of the gradients of one loss: as many rows as look-ups.
    pub fn stride(&self) -> u64 {
        u64::from(self.gradients.max_lookups()) * u64::from(self.gradients.width())
    }

    /// The `LossRows` of loss_gradients.cu.
    fn to_bytes(self) -> Vec<u8> {
        let LossRows { gradients, memory, sums: RowSums { keys, sums, distinct }, kinds } = self;
        let width = gradients.width();
        let lane_bits = (width / 4).max(1).next_power_of_two().trailing_zeros().min(5);
        let bytes = Arguments::new().with_u64(keys).with_u64(distinct).with_u64(gradients.tables_at(memory));
        let bytes = bytes.with_u64(kinds).with_u64(sums).with_u64(self.stride());
        let bytes = bytes.with_u32(gradients.tables().len() as u32).with_u32(width).with_u32(lane_bits);
        // A whole multiple of eight bytes, as C has it.
        bytes.with_u32(0).bytes().to_vec()
    }

    /// Blocks that take all rows that there may be.
    pub fn blocks(&self) -> u32 {
        blocks(self.gradients.max_lookups().into(), ROWS)
    }
}

/// Pairs of so many losses, each with itself among them.
pub fn pairs(losses: u32) -> u32 {
    losses * (losses + 1) / 2
}

/// The inner products of the gradients of each pair of `losses` losses over each piece, f64: part `i` of the pair number `p`
/// at `partials + 8 (p · parts + i)`. Pairs are 0 0, 1 0, 1 1, 2 0 and on.
///
/// # Panics
/// When an address is not aligned.
pub fn gradient_products(
    pieces: FlatPieces,
    losses: u32,
    gradients: FlatGradients,
    parts: u32,
    partials: u64,
) -> Launch {
    assert_aligned("gradient_products", pieces, gradients);
    let arguments = Arguments::new().with_u64(pieces.address).with_u64(gradients.address);
    let arguments = arguments.with_u64(gradients.stride).with_u32(parts).with_u64(partials);
    let launch = Launch::new(&LOSS_GRADIENTS, "gradient_products", pieces.count, THREADS, arguments);
    Launch { grid: [pieces.count, pairs(losses), 1], ..launch }
}

/// The same over rows of the tables whose kind is not 0, a part for each [block](LossRows::blocks); of one loss, its sums of
/// squares, as [`clip_factor`](crate::optim::clip_factor) adds them up. Unknown rows do not count.
pub fn row_products(rows: LossRows<'_>, losses: u32, parts: u32, partials: u64) -> Launch {
    let arguments = Arguments::new().with_bytes(&rows.to_bytes(), 8).with_u32(parts).with_u64(partials);
    let launch = Launch::new(&LOSS_GRADIENTS, "row_products", rows.blocks(), THREADS, arguments);
    Launch { grid: [rows.blocks(), pairs(losses), 1], ..launch }
}

/// Adds up the parts of each pair: f64 `[pairs]` at `products`.
pub fn sum_products(losses: u32, partials: u64, parts: u32, products: u64) -> Launch {
    let arguments = Arguments::new().with_u64(partials).with_u32(parts).with_u64(products);
    Launch::new(&LOSS_GRADIENTS, "sum_products", pairs(losses), THREADS, arguments)
}

/// The sum of the gradients of `losses` losses, each times its weight, to the flat vector at `to`, a multiple of 16. Weights
/// are f64 `[groups, losses]` at `weights`, those of a piece are of its group.
///
/// # Panics
/// When an address is not aligned.
pub fn combine_gradients(
    pieces: FlatPieces,
    weights: u64,
    losses: u32,
    gradients: FlatGradients,
    to: u64,
) -> Launch {
    assert_aligned("combine_gradients", pieces, gradients);
    assert!(to.is_multiple_of(16), "combine_gradients: {to} is not aligned");
    let arguments = Arguments::new().with_u64(pieces.address).with_u64(weights).with_u32(losses);
    let arguments = arguments.with_u64(gradients.address).with_u64(gradients.stride).with_u64(to);
    Launch::new(&LOSS_GRADIENTS, "combine_gradients", pieces.count, THREADS, arguments)
}

/// The same of rows, where the kind of a table is the group of its weights: a matrix as that of one loss, at `to`.
pub fn combine_rows(rows: LossRows<'_>, weights: u64, losses: u32, to: u64) -> Launch {
    let arguments = Arguments::new().with_bytes(&rows.to_bytes(), 8).with_u64(weights);
    let arguments = arguments.with_u32(losses).with_u64(to);
    Launch::new(&LOSS_GRADIENTS, "combine_rows", rows.blocks(), THREADS, arguments)
}

/// Clips the gradients of one loss at rows of the tables whose kind is not 0. The u32 at `moving` becomes the number of rows,
/// or 0 where that at `go_on` is.
pub fn clip_rows(go_on: u64, rows: LossRows<'_>, clipping: Clipping, moving: u64) -> Launch {
    let arguments = Arguments::new().with_u64(go_on).with_bytes(&rows.to_bytes(), 8);
    let arguments = arguments.with_u64(clipping.factor.unwrap_or(0)).with_f32(clipping.limit);
    let blocks = rows.blocks().max(1);
    Launch::new(&LOSS_GRADIENTS, "clip_rows", blocks, THREADS, arguments.with_u64(moving))
}

fn assert_aligned(kernel: &str, pieces: FlatPieces, gradients: FlatGradients) {
    let FlatGradients { address, stride } = gradients;
    let is_aligned = pieces.address.is_multiple_of(Piece::BYTES as u64) && address.is_multiple_of(16);
    assert!(is_aligned && stride.is_multiple_of(4), "{kernel}: {pieces:?} or {gradients:?} are not aligned");
}
