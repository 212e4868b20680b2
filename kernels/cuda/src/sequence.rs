//! What samples have of the ids of their lists, and ids of their sample. Matrices hold f32 or bf16 each, a row a sample or a
//! row an id; the ids of a sample stand together.

use crate::column_sums::{self, across, chunks, gradient_bytes, sums_bytes};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::SEQUENCE;
use crate::view::DeviceMat;
use manygate_kernels::embedding::Pooling;

/// Threads of a block.
const THREADS: u32 = column_sums::THREADS;
const WARP: u32 = 32;

/// Most places whose sums are taken: what a grid takes in its third direction.
pub const MOST_PLACES: usize = 65535;

/// The ids of each sample of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Address of the row of each sample's first id, one more than samples, u32.
    pub offsets: u64,
    /// Address of the number of samples, a u32.
    pub samples: u64,
    /// Most samples.
    pub most: u32,
}

impl Lists {
    /// A `Lists` of sequence.cu.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.offsets.to_le_bytes(), self.samples.to_le_bytes()].concat()
    }

    /// A launch in which a thread takes four of `cols` columns of a sample.
    fn by_quads(self, kernel: &'static str, cols: u32, arguments: Arguments) -> Launch {
        let quads = u64::from(self.most) * u64::from(cols.div_ceil(4));
        assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {cols}] is too large", self.most);
        Launch::new(&SEQUENCE, kernel, blocks(quads, THREADS), THREADS, arguments)
    }

    /// The first argument of a kernel.
    fn argument(self) -> Arguments {
        Arguments::new().with_bytes(&self.to_bytes(), 8)
    }
}

fn assert_wide(kernel: &str, mats: &[DeviceMat], cols: u32) {
    assert!(mats.iter().all(|mat| mat.cols == cols), "{kernel}: {mats:?} of {cols} columns");
}

/// `y = Σ_i x_i` over the ids of each sample, x `[ids, n]`, y `[samples, n]`, or their mean; 0 for a sample without ids.
///
/// # Panics
/// When they differ in width.
pub fn sequence_pool(lists: Lists, pooling: Pooling, x: DeviceMat, y: DeviceMat) -> Launch {
    assert_wide("sequence_pool", &[y], x.cols);
    let arguments = lists.argument().with_u32((pooling == Pooling::Mean).into()).with_mat(x).with_mat(y);
    lists.by_quads("sequence_pool", x.cols, arguments)
}

/// The gradient of [`sequence_pool`], `dx_i = dy`, or `dy / ids` for means, written or, with `accumulate`, added.
///
/// # Panics
/// When they differ in width.
pub fn sequence_pool_dx(
    lists: Lists,
    pooling: Pooling,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    assert_wide("sequence_pool_dx", &[dx], dy.cols);
    let arguments = lists.argument().with_u32((pooling == Pooling::Mean).into()).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dx);
    lists.by_quads("sequence_pool_dx", dy.cols, arguments)
}

/// `p = softmax(x)` over the ids of each sample, column by column, `[ids, n]` both.
///
/// # Panics
/// When they differ in width.
pub fn sequence_softmax(lists: Lists, x: DeviceMat, p: DeviceMat) -> Launch {
    assert_wide("sequence_softmax", &[p], x.cols);
    lists.by_quads("sequence_softmax", x.cols, lists.argument().with_mat(x).with_mat(p))
}

/// The gradient of [`sequence_softmax`], `dx_i = p_i (dp_i − Σ_j p_j dp_j)`, written or, with `accumulate`, added.
///
/// # Panics
/// When they differ in width.
pub fn sequence_softmax_dx(
    lists: Lists,
    p: DeviceMat,
    dp: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    assert_wide("sequence_softmax_dx", &[dp, dx], p.cols);
    let arguments = lists.argument().with_mat(p).with_mat(dp).with_u32(accumulate.into()).with_mat(dx);
    lists.by_quads("sequence_softmax_dx", p.cols, arguments)
}

/// Weights of the ids of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// `[ids, 1]`.
    pub w: DeviceMat,
    /// Of a second list, `[its ids, 1]`, and the address of its offsets: the last ids of both are partners, whose weights
    /// are multiplied; those without a partner count as 0.
    pub beside: Option<(DeviceMat, u64)>,
}

impl Weights {
    /// A `Weights` of sequence.cu.
    fn to_bytes(self) -> Vec<u8> {
        let (u, offsets) = self.beside.unwrap_or((DeviceMat::new(0, 0, 1), 0));
        assert_wide("weighted_pool", &[self.w, u], 1);
        [&self.w.to_bytes()[..], &u.to_bytes(), &offsets.to_le_bytes()].concat()
    }
}

/// `y = Σ_i w_i x_i` over the ids of each sample, or `Σ_i w_i u_i x_i`, x `[ids, n]`, y `[samples, n]`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn weighted_pool(lists: Lists, weights: Weights, x: DeviceMat, y: DeviceMat) -> Launch {
    assert_wide("weighted_pool", &[y], x.cols);
    let arguments = lists.argument().with_bytes(&weights.to_bytes(), 8).with_mat(x).with_mat(y);
    lists.by_quads("weighted_pool", x.cols, arguments)
}

/// The gradient of [`weighted_pool`] at x, `dx_i = w_i u_i dy`, written or, with `accumulate`, added.
///
/// # Panics
/// When the shapes do not fit together.
pub fn weighted_pool_dx(
    lists: Lists,
    weights: Weights,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    assert_wide("weighted_pool_dx", &[dx], dy.cols);
    let arguments = lists.argument().with_bytes(&weights.to_bytes(), 8).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dx);
    lists.by_quads("weighted_pool_dx", dy.cols, arguments)
}

