//! What rows have by their scenario, in whatever order they stand. Matrices with a row a sample hold f32 or bf16 each, those
//! with a row a scenario f32; `scenario` is the address of the scenario of each row, a u32.

use crate::column_sums::{across, chunks, finish, gradient_bytes, sum, sums_bytes};
use crate::launch::{Arguments, Launch};
use crate::module::SCENARIO;
use crate::share;
use crate::view::DeviceMat;

/// Most scenarios whose sums are taken at once: what a grid takes in its third direction.
pub const MOST: usize = 65535;

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
    sums_bytes(scenarios, rows, cols)
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
    let (across, groups) = (across(dy.cols), scenarios as u32);
    let arguments = Arguments::new().with_u64(scenario).with_mat(x).with_mat(dy).with_u32(across);
    let sums = sum(&SCENARIO, "scenario_sums", groups, dy, arguments.with_u64(scratch));
    let arguments = Arguments::new().with_mat(dy).with_u32(across).with_u32(chunks(dy.rows, dy.cols));
    let arguments = arguments.with_u64(scratch).with_bytes(&gradient_bytes(of_dy), 8);
    let arguments = arguments.with_bytes(&gradient_bytes(of_products), 8);
    vec![sums, finish(&SCENARIO, "finish_scenario_sums", groups, dy, arguments)]
}
