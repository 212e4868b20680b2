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

/// Number of values to work in of a loss over `rows` rows: of losses by scenario, each row's.
pub fn partials_of(rows: u32) -> u32 {
    rows
}

/// What the gradients of a part of the loss are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Address of an f32, or of one for each scenario.
    pub factors: u64,
    /// Where each scenario has its own, and its own sum: f64 values, one behind the other.
    pub scenarios: Option<ScenarioRows>,
}

/// Rows that stand in the order of their scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScenarioRows {
    /// Address of the scenario of each row, u32.
    pub of_rows: u64,
    /// Address of the first row of each scenario and the one behind the last, u32.
    pub starts: u64,
    /// Scenarios.
    pub count: u32,
}

/// One for all rows.
impl From<u64> for Scale {
    fn from(factors: u64) -> Scale {
        Scale { factors, scenarios: None }
    }
}

impl Scale {
    /// A `Scale` of loss.cu.
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.factors.to_le_bytes());
        bytes[8..].copy_from_slice(&self.scenarios.map_or(0, |rows| rows.of_rows).to_le_bytes());
        bytes
    }
}

/// Sum of the binary cross-entropies of `logits` `[rows, 1]`, f32, and its gradient.
///
/// As `manygate_kernels::loss::bce_with_logits`; `labels` and `counted` are addresses of f32 values, one a row. The
/// sum is added to `loss`; its order depends on the data and the most rows alone. The gradient, times `scale`, is written to `d_logits`, or added to it where the bool says so. The rows that are there are those of
/// `logits`.
///
/// # Panics
/// When `logits` or the gradient are not one column of f32, or differ in rows.
pub fn bce_with_logits(
    logits: DeviceMat,
    labels: u64,
    counted: Option<u64>,
    scale: impl Into<Scale>,
    d_logits: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let is_column = |mat: DeviceMat| (mat.rows, mat.cols, mat.element) == (logits.rows, 1, Element::F32);
    assert!(is_column(logits), "bce_with_logits: the logits are not one column of f32");
    assert!(d_logits.is_none_or(|(d, _)| is_column(d)), "bce_with_logits: the gradient has another shape");
    let (d_logits, accumulate) = d_logits.unwrap_or((DeviceMat { address: 0, ..logits }, false));
    let scale = scale.into();
    let arguments = Arguments::new().with_mat(logits).with_u64(labels).with_u64(counted.unwrap_or(0));
    let arguments = arguments.with_bytes(&scale.to_bytes(), 8).with_u32(accumulate.into());
    summing("bce_with_logits", logits.rows, arguments.with_mat(d_logits), scale, loss)
}

/// Most events of [`bce_of_product`] and [`order_penalty`].
pub const MOST_EVENTS: usize = 8;

/// One of the events in a row of [`bce_of_product`] and others.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The logit of its probability, `[rows, 1]`, f32.
    pub logits: DeviceMat,
    /// Address of its labels, an f32 a row; 0 where it has none.
    pub labels: u64,
    /// Where the gradient goes, and whether it is added to what is there.
    pub gradient: Option<(DeviceMat, bool)>,
}

