//! What is made of each row by itself. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::loss::{LossSum, add_partials};
use crate::module::ROW;
use crate::share;
use crate::view::DeviceMat;

/// Threads of a block.
const THREADS: u32 = 256;
const WARP: u32 = 32;

/// `q = softmax(z)`, row by row, `[rows, n]` both. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes differ.
pub fn softmax(z: DeviceMat, q: DeviceMat) -> Launch {
    share::assert_alike("softmax", &[z, q]);
    by_rows("softmax", z, |arguments| arguments.with_mat(z).with_mat(q))
}

/// The gradient of [`softmax`], `dz = q ⊙ (dq − q · dq)`, written or, with `accumulate`, added. The rows that are there are
/// those of `q`.
///
/// # Panics
/// When the shapes differ.
pub fn softmax_dz(q: DeviceMat, dq: DeviceMat, accumulate: bool, dz: DeviceMat) -> Launch {
    share::assert_alike("softmax_dz", &[q, dq, dz]);
    by_rows("softmax_dz", q, |arguments| {
        arguments.with_mat(q).with_mat(dq).with_u32(accumulate.into()).with_mat(dz)
    })
}

/// `y = x / max(|x|, floor)`, row by row, `[rows, n]` both. The rows that are there are those of `x`.
///
/// # Panics
/// When the shapes differ.
pub fn row_normalise(floor: f32, x: DeviceMat, y: DeviceMat) -> Launch {
    share::assert_alike("row_normalise", &[x, y]);
    by_rows("row_normalise", x, |arguments| arguments.with_f32(floor).with_mat(x).with_mat(y))
}

/// The gradient of [`row_normalise`], `dx = (dy − y (y · dy)) / |x|`, or `dy / floor` for a row that is shorter, written or,
/// with `accumulate`, added. The rows that are there are those of `x`.
///
/// # Panics
/// When the shapes differ.
pub fn row_normalise_dx(
    floor: f32,
    x: DeviceMat,
    y: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    dx: DeviceMat,
) -> Launch {
    share::assert_alike("row_normalise_dx", &[x, y, dy, dx]);
    by_rows("row_normalise_dx", x, |arguments| {
        let arguments = arguments.with_f32(floor).with_mat(x).with_mat(y).with_mat(dy);
        arguments.with_u32(accumulate.into()).with_mat(dx)
    })
}

/// Bytes of the partial sums of a loss over `rows` rows of `cols` columns: what [`cross_entropy`] and [`mean_square`] need.
pub fn partials_bytes(rows: u32, cols: u32) -> u64 {
    8 * u64::from(blocks_of("partials", rows, cols))
}

/// Sum of the cross-entropies `ln Σ e^z − z_s` of the class `s` of each row, and the gradient, `scale (softmax(z) − onehot(s))`.
///
/// `ids` is the address of the classes, a u32 a row below the columns of `z`, `scale` that of a single f32. The sum is added
/// to `loss`, whose partial sums take [`partials_bytes`]; the gradient is written to `dz`, or added to it where the bool says
/// so. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes differ.
pub fn cross_entropy(
    z: DeviceMat,
    ids: u64,
    scale: u64,
    dz: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let (dz, accumulate) = dz.unwrap_or((DeviceMat { address: 0, ..z }, false));
    share::assert_alike("cross_entropy", &[z, dz]);
    let launch = by_rows("cross_entropy", z, |arguments| {
        let arguments = arguments.with_mat(z).with_u64(ids).with_u64(scale);
        arguments.with_u32(accumulate.into()).with_mat(dz).with_u64(loss.map_or(0, |loss| loss.partials))
    });
    summing(launch, loss)
}

/// Sum of the squares of `x` `[rows, 1]`, and the gradient, `2 scale x`: as [`cross_entropy`].
///
/// # Panics
/// When `x` or the gradient are not one column, or differ in rows.
pub fn mean_square(
    x: DeviceMat,
    scale: u64,
    dx: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let (dx, accumulate) = dx.unwrap_or((DeviceMat { address: 0, ..x }, false));
    assert_columns("mean_square", &[x, dx]);
    let arguments = Arguments::new().with_mat(x).with_u64(scale).with_u32(accumulate.into()).with_mat(dx);
    summing(by_values("mean_square", x, arguments.with_u64(loss.map_or(0, |loss| loss.partials))), loss)
}

