//! Gates over a bank of experts, forward and backward, see `manygate_kernels::gate`. Matrices hold f32 or bf16 each;
//! the rows that are there are those of the bank.

use crate::activation;
use crate::launch::{Arguments, Launch, blocks};
use crate::module::GATE;
use crate::view::DeviceMat;
use manygate_kernels::activation::Activation;
use manygate_kernels::gate::{MAX_SOURCES, Seen};

/// Threads of a warp, which takes a row.
const WARP: u32 = 32;

/// Most rows that a block takes.
const MOST_ROWS: u32 = 8;

/// Gates and experts that are served together: `GATES` and `TOGETHER` of gate.cu.
const GATES: u32 = 4;
const EXPERTS: u32 = 4;

/// Multiprocessors of an H200.
const MULTIPROCESSORS: u32 = 132;

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
/// When `gates` is 0, the shapes do not fit together, or weights of a row and those with others beside them, of four gates
/// and experts each, do not fit 48 KiB.
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
    let values = logits.cols + grouped_weights(gates, count);
    let arguments = bank_arguments(gates, count, values).with_mat(logits).with_mat(experts);
    launch_in_turns("gate_combine", experts.rows, values, 3, arguments.with_mat(weights).with_mat(mixed))
}

/// Gradients of [`gate_combine`] with respect to the logits and the experts.
///
/// `weights` are its output and `d_mixed` `[rows, T * d]` the gradient at `mixed`. With `dw[t, e] = d_mixed_t .
/// expert_e`: `d_logits[t, e] = w (dw[t, e] - sum_e w dw)` and `d_expert_e = sum_t w[t, e] d_mixed_t`. Each of the two
/// is added to what is there where its flag says so, else written. Then, with `activation`, that of the experts is
/// multiplied by the derivative of the activation whose output they are.
///
/// # Panics
/// When `gates` is 0, the shapes do not fit together, or there are more logits than two thirds of what [`gate_combine`]
/// takes.
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
    let values = 2 * weights.cols + grouped_weights(gates, count);
    let arguments = bank_arguments(gates, count, values).with_mat(weights).with_mat(experts);
    let arguments = arguments.with_mat(d_mixed).with_u32(accumulate_logits.into()).with_mat(d_logits);
    let activation = activation::to_bytes(activation.unwrap_or(Activation::Identity));
    let arguments = arguments.with_u32(accumulate_experts.into()).with_bytes(&activation, 4);
    let arguments = arguments.with_mat(d_experts);
    // Without experts there is nothing to write.
    let rows = if count == 0 { 0 } else { experts.rows };
    launch_in_turns("gate_combine_dx", rows, values, 2, arguments)
}

/// Arguments that the kernels over a whole bank begin with, for which a warp needs `values` f32 of shared memory.
fn bank_arguments(gates: u32, experts: u32, values: u32) -> Arguments {
    Arguments::new().with_u32(gates).with_u32(segment_bits(experts)).with_u32(row_bytes(values))
}

/// Weights that these kernels have beside each other for the gates and experts that they serve together: `quads_of` of
/// gate.cu.
fn grouped_weights(gates: u32, experts: u32) -> u32 {
    gates.next_multiple_of(GATES) * experts.next_multiple_of(EXPERTS)
}

/// Gates that see a part of the bank each, whose lists lie in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSeen {
    /// Address of what [`seen_to_bytes`] gives, aligned to 8.
    pub table: u64,
    /// Number of gates.
    pub gates: u32,
    /// Experts in the bank.
    pub experts: u32,
    /// Logits of all gates.
    pub logits: u32,
    /// The most logits of a gate.
    pub most: u32,
}

impl DeviceSeen {
    /// Of `seen`, whose bytes lie at `table`.
    pub fn new(seen: &Seen, table: u64) -> DeviceSeen {
        let most = (0..seen.gates()).map(|gate| seen.of(gate).1.len()).max().unwrap_or(0) as u32;
        let (gates, experts, logits) = (seen.gates() as u32, seen.experts() as u32, seen.logits() as u32);
        DeviceSeen { table, gates, experts, logits, most }
    }

    /// Arguments that both kernels begin with.
    fn arguments(self) -> Arguments {
        let arguments = Arguments::new().with_u64(self.table).with_u32(self.gates).with_u32(self.experts);
        arguments.with_u32(segment_bits(self.most))
    }

