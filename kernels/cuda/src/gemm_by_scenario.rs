//! Products of layers with weights for each scenario, or with one weight for all groups: see [`gemm`], whose
//! shapes and precisions they have.
//!
//! Rows stand in the order of their scenarios, and a row is multiplied by the weights of its own. The rows that are there
//! are those that the scenarios have. Where there is one scenario and each group has a weight of its own, launches are those
//! of [`gemm`].

use crate::activation;
use crate::gemm::{self, BiasGradient, Heads, by_precision, check_operands, dw_chunks, split, sum_chunks};
use crate::gemm_gradients::{InputGradient, WeightGradient, grouped_linear_gradients};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::GEMM_BY_SCENARIO;
use crate::product::{THREADS, TILE};
use crate::view::{DeviceMat, Element, Precision};
use manygate_kernels::activation::Activation;

/// Rows that [`column_sums_by_scenario`] takes at a time: `SUM_DEPTH` of gemm_by_scenario.cu.
const SUM_DEPTH: u32 = 8;

/// Most groups of all scenarios together: what a grid takes in its third direction.
pub const MOST_LAYERS: usize = 65535;

/// Rows by scenario, and the weights that each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    starts: u64,
    scenarios: u32,
    groups: u32,
    shared: bool,
}

/// What has to lie in device memory of the rows of a batch that stand in the order of their scenarios, each of which has
/// `counts` of them: the first row of each and the one behind the last, and their first tiles, `2 * (scenarios + 1)` values.
pub fn scenario_starts(counts: &[u32]) -> Vec<u32> {
    let running = |of: fn(u32) -> u32| {
        let ends = counts.iter().scan(0, move |end, &count| {
            *end += of(count);
            Some(*end)
        });
        std::iter::once(0).chain(ends)
    };
    running(|count| count).chain(running(|count| count.div_ceil(TILE))).collect()
}

impl Layers {
    /// Of rows whose [`scenario_starts`] lie at the address `starts`, or of one scenario the first two of those, in `groups`
    /// groups of columns, which have one weight in each scenario where `shared`, in place of one each.
    pub fn new(starts: u64, scenarios: usize, groups: usize, shared: bool) -> Layers {
        Layers { starts, scenarios: scenarios as u32, groups: groups as u32, shared }
    }

    /// Whether they are what [`gemm`] has kernels for.
    fn are_plain(&self) -> bool {
        self.scenarios == 1 && self.sharing() == 1
    }

    /// Weights.
    fn weights(&self) -> u32 {
        if self.shared { self.scenarios } else { self.scenarios * self.groups }
    }

    /// Groups that share each of them.
    fn sharing(&self) -> u32 {
        if self.shared { self.groups } else { 1 }
    }

    /// A `Layers` of gemm_by_scenario.cu.
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.starts.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.scenarios.to_le_bytes());
        bytes[12..].copy_from_slice(&u32::from(self.shared).to_le_bytes());
        bytes
    }

    /// A launch of a kernel whose blocks make tiles of a matrix with a row a sample, of so many columns a group.
    fn tiled(&self, kernel: &'static str, rows: u32, cols: u32, arguments: Arguments) -> Launch {
        // Each scenario may have one tile that is not full.
        let down = u64::from(rows.div_ceil(TILE)) + u64::from(self.scenarios - 1);
        let tiles = blocks(down * u64::from(cols.div_ceil(TILE)), 1);
        launch(kernel, [tiles, 1, self.groups], arguments)
    }

    /// Launches of sums over rows, told whether to add and where to, and of one that adds up several for each weight, which
    /// are left at `scratch`. `to` has as many rows for each weight.
    fn summed(
        &self,
        (chunks, depth): (u32, u32),
        accumulate: bool,
        to: DeviceMat,
        scratch: u64,
        sums: impl FnOnce(bool, DeviceMat) -> Launch,
    ) -> Vec<Launch> {
        let copies = self.sharing();
        if chunks * copies == 1 {
            return vec![sums(accumulate, to)];
        }
        assert!(scratch.is_multiple_of(16), "scratch at {scratch:#x} is not aligned to 16 bytes");
        let stride = to.cols.next_multiple_of(4);
        let partials = DeviceMat::new(scratch, chunks * copies * to.rows, stride);
        let arguments = Arguments::new().with_u64(scratch).with_u32(stride).with_u32(chunks).with_u32(copies);
        let arguments = arguments.with_u32(depth).with_bytes(&self.to_bytes(), 8);
        let arguments = arguments.with_u32(accumulate.into()).with_mat(to);
        let quads = u64::from(to.rows) * u64::from(to.cols.div_ceil(4));
        let add = launch("sum_partials_by_scenario", [blocks(quads, THREADS), 1, 1], arguments);
        vec![sums(false, partials), add]
    }
}

