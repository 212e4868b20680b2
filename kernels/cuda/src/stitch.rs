//! Networks side by side that mix, see `manygate_kernels::stitch`. Matrices hold f32 or bf16 each.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::STITCH;
use crate::share;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// Threads of a block.
const THREADS: u32 = 256;
/// Networks that a block takes together: `TASKS` of stitch.cu.
const TASKS: u32 = 4;
/// Blocks that sum: two on each of the 132 multiprocessors of an H200.
const BLOCKS: u32 = 2 * 132;
/// Fewest rows of a thread that sums.
const CHUNK_ROWS: u32 = 8;

/// The matrix that networks are mixed by, contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Address of f32 values, `[tasks, tasks]` or `[tasks, tasks, units]`.
    pub address: u64,
    /// Number of networks.
    pub tasks: u32,
    /// Weights of a pair of networks: one, or one a unit.
    pub each: u32,
}

impl Weights {
    /// `matrix` `[tasks, tasks * each]`, or its gradient.
    ///
    /// # Panics
    /// When it is not contiguous, or has another shape.
    pub fn new(matrix: DeviceMat) -> Weights {
        let DeviceMat { address, rows: tasks, cols, stride, .. } = matrix;
        assert!(tasks > 0 && cols.is_multiple_of(tasks) && stride == cols, "stitch: weights {matrix:?}");
        Weights { address, tasks, each: cols / tasks }
    }

    /// Units of each network in `cols` columns.
    fn units(self, cols: u32) -> u32 {
        assert!(cols.is_multiple_of(self.tasks), "stitch: {cols} values of {} networks", self.tasks);
        let units = cols / self.tasks;
        assert!(self.each == 1 || self.each == units, "stitch: {} weights for {units} units", self.each);
        units
    }

    /// A `Networks` of stitch.cu.
    fn networks(self, cols: u32) -> Arguments {
        let words = [self.tasks, self.units(cols), self.each].into_iter().flat_map(u32::to_le_bytes);
        Arguments::new().with_bytes(&words.collect::<Vec<_>>(), 4)
    }
}

/// `y_t = Σ_j a[t, j] x_j`, of networks `[rows, units]` that stand side by side in `x` and `y`; `transposed`, with
/// `a[j, t]`: the gradient of `x` from that of `y`. `y` is added to or overwritten, then with a `mask` multiplied by the
/// slope of the activation with that output. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn stitch(
    weights: Weights,
    transposed: bool,
    x: DeviceMat,
    accumulate: bool,
    mask: Option<(Activation, DeviceMat)>,
    y: DeviceMat,
) -> Launch {
    let (activation, masked) = mask.unwrap_or((Activation::Identity, y));
    share::assert_alike("stitch", &[x, masked, y]);
    let arguments = weights.networks(x.cols).with_u64(weights.address).with_u32(transposed.into());
    let arguments = arguments.with_mat(x).with_u32(accumulate.into());
    let arguments = arguments.with_bytes(&activation::to_bytes(activation), 4).with_mat(masked).with_mat(y);
    let quads = u64::from(y.rows) * u64::from(weights.units(x.cols).div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "stitch: [{}, {}] is too large", y.rows, y.cols);
    Launch::new(&STITCH, "stitch", blocks(quads, THREADS), THREADS, arguments)
}

/// How the sums of [`stitch_dweights`] are divided.
struct Division {
    /// Threads of a block side by side, four units each: a power of two.
    across: u32,
    /// Blocks side by side.
    tiles: u32,
    /// Groups of networks among which pairs are made.
    groups: u32,
    /// Chunks that the rows are divided into.
    chunks: u32,
}

impl Division {
    fn new(rows: u32, tasks: u32, units: u32) -> Division {
        let across = units.div_ceil(4).next_power_of_two().min(32);
        let (tiles, groups) = (units.div_ceil(4 * across), tasks.div_ceil(TASKS));
        let most = rows.div_ceil(CHUNK_ROWS * (THREADS / across)).max(1);
        let chunks = (BLOCKS / (tiles * groups * groups).max(1)).clamp(1, most);
        Division { across, tiles, groups, chunks }
    }
}

/// Bytes of scratch that [`stitch_dweights`] works in.
pub fn stitch_dweights_scratch(rows: u32, tasks: u32, units: u32) -> u64 {
    4 * u64::from(Division::new(rows, tasks, units).chunks) * u64::from(tasks * tasks) * u64::from(units)
}

/// The gradient of the weights of [`stitch`], written to `d_weights` or added: `<dy_t, x_j>` over rows and, where a pair
/// has one weight, over units. `scratch` is the address of [`stitch_dweights_scratch`] bytes, a multiple of 4. The rows
/// that are there are those of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn stitch_dweights(
    x: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    d_weights: Weights,
    scratch: u64,
) -> Vec<Launch> {
    share::assert_alike("stitch_dweights", &[x, dy]);
    let Weights { tasks, address, .. } = d_weights;
    let Division { across, tiles, groups, chunks } = Division::new(dy.rows, tasks, d_weights.units(x.cols));
    let arguments = d_weights.networks(x.cols).with_u32(across).with_mat(x).with_mat(dy).with_u64(scratch);
    let sums = Launch {
        grid: [tiles, chunks, groups * groups],
        ..Launch::new(&STITCH, "stitch_dweights", 0, THREADS, arguments)
    };
    let arguments = d_weights.networks(x.cols).with_u64(scratch).with_u32(chunks);
    let arguments = arguments.with_u32(accumulate.into()).with_u64(address);
    let finish = Launch::new(&STITCH, "finish_stitch_dweights", tasks * tasks, THREADS, arguments);
    vec![sums, finish]
}
