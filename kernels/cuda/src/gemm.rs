//! Products of linear layers, see `manygate_kernels::gemm`: forward, gradients, and the same for groups of layers side
//! by side.
//!
//! A weight is the matrix `[out, in]` as it stands; nothing is packed. What a product multiplies in is its
//! [`Precision`]: operands are f32 for [`Precision::F32`] and [`Precision::Tf32`], bf16 for [`Precision::Bf16`].
//! Outputs that have a row a sample are f32 or bf16 in any precision, whatever the matrix holds; biases and gradients
//! of weights are f32. Rows that are there are those of the operand with a row a sample.
//!
//! Sums over rows are cut into chunks by the capacity of a matrix, never by the rows that are there, and the sums of
//! chunks are added in their order: the same batch gives the same bits.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::GEMM;
use crate::product::{BLOCKS, Product, THREADS, TILE, launch};
use crate::view::{DeviceMat, Element, Precision};
use manygate_kernels::activation::Activation;

pub use crate::product::{in_wide_tiles, lie_for_wide_tiles};

/// Fewest rows of a chunk of the gradient of a weight, for which two tiles of operands outweigh a tile of sums.
const DW_ROWS: u32 = 256;

/// Most rounds of blocks that all chunks of the gradient of a weight may take.
const DW_ROUNDS: u32 = 4;

/// Fewest rows of a chunk, and most chunks, of sums of columns.
const SUM_ROWS: u32 = 64;
const SUM_CHUNKS: u32 = 128;

/// Rows that [`column_sums`] takes at a time.
const SUM_DEPTH: u32 = 8;

/// Most heads of a layer: `MOST_HEADS` of gemm.cu.
pub const MOST_HEADS: usize = 8;

/// Adjacent columns of a layer's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Number of columns.
    pub width: u32,
    /// Whether they have a bias.
    pub bias: bool,
    /// What they end in.
    pub activation: Activation,
}

/// The columns of a layer's output: those of one layer, or of several over the same input, as the first layer of all
/// experts and all gates are.
#[derive(Clone, Debug, PartialEq)]
pub struct Heads {
    bias: u64,
    heads: Vec<Head>,
}

impl Heads {
    /// Several side by side. `bias` is the address of the biases, f32, of all that have one.
    ///
    /// # Panics
    /// When there are none or more than [`MOST_HEADS`], or one with a bias follows one without.
    pub fn new(bias: u64, heads: &[Head]) -> Heads {
        assert!((1..=MOST_HEADS).contains(&heads.len()), "linear: {} heads", heads.len());
        assert!(heads.is_sorted_by_key(|head| !head.bias), "linear: heads with a bias come first");
        Heads { bias, heads: heads.to_vec() }
    }

    /// `width` columns; `bias` is the address of their biases, 0 for none.
    pub fn one(width: u32, bias: u64, activation: Activation) -> Heads {
        Heads::new(bias, &[Head { width, bias: bias != 0, activation }])
    }

    /// All columns.
    pub fn width(&self) -> u32 {
        self.heads.iter().map(|head| head.width).sum()
    }

    /// As the kernels read it, a `Heads` of gemm.cuh.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let biased: u32 = self.heads.iter().filter(|head| head.bias).map(|head| head.width).sum();
        let mut bytes = [self.bias.to_le_bytes().as_slice(), &biased.to_le_bytes()].concat();
        let mut start = 0;
        for head in &self.heads {
            bytes.extend(u32::to_le_bytes(start));
            bytes.extend(activation::to_bytes(head.activation));
            start += head.width;
        }
        // No column comes after the heads that are not there.
        for _ in self.heads.len()..MOST_HEADS {
            bytes.extend(u32::MAX.to_le_bytes());
            bytes.extend(activation::to_bytes(Activation::Identity));
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// A linear layer: `y = act(x Wᵀ + b)`.
///
/// `x` is `[rows, in]`, `weight` `[out, in]`, `y` `[rows, out]`, with `out` columns in `heads`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear(precision: Precision, x: DeviceMat, weight: DeviceMat, heads: &Heads, y: DeviceMat) -> Launch {
    forward(precision, 1, x, weight, heads, y)
}

/// [`linear`] for each of `groups` groups: `x` is `[rows, groups * in]`, `weights` `[groups * out, in]`, `bias` the
/// address of `groups * out` values or 0, `y` `[rows, groups * out]`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn grouped_linear(
    precision: Precision,
    groups: u32,
    x: DeviceMat,
    weights: DeviceMat,
    bias: u64,
    act: Activation,
    y: DeviceMat,
) -> Launch {
    forward(precision, groups, x, weights, &Heads::one(split(groups, y.cols), bias, act), y)
}

