//! Activation functions as kernels of their own, see `manygate_kernels::activation` and the ops `dice` and `prelu`. Matrices
//! hold f32 or bf16 each.

use crate::gemm;
use crate::launch::{Arguments, Launch};
use crate::module::ACTIVATION;
use crate::share;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// `act` as kernels read it, an `Activation` of `activation.cuh`: which one, and the slope of a leaky one.
pub fn to_bytes(act: Activation) -> [u8; 8] {
    let (kind, slope) = match act {
        Activation::Identity => (0u32, 0.0f32),
        Activation::Relu => (1, 0.0),
        Activation::LeakyRelu(slope) => (2, slope),
        Activation::Tanh => (3, 0.0),
        Activation::Sigmoid => (4, 0.0),
    };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..].copy_from_slice(&slope.to_le_bytes());
    bytes
}

/// Applies `act` to every element of `x`, in place.
pub fn activate(act: Activation, x: DeviceMat) -> Launch {
    activate_to(act, x, x)
}

/// `y = act(x)`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes differ.
pub fn activate_to(act: Activation, x: DeviceMat, y: DeviceMat) -> Launch {
    share::assert_alike("activate", &[x, y]);
    let arguments = Arguments::new().with_bytes(&to_bytes(act), 4).with_mat(x).with_mat(y);
    share::launch(&ACTIVATION, "activate", y, arguments)
}

/// Multiplies the gradient `dy` at the output `y` of `act` by the derivative, in place: the gradient at its input.
///
/// # Panics
/// When the shapes differ.
pub fn activation_dx(act: Activation, y: DeviceMat, dy: DeviceMat) -> Launch {
    activation_dx_to(act, y, dy, false, dy)
}

/// `dx = dy ⊙ act'`, or `dx += dy ⊙ act'` with `accumulate`, with the derivative at the output `y` of `act`. The rows
/// that are there are those of `dx`.
///
/// # Panics
/// When the shapes differ.
pub fn activation_dx_to(
    act: Activation,
    y: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    share::assert_alike("activation_dx", &[y, dy, dx]);
    let arguments = Arguments::new().with_bytes(&to_bytes(act), 4).with_mat(y).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dx);
    share::launch(&ACTIVATION, "activation_dx", dx, arguments)
}

/// Threads of a block that learns slopes.
const THREADS: u32 = 256;
/// Blocks that sum: two on each of the 132 multiprocessors of an H200.
const BLOCKS: u32 = 2 * 132;
/// Rows of a thread, and the fewest of one that sums: `ROWS` of activation.cu.
const ROWS: u32 = 4;

/// What bends an activation whose slopes are learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bend {
    /// Address of the units' means and then their variances, f32, and what is added to a variance: Dice. With [`None`], a
    /// rectifier.
    pub moments: Option<(u64, f32)>,
    /// Address of the slopes, f32.
    pub slopes: u64,
}

impl Bend {
    fn arguments(self, x: DeviceMat) -> Arguments {
        let (moments, epsilon) = self.moments.unwrap_or((0, 0.0));
        Arguments::new().with_mat(x).with_u64(moments).with_f32(epsilon).with_u64(self.slopes)
    }
}

/// Threads of a block side by side, four columns each: a power of two.
fn across(cols: u32) -> u32 {
    cols.div_ceil(4).next_power_of_two().min(32)
}

/// Blocks side by side.
fn tiles(cols: u32) -> u32 {
    cols.div_ceil(4 * across(cols))
}

/// Blocks that take all rows, [`ROWS`] a thread.
fn pieces(rows: u32, cols: u32) -> u32 {
    rows.div_ceil(ROWS * (THREADS / across(cols)))
}

/// Chunks that the rows of sums are divided into, by capacity.
fn chunks(rows: u32, cols: u32) -> u32 {
    (BLOCKS / tiles(cols).max(1)).clamp(1, pieces(rows, cols).max(1))
}

/// A launch of a kernel whose threads have four units each, in rows that `blocks` blocks share.
fn by_unit(kernel: &'static str, blocks: u32, cols: u32, arguments: Arguments) -> Launch {
    Launch { grid: [blocks, tiles(cols), 1], ..Launch::new(&ACTIVATION, kernel, 0, THREADS, arguments) }
}

/// `y = x ⊙ (p + (1 − p) ⊙ a)` with `p = sigmoid((x − mean) / deviation)`, or 1 above 0 and else 0. The rows that are there
/// are those of `y`.
///
/// # Panics
/// When the shapes differ.
pub fn dice(x: DeviceMat, bend: Bend, y: DeviceMat) -> Launch {
    share::assert_alike("dice", &[x, y]);
    by_unit("dice", pieces(x.rows, x.cols), x.cols, bend.arguments(x).with_u32(across(x.cols)).with_mat(y))
}

/// Where the gradients of [`dice`] go that are sums over rows, and whether they are added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BendGradients {
    /// Address of that of the moments.
    pub moments: Option<(u64, bool)>,
    /// Address of that of the slopes.
    pub slopes: Option<(u64, bool)>,
    /// Address of [`dice_scratch`] bytes, a multiple of 16.
    pub scratch: u64,
}

/// Bytes of scratch that [`dice_backward`] works in for sums.
pub fn dice_scratch(rows: u32, cols: u32) -> u64 {
    let chunks = chunks(rows, cols);
    partial_bytes(chunks, cols) + 4 * gemm::column_sums_scratch(chunks, 2 * cols) as u64
}

/// Bytes of a row of sums for each chunk, a multiple of 16.
fn partial_bytes(chunks: u32, cols: u32) -> u64 {
    (12 * u64::from(chunks) * u64::from(cols)).next_multiple_of(16)
}

/// The gradients of [`dice`] of that at `y`: `dx`, written or added, and the `sums`. The rows that are there are those of
/// `x`.
///
/// # Panics
/// When the shapes differ.
pub fn dice_backward(
    x: DeviceMat,
    bend: Bend,
    dy: DeviceMat,
    dx: Option<(DeviceMat, bool)>,
    sums: BendGradients,
) -> Vec<Launch> {
    let (dx, accumulate) = dx.unwrap_or((DeviceMat { address: 0, ..x }, false));
    share::assert_alike("dice_backward", &[x, dy, dx]);
    let cols = x.cols;
    let chunks = chunks(x.rows, cols);
    let wanted = sums.moments.is_some() || sums.slopes.is_some();
    let partials = DeviceMat::new(if wanted { sums.scratch } else { 0 }, chunks, 3 * cols);
    let arguments = bend.arguments(x).with_mat(dy).with_u32(across(cols)).with_u32(accumulate.into());
    let arguments = arguments.with_mat(dx).with_u64(partials.address);
    let behind = sums.scratch + partial_bytes(chunks, cols);
    let sum = |(to, accumulate): (u64, bool), from, count| {
        gemm::column_sums(partials.columns(from, count), accumulate, to, behind)
    };
    let of_moments = sums.moments.into_iter().flat_map(|to| sum(to, 0, 2 * cols));
    let of_slopes = sums.slopes.into_iter().flat_map(|to| sum(to, 2 * cols, cols));
    [by_unit("dice_backward", chunks, cols, arguments)]
        .into_iter()
        .chain(of_moments)
        .chain(of_slopes)
        .collect()
}
