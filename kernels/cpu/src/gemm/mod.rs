//! Products of linear layers: forward, gradients, and the same for groups of layers side by side.
//!
//! # How
//! Every product is `out = finish(start + A B)`. B is packed into panels of 16 columns ([`pack`], [`pack_transposed`]; for
//! weights once a step); a register tile of 6 rows and 64 columns (AVX2 and NEON 16, SSE2 8; wider for 1 and 2 rows) keeps
//! its sums over the inner index, so the bias is where they start, and the activation or the mask of a rectifier is
//! applied before they are stored.
//!
//! # Bits
//! An element of the output is one chain of multiply-adds, in the order of the inner index, from the bias, the old value
//! or 0. Where the inner index is cut into blocks the chain goes on from the stored value. So the bits depend neither on
//! the other rows of a call nor on their number, and the chain is the same for every instruction set whose multiply-adds
//! are fused ([`Isa::is_fused`]; an activation may still round differently).
//!
//! # Choices, by measurement
//! One core of an AMD EPYC (Zen 4, one 512-bit multiply-add a cycle, 118 GFLOP/s), tiles of 128 rows, share of the peak:
//!
//! * A is read where it lies, one value broadcast at a time. Copying six rows together first, as they are or
//!   interleaved, lost up to 5 and 20 % of the time on the smaller products and gained nothing on the large ones.
//! * Of the tiles 6 x 64, 8 x 48, 12 x 32 and 14 x 32, the first was best or equal everywhere: 429 -> 4096 at 91, 87, 83
//!   and 77 %, 512 -> 256 at 100, 96, 97 and 92 % (kernel alone).
//! * AVX2 (Zen 3, whose second thread a neighbour may use): a round of 6 x 16 took 28 instructions for 12 multiply-adds,
//!   five of them additions that waited for each other to find the next row. Pointers to all rows and four steps a round
//!   make it 21: medians of 25 rounds rose from 65, 64, 63, 64, 62 and 77 % of the peak to 75, 78, 73, 73, 73 and 84
//!   (252 rows of 429 -> 4096, 512 -> 256, 4096 -> 429; 126 rows of 429 -> 4096; 256 -> 512; 64 -> 64 out of the first-level
//!   cache). Two pointers, three rows apart, gave half of it, eight steps a round nothing more. Packing A too gained
//!   another 0 to 5 % (256 -> 512, whose rows are a power of two apart: 12) with the packing counted, and is not done.
//! * AVX2 takes 16 columns of B at a time, and waited for them at each new panel, for a large part of the time where few
//!   rows pass. While a tile computes it asks for its share of the next panel, a cache line in four steps: 429 -> 4096, B
//!   out of the third-level cache, medians of 15 rounds: 4, 8 and 12 rows from 53, 73 and 79 % of the peak to 65, 82 and
//!   89; 16, 32, 64 and 128 rows, with an output that begins on a cache line, from 87, 76, 78 and 83 to 95, 91, 92 and 92
//!   (where it does not, from 70, 78, 74 and 70 to 90, 92, 84 and 77). Two lines gained 3 % at 8 and 12 rows and lost as
//!   much from 64 on; which cache the line goes to made no difference.
//! * The inner index is cut at 512, which keeps 64 columns of B in the second-level cache. Pieces of 64 or 96, which stay
//!   in the first, cost up to 10 % in loads and stores of the sums.
//! * The gradient of a weight packs both operands into scratch: 192 outputs of `dy` at a time, whose columns often lie a
//!   power of two apart and would share few cache sets, and all of `x`. Each tile asks for the outputs of the next one.
//! * Few rows, the case of serving, are bound by reading B, then by multiply-adds. AVX-512 is there with the same tile:
//!   512 -> 256, out of the second-level cache, reads 110 GB/s of weights for 1 row and 107 for 2, where a plain sum over
//!   them reads 118; 4, 5, 7 and 8 rows are at 95 % of the multiply-add peak, also over 7 MB of weights. Prefetching, and
//!   tiles of 7 and 8 rows, gained nothing. AVX2 waited for its two sums: wider tiles took 1 row from 58 to 108 GB/s and
//!   2 from 56 to 98 (SSE2: 37 to 72, 31 to 38). A copy of the weights in bf16 would halve the bytes, and round them:
//!   left out.
//! * No product goes to `matrixmultiply`, which is the oracle of the tests. The portable set is the best one of x86-64
//!   without AVX2, and of ARM. With SSE2, tiles of 128 rows, it reaches 33, 36 and 32 GFLOP/s at 429 -> 4096, 512 -> 256 and
//!   64 -> 32, `matrixmultiply` held to its kernel for such a processor 28, 31 and 28 (512 -> 256, 8 rows: 37 and 22, 1 row:
//!   36 and 3). On ARM the inner loop is the 24 `fmla` of a tile, eight loads and four other instructions, with nothing
//!   stored: bound by multiply-adds, like theirs. It would win with AVX and no AVX2 alone (75 for 36), at the price of
//!   buffers allocated in every call, weights kept unpacked, and bits that depend on the machine.

mod grouped;
mod microkernel;
mod pack;
mod product;
pub mod reference;
mod skipping;

pub use grouped::{grouped_linear, grouped_linear_dw, grouped_linear_dx};
pub use pack::{
    GroupedPacked, Packed, grouped_pack, grouped_pack_transposed, grouped_packed_len, pack, pack_transposed,
    packed_len,
};
pub use skipping::{SKIPPING_ROWS, linear_skipping};