/// [`linear`] for each of `groups` groups, of the same heads.
pub(crate) fn forward(
    precision: Precision,
    groups: u32,
    x: DeviceMat,
    weight: DeviceMat,
    heads: &Heads,
    y: DeviceMat,
) -> Launch {
    let (outputs, inputs) = (split(groups, y.cols), split(groups, x.cols));
    assert_eq!((weight.rows, weight.cols), (groups * outputs, inputs), "linear: weight");
    assert_eq!((heads.width(), y.rows), (outputs, x.rows), "linear: output");
    check_operands(precision, [x, weight]);
    let arguments =
        Arguments::new().with_mat(x).with_mat(weight).with_bytes(&heads.to_bytes(), 8).with_mat(y);
    let kernel = by_precision(precision, ["linear_f32", "linear_tf32", "linear_bf16"]);
    let lies_for_wide_tiles = lie_for_wide_tiles(groups, inputs, outputs, [x, weight]);
    let (rows, cols, inner) = (y.rows, outputs, inputs);
    Product { kernel, rows, cols, inner, chunks: 1, groups, lies_for_wide_tiles }.launch(arguments)
}

/// The gradient of a linear layer's input: `dx = dy W`, or `dx + dy W` with `accumulate`; then, with a `mask`, times
/// the derivative of the activation that made the input.
///
/// `dy` is `[rows, out]`, `weight` `[out, in]`, `dx` `[rows, in]`; the mask is that activation and its output
/// `[rows, in]`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear_dx(
    precision: Precision,
    dy: DeviceMat,
    weight: DeviceMat,
    accumulate: bool,
    mask: Option<(Activation, DeviceMat)>,
    dx: DeviceMat,
) -> Launch {
    grouped_linear_dx(precision, 1, dy, weight, accumulate, mask, dx)
}

/// [`linear_dx`] for each of `groups` groups: `dy` is `[rows, groups * out]`, `weights` `[groups * out, in]`, `dx` and
/// the output in `mask` are `[rows, groups * in]`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn grouped_linear_dx(
    precision: Precision,
    groups: u32,
    dy: DeviceMat,
    weights: DeviceMat,
    accumulate: bool,
    mask: Option<(Activation, DeviceMat)>,
    dx: DeviceMat,
) -> Launch {
    let (outputs, inputs) = (split(groups, dy.cols), split(groups, dx.cols));
    assert_eq!((weights.rows, weights.cols), (groups * outputs, inputs), "linear_dx: weight");
    let (act, masked) = mask.unwrap_or((Activation::Identity, dx));
    assert_eq!((dx.rows, masked.rows, masked.cols), (dy.rows, dy.rows, dx.cols), "linear_dx: rows, mask");
    check_operands(precision, [dy, weights]);
    let arguments = Arguments::new().with_mat(dy).with_mat(weights).with_u32(accumulate.into());
    let arguments = arguments.with_bytes(&activation::to_bytes(act), 4).with_mat(masked).with_mat(dx);
    let kernel = by_precision(precision, ["linear_dx_f32", "linear_dx_tf32", "linear_dx_bf16"]);
    let lies_for_wide_tiles = lie_for_wide_tiles(groups, inputs, outputs, [dy, weights]);
    let (rows, cols, inner) = (dy.rows, inputs, outputs);
    Product { kernel, rows, cols, inner, chunks: 1, groups, lies_for_wide_tiles }.launch(arguments)
}

