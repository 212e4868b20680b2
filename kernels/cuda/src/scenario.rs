//! What rows have by their scenario, in whatever order they stand. Matrices with a row a sample hold f32 or bf16 each, those
//! with a row a scenario f32; `scenario` is the address of the scenario of each row, a u32.

use crate::column_sums::{THREADS, across, chunks, finish, gradient_bytes, sum, sums_bytes};
use crate::launch::{Arguments, Launch, blocks};
use crate::module::SCENARIO;
use crate::share;
use crate::view::{DeviceMat, Element};

/// Most scenarios whose sums are taken at once: what a grid takes in its third direction.
pub const MOST: usize = 65535;

const WARP: u32 = 32;
/// Blocks that sum over parts of rows: four on each of the 132 multiprocessors of an H200.
const BLOCKS: u32 = 4 * 132;

/// Where a gradient with a row a sample goes, and whether it is added to what is there; [`None`] where nobody wants it.
pub type Target = Option<(DeviceMat, bool)>;

/// `y = m[s] ⊙ x + b[s]`, of m and b `[scenarios, n]`, s the row's scenario. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn scenario_affine(scenario: u64, x: DeviceMat, m: DeviceMat, b: DeviceMat, y: DeviceMat) -> Launch {
    share::assert_alike("scenario_affine", &[x, y]);
    share::assert_alike("scenario_affine", &[m, b]);
    assert_eq!(m.cols, x.cols, "scenario_affine: columns");
    let arguments = Arguments::new().with_u64(scenario).with_mat(x).with_mat(m).with_mat(b);
    share::launch(&SCENARIO, "scenario_affine", y, arguments.with_mat(y))
}

/// The gradient of its input, `dx = m[s] ⊙ dy`, written or, with `accumulate`, added. The rows that are there are those of
/// `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn scenario_affine_dx(
    scenario: u64,
    m: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    share::assert_alike("scenario_affine_dx", &[dy, dx]);
    assert_eq!(m.cols, dx.cols, "scenario_affine_dx: columns");
    let arguments = Arguments::new().with_u64(scenario).with_mat(m).with_mat(dy);
    share::launch(&SCENARIO, "scenario_affine_dx", dy, arguments.with_u32(accumulate.into()).with_mat(dx))
}

/// Bytes of scratch that [`scenario_sums`] works in, for a matrix of these rows and columns.
pub fn scenario_sums_scratch(scenarios: usize, rows: u32, cols: u32) -> u64 {
    sums_bytes(scenarios, chunks_of(scenarios, rows, cols), cols)
}

/// Chunks that the rows are divided into, whose scenarios each scenario looks at: fewer, the more of those there are.
fn chunks_of(scenarios: usize, rows: u32, cols: u32) -> u32 {
    chunks(rows, cols).div_ceil(scenarios.max(1) as u32).min(rows.div_ceil(THREADS)).max(1)
}

/// Sums over the rows of each of `scenarios` scenarios, `[scenarios, n]` one row behind the other: `Σ dy` at `of_dy`, and
/// `Σ dy ⊙ x` at `of_products`, which needs `x`. Each is written, or added to what is there where the bool says so; no
/// launches where none is asked for.
///
/// `scratch` is the address of [`scenario_sums_scratch`] bytes, a multiple of 8. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes differ, or there are more scenarios than [`MOST`].
pub fn scenario_sums(
    scenario: u64,
    scenarios: usize,
    x: Option<DeviceMat>,
    dy: DeviceMat,
    of_dy: Option<(u64, bool)>,
    of_products: Option<(u64, bool)>,
    scratch: u64,
) -> Vec<Launch> {
    assert!(scenarios <= MOST, "scenario_sums: {scenarios} scenarios");
    assert!(x.is_some() || of_products.is_none(), "scenario_sums: products of nothing");
    if (of_dy, of_products) == (None, None) {
        return Vec::new();
    }
    let x = x.unwrap_or(DeviceMat { address: 0, ..dy });
    share::assert_alike("scenario_sums", &[x, dy]);
    let (groups, chunks) = (scenarios as u32, chunks_of(scenarios, dy.rows, dy.cols));
    let arguments = Arguments::new().with_u64(scenario).with_mat(x).with_mat(dy).with_u32(across(dy.cols));
    let sums = sum(&SCENARIO, "scenario_sums", [chunks, groups], dy, arguments.with_u64(scratch));
    let arguments = Arguments::new().with_mat(dy).with_u32(chunks).with_u64(scratch);
    let arguments =
        arguments.with_bytes(&gradient_bytes(of_dy), 8).with_bytes(&gradient_bytes(of_products), 8);
    vec![sums, finish(&SCENARIO, "finish_scenario_sums", groups, dy, arguments)]
}