fn launch(kernel: &'static str, grid: [u32; 3], arguments: Arguments) -> Launch {
    assert!(grid[1].max(grid[2]) <= 65535, "{kernel}: a grid of {grid:?}");
    Launch { grid, ..Launch::new(&GEMM_BY_SCENARIO, kernel, 0, THREADS, arguments) }
}

/// `y = act(x Wᵀ + b)`: `x` is `[rows, groups * in]`, `weights` `[weights * out, in]`, `y` `[rows, groups * out]`, with
/// `out` columns in `heads`, whose biases lie weight after weight.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear_by_scenario(
    precision: Precision,
    layers: Layers,
    x: DeviceMat,
    weights: DeviceMat,
    heads: &Heads,
    y: DeviceMat,
) -> Launch {
    if layers.are_plain() {
        return gemm::forward(precision, layers.groups, x, weights, heads, y);
    }
    let (outputs, inputs) = (split(layers.groups, y.cols), split(layers.groups, x.cols));
    assert_eq!((weights.rows, weights.cols), (layers.weights() * outputs, inputs), "linear: weights");
    assert_eq!((heads.width(), y.rows), (outputs, x.rows), "linear: output");
    check_operands(precision, [x, weights]);
    let arguments = Arguments::new().with_mat(x).with_mat(weights).with_bytes(&heads.to_bytes(), 8);
    let arguments = arguments.with_bytes(&layers.to_bytes(), 8).with_mat(y);
    let kernels = ["linear_by_scenario_f32", "linear_by_scenario_tf32", "linear_by_scenario_bf16"];
    layers.tiled(by_precision(precision, kernels), y.rows, outputs, arguments)
}

/// The gradient of the input: `dx = dy W`, or `dx + dy W` with `accumulate`; then, with a `mask`, times the derivative of
/// the activation that made the input. `dy` is `[rows, groups * out]`, `dx` and the output in `mask` `[rows, groups * in]`.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear_dx_by_scenario(
    precision: Precision,
    layers: Layers,
    dy: DeviceMat,
    weights: DeviceMat,
    accumulate: bool,
    mask: Option<(Activation, DeviceMat)>,
    dx: DeviceMat,
) -> Launch {
    if layers.are_plain() {
        return gemm::grouped_linear_dx(precision, layers.groups, dy, weights, accumulate, mask, dx);
    }
    let (outputs, inputs) = (split(layers.groups, dy.cols), split(layers.groups, dx.cols));
    assert_eq!((weights.rows, weights.cols), (layers.weights() * outputs, inputs), "linear_dx: weights");
    let (act, masked) = mask.unwrap_or((Activation::Identity, dx));
    assert_eq!((dx.rows, masked.rows, masked.cols), (dy.rows, dy.rows, dx.cols), "linear_dx: rows, mask");
    check_operands(precision, [dy, weights]);
    let arguments = Arguments::new().with_mat(dy).with_mat(weights).with_bytes(&layers.to_bytes(), 8);
    let arguments = arguments.with_u32(accumulate.into()).with_bytes(&activation::to_bytes(act), 4);
    let kernels = ["linear_dx_by_scenario_f32", "linear_dx_by_scenario_tf32", "linear_dx_by_scenario_bf16"];
    let kernel = by_precision(precision, kernels);
    layers.tiled(kernel, dx.rows, inputs, arguments.with_mat(masked).with_mat(dx))
}

/// Values (f32) of scratch that [`linear_dw_by_scenario`] and [`column_sums_by_scenario`] of the same layers need.
pub fn linear_dw_by_scenario_scratch(rows: u32, inputs: u32, outputs: u32, layers: Layers) -> usize {
    if layers.are_plain() {
        return gemm::linear_dw_scratch(rows, inputs, outputs, layers.groups);
    }
    let copies = layers.sharing() as usize;
    let values = |rows: u32, cols: u32| rows as usize * cols.next_multiple_of(4) as usize;
    let dw = layers.chunks(rows, inputs, outputs) as usize * values(layers.weights() * outputs, inputs);
    let db = sum_chunks(rows, outputs) as usize * values(layers.weights(), outputs);
    let of_all_groups = sum_chunks(rows, layers.groups * outputs) as usize
        * values(layers.scenarios, layers.groups * outputs);
    copies * dw.max(db).max(of_all_groups)
}

impl Layers {
    /// Chunks that the rows of a gradient of weights are divided into.
    fn chunks(&self, rows: u32, inputs: u32, outputs: u32) -> u32 {
        dw_chunks(rows, inputs, outputs, self.groups * self.scenarios)
    }
}

