//! Gates over a bank of experts, forward and backward, see `manygate_kernels::gate`. Matrices hold f32 or bf16 each;
//! the rows that are there are those of the bank.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::GATE;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;

/// Threads of a warp, which takes a row.
const WARP: u32 = 32;

/// Most rows that a block takes.
const MOST_ROWS: u32 = 8;

/// Bytes of shared memory that a block has on every device.
const SHARED: u32 = 48 << 10;

/// Experts in the bank and the width of each, of a gate product whose operands fit together.
fn bank_shape(gates: u32, logit_cols: u32, expert_cols: u32, mixed_cols: u32) -> (u32, u32) {
    assert!(gates >= 1, "gate: no gates");
    assert!(
        logit_cols.is_multiple_of(gates) && mixed_cols.is_multiple_of(gates),
        "gate: {logit_cols} logits and {mixed_cols} mixed values are not a multiple of {gates} gates"
    );
    let (experts, width) = (logit_cols / gates, mixed_cols / gates);
    assert_eq!(expert_cols, experts * width, "gate: the bank is not {experts} experts of width {width}");
    (experts, width)
}

/// Weighs and mixes the experts of a bank, for every gate over it.
///
/// With `T = gates` and `E` experts of width `d`: `weights` `[rows, T * E]` becomes the softmax over each gate's `E`
/// values of `logits` `[rows, T * E]`, and `mixed` `[rows, T * d]` the sums `sum_e weights[t, e] * expert_e` of the
/// bank `experts` `[rows, E * d]`.
///
/// # Panics
/// When `gates` is 0, the shapes do not fit together, or there are more than 12288 logits.
pub fn gate_combine(
    gates: u32,
    logits: DeviceMat,
    experts: DeviceMat,
    weights: DeviceMat,
    mixed: DeviceMat,
) -> Launch {
    let (count, _) = bank_shape(gates, logits.cols, experts.cols, mixed.cols);
    assert_rows(experts, &[logits, weights, mixed]);
    assert_eq!(weights.cols, logits.cols, "gate: weights and logits differ in width");
    let arguments =
        Arguments::new().with_u32(gates).with_u32(segment(count)).with_mat(logits).with_mat(experts);
    launch("gate_combine", experts.rows, logits.cols, arguments.with_mat(weights).with_mat(mixed))
}

/// Gradients of [`gate_combine`] with respect to the logits and the experts.
///
/// `weights` are its output and `d_mixed` `[rows, T * d]` the gradient at `mixed`. With `dw[t, e] = d_mixed_t .
/// expert_e`: `d_logits[t, e] = w (dw[t, e] - sum_e w dw)` and `d_expert_e = sum_t w[t, e] d_mixed_t`. Each of the two
/// is added to what is there where its flag says so, else written. Then, with `activation`, that of the experts is
/// multiplied by the derivative of the activation whose output they are.
///
/// # Panics
/// When `gates` is 0, the shapes do not fit together, or there are more than 6144 logits.
pub fn gate_combine_dx(
    gates: u32,
    weights: DeviceMat,
    experts: DeviceMat,
    d_mixed: DeviceMat,
    accumulate_logits: bool,
    d_logits: DeviceMat,
    accumulate_experts: bool,
    activation: Option<Activation>,
    d_experts: DeviceMat,
) -> Launch {
    let (count, _) = bank_shape(gates, weights.cols, experts.cols, d_mixed.cols);
    assert_rows(experts, &[weights, d_mixed, d_logits, d_experts]);
    assert_eq!(d_logits.cols, weights.cols, "gate: d_logits and weights differ");
    assert_eq!(d_experts.cols, experts.cols, "gate: d_experts and experts differ");
    let arguments =
        Arguments::new().with_u32(gates).with_u32(segment(count)).with_mat(weights).with_mat(experts);
    let arguments = arguments.with_mat(d_mixed).with_u32(accumulate_logits.into()).with_mat(d_logits);
    let activation = activation::to_bytes(activation.unwrap_or(Activation::Identity));
    let arguments = arguments.with_u32(accumulate_experts.into()).with_bytes(&activation, 4);
    let arguments = arguments.with_mat(d_experts);
    // Without experts there is nothing to write.
    let rows = if count == 0 { 0 } else { experts.rows };
    launch("gate_combine_dx", rows, 2 * weights.cols, arguments)
}

fn assert_rows(bank: DeviceMat, others: &[DeviceMat]) {
    assert!(others.iter().all(|other| other.rows == bank.rows), "gate: rows differ");
}

/// Lanes that hold a gate's logits: a power of two, so that several gates are in a warp.
fn segment(experts: u32) -> u32 {
    experts.next_power_of_two().min(WARP)
}

/// A launch on `rows` rows, for each of which `values` f32 lie in shared memory.
fn launch(kernel: &'static str, rows: u32, values: u32, arguments: Arguments) -> Launch {
    let at_once = (SHARED / (4 * values).max(1)).min(MOST_ROWS);
    assert!(at_once > 0, "{kernel}: {values} values a row are too many");
    Launch {
        shared: at_once * 4 * values,
        ..Launch::new(&GATE, kernel, blocks(rows.into(), at_once), at_once * WARP, arguments)
    }
}