/// `events` as kernels read them, an `Events` of loss.cu; and by bit which of their gradients are added to.
///
/// # Panics
/// When there are none, too many, or logits and gradients are not one column of f32 each, of as many rows.
fn to_bytes(kernel: &str, events: &[Event]) -> (Vec<u8>, u32) {
    assert!((1..=MOST_EVENTS).contains(&events.len()), "{kernel}: {} events", events.len());
    let rows = events[0].logits.rows;
    let none = Event { logits: DeviceMat::new(0, rows, 1), labels: 0, gradient: None };
    let (mut logits, mut gradients, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut accumulates = 0;
    for (i, event) in events.iter().copied().chain(std::iter::repeat(none)).take(MOST_EVENTS).enumerate() {
        let (gradient, accumulate) = event.gradient.unwrap_or((none.logits, false));
        assert_columns(kernel, rows, 1, &[event.logits, gradient]);
        logits.extend(event.logits.to_bytes());
        gradients.extend(gradient.to_bytes());
        labels.extend(event.labels.to_le_bytes());
        accumulates |= u32::from(accumulate) << i;
    }
    ([logits, gradients, labels].concat(), accumulates)
}

/// That matrices are f32 and have this shape.
fn assert_columns(kernel: &str, rows: u32, cols: u32, mats: &[DeviceMat]) {
    let fits = |mat: &DeviceMat| (mat.rows, mat.cols, mat.element) == (rows, cols, Element::F32);
    assert!(mats.iter().all(fits), "{kernel}: {mats:?} are not [{rows}, {cols}] of f32 each");
}

/// A gradient as kernels read it: a matrix, with no data where nobody wants it, and whether it is added to.
fn or_none(gradient: Option<(DeviceMat, bool)>, rows: u32, cols: u32) -> (DeviceMat, u32) {
    let (to, accumulate) = gradient.unwrap_or((DeviceMat::new(0, rows, cols), false));
    (to, accumulate.into())
}

/// Sum of the binary cross-entropies of the products of the events' probabilities, each given the event before, and the
/// gradients at their logits.
///
/// `scale` and `loss` as of [`bce_with_logits`]. A
/// row's label is the product of the events'. The rows that are there are those of the first logits.
///
/// # Panics
/// When there is no event, there are more than [`MOST_EVENTS`], or logits and gradients are not one column of f32 each,
/// of as many rows.
pub fn bce_of_product(events: &[Event], scale: impl Into<Scale>, loss: Option<LossSum>) -> Vec<Launch> {
    of_events("bce_of_product", events, scale.into(), loss)
}

/// Sum of what each event is likelier than the one before, and the gradients at their logits, see the op. Labels are not
/// read; all else as for [`bce_of_product`].
///
/// # Panics
/// As [`bce_of_product`].
pub fn order_penalty(events: &[Event], scale: impl Into<Scale>, loss: Option<LossSum>) -> Vec<Launch> {
    of_events("order_penalty", events, scale.into(), loss)
}

/// A launch of a kernel of any number of events.
fn of_events(kernel: &'static str, events: &[Event], scale: Scale, loss: Option<LossSum>) -> Vec<Launch> {
    let (bytes, accumulates) = to_bytes(kernel, events);
    let arguments = Arguments::new().with_bytes(&bytes, 8).with_u32(events.len() as u32);
    let arguments = arguments.with_bytes(&scale.to_bytes(), 8).with_u32(accumulates);
    summing(kernel, events[0].logits.rows, arguments, scale, loss)
}

/// What the number z that a network ends in says of a label: `Link` of the op's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The logit of a probability.
    Probability,
    /// The logarithm of the rate of a count.
    Rate,
    /// The number itself.
    Value,
}

/// The number `fused` `[rows, 1]` whose mean by `link` is the mean of those of `z` `[rows, learners]`, f32 all: weighed
/// equally, or by the softmax of the logits `gate`. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes disagree.
pub fn fuse_scores(link: Link, z: DeviceMat, gate: Option<DeviceMat>, fused: DeviceMat) -> Launch {
    let gate = gate.unwrap_or(DeviceMat { address: 0, ..z });
    assert_columns("fuse_scores", z.rows, z.cols, &[z, gate]);
    assert_columns("fuse_scores", z.rows, 1, &[fused]);
    let arguments = Arguments::new().with_u32(link as u32).with_mat(z).with_mat(gate).with_mat(fused);
    Launch::new(&LOSS, "fuse_scores", blocks(z.rows.into(), THREADS), THREADS, arguments)
}

/// The gradients of [`fuse_scores`] at the numbers and at the logits of the gate, written or added as their bools say.
///
/// # Panics
/// When the shapes disagree.
pub fn fuse_scores_backward(
    link: Link,
    z: DeviceMat,
    gate: Option<DeviceMat>,
    d_fused: DeviceMat,
    dz: Option<(DeviceMat, bool)>,
    d_gate: Option<(DeviceMat, bool)>,
) -> Launch {
    let gate = gate.unwrap_or(DeviceMat { address: 0, ..z });
    let [(dz, accumulate_z), (d_gate, accumulate_gate)] = [dz, d_gate].map(|d| or_none(d, z.rows, z.cols));
    assert_columns("fuse_scores_backward", z.rows, z.cols, &[z, gate, dz, d_gate]);
    assert_columns("fuse_scores_backward", z.rows, 1, &[d_fused]);
    let arguments = Arguments::new().with_u32(link as u32).with_mat(z).with_mat(gate).with_mat(d_fused);
    let arguments = arguments.with_u32(accumulate_z).with_mat(dz).with_u32(accumulate_gate).with_mat(d_gate);
    Launch::new(&LOSS, "fuse_scores_backward", blocks(z.rows.into(), THREADS), THREADS, arguments)
}