/// Blocks in which a thread takes the same four columns of all parts of a row.
fn by_parts(kernel: &str, rows: u32, width: u32) -> u32 {
    let quads = u64::from(rows) * u64::from(width.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{rows}, {width}] is too large");
    blocks(quads, THREADS)
}

/// What experts of domains, which are scenarios, and of tasks are fused by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Address of the scenario of each row.
    pub scenario: u64,
    /// Address of four f32 numbers, whose logistic functions are α of domains, α of tasks, β of domains, β of tasks.
    pub numbers: u64,
    /// Experts of domains.
    pub domains: u32,
    /// Experts of tasks, and states.
    pub tasks: u32,
}

impl Fusion {
    /// A `Fusion` of scenario.cu.
    fn to_bytes(self) -> Vec<u8> {
        let addresses = [self.scenario, self.numbers].into_iter().flat_map(u64::to_le_bytes);
        addresses.chain([self.domains, self.tasks].into_iter().flat_map(u32::to_le_bytes)).collect()
    }

    fn arguments(self) -> Arguments {
        Arguments::new().with_bytes(&self.to_bytes(), 8)
    }

    /// Columns of an expert; `domains` are as many as there are, `tasks` the states and the experts of tasks.
    fn width(self, kernel: &str, domains: DeviceMat, tasks: &[DeviceMat]) -> u32 {
        share::assert_alike(kernel, tasks);
        let (cols, rows) = (tasks[0].cols, tasks[0].rows);
        assert!(self.tasks > 0 && cols.is_multiple_of(self.tasks), "{kernel}: {cols} columns of tasks");
        let width = cols / self.tasks;
        assert_eq!(
            (domains.rows, domains.cols),
            (rows, self.domains * width),
            "{kernel}: experts of domains"
        );
        width
    }
}

/// `y_t = shared_t + α_d D + α_t T_t`, see the op `level_fusion`: `shared`, `tasks` and y `[rows, tasks · n]`, `domains`
/// `[rows, domains · n]`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn level_fusion(
    fusion: Fusion,
    shared: DeviceMat,
    domains: DeviceMat,
    tasks: DeviceMat,
    y: DeviceMat,
) -> Launch {
    let width = fusion.width("level_fusion", domains, &[y, shared, tasks]);
    let arguments = fusion.arguments().with_mat(shared).with_mat(domains).with_mat(tasks).with_mat(y);
    let grid = by_parts("level_fusion", y.rows, width);
    Launch::new(&SCENARIO, "level_fusion", grid, THREADS, arguments)
}

/// The gradients of what [`level_fusion`] fuses: of `shared`, of the experts of domains and of those of tasks. Each is written,
/// or added where the bool says so; no launch where none is asked for. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn level_fusion_backward(
    fusion: Fusion,
    dy: DeviceMat,
    d_shared: Target,
    d_domains: Target,
    d_tasks: Target,
) -> Option<Launch> {
    d_shared.or(d_domains).or(d_tasks)?;
    let none = |cols: u32| (DeviceMat { address: 0, cols, ..dy }, false);
    let of_domains = fusion.domains * (dy.cols / fusion.tasks.max(1));
    let (d_shared, d_tasks) = (d_shared.unwrap_or(none(dy.cols)), d_tasks.unwrap_or(none(dy.cols)));
    let d_domains = d_domains.unwrap_or(none(of_domains));
    let width = fusion.width("level_fusion_backward", d_domains.0, &[dy, d_shared.0, d_tasks.0]);
    let arguments = [d_shared, d_domains, d_tasks].into_iter().fold(
        fusion.arguments().with_mat(dy),
        |arguments, (to, accumulate)| {
            let bytes = [&to.to_bytes()[..], &u64::from(accumulate).to_le_bytes()].concat();
            arguments.with_bytes(&bytes, 8)
        },
    );
    let grid = by_parts("level_fusion_backward", dy.rows, width);
    Some(Launch::new(&SCENARIO, "level_fusion_backward", grid, THREADS, arguments))
}

/// Bytes of scratch that [`level_fusion_dnumbers`] works in.
pub fn level_fusion_scratch() -> u64 {
    8 * 4 * u64::from(BLOCKS)
}