/// Values (f32) of scratch that [`linear_dw`] needs, and with `groups` [`grouped_linear_dw`].
pub fn linear_dw_scratch(rows: u32, inputs: u32, outputs: u32, groups: u32) -> usize {
    let (chunks, cols) = (dw_chunks(rows, inputs, outputs, groups), groups * outputs);
    let in_passing = (copied_sums(chunks, inputs) as usize) * cols.next_multiple_of(4) as usize;
    dw_partials(chunks, inputs, outputs, groups) + in_passing.max(column_sums_scratch(rows, cols))
}

/// Of those, values of the sums of chunks of rows.
fn dw_partials(chunks: u32, inputs: u32, outputs: u32, groups: u32) -> usize {
    let is_divided = usize::from(chunks > 1);
    is_divided * (chunks * groups) as usize * outputs as usize * inputs.next_multiple_of(4) as usize
}

/// Rows of sums that Hopper's kernels for the gradient of a weight leave in passing: one for each chunk, tile of columns of
/// x, and warp of gemm_hopper.cu.
fn copied_sums(chunks: u32, inputs: u32) -> u32 {
    chunks * inputs.div_ceil(TILE) * (THREADS / 32)
}

/// The gradient of a bias, to be made beside that of a weight: see [`column_sums`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BiasGradient {
    /// The gradient of the layer's output, of the columns that have a bias.
    pub dy: DeviceMat,
    /// Whether to add to what is there.
    pub accumulate: bool,
    /// Its address.
    pub to: u64,
}

/// Chunks that the rows of the gradient of a weight are divided into.
pub(crate) fn dw_chunks(rows: u32, inputs: u32, outputs: u32, groups: u32) -> u32 {
    let tiles = (inputs.div_ceil(TILE) * outputs.div_ceil(TILE) * groups).max(1);
    let most = rows.div_ceil(DW_ROWS).max(1);
    // Some rounds of blocks, where one would leave many multiprocessors without work: a further matrix of sums is cheaper.
    let rounds = (1..=DW_ROUNDS).find(|rounds| {
        let blocks = rounds * BLOCKS / tiles * tiles;
        10 * blocks > 9 * rounds * BLOCKS
    });
    (rounds.unwrap_or(1) * BLOCKS / tiles).clamp(1, most)
}

/// The gradient of a linear layer's weight: `dw = dyᵀ x`, or `dw + dyᵀ x` with `accumulate`; and that of its bias, `db`, for
/// which Hopper need not read `dy` once more.
///
/// `dy` is `[rows, out]`, `x` `[rows, in]`, `dw` `[out, in]`; `scratch` is the address, a multiple of 16, of at least
/// [`linear_dw_scratch`]`(rows, in, out, 1)` values.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear_dw(
    precision: Precision,
    dy: DeviceMat,
    x: DeviceMat,
    accumulate: bool,
    dw: DeviceMat,
    db: Option<BiasGradient>,
    scratch: u64,
) -> Vec<Launch> {
    grouped_linear_dw(precision, 1, dy, x, accumulate, dw, db, scratch)
}