use crate::activation::Activation;
use crate::dispatch;
use crate::isa::Isa;
use crate::lanes::{load_chunk, store_chunk};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};
use product::{Finish, Left, Start, pack_left, product};

/// A linear layer: `y = act(x Wᵀ + b)`.
///
/// `x` is `[rows, in]`, `weight` the packed transpose of W `[out, in]` (inner index `in`, columns `out`), `bias` has
/// `out` values or none, `y` is `[rows, out]`.
///
/// # Panics
/// When the shapes disagree.
pub fn linear(isa: Isa, x: Mat<'_>, weight: Packed<'_>, bias: &[f32], act: Activation, y: MatMut<'_>) {
    let start = if bias.is_empty() { Start::Zero } else { Start::Bias(bias) };
    product(isa, Left::Rows(x), weight, start, Finish::Activate(act), y);
}

/// The gradient of a linear layer's input: `dx = dy W`, or `dx + dy W` with `accumulate`; then, with a `mask`, times
/// the derivative of the activation that made the input.
///
/// `dy` is `[rows, out]`, `weight` the packed W `[out, in]` (inner index `out`, columns `in`), `dx` `[rows, in]`; the
/// mask is that activation and its output `[rows, in]`.
///
/// # Panics
/// When the shapes disagree.
pub fn linear_dx(
    isa: Isa,
    dy: Mat<'_>,
    weight: Packed<'_>,
    accumulate: bool,
    mask: Option<(Activation, Mat<'_>)>,
    dx: MatMut<'_>,
) {
    let finish = mask.map_or(Finish::Keep, |(act, y)| Finish::Mask(act, y));
    product(isa, Left::Rows(dy), weight, start_of(accumulate), finish, dx);
}

fn start_of(accumulate: bool) -> Start<'static> {
    if accumulate { Start::Output } else { Start::Zero }
}

/// Rows that the gradient of a weight takes at a time.
const DW_ROWS: usize = 256;

/// Outputs that the gradient of a weight takes at a time: more pass each piece of `x` while it is near, fewer take less
/// scratch.
const DW_OUTPUTS: usize = 192;

/// Values of scratch that [`linear_dw`] needs for `rows` rows of `in` inputs.
pub const fn linear_dw_scratch(rows: usize, inputs: usize) -> usize {
    let rows = if rows < DW_ROWS { rows } else { DW_ROWS };
    packed_len(rows, inputs) + rows * DW_OUTPUTS
}

/// The gradient of a linear layer's weight: `dw = dyᵀ x`, or `dw + dyᵀ x` with `accumulate`.
///
/// `dy` is `[rows, out]`, `x` `[rows, in]`, `dw` `[out, in]`; `scratch` has at least
/// [`linear_dw_scratch`]`(rows, in)` values, whose content does not matter.
///
/// # Panics
/// When the shapes disagree or `scratch` is too short.
pub fn linear_dw(
    isa: Isa,
    dy: Mat<'_>,
    x: Mat<'_>,
    accumulate: bool,
    mut dw: MatMut<'_>,
    scratch: &mut [f32],
) {
    let (rows, outputs, inputs) = (x.rows(), dw.rows(), dw.cols());
    assert_eq!((dy.rows(), dy.cols(), x.cols()), (rows, outputs, inputs), "linear_dw: shapes");
    assert!(scratch.len() >= linear_dw_scratch(rows, inputs), "linear_dw: scratch");
    if rows == 0 && !accumulate {
        dw.fill(0.0);
    }
    for row in (0..rows).step_by(DW_ROWS) {
        let depth = DW_ROWS.min(rows - row);
        let (packed, left) = scratch.split_at_mut(packed_len(depth, inputs));
        pack(isa, x.row_range(row, depth), packed);
        let right = Packed::new(packed, depth, inputs);
        let dy = dy.row_range(row, depth);
        for output in (0..outputs).step_by(DW_OUTPUTS) {
            let width = DW_OUTPUTS.min(outputs - output);
            let left = &mut left[..depth * width];
            pack_left(isa, dy.columns(output, width), left);
            let left = Left::Packed { data: left, rows: width, inner: depth };
            let dw = dw.row_range(output, width);
            product(isa, left, right, start_of(accumulate || row > 0), Finish::Keep, dw);
        }
    }
}

dispatch! {
    /// The gradient of a bias: `db = ` the sum of the rows of `dy` `[rows, out]`, or `db + ` it with `accumulate`.
    ///
    /// # Panics
    /// When `db` has not `out` values.
    pub fn column_sums(dy: Mat<'_>, accumulate: bool, db: &mut [f32]) = column_sums_body;
}

#[inline(always)]
fn column_sums_body<S: Simd>(s: S, dy: Mat<'_>, accumulate: bool, db: &mut [f32]) {
    assert_eq!(db.len(), dy.cols(), "column_sums: one sum a column");
    if !accumulate {
        db.fill(0.0);
    }
    for r in 0..dy.rows() {
        for (dy, db) in dy.row(r).chunks(S::LANES).zip(db.chunks_mut(S::LANES)) {
            store_chunk(s, db, s.add(load_chunk(s, db), load_chunk(s, dy)));
        }
    }
}
