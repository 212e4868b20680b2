//! Dropout, see `manygate_kernels::random`, and which experts a gate may weigh.

use crate::launch::{Arguments, Launch, blocks};
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

/// Which experts stay in each gate of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Experts of a gate.
    pub experts: u32,
    /// Those with so many of the largest logits, of equal ones the first.
    pub best: u32,
    /// Of these, those whose number is not below a threshold, unless that leaves none: the threshold, and the address of the
    /// key, two u32 values. [`None`] leaves all.
    pub dropping: Option<(u32, u64)>,
    /// The address of a u32 for each row, its number, or [`None`] where they count from 0.
    pub rows: Option<u64>,
}

/// `selected`, f32, is `logits`, both `[rows, gates · experts]`, with −∞ where an expert is left out; a logit that is not
/// finite stays. The rows that are there are those of `logits`.
///
/// # Panics
/// When the shapes differ, or do not divide into gates.
pub fn select_experts(selection: Selection, logits: DeviceMat, selected: DeviceMat) -> Launch {
    let Selection { experts, best, dropping, rows } = selection;
    share::assert_alike("select_experts", &[logits, selected]);
    assert!(experts > 0 && logits.cols.is_multiple_of(experts), "select_experts: {} logits", logits.cols);
    let gates = u64::from(logits.rows) * u64::from(logits.cols / experts);
    assert!(gates <= u64::from(u32::MAX / 2), "select_experts: {gates} gates are too many");
    let (threshold, key) = dropping.unwrap_or((0, 0));
    let arguments = Arguments::new().with_u64(key).with_u64(rows.unwrap_or(0)).with_u32(threshold);
    let arguments = arguments.with_u32(experts).with_u32(best).with_mat(logits).with_mat(selected);
    Launch::new(&RANDOM, "select_experts", blocks(gates, 256), 256, arguments)
}