    /// The rows of the operands of a gate product, if they fit together.
    fn check(self, logit_cols: u32, [bank, other]: [DeviceMat; 2], mixed: DeviceMat) {
        assert_eq!(logit_cols, self.logits, "gate: another number of logits");
        assert_eq!(bank.cols, other.cols, "gate: the banks differ in width");
        assert!(
            mixed.cols.is_multiple_of(self.gates) && bank.cols == self.experts * (mixed.cols / self.gates),
            "gate: a bank of {} columns and {} mixed values do not fit {} gates over {} experts",
            bank.cols,
            mixed.cols,
            self.gates,
            self.experts
        );
        assert_rows(bank, &[other, mixed]);
    }
}

/// `seen` as kernels read it, u32: the number of logits, and an unused word; gate and logit of each reader of an expert,
/// by expert of the first bank, then of the second; by gate its first logit, and the end; the expert of each logit, with
/// the highest bit set where that is read from the second bank; by expert of both banks its first reader, and the end.
pub fn seen_to_bytes(seen: &Seen) -> Vec<u8> {
    let gates = (0..seen.gates()).map(|gate| (gate, seen.of(gate)));
    let starts = gates.clone().map(|(_, (from, _))| from).chain([seen.logits()]);
    // Gate, logit and expert of each reading.
    let reads: Vec<[usize; 3]> = gates
        .flat_map(|(gate, (from, own))| own.iter().enumerate().map(move |(i, &e)| [gate, from + i, e]))
        .collect();
    let experts = reads.iter().map(|&[_, logit, e]| e | usize::from(seen.is_apart(logit)) << 31);
    let (mut readers, mut reader_starts) = (Vec::new(), vec![0]);
    for (second, expert) in [false, true].into_iter().flat_map(|s| (0..seen.experts()).map(move |e| (s, e))) {
        let own = reads.iter().filter(|&&[_, logit, e]| e == expert && seen.is_apart(logit) == second);
        readers.extend(own.flat_map(|&[gate, logit, _]| [gate, logit]));
        reader_starts.push(readers.len() / 2);
    }
    let words =
        [seen.logits(), 0].into_iter().chain(readers).chain(starts).chain(experts).chain(reader_starts);
    words.flat_map(|word| (word as u32).to_le_bytes()).collect()
}

/// As [`gate_combine`], where each gate weighs only the experts that it sees, of the second bank where it reads apart:
/// `manygate_kernels::gate::gate_combine_seen`.
///
/// # Panics
/// When the shapes do not fit together, or there are more than 12288 logits.
pub fn gate_combine_seen(
    seen: DeviceSeen,
    logits: DeviceMat,
    banks: [DeviceMat; 2],
    weights: DeviceMat,
    mixed: DeviceMat,
) -> Launch {
    seen.check(logits.cols, banks, mixed);
    assert_rows(banks[0], &[logits, weights]);
    assert_eq!(weights.cols, logits.cols, "gate: weights and logits differ in width");
    let arguments = seen.arguments().with_mat(logits).with_mat(banks[0]).with_mat(banks[1]);
    let arguments = arguments.with_mat(weights).with_mat(mixed);
    launch("gate_combine_seen", banks[0].rows, logits.cols, arguments)
}

/// Gradients of [`gate_combine_seen`]: of the logits, and of the banks where they are wanted, each written or, where its
/// flag says so, added to what is there. Without a gate that reads apart the second bank is not looked at.
///
/// # Panics
/// When the shapes do not fit together, or there are more than 6144 logits.
pub fn gate_combine_seen_dx(
    seen: DeviceSeen,
    weights: DeviceMat,
    banks: [DeviceMat; 2],
    has_apart: bool,
    d_mixed: DeviceMat,
    accumulate_logits: bool,
    d_logits: DeviceMat,
    d_banks: [Option<(bool, DeviceMat)>; 2],
) -> Launch {
    seen.check(weights.cols, banks, d_mixed);
    assert_rows(banks[0], &[weights, d_logits]);
    assert_eq!(d_logits.cols, weights.cols, "gate: d_logits and weights differ");
    let none = DeviceMat { address: 0, ..banks[1] };
    let other = if has_apart { banks[1] } else { none };
    let arguments = seen.arguments().with_mat(weights).with_mat(banks[0]).with_mat(other).with_mat(d_mixed);
    let mut arguments = arguments.with_u32(accumulate_logits.into()).with_mat(d_logits);
    for d_bank in d_banks {
        let (accumulate, d_bank) = d_bank.unwrap_or((false, none));
        assert_rows(banks[0], &[d_bank]);
        assert_eq!(d_bank.cols, banks[0].cols, "gate: a bank's gradient has another shape");
        arguments = arguments.with_u32(accumulate.into()).with_mat(d_bank);
    }
    launch("gate_combine_seen_dx", banks[0].rows, 2 * weights.cols, arguments)
}

fn assert_rows(bank: DeviceMat, others: &[DeviceMat]) {
    assert!(others.iter().all(|other| other.rows == bank.rows), "gate: rows differ");
}