/// `y = (σ(z) − label) / B` of logits `[rows, 1]`, B the rows that are there, which are those of `z`; `labels` is the address
/// of an f32 a row.
///
/// # Panics
/// When `z` or `y` are not one column, or differ in rows.
pub fn bce_residual(z: DeviceMat, labels: u64, y: DeviceMat) -> Launch {
    assert_columns("bce_residual", &[z, y]);
    by_values("bce_residual", z, Arguments::new().with_mat(z).with_u64(labels).with_mat(y))
}

/// The gradient of [`bce_residual`], `dz = dy σ(z) (1 − σ(z)) / B`, written or, with `accumulate`, added.
///
/// # Panics
/// When they are not one column each, or differ in rows.
pub fn bce_residual_dz(z: DeviceMat, dy: DeviceMat, accumulate: bool, dz: DeviceMat) -> Launch {
    assert_columns("bce_residual_dz", &[z, dy, dz]);
    let arguments = Arguments::new().with_mat(z).with_mat(dy).with_u32(accumulate.into()).with_mat(dz);
    by_values("bce_residual_dz", z, arguments)
}

/// The logit of a product of probabilities, `σ(z) = σ(a) σ(b)`, of logits a `[rows, 1]` and each column of b, `[rows, n]` as
/// z. The rows that are there are those of `b`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn product_logit(a: DeviceMat, b: DeviceMat, z: DeviceMat) -> Launch {
    share::assert_alike("product_logit", &[b, z]);
    assert_eq!((a.rows, a.cols), (b.rows, 1), "product_logit: one logit for each row");
    let values = blocks(u64::from(b.rows) * u64::from(b.cols), THREADS);
    let arguments = Arguments::new().with_mat(a).with_mat(b).with_mat(z);
    Launch::new(&ROW, "product_logit", values, THREADS, arguments)
}

/// The gradients of [`product_logit`], with `r = 1 − σ(a) σ(b)`: `da = Σ dz σ(−a) / r`, `db = dz σ(−b) / r`, each written, or
/// added where the bool says so. The rows that are there are those of `b`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn product_logit_backward(
    a: DeviceMat,
    b: DeviceMat,
    dz: DeviceMat,
    da: Option<(DeviceMat, bool)>,
    db: Option<(DeviceMat, bool)>,
) -> Launch {
    let (da, add_a) = da.unwrap_or((DeviceMat { address: 0, ..a }, false));
    let (db, add_b) = db.unwrap_or((DeviceMat { address: 0, ..b }, false));
    share::assert_alike("product_logit_backward", &[b, dz, db]);
    share::assert_alike("product_logit_backward", &[a, da]);
    assert_eq!((a.rows, a.cols), (b.rows, 1), "product_logit_backward: one logit for each row");
    let arguments = Arguments::new().with_mat(a).with_mat(b).with_mat(dz);
    let arguments = arguments.with_u32(u32::from(add_a) | u32::from(add_b) << 1).with_mat(da).with_mat(db);
    by_values("product_logit_backward", b, arguments)
}

fn assert_columns(kernel: &str, mats: &[DeviceMat]) {
    share::assert_alike(kernel, mats);
    assert_eq!(mats[0].cols, 1, "{kernel}: one column is needed");
}

/// Lanes that take a row, a power of two: each four columns at a time.
fn segment(cols: u32) -> u32 {
    cols.div_ceil(4).next_power_of_two().clamp(1, WARP)
}

fn blocks_of(kernel: &str, rows: u32, cols: u32) -> u32 {
    let threads = u64::from(rows) * u64::from(segment(cols));
    assert!(threads <= u64::from(u32::MAX / 2), "{kernel}: [{rows}, {cols}] is too large");
    blocks(threads, THREADS)
}

/// A launch in which a segment of lanes takes a row of `mat`.
fn by_rows(kernel: &'static str, mat: DeviceMat, with_more: impl FnOnce(Arguments) -> Arguments) -> Launch {
    let arguments = with_more(Arguments::new().with_u32(segment(mat.cols)));
    Launch::new(&ROW, kernel, blocks_of(kernel, mat.rows, mat.cols), THREADS, arguments)
}

/// A launch in which a thread takes a row of `mat`.
fn by_values(kernel: &'static str, mat: DeviceMat, arguments: Arguments) -> Launch {
    Launch::new(&ROW, kernel, blocks(mat.rows.into(), THREADS), THREADS, arguments)
}

/// With what adds the partial sums up that the blocks of `launch` leave.
fn summing(launch: Launch, loss: Option<LossSum>) -> Vec<Launch> {
    let partials = launch.grid[0];
    let sum = loss.filter(|_| partials > 0).map(|loss| add_partials(loss.partials, partials, None, loss.sum));
    [launch].into_iter().chain(sum).collect()
}
