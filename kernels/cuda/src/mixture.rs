//! Mixtures of the experts of cross layers, see the ops `gate_groups` and `hard_tanh`. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::MIXTURE;
use crate::share;
use crate::view::DeviceMat;

/// Threads of a block.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// `y = [g_1 z_1 … g_K z_K ; Σ_k g_k]`, z `[rows, K · n]` in `groups` parts, gates g `[rows, K]`, all 1 where there are none,
/// y `[rows, K · n + 1]`. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn gate_groups(groups: u32, z: DeviceMat, gates: Option<DeviceMat>, y: DeviceMat) -> Launch {
    assert_fit("gate_groups", groups, z, gates, y);
    let arguments = Arguments::new().with_u32(groups).with_mat(z).with_mat(or_none(gates)).with_mat(y);
    by_quads("gate_groups", y, arguments)
}

/// The gradient of [`gate_groups`] at z, `dz_k = g_k dy_k`, written or, with `accumulate`, added. The rows that are there are
/// those of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn gate_groups_dz(
    groups: u32,
    gates: Option<DeviceMat>,
    dy: DeviceMat,
    accumulate: bool,
    dz: DeviceMat,
) -> Launch {
    assert_fit("gate_groups_dz", groups, dz, gates, dy);
    let arguments = Arguments::new().with_u32(groups).with_mat(or_none(gates)).with_mat(dy);
    by_quads("gate_groups_dz", dz, arguments.with_u32(accumulate.into()).with_mat(dz))
}

/// And at its gates, `dg_k = z_k · dy_k + dy_last`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn gate_groups_dg(z: DeviceMat, dy: DeviceMat, accumulate: bool, dg: DeviceMat) -> Launch {
    assert_fit("gate_groups_dg", dg.cols, z, Some(dg), dy);
    let segment = (z.cols / dg.cols).next_power_of_two().clamp(1, WARP);
    let threads = u64::from(z.rows) * u64::from(segment);
    let arguments = Arguments::new().with_u32(segment).with_mat(z).with_mat(dy);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(dg);
    Launch::new(&MIXTURE, "gate_groups_dg", blocks(threads, THREADS), THREADS, arguments)
}

/// `y = min(max(x, −1), 1)`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes differ.
pub fn hard_tanh(x: DeviceMat, y: DeviceMat) -> Launch {
    share::assert_alike("hard_tanh", &[x, y]);
    share::launch(&MIXTURE, "hard_tanh", y, Arguments::new().with_mat(x).with_mat(y))
}

/// The gradient of [`hard_tanh`], `dx = dy` where −1 < y < 1, else 0, written or, with `accumulate`, added. The rows that are
/// there are those of `dx`.
///
/// # Panics
/// When the shapes differ.
pub fn hard_tanh_dx(y: DeviceMat, dy: DeviceMat, accumulate: bool, dx: DeviceMat) -> Launch {
    share::assert_alike("hard_tanh_dx", &[y, dy, dx]);
    let arguments = Arguments::new().with_mat(y).with_mat(dy).with_u32(accumulate.into()).with_mat(dx);
    share::launch(&MIXTURE, "hard_tanh_dx", dx, arguments)
}

fn or_none(gates: Option<DeviceMat>) -> DeviceMat {
    gates.unwrap_or(DeviceMat::new(0, 0, 0))
}

fn assert_fit(kernel: &str, groups: u32, z: DeviceMat, gates: Option<DeviceMat>, y: DeviceMat) {
    assert!(groups > 0 && z.cols.is_multiple_of(groups), "{kernel}: {} columns, {groups} groups", z.cols);
    assert_eq!((y.rows, y.cols), (z.rows, z.cols + 1), "{kernel}: all groups and a sum");
    let shape = gates.map(|gates| (gates.rows, gates.cols));
    assert!(shape.is_none_or(|shape| shape == (z.rows, groups)), "{kernel}: gates {shape:?}");
}

/// A launch in which a thread takes four columns of a row of `mat`.
fn by_quads(kernel: &'static str, mat: DeviceMat, arguments: Arguments) -> Launch {
    let quads = u64::from(mat.rows) * u64::from(mat.cols.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", mat.rows, mat.cols);
    Launch::new(&MIXTURE, kernel, blocks(quads, THREADS), THREADS, arguments)
}