/// What learners are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A label: addresses of f32 values, one a row. Where there are `counted`, those rows count where it is above 0.
    Label {
        /// Of the labels.
        labels: u64,
        /// Of what says which rows count.
        counted: Option<u64>,
    },
    /// A teacher's numbers `[rows, 1]`, by the divergence of the means.
    Divergence(DeviceMat),
    /// The same, by the square of their difference.
    Square(DeviceMat),
}

/// Sum over rows of the mean loss of the learners `z` `[rows, learners]`, f32, and the gradients there and at the teacher.
///
/// `scale` and `loss` as of [`bce_with_logits`]. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes disagree.
pub fn learner_loss(
    link: Link,
    target: Target,
    z: DeviceMat,
    scale: impl Into<Scale>,
    dz: Option<(DeviceMat, bool)>,
    d_teacher: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let scale = scale.into();
    let no_teacher = DeviceMat::new(0, z.rows, 1);
    let (kind, labels, counted, teacher) = match target {
        Target::Label { labels, counted } => (0, labels, counted.unwrap_or(0), no_teacher),
        Target::Divergence(teacher) => (1, 0, 0, teacher),
        Target::Square(teacher) => (2, 0, 0, teacher),
    };
    let (dz, accumulate_z) = or_none(dz, z.rows, z.cols);
    let (d_teacher, accumulate_teacher) = or_none(d_teacher, z.rows, 1);
    assert_columns("learner_loss", z.rows, z.cols, &[z, dz]);
    assert_columns("learner_loss", z.rows, 1, &[teacher, d_teacher]);
    let arguments = Arguments::new().with_u32(link as u32).with_u32(kind).with_mat(z);
    let arguments =
        arguments.with_u64(labels).with_u64(counted).with_mat(teacher).with_bytes(&scale.to_bytes(), 8);
    let arguments = arguments.with_u32(accumulate_z).with_mat(dz);
    let arguments = arguments.with_u32(accumulate_teacher).with_mat(d_teacher);
    summing("learner_loss", z.rows, arguments, scale, loss)
}

/// Sum of the losses of `z` `[rows, 1]`, f32, each times the weight of its row in `weights` `[rows, 1]`, and the gradient there.
///
/// `labels`, `counted`, `scale` and `loss` as of [`bce_with_logits`]. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes disagree.
pub fn weighted_loss(
    link: Link,
    z: DeviceMat,
    labels: u64,
    counted: Option<u64>,
    weights: DeviceMat,
    scale: impl Into<Scale>,
    dz: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let (scale, (dz, accumulate)) = (scale.into(), or_none(dz, z.rows, 1));
    assert_columns("weighted_loss", z.rows, 1, &[z, weights, dz]);
    let arguments = Arguments::new().with_u32(link as u32).with_mat(z).with_u64(labels);
    let arguments = arguments.with_u64(counted.unwrap_or(0)).with_mat(weights);
    let arguments = arguments.with_bytes(&scale.to_bytes(), 8).with_u32(accumulate).with_mat(dz);
    summing("weighted_loss", z.rows, arguments, scale, loss)
}

/// Sum of the negative log-likelihoods, but for a constant, of labels under mixtures of normal distributions of variance 1: around
/// the outputs `o` `[rows, experts]`, weighed by the softmax of the logits `z` `[rows, experts]`, f32 both; and the gradients
/// there.
///
/// `labels`, `counted`, `scale` and `loss` as of [`bce_with_logits`]. The rows that are there are those of `z`.
///
/// # Panics
/// When the shapes disagree.
pub fn mixture_likelihood(
    z: DeviceMat,
    o: DeviceMat,
    labels: u64,
    counted: Option<u64>,
    scale: impl Into<Scale>,
    dz: Option<(DeviceMat, bool)>,
    d_o: Option<(DeviceMat, bool)>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let scale = scale.into();
    let [(dz, accumulate_z), (d_o, accumulate_o)] = [dz, d_o].map(|to| or_none(to, z.rows, z.cols));
    assert_columns("mixture_likelihood", z.rows, z.cols, &[z, o, dz, d_o]);
    let arguments = Arguments::new().with_mat(z).with_mat(o).with_u64(labels).with_u64(counted.unwrap_or(0));
    let arguments = arguments.with_bytes(&scale.to_bytes(), 8).with_u32(accumulate_z).with_mat(dz);
    let arguments = arguments.with_u32(accumulate_o).with_mat(d_o);
    summing("mixture_likelihood", z.rows, arguments, scale, loss)
}