/// [`linear_dw`] for each of `groups` groups: `dy` is `[rows, groups * out]`, `x` `[rows, groups * in]`, `dw`
/// `[groups * out, in]`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn grouped_linear_dw(
    precision: Precision,
    groups: u32,
    dy: DeviceMat,
    x: DeviceMat,
    accumulate: bool,
    dw: DeviceMat,
    db: Option<BiasGradient>,
    scratch: u64,
) -> Vec<Launch> {
    let (outputs, inputs) = (split(groups, dy.cols), split(groups, x.cols));
    assert_eq!((dw.rows, dw.cols, x.rows), (groups * outputs, inputs, dy.rows), "linear_dw: shapes");
    assert_eq!(dw.element, Element::F32, "linear_dw: dw is f32");
    check_operands(precision, [dy, x]);
    let chunks = dw_chunks(dy.rows, inputs, outputs, groups);
    let behind = scratch + 4 * dw_partials(chunks, inputs, outputs, groups) as u64;
    let stride = dy.cols.next_multiple_of(4);
    let copied = DeviceMat { stride, ..DeviceMat::new(behind, copied_sums(chunks, inputs), dy.cols) };
    // What is multiplied is what is summed up.
    let is_copied = |db: &BiasGradient| {
        inputs > 0
            && precision == Precision::Bf16
            && (db.dy.address, db.dy.element) == (dy.address, dy.element)
    };
    let sums = db.filter(is_copied).map_or(DeviceMat { address: 0, ..copied }, |_| copied);
    let partials =
        Partials { address: scratch, chunks, depth: by_precision(precision, [8, 16, 32]), live: dy };
    let mut launches = partials.launches(accumulate, dw, |accumulate, to| {
        let arguments = Arguments::new().with_mat(dy).with_mat(x);
        let arguments = arguments.with_u32(accumulate.into()).with_mat(to);
        let kernel = by_precision(precision, ["linear_dw_f32", "linear_dw_tf32", "linear_dw_bf16"]);
        let lies_for_wide_tiles = lie_for_wide_tiles(groups, inputs, outputs, [dy, x]);
        let (rows, cols, inner) = (outputs, inputs, dy.rows);
        Product { kernel, rows, cols, inner, chunks, groups, lies_for_wide_tiles }
            .launch_with_more_on_hopper(arguments, |arguments| arguments.with_mat(sums))
    });
    if let Some(db) = db {
        let mut all = column_sums(db.dy, db.accumulate, db.to, behind);
        if is_copied(&db) {
            let of_copied = sum_columns_at_once(copied, db.accumulate, DeviceMat::new(db.to, 1, db.dy.cols));
            all[0].on_hopper = Some(Box::new(of_copied));
            all[1..].iter_mut().for_each(Launch::skip_on_hopper);
        }
        launches.extend(all);
    }
    launches
}

/// Values (f32) of scratch that [`column_sums`] needs.
pub fn column_sums_scratch(rows: u32, cols: u32) -> usize {
    match sum_chunks(rows, cols) {
        1 => 0,
        chunks => chunks as usize * cols.next_multiple_of(4) as usize,
    }
}

/// Chunks that the rows of sums of columns are divided into.
pub(crate) fn sum_chunks(rows: u32, cols: u32) -> u32 {
    (2 * BLOCKS / cols.div_ceil(TILE).max(1)).clamp(1, rows.div_ceil(SUM_ROWS).clamp(1, SUM_CHUNKS))
}

/// The gradient of a bias: `db = ` the sum of the rows of `dy` `[rows, out]`, or `db + ` it with `accumulate`.
///
/// `db` is the address of `out` values (f32), `scratch` that, a multiple of 16, of at least
/// [`column_sums_scratch`]`(rows, out)`.
pub fn column_sums(dy: DeviceMat, accumulate: bool, db: u64, scratch: u64) -> Vec<Launch> {
    let chunks = sum_chunks(dy.rows, dy.cols);
    let partials = Partials { address: scratch, chunks, depth: SUM_DEPTH, live: dy };
    partials.launches(accumulate, DeviceMat::new(db, 1, dy.cols), |accumulate, to| {
        let launch = sum_columns_at_once(dy, accumulate, to);
        Launch { grid: [launch.grid[0], chunks, 1], ..launch }
    })
}

/// A launch that sums the columns of `dy` up, those that `to` has, in one chunk.
fn sum_columns_at_once(dy: DeviceMat, accumulate: bool, to: DeviceMat) -> Launch {
    let arguments = Arguments::new().with_mat(dy).with_u32(accumulate.into()).with_mat(to);
    launch(&GEMM, "column_sums", [to.cols.div_ceil(TILE), 1, 1], arguments)
}