/// The gradient of the four numbers of [`level_fusion`], f32 at `d_numbers`, written or, with `accumulate`, added. `scratch`
/// is the address of [`level_fusion_scratch`] bytes, a multiple of 8. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn level_fusion_dnumbers(
    fusion: Fusion,
    domains: DeviceMat,
    tasks: DeviceMat,
    dy: DeviceMat,
    d_numbers: u64,
    accumulate: bool,
    scratch: u64,
) -> [Launch; 2] {
    let width = fusion.width("level_fusion_products", domains, &[dy, tasks]);
    let count = by_parts("level_fusion_products", dy.rows, width).clamp(1, BLOCKS);
    let arguments = fusion.arguments().with_mat(domains).with_mat(tasks).with_mat(dy).with_u64(scratch);
    let products = Launch::new(&SCENARIO, "level_fusion_products", count, THREADS, arguments);
    let arguments = fusion.arguments().with_u64(scratch).with_u32(count);
    let arguments = arguments.with_bytes(&gradient_bytes(Some((d_numbers, accumulate))), 8);
    [products, Launch::new(&SCENARIO, "finish_level_fusion", 1, THREADS, arguments)]
}

/// Attention to the other scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Address of the scenario of each row.
    pub scenario: u64,
    /// Whether weights are over all scenarios, of which the own one is left out afterwards, and not over the others alone.
    pub drops: bool,
}

/// `y = [S_i ; Σ_{m≠i} g_m S_m]`, i the row's scenario, g the softmax of row i of `logits` `[scenarios, scenarios]`, see the op
/// `scenario_attention`: `groups` `[rows, scenarios · n]`, y `[rows, 2n]`; `weights`, f32 `[rows, scenarios]`, become g. The
/// rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn scenario_attention(
    attention: Attention,
    logits: DeviceMat,
    groups: DeviceMat,
    weights: DeviceMat,
    y: DeviceMat,
) -> Launch {
    let width = assert_attention("scenario_attention", groups, weights, y);
    assert_eq!((logits.rows, logits.cols), (weights.cols, weights.cols), "scenario_attention: logits");
    let arguments = Arguments::new().with_u64(attention.scenario).with_u32(attention.drops.into());
    let arguments = arguments.with_mat(logits).with_mat(groups).with_mat(weights).with_mat(y);
    let grid = by_parts("scenario_attention", y.rows, width);
    Launch::new(&SCENARIO, "scenario_attention", grid, THREADS, arguments)
}

/// What each row adds to the gradient of the logits of its scenario: `g_m (dg_m − Σ g dg)`, `dg_m = S_m · e`, e the second half
/// of `dy`; to `slopes`, f32 `[rows, scenarios]`. The rows that are there are those of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn scenario_attention_slopes(
    scenario: u64,
    groups: DeviceMat,
    weights: DeviceMat,
    dy: DeviceMat,
    slopes: DeviceMat,
) -> Launch {
    let width = assert_attention("scenario_attention_slopes", groups, weights, dy);
    share::assert_alike("scenario_attention_slopes", &[weights, slopes]);
    assert_eq!(slopes.element, Element::F32, "scenario_attention_slopes: slopes of f32");
    let segment = width.div_ceil(4).next_power_of_two().clamp(1, WARP);
    let threads = u64::from(dy.rows) * u64::from(segment);
    assert!(threads <= u64::from(u32::MAX / 2), "scenario_attention_slopes: {} rows are too many", dy.rows);
    let arguments = Arguments::new().with_u32(segment).with_u64(scenario).with_mat(groups);
    let arguments = arguments.with_mat(weights).with_mat(dy).with_mat(slopes);
    Launch::new(&SCENARIO, "scenario_attention_slopes", blocks(threads, THREADS), THREADS, arguments)
}

/// The gradient of `groups` of [`scenario_attention`], written or, with `accumulate`, added. The rows that are there are those
/// of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn scenario_attention_dgroups(
    scenario: u64,
    weights: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    dgroups: DeviceMat,
) -> Launch {
    let width = assert_attention("scenario_attention_dgroups", dgroups, weights, dy);
    let arguments = Arguments::new().with_u64(scenario).with_mat(weights).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dgroups);
    let grid = by_parts("scenario_attention_dgroups", dy.rows, width);
    Launch::new(&SCENARIO, "scenario_attention_dgroups", grid, THREADS, arguments)
}

/// Columns of a scenario's values.
fn assert_attention(kernel: &str, groups: DeviceMat, weights: DeviceMat, y: DeviceMat) -> u32 {
    let width = y.cols / 2;
    assert_eq!(
        (groups.rows, groups.cols),
        (y.rows, weights.cols * width),
        "{kernel}: values of all scenarios"
    );
    assert_eq!((weights.rows, y.cols), (y.rows, 2 * width), "{kernel}: two halves");
    assert_eq!(weights.element, Element::F32, "{kernel}: weights of f32");
    width
}
