//! Losses, see `manygate_kernels::loss`, and what is made of them.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::LOSS;
use crate::view::{DeviceMat, Element};
use manygate_kernels::activation::Activation;

/// Rows of a block of [`bce_with_logits`], and partial sums that are added up side by side.
const THREADS: u32 = 256;

/// Where a loss is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossSum {
    /// Address of an f64 that the sum of the losses is added to.
    pub sum: u64,
    /// Address of [`partials_of`] f64 values to work in.
    pub partials: u64,
}

/// Number of partial sums of a loss over `rows` rows.
pub fn partials_of(rows: u32) -> u32 {
    rows.div_ceil(THREADS)
}

/// Sum of the binary cross-entropies of `logits` `[rows, 1]`, f32, and its gradient.
///
/// As `manygate_kernels::loss::bce_with_logits`; `labels` and `counted` are addresses of f32 values, one a row, `scale`
/// is that of a single one. The sum is added to `loss`; its order depends on the data and the most rows alone. The
/// gradient is written to `d_logits`, or added to it where the bool says so. The rows that are there are those of
/// `logits`.
///
/// # Panics
/// When `logits` or the gradient are not one column of f32, or differ in rows.
pub fn bce_with_logits(
    logits: DeviceMat,
    labels: u64,
    counted: Option<u64>,
    scale: u64,
    d_logits: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let is_column = |mat: DeviceMat| (mat.rows, mat.cols, mat.element) == (logits.rows, 1, Element::F32);
    assert!(is_column(logits), "bce_with_logits: the logits are not one column of f32");
    assert!(d_logits.is_none_or(|(d, _)| is_column(d)), "bce_with_logits: the gradient has another shape");
    let (d_logits, accumulate) = d_logits.unwrap_or((DeviceMat { address: 0, ..logits }, false));
    let arguments =
        Arguments::new().with_mat(logits).with_u64(labels).with_u64(counted.unwrap_or(0)).with_u64(scale);
    let arguments = arguments.with_u32(accumulate.into()).with_mat(d_logits);
    let arguments = arguments.with_u64(loss.map_or(0, |loss| loss.partials));
    let partials = blocks(logits.rows.into(), THREADS);
    let rows = Launch::new(&LOSS, "bce_with_logits", partials, THREADS, arguments);
    let sum = loss.filter(|_| partials > 0).map(|loss| add_partials(loss.partials, partials, loss.sum));
    [rows].into_iter().chain(sum).collect()
}

/// Adds the sum of `count` f64 values at `partials` to the one at `sum`.
fn add_partials(partials: u64, count: u32, sum: u64) -> Launch {
    let arguments = Arguments::new().with_u64(partials).with_u32(count).with_u64(sum);
    Launch::new(&LOSS, "add_partials", 1, THREADS, arguments)
}

/// Writes `1 / (1 + e^-z)` of every logit to `out`.
///
/// # Panics
/// When the shapes differ.
pub fn sigmoid(logits: DeviceMat, out: DeviceMat) -> Launch {
    activation::activate_to(Activation::Sigmoid, logits, out)
}

/// The mean of each of `parts` parts of a loss, f64 at `means`, and at `go_on` a u32: it becomes 0 where one of them is not
/// finite, and stays 0 from then on, also for launches that were queued before the host looks. With a 0 there [`optimise`](crate::optim::optimise) moves nothing.
///
/// A part is the sum of `sums[i] / divisors[i]`, both f64, over i from `begins[part]` to below `begins[part + 1]`
/// (`begins` is the address of `parts + 1` u32 values), or where `begins` is [`None`] of i = part alone.
pub fn losses_finite(
    sums: u64,
    divisors: u64,
    begins: Option<u64>,
    parts: u32,
    means: u64,
    go_on: u64,
) -> Launch {
    let arguments = Arguments::new().with_u64(sums).with_u64(divisors).with_u64(begins.unwrap_or(0));
    let arguments = arguments.with_u32(parts).with_u64(means).with_u64(go_on);
    Launch::new(&LOSS, "losses_finite", 1, 32, arguments)
}
