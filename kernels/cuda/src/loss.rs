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
    summing("bce_with_logits", logits.rows, arguments, loss)
}

/// Most events of [`bce_of_product`].
pub const MOST_EVENTS: usize = 8;

/// One of the events in a row of [`bce_of_product`].
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The logit of its probability given the event before, `[rows, 1]`, f32.
    pub logits: DeviceMat,
    /// Address of its labels, an f32 a row.
    pub labels: u64,
    /// Where the gradient goes, and whether it is added to what is there.
    pub gradient: Option<(DeviceMat, bool)>,
}

/// Sum of the binary cross-entropies of the products of the events' probabilities, and the gradients at their logits.
///
/// `scale` is the address of the factor of the gradients; the sum is added to `loss`, as that of [`bce_with_logits`]. A
/// row's label is the product of the events'. The rows that are there are those of the first logits.
///
/// # Panics
/// When there is no event, there are more than [`MOST_EVENTS`], or logits and gradients are not one column of f32 each,
/// of as many rows.
pub fn bce_of_product(events: &[Event], scale: u64, loss: Option<LossSum>) -> Vec<Launch> {
    assert!((1..=MOST_EVENTS).contains(&events.len()), "bce_of_product: {} events", events.len());
    let rows = events[0].logits.rows;
    let none = Event { logits: DeviceMat::new(0, rows, 1), labels: 0, gradient: None };
    let (mut logits, mut gradients, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut accumulates = 0;
    for (i, event) in events.iter().copied().chain(std::iter::repeat(none)).take(MOST_EVENTS).enumerate() {
        let (gradient, accumulate) = event.gradient.unwrap_or((none.logits, false));
        for mat in [event.logits, gradient] {
            let is_column = (mat.rows, mat.cols, mat.element) == (rows, 1, Element::F32);
            assert!(is_column, "bce_of_product: logits or gradients are not one column of {rows} f32");
        }
        logits.extend(event.logits.to_bytes());
        gradients.extend(gradient.to_bytes());
        labels.extend(event.labels.to_le_bytes());
        accumulates |= u32::from(accumulate) << i;
    }
    let arguments = Arguments::new().with_bytes(&[logits, gradients, labels].concat(), 8);
    let arguments = arguments.with_u32(events.len() as u32).with_u64(scale).with_u32(accumulates);
    summing("bce_of_product", rows, arguments, loss)
}

/// A launch over `rows` rows, whose last argument is where its blocks leave their sums, and what adds those up.
fn summing(kernel: &'static str, rows: u32, arguments: Arguments, loss: Option<LossSum>) -> Vec<Launch> {
    let partials = blocks(rows.into(), THREADS);
    let arguments = arguments.with_u64(loss.map_or(0, |loss| loss.partials));
    let over_rows = Launch::new(&LOSS, kernel, partials, THREADS, arguments);
    let sum = loss.filter(|_| partials > 0).map(|loss| add_partials(loss.partials, partials, loss.sum));
    [over_rows].into_iter().chain(sum).collect()
}

/// Adds the sum of `count` f64 values at `partials` to the one at `sum`.
pub(crate) fn add_partials(partials: u64, count: u32, sum: u64) -> Launch {
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