/// Binary logarithm of the lanes that hold a gate's logits, so that several gates are in a warp.
fn segment_bits(experts: u32) -> u32 {
    experts.next_power_of_two().min(WARP).ilog2()
}

/// Bytes of shared memory of a warp with `values` f32: whole quads.
fn row_bytes(values: u32) -> u32 {
    4 * values.next_multiple_of(4)
}

/// Whether all that a warp has in shared memory of a row with `gates` gates over `experts` experts fits there:
/// [`gate_combine`] and [`gate_combine_dx`] take no others.
pub fn gates_fit(gates: usize, experts: usize) -> bool {
    let grouped =
        gates.next_multiple_of(GATES as usize) as u64 * experts.next_multiple_of(EXPERTS as usize) as u64;
    4 * (2 * gates as u64 * experts as u64 + grouped).next_multiple_of(4) <= SHARED.into()
}

/// The same of `logits` logits, for [`gate_combine_seen`] and [`gate_combine_seen_dx`].
pub fn logits_fit(logits: usize) -> bool {
    4 * (2 * logits as u64).next_multiple_of(4) <= SHARED.into()
}

/// A launch on `rows` rows, for each of which `values` f32 lie in shared memory.
fn launch(kernel: &'static str, rows: u32, values: u32, arguments: Arguments) -> Launch {
    let at_once = (SHARED / row_bytes(values).max(1)).min(MOST_ROWS);
    assert!(at_once > 0, "{kernel}: {values} values a row are too many");
    Launch {
        shared: at_once * row_bytes(values),
        ..Launch::new(&GATE, kernel, blocks(rows.into(), at_once), at_once * WARP, arguments)
    }
}

/// The same, where a warp has row after row, of `sharing` blocks that a multiprocessor has registers for.
fn launch_in_turns(
    kernel: &'static str,
    rows: u32,
    values: u32,
    sharing: u32,
    arguments: Arguments,
) -> Launch {
    let launch = launch(kernel, rows, values, arguments);
    let [blocks, y, z] = launch.grid;
    Launch { grid: [blocks.min(sharing * MULTIPROCESSORS), y, z], ..launch }
}

/// `y = sum_u w_u v_u` with `w = softmax(scale <k_u, q_u>)` over the vectors of a row.
///
/// `kqv` `[rows, sources * 3 * width]` holds `k_u`, `q_u` and `v_u` of one vector after the other, `weights`
/// `[rows, sources]` becomes w, `y` is `[rows, width]`. The rows that are there are those of `y`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn self_scored(sources: u32, scale: f32, kqv: DeviceMat, weights: DeviceMat, y: DeviceMat) -> Launch {
    assert_sources("self_scored", sources, &[kqv], weights, y);
    let arguments = Arguments::new().with_u32(sources).with_f32(scale).with_mat(kqv).with_mat(weights);
    Launch::new(&GATE, "self_scored", y.rows.div_ceil(MOST_ROWS), MOST_ROWS * WARP, arguments.with_mat(y))
}

/// The gradient of [`self_scored`] at `kqv`, of that at `y`: written to `d_kqv`, or added. The rows that are there are those
/// of `dy`.
///
/// # Panics
/// When the shapes do not fit together.
pub fn self_scored_dx(
    sources: u32,
    scale: f32,
    kqv: DeviceMat,
    weights: DeviceMat,
    dy: DeviceMat,
    accumulate: bool,
    d_kqv: DeviceMat,
) -> Launch {
    assert_sources("self_scored_dx", sources, &[kqv, d_kqv], weights, dy);
    let arguments = Arguments::new().with_u32(sources).with_f32(scale).with_mat(kqv).with_mat(weights);
    let arguments = arguments.with_mat(dy).with_u32(accumulate.into()).with_mat(d_kqv);
    Launch::new(&GATE, "self_scored_dx", dy.rows.div_ceil(MOST_ROWS), MOST_ROWS * WARP, arguments)
}

fn assert_sources(kernel: &str, sources: u32, of_vectors: &[DeviceMat], weights: DeviceMat, y: DeviceMat) {
    let few = (1..=MAX_SOURCES as u32).contains(&sources) && weights.cols == sources;
    assert!(few, "{kernel}: {} weights of {sources} vectors", weights.cols);
    let fits = |mat: &DeviceMat| (mat.rows, mat.cols) == (y.rows, 3 * sources * y.cols);
    let all_fit = of_vectors.iter().all(fits) && weights.rows == y.rows;
    assert!(all_fit, "{kernel}: [{}, {}] of {sources} vectors, and {of_vectors:?}", y.rows, y.cols);
}