/// The gradient of the weights: `dw = dyᵀ x`, or `dw + dyᵀ x` with `accumulate`, over the rows of each scenario and the
/// groups that share a weight; zeros for a scenario without rows. And that of the biases, `db`, as
/// [`column_sums_by_scenario`] has it.
///
/// `dy` is `[rows, groups * out]`, `x` `[rows, groups * in]`, `dw` `[weights * out, in]`; `scratch` is the address, a
/// multiple of 16, of at least [`linear_dw_by_scenario_scratch`]`(rows, in, out, layers)` values.
///
/// # Panics
/// When the shapes or what the operands hold do not fit.
pub fn linear_dw_by_scenario(
    precision: Precision,
    layers: Layers,
    dy: DeviceMat,
    x: DeviceMat,
    accumulate: bool,
    dw: DeviceMat,
    db: Option<BiasGradient>,
    scratch: u64,
) -> Vec<Launch> {
    if layers.are_plain() {
        return gemm::grouped_linear_dw(precision, layers.groups, dy, x, accumulate, dw, db, scratch);
    }
    let (outputs, inputs) = (split(layers.groups, dy.cols), split(layers.groups, x.cols));
    let shape = (layers.weights() * outputs, inputs, dy.rows);
    assert_eq!((dw.rows, dw.cols, x.rows), shape, "linear_dw: shapes");
    assert_eq!(dw.element, Element::F32, "linear_dw: dw is f32");
    check_operands(precision, [dy, x]);
    let chunks = layers.chunks(dy.rows, inputs, outputs);
    let depth = by_precision(precision, [8, 16, 32]);
    let mut launches = layers.summed((chunks, depth), accumulate, dw, scratch, |accumulate, to| {
        let arguments = Arguments::new().with_mat(dy).with_mat(x).with_bytes(&layers.to_bytes(), 8);
        let arguments = arguments.with_u32(layers.groups).with_u32(accumulate.into()).with_mat(to);
        let kernels =
            ["linear_dw_by_scenario_f32", "linear_dw_by_scenario_tf32", "linear_dw_by_scenario_bf16"];
        let tiles = outputs.div_ceil(TILE) * inputs.div_ceil(TILE);
        launch(by_precision(precision, kernels), [tiles, chunks, layers.groups * layers.scenarios], arguments)
    });
    launches.extend(db.into_iter().flat_map(|db| column_sums_by_scenario(layers, db, scratch)));
    launches
}

/// [`linear_dw_by_scenario`], and then [`linear_dx_by_scenario`], of the same layers: the weights do not lie in scratch.
///
/// # Panics
/// As those.
pub fn linear_gradients_by_scenario(
    precision: Precision,
    layers: Layers,
    dy: DeviceMat,
    x: DeviceMat,
    weights: DeviceMat,
    dw: WeightGradient,
    db: Option<BiasGradient>,
    dx: InputGradient,
    scratch: u64,
) -> Vec<Launch> {
    if layers.are_plain() {
        return grouped_linear_gradients(precision, layers.groups, dy, x, weights, dw, db, dx, scratch);
    }
    let mut launches = linear_dw_by_scenario(precision, layers, dy, x, dw.accumulate, dw.to, db, scratch);
    launches.push(linear_dx_by_scenario(precision, layers, dy, weights, dx.accumulate, dx.mask, dx.to));
    launches
}

/// The gradient of the biases, at `db.to`: sums of the columns of `db.dy` over the rows of each scenario. Where groups share
/// a bias, over those too: `db.dy` is `[rows, groups * biased]`, and there are `[scenarios, biased]` sums; where they do
/// not, `[rows, biased]`, whatever columns those are, and as many sums for each scenario.
///
/// `scratch` as for [`linear_dw_by_scenario`].
pub fn column_sums_by_scenario(layers: Layers, db: BiasGradient, scratch: u64) -> Vec<Launch> {
    let BiasGradient { dy, accumulate, to } = db;
    if layers.are_plain() {
        return gemm::column_sums(dy, accumulate, to, scratch);
    }
    let layers = if layers.shared { layers } else { Layers { groups: 1, ..layers } };
    let cols = split(layers.groups, dy.cols);
    let chunks = sum_chunks(dy.rows, cols);
    let to = DeviceMat::new(to, layers.scenarios, cols);
    layers.summed((chunks, SUM_DEPTH), accumulate, to, scratch, |accumulate, to| {
        let arguments = Arguments::new().with_mat(dy).with_bytes(&layers.to_bytes(), 8);
        let arguments = arguments.with_u32(layers.groups).with_u32(accumulate.into()).with_mat(to);
        let grid = [cols.div_ceil(TILE), chunks, layers.groups * layers.scenarios];
        launch("column_sums_by_scenario", grid, arguments)
    })
}
