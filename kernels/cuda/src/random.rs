//! Dropout, see `manygate_kernels::random`.

use crate::launch::{Arguments, Launch};
use crate::module::RANDOM;
use crate::share;
use crate::view::DeviceMat;
use manygate_kernels::random::Dropping;

/// `y = x ⊙ m`, or `y += x ⊙ m` with `accumulate`: m is 0 where a value is dropped, and the factor elsewhere.
///
/// As `manygate_kernels::random::dropout`, to the bit where values are f32. `key` is the address of two u32 values, of
/// a key that changes from step to step; `rows` is that of a u32 for each row, its number, or [`None`] where they count
/// from `first_row`. The rows that are there are those of `y`, which may be `x`.
///
/// # Panics
/// When the shapes differ.
pub fn dropout(
    key: u64,
    first_row: u64,
    rows: Option<u64>,
    dropping: Dropping,
    accumulate: bool,
    x: DeviceMat,
    y: DeviceMat,
) -> Launch {
    share::assert_alike("dropout", &[x, y]);
    let arguments = Arguments::new().with_u64(key).with_u64(first_row).with_u64(rows.unwrap_or(0));
    let arguments = arguments.with_u32(dropping.threshold).with_f32(dropping.factor);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(x).with_mat(y);
    share::launch(&RANDOM, "dropout", y, arguments)
}