/// The gradients of [`weighted_pool`] at its weights, `dw_i = u_i x_i · dy` and `du_i = w_i x_i · dy`, each written, or added
/// where the bool says so.
///
/// # Panics
/// When the shapes do not fit together.
pub fn weighted_pool_dw(
    lists: Lists,
    weights: Weights,
    x: DeviceMat,
    dy: DeviceMat,
    dw: Option<(DeviceMat, bool)>,
    du: Option<(DeviceMat, bool)>,
) -> Launch {
    assert_wide("weighted_pool_dw", &[dy], x.cols);
    let [(dw, add_w), (du, add_u)] =
        [dw, du].map(|gradient| gradient.unwrap_or((DeviceMat::new(0, 0, 1), false)));
    assert_wide("weighted_pool_dw", &[dw, du], 1);
    let arguments = lists.argument().with_bytes(&weights.to_bytes(), 8).with_mat(x).with_mat(dy);
    let arguments = arguments.with_u32(u32::from(add_w) | u32::from(add_u) << 1).with_mat(dw).with_mat(du);
    let samples = blocks(lists.most.into(), THREADS / WARP);
    Launch::new(&SEQUENCE, "weighted_pool_dw", samples, THREADS, arguments)
}

/// `z_i = [q ; k_i ; q − k_i ; q ⊙ k_i]` of the query of each sample, q `[samples, n]`, and its ids, k `[ids, n]`, z
/// `[ids, 4n]`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn compare(lists: Lists, q: DeviceMat, k: DeviceMat, z: DeviceMat) -> Launch {
    assert_wide("compare", &[k], q.cols);
    assert_wide("compare", &[z], 4 * q.cols);
    lists.by_quads("compare", q.cols, lists.argument().with_mat(q).with_mat(k).with_mat(z))
}

/// The gradient of [`compare`] at k, with dz in four parts a, b, c, d: `dk_i = b_i − c_i + q ⊙ d_i`, written or, with
/// `accumulate`, added.
///
/// # Panics
/// When the shapes do not fit together.
pub fn compare_dk(lists: Lists, q: DeviceMat, dz: DeviceMat, accumulate: bool, dk: DeviceMat) -> Launch {
    assert_wide("compare_dk", &[dk], q.cols);
    assert_wide("compare_dk", &[dz], 4 * q.cols);
    let arguments = lists.argument().with_mat(q).with_mat(dz).with_u32(accumulate.into()).with_mat(dk);
    lists.by_quads("compare_dk", q.cols, arguments)
}

/// And at q: `dq = Σ_i a_i + c_i + k_i ⊙ d_i`, 0 for a sample without ids.
///
/// # Panics
/// When the shapes do not fit together.
pub fn compare_dq(lists: Lists, k: DeviceMat, dz: DeviceMat, accumulate: bool, dq: DeviceMat) -> Launch {
    assert_wide("compare_dq", &[dq], k.cols);
    assert_wide("compare_dq", &[dz], 4 * k.cols);
    let arguments = lists.argument().with_mat(k).with_mat(dz).with_u32(accumulate.into()).with_mat(dq);
    lists.by_quads("compare_dq", k.cols, arguments)
}

/// `y_i = x_i + p[place of i in its list]`, x, y `[ids, n]`, p `[places, n]`, as many places as a list has ids at the most.
///
/// # Panics
/// When they differ in width.
pub fn position_embedding(lists: Lists, x: DeviceMat, p: DeviceMat, y: DeviceMat) -> Launch {
    assert_wide("position_embedding", &[p, y], x.cols);
    let arguments = lists.argument().with_mat(x).with_mat(p).with_mat(y);
    lists.by_quads("position_embedding", x.cols, arguments)
}

/// Bytes of scratch that [`position_sums`] works in.
pub fn position_sums_scratch(samples: u32, places: u32, cols: u32) -> u64 {
    sums_bytes(places as usize, chunks(samples, cols), cols)
}

/// The gradient of [`position_embedding`] at p, `dp[place] = Σ dy_i` over the samples, `[places, n]`: written, or added to.
/// `scratch` is the address of [`position_sums_scratch`] bytes, a multiple of 8.
///
/// # Panics
/// When they differ in width, the rows of `dp` do not follow one another, or are more than [`MOST_PLACES`].
pub fn position_sums(
    lists: Lists,
    dy: DeviceMat,
    accumulate: bool,
    dp: DeviceMat,
    scratch: u64,
) -> Vec<Launch> {
    assert_wide("position_sums", &[dp], dy.cols);
    assert_eq!(dp.stride, dp.cols, "position_sums: rows behind each other");
    assert!(dp.rows as usize <= MOST_PLACES, "position_sums: {} places", dp.rows);
    let (across, chunks) = (across(dy.cols), chunks(lists.most, dy.cols));
    let arguments = lists.argument().with_u32(across).with_mat(dy).with_u64(scratch);
    let sums = column_sums::sum(&SEQUENCE, "position_sums", [chunks, dp.rows], dy, arguments);
    let arguments = lists.argument().with_u32(across).with_u32(chunks).with_u32(dy.cols).with_u64(scratch);
    let arguments = arguments.with_bytes(&gradient_bytes(Some((dp.address, accumulate))), 8);
    vec![sums, column_sums::finish(&SEQUENCE, "finish_position_sums", dp.rows, dy, arguments)]
}