/// Sums over rows, a matrix for each chunk of them.
struct Partials {
    address: u64,
    chunks: u32,
    /// A chunk takes every `chunks`-th piece of so many rows,
    depth: u32,
    /// of those that are there of this matrix.
    live: DeviceMat,
}

impl Partials {
    /// A launch of `sums`, told whether to add and where to, and one that adds the chunks to `to`, where there are
    /// several.
    fn launches(
        &self,
        accumulate: bool,
        to: DeviceMat,
        sums: impl FnOnce(bool, DeviceMat) -> Launch,
    ) -> Vec<Launch> {
        if self.chunks == 1 {
            return vec![sums(accumulate, to)];
        }
        assert!(self.address.is_multiple_of(16), "scratch at {:#x} is not aligned to 16 bytes", self.address);
        let stride = to.cols.next_multiple_of(4);
        let partials = DeviceMat::new(self.address, self.chunks * to.rows, stride);
        let quads = to.rows * to.cols.div_ceil(4);
        let arguments = Arguments::new().with_u64(self.address).with_u32(stride).with_u32(self.chunks);
        let arguments = arguments.with_u32(self.depth).with_mat(self.live).with_u32(accumulate.into());
        let add = launch(&GEMM, "sum_partials", [quads.div_ceil(THREADS), 1, 1], arguments.with_mat(to));
        vec![sums(false, partials), add]
    }
}

/// Values that a block of [`to_bf16`] casts: those of `CAST_QUADS` of gemm.cu.
const CAST_QUADS: u32 = 4 * THREADS;

/// Matrices to cast, weights for the products of a step for example, as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Casts {
    bytes: Vec<u8>,
    count: u32,
    blocks: u32,
}

impl Casts {
    /// From the first matrix of each pair, f32, to the second, bf16. Where columns are no multiple of 8, products are
    /// fastest with a second matrix whose stride is.
    ///
    /// # Panics
    /// When the shapes of a pair differ or they hold something else.
    pub fn new(pairs: &[(DeviceMat, DeviceMat)]) -> Casts {
        let mut casts = Casts { bytes: Vec::new(), count: 0, blocks: 0 };
        for &(from, to) in pairs {
            assert_eq!((from.rows, from.cols), (to.rows, to.cols), "to_bf16: shapes");
            assert_eq!((from.element, to.element), (Element::F32, Element::Bf16), "to_bf16: elements");
            let quads = u64::from(to.rows) * u64::from(to.cols.div_ceil(4));
            if quads == 0 {
                continue;
            }
            casts.bytes.extend([from.to_bytes(), to.to_bytes()].concat());
            casts.bytes.extend(u64::from(casts.blocks).to_le_bytes());
            casts.count += 1;
            casts.blocks += blocks(quads, CAST_QUADS);
        }
        casts
    }

    /// What has to lie in device memory.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Casts each matrix of a table, whose bytes lie at `address`.
pub fn to_bf16(casts: &Casts, address: u64) -> Launch {
    let arguments = Arguments::new().with_u64(address).with_u32(casts.count);
    launch(&GEMM, "to_bf16", [casts.blocks, 1, 1], arguments)
}

/// What `choices` have for f32, tf32 and bf16.
pub(crate) fn by_precision<T: Copy>(precision: Precision, choices: [T; 3]) -> T {
    match precision {
        Precision::F32 => choices[0],
        Precision::Tf32 => choices[1],
        Precision::Bf16 => choices[2],
    }
}

pub(crate) fn check_operands(precision: Precision, operands: [DeviceMat; 2]) {
    let element = by_precision(precision, [Element::F32, Element::F32, Element::Bf16]);
    let held = operands.map(|operand| operand.element);
    assert_eq!(held, [element; 2], "linear: what {precision:?} multiplies");
}

/// Columns of each of `groups` groups.
pub(crate) fn split(groups: u32, cols: u32) -> u32 {
    assert!(groups > 0 && cols.is_multiple_of(groups), "linear: {cols} columns for {groups} groups");
    cols / groups
}