/// A term of the counterfactual risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// Errors by inverse propensity.
    Inverse,
    /// The imputed error, corrected by the true one.
    Error(Imputed),
    /// How far the two are apart.
    Imputation(Imputed),
}

/// The imputed error of a logit i.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imputed {
    /// ln(1 + e^i).
    Softplus,
    /// sigmoid(i).
    Sigmoid,
}

/// Sum of a term of the counterfactual risk, see the op, and the gradients at its logits: `events` are the click, the
/// conversion and, but for [`Risk::Inverse`], the imputed error, which has no labels. A propensity below `least` counts as
/// that. `scale`, `loss` and which rows are there: as for [`bce_of_product`].
///
/// # Panics
/// When there are not as many events, or logits and gradients are not one column of f32 each, of as many rows.
pub fn counterfactual_risk(
    risk: Risk,
    least: f32,
    events: &[Event],
    scale: impl Into<Scale>,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let scale = scale.into();
    let (kind, imputed) = match risk {
        Risk::Inverse => (0, Imputed::Softplus),
        Risk::Error(imputed) => (1, imputed),
        Risk::Imputation(imputed) => (2, imputed),
    };
    let wanted = if risk == Risk::Inverse { 2 } else { 3 };
    assert_eq!(events.len(), wanted, "counterfactual_risk: events of {risk:?}");
    let (bytes, accumulates) = to_bytes("counterfactual_risk", events);
    let arguments = Arguments::new().with_u32(kind).with_u32(imputed as u32).with_f32(least);
    let arguments = arguments.with_bytes(&bytes, 8).with_bytes(&scale.to_bytes(), 8).with_u32(accumulates);
    summing("counterfactual_risk", events[0].logits.rows, arguments, scale, loss)
}

/// The range of [`range_penalty`], and the factor of its coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What coefficients are multiplied by.
    pub factor: f64,
}

/// The penalty of numbers outside of a range, see the op, and its gradients: addresses of `count` values each, f32, s what
/// is penalised and f what coefficients are of. The mean is added to the f64 at `sum`; `scale` is the address of the factor
/// of the gradients, which are added where their bools say so.
pub fn range_penalty(
    range: Range,
    s: u64,
    f: u64,
    count: u32,
    scale: u64,
    ds: Option<(u64, bool)>,
    df: Option<(u64, bool)>,
    sum: Option<u64>,
) -> Launch {
    let Range { low, high, factor } = range;
    let numbers = Arguments::new().with_bytes(&low.to_le_bytes(), 8).with_bytes(&high.to_le_bytes(), 8);
    let numbers = numbers.with_bytes(&factor.to_le_bytes(), 8);
    let arguments = numbers.with_u64(s).with_u64(f).with_u32(count).with_u64(scale);
    let with = |arguments: Arguments, gradient: Option<(u64, bool)>| {
        let (to, accumulate) = gradient.unwrap_or((0, false));
        arguments.with_u32(accumulate.into()).with_u64(to)
    };
    let arguments = with(with(arguments, ds), df).with_u64(sum.unwrap_or(0));
    Launch::new(&LOSS, "range_penalty", 1, THREADS, arguments)
}

/// A launch over `rows` rows, whose last argument is where it leaves their sums, and what adds those up.
fn summing(
    kernel: &'static str,
    rows: u32,
    arguments: Arguments,
    scale: Scale,
    loss: Option<LossSum>,
) -> Vec<Launch> {
    let blocks = blocks(rows.into(), THREADS);
    let arguments = arguments.with_u64(loss.map_or(0, |loss| loss.partials));
    let over_rows = Launch::new(&LOSS, kernel, blocks, THREADS, arguments);
    let sum = loss
        .filter(|_| blocks > 0)
        .map(|loss| add_partials(loss.partials, blocks, scale.scenarios, loss.sum));
    [over_rows].into_iter().chain(sum).collect()
}

/// Adds the sum of `count` f64 values at `partials` to the one at `sum`; or of one a row, those of each scenario to its own.
pub(crate) fn add_partials(partials: u64, count: u32, scenarios: Option<ScenarioRows>, sum: u64) -> Launch {
    let starts = scenarios.map_or(0, |rows| rows.starts);
    let arguments = Arguments::new().with_u64(partials).with_u32(count).with_u64(starts).with_u64(sum);
    Launch::new(&LOSS, "add_partials", scenarios.map_or(1, |rows| rows.count), THREADS, arguments)
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
