//! Interactions of fields that stand side by side in a row. Matrices hold f32 or bf16 each.

use crate::launch::{Arguments, Launch, blocks};
use crate::module::INTERACTION;
use crate::share;
use crate::view::{DeviceMat, Element};

/// Threads of a block.
const THREADS: u32 = 256;
const WARP: u32 = 32;
/// Most bytes of shared memory that a block has on every device.
const SHARED: u32 = 48 << 10;

/// `y = Σ_g e_g ⊙ Σ_{f<g} e_f`, of e `[rows, fields · n]`, y `[rows, n]`. The rows that are there are those of `e`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn bi_interaction(fields: u32, e: DeviceMat, y: DeviceMat) -> Launch {
    assert_fields("bi_interaction", fields, e, y);
    by_quads("bi_interaction", y, Arguments::new().with_u32(fields).with_mat(e).with_mat(y))
}

/// The gradient of [`bi_interaction`], `de_f = dy ⊙ (Σ_g e_g − e_f)`, written or, with `accumulate`, added.
///
/// # Panics
/// When the shapes do not fit together.
pub fn bi_interaction_de(
    fields: u32,
    e: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    de: DeviceMat,
) -> Launch {
    assert_fields("bi_interaction_de", fields, e, dy);
    share::assert_alike("bi_interaction_de", &[e, de]);
    let arguments = Arguments::new().with_u32(fields).with_mat(e).with_mat(dy);
    by_quads("bi_interaction_de", dy, arguments.with_u32(accumulate.into()).with_mat(de))
}

/// `y` `[rows, 1]`, f32 = the sum of the columns of `x`, or, with `accumulate`, y + it. The rows that are there are those
/// of `x`.
///
/// # Panics
/// When `y` is not one column of f32 with as many rows.
pub fn sum_columns(x: DeviceMat, accumulate: bool, y: DeviceMat) -> Launch {
    assert_column("sum_columns", x, y);
    let segment = x.cols.div_ceil(4).next_power_of_two().clamp(1, WARP);
    let threads = u64::from(x.rows) * u64::from(segment);
    assert!(threads <= u64::from(u32::MAX / 2), "sum_columns: [{}, {}] is too large", x.rows, x.cols);
    let arguments = Arguments::new().with_u32(segment).with_mat(x).with_u32(accumulate.into()).with_mat(y);
    Launch::new(&INTERACTION, "sum_columns", blocks(threads, THREADS), THREADS, arguments)
}

/// The gradient of [`sum_columns`]: each column of `dx` = `dy` `[rows, 1]`, f32, or, with `accumulate`, dx + it. The rows
/// that are there are those of `dx`.
///
/// # Panics
/// When `dy` is not one column of f32 with as many rows.
pub fn sum_columns_dx(dy: DeviceMat, accumulate: bool, dx: DeviceMat) -> Launch {
    assert_column("sum_columns_dx", dx, dy);
    let arguments = Arguments::new().with_mat(dy).with_u32(accumulate.into()).with_mat(dx);
    by_quads("sum_columns_dx", dx, arguments)
}

/// `y = (e_f · e_g for f < g)`, of e `[rows, fields · n]`, y `[rows, fields (fields − 1) / 2]`. The rows that are there are
/// those of `e`.
///
/// # Panics
/// When the shapes do not fit together, or a row does not fit shared memory: 12,288 values with one more for each field.
pub fn pair_products(e: DeviceMat, fields: u32, y: DeviceMat) -> Launch {
    let values = row_values("pair_products", e, fields, y, 0);
    let arguments = Arguments::new().with_u32(fields).with_u32(values).with_mat(e).with_mat(y);
    by_rows("pair_products", e.rows, values, arguments)
}

/// The gradient of [`pair_products`]: `de_f = Σ_g dy_fg e_g` over the other fields g, written or, with `accumulate`, added.
///
/// # Panics
/// When the shapes do not fit together, or a row does not fit shared memory with its gradient.
pub fn pair_products_de(e: DeviceMat, fields: u32, dy: DeviceMat, accumulate: bool, de: DeviceMat) -> Launch {
    share::assert_alike("pair_products_de", &[e, de]);
    let values = row_values("pair_products_de", e, fields, dy, dy.cols);
    let arguments = Arguments::new().with_u32(fields).with_u32(values).with_mat(e).with_mat(dy);
    by_rows("pair_products_de", e.rows, values, arguments.with_u32(accumulate.into()).with_mat(de))
}

fn assert_fields(kernel: &str, fields: u32, e: DeviceMat, y: DeviceMat) {
    assert_eq!(
        (e.rows, e.cols),
        (y.rows, fields * y.cols),
        "{kernel}: not {fields} fields of the width of y"
    );
}

fn assert_column(kernel: &str, x: DeviceMat, y: DeviceMat) {
    assert_eq!((y.rows, y.cols, y.element), (x.rows, 1, Element::F32), "{kernel}: not one f32 a row");
}

/// Values of shared memory that a row takes, with `more` behind its fields.
/// Whether a row of fields in `cols` columns, and the gradients of their pairs, fit what a warp can have of shared memory:
/// [`pair_products`] and [`pair_products_de`] take no others.
pub fn pair_products_fit(fields: u32, cols: u32) -> bool {
    let (fields, cols) = (u64::from(fields), u64::from(cols));
    let values = fields * ((cols / fields.max(1)) | 1) + fields * fields.saturating_sub(1) / 2;
    4 * values <= SHARED.into()
}

fn row_values(kernel: &str, e: DeviceMat, fields: u32, pairs: DeviceMat, more: u32) -> u32 {
    assert!(fields > 1 && e.cols.is_multiple_of(fields), "{kernel}: {} columns, {fields} fields", e.cols);
    let shape = (e.rows, fields * (fields - 1) / 2);
    assert_eq!((pairs.rows, pairs.cols), shape, "{kernel}: pairs of another shape");
    // Fields lie an odd number of values apart.
    fields * ((e.cols / fields) | 1) + more
}

/// A launch in which a thread takes four columns of a row of `mat`.
fn by_quads(kernel: &'static str, mat: DeviceMat, arguments: Arguments) -> Launch {
    let quads = u64::from(mat.rows) * u64::from(mat.cols.div_ceil(4));
    assert!(quads <= u64::from(u32::MAX / 2), "{kernel}: [{}, {}] is too large", mat.rows, mat.cols);
    Launch::new(&INTERACTION, kernel, blocks(quads, THREADS), THREADS, arguments)
}

/// A launch in which a warp takes a row, with `values` f32 of shared memory.
fn by_rows(kernel: &'static str, rows: u32, values: u32, arguments: Arguments) -> Launch {
    let at_once = (SHARED / (4 * values).max(1)).min(THREADS / WARP);
    assert!(at_once > 0, "{kernel}: {values} values a row are too many");
    let blocks = blocks(rows.into(), at_once);
    Launch {
        shared: at_once * 4 * values,
        ..Launch::new(&INTERACTION, kernel, blocks, at_once * WARP, arguments)
    }
}
