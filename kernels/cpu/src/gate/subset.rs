//! Gates that see a part of the bank each. What a gate does not see is neither read nor multiplied for it.

use super::{dot, expert_dx, softmax};
use crate::dispatch;
use crate::lanes::{Span, load_span, spans, store_span};
use crate::simd::Simd;
use crate::view::{Mat, MatMut};

/// The experts of a bank that each gate sees, in the order of its logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    experts: usize,
    /// Those of all gates, one gate after the other.
    seen: Vec<usize>,
    /// Where each gate begins there, and the end.
    starts: Vec<usize>,
    /// Whether the gate reads the expert from the other bank.
    apart: Vec<bool>,
    /// Whether no gate before reads the expert of the same bank: its gradient begins there.
    first: Vec<bool>,
}

impl Seen {
    /// Of `experts` in the bank, gate `t` sees `gates[t]`.
    ///
    /// # Errors
    /// When there is no gate, a gate sees nothing, sees an expert twice or one that the bank does not have, or an expert
    /// is seen by nobody: it would be computed in vain.
    pub fn new(experts: usize, gates: &[Vec<usize>]) -> Result<Seen, String> {
        Seen::reading_apart(experts, gates, |_, _| false)
    }

    /// The same with a second bank of as many experts, from which gate `t` reads expert `e` where `apart(t, e)`.
    ///
    /// # Errors
    /// As [`Seen::new`], of experts of the first bank.
    pub fn reading_apart(
        experts: usize,
        gates: &[Vec<usize>],
        apart: impl Fn(usize, usize) -> bool,
    ) -> Result<Seen, String> {
        let mut last_seen = vec![usize::MAX; experts];
        let mut read = [vec![false; experts], vec![false; experts]];
        let (mut seen, mut starts) = (Vec::new(), vec![0]);
        let (mut is_apart, mut first) = (Vec::new(), Vec::new());
        for (t, own) in gates.iter().enumerate() {
            for &e in own {
                match last_seen.get_mut(e) {
                    None => return Err(format!("gate {t} sees expert {e} of {experts}")),
                    Some(last) if *last == t => return Err(format!("gate {t} sees expert {e} twice")),
                    Some(last) => *last = t,
                }
                let apart = apart(t, e);
                first.push(!std::mem::replace(&mut read[usize::from(apart)][e], true));
                is_apart.push(apart);
                seen.push(e);
            }
            if own.is_empty() {
                return Err(format!("gate {t} sees no expert"));
            }
            starts.push(seen.len());
        }
        match read[0].iter().position(|read| !read) {
            _ if gates.is_empty() => Err("there is no gate".into()),
            Some(e) => Err(format!("no gate sees expert {e}")),
            None => Ok(Seen { experts, seen, starts, apart: is_apart, first }),
        }
    }

    /// Number of gates.
    pub fn gates(&self) -> usize {
        self.starts.len() - 1
    }

    /// Experts in the bank.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Logits of all gates.
    pub fn logits(&self) -> usize {
        self.seen.len()
    }

    /// Whether some gate reads from the second bank.
    pub fn has_apart(&self) -> bool {
        self.apart.contains(&true)
    }

    /// Whether the expert of a logit is read from the second bank.
    ///
    /// # Panics
    /// When there is no such logit.
    pub fn is_apart(&self, logit: usize) -> bool {
        self.apart[logit]
    }

    /// Position of the first logit of a gate, and the experts that it sees.
    ///
    /// # Panics
    /// When there is no such gate.
    pub fn of(&self, gate: usize) -> (usize, &[usize]) {
        let from = self.starts[gate];
        (from, &self.seen[from..self.starts[gate + 1]])
    }
}

/// Columns of both banks.
fn bank_cols(rows: usize, banks: [Mat<'_>; 2]) -> usize {
    let [bank, other] = banks;
    assert!(bank.rows() == rows && other.rows() == rows, "gate: rows differ");
    assert_eq!(bank.cols(), other.cols(), "gate: the banks differ in width");
    bank.cols()
}

/// Width of an expert, of a gate product whose operands fit together.
fn expert_width(seen: &Seen, logit_cols: usize, expert_cols: usize, mixed_cols: usize) -> usize {
    assert_eq!(logit_cols, seen.logits(), "gate: another number of logits");
    assert!(mixed_cols.is_multiple_of(seen.gates()), "gate: {mixed_cols} mixed values do not fit the gates");
    let width = mixed_cols / seen.gates();
    assert_eq!(expert_cols, seen.experts * width, "gate: the bank is not experts of width {width}");
    width
}

dispatch! {
    /// As [`gate_combine`](super::gate_combine), where gate `t` weighs only the experts that it sees.
    ///
    /// With `T` gates over `E` experts of width `d`: `weights` `[rows, logits]` becomes the softmax over each gate's own
    /// values of `logits` `[rows, logits]`, and `mixed` `[rows, T * d]` the sums of the experts of the banks `[rows, E * d]`
    /// by these weights. The second bank is read where a gate reads [apart](Seen::reading_apart).
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn gate_combine_seen(
        seen: &Seen, logits: Mat<'_>, banks: [Mat<'_>; 2], weights: MatMut<'_>, mixed: MatMut<'_>,
    ) = gate_combine_seen_body;
}

#[inline(always)]
fn gate_combine_seen_body<S: Simd>(
    s: S,
    seen: &Seen,
    logits: Mat<'_>,
    banks: [Mat<'_>; 2],
    mut weights: MatMut<'_>,
    mut mixed: MatMut<'_>,
) {
    let rows = logits.rows();
    assert!(weights.rows() == rows && mixed.rows() == rows, "gate: rows differ");
    assert_eq!(weights.cols(), logits.cols(), "gate: weights and logits differ in width");
    let width = expert_width(seen, logits.cols(), bank_cols(rows, banks), mixed.cols());
    for r in 0..rows {
        for gate in 0..seen.gates() {
            let (from, own) = seen.of(gate);
            let to = from + own.len();
            let weights = &mut weights.row_mut(r)[from..to];
            softmax(s, &logits.row(r)[from..to], weights, own.len());
            let mixed = &mut mixed.row_mut(r)[gate * width..(gate + 1) * width];
            let (banks, apart) = ([banks[0].row(r), banks[1].row(r)], &seen.apart[from..to]);
            let whole = width / (4 * S::LANES) * (4 * S::LANES);
            for at in (0..whole).step_by(4 * S::LANES) {
                let columns = Span { from: at, lanes: S::LANES };
                combine_columns::<S, 4>(s, own, apart, weights, banks, mixed, columns);
            }
            for span in spans(s, width - whole) {
                combine_columns::<S, 1>(s, own, apart, weights, banks, mixed, span.shifted(whole));
            }
        }
    }
}

/// `N` vectors of columns of one gate's mixture (in part only where `N` is 1).
#[inline(always)]
fn combine_columns<S: Simd, const N: usize>(
    s: S,
    own: &[usize],
    apart: &[bool],
    weights: &[f32],
    banks: [&[f32]; 2],
    mixed: &mut [f32],
    columns: Span,
) {
    let width = mixed.len();
    let mut sums = [s.splat(0.0); N];
    for i in 0..own.len() {
        let bank = banks[usize::from(apart[i])];
        let (expert, w) = (&bank[own[i] * width..][..width], s.splat(weights[i]));
        for n in 0..N {
            let v = load_span(s, expert, columns.shifted(n * S::LANES));
            sums[n] = s.mul_add(w, v, sums[n]);
        }
    }
    for n in 0..N {
        store_span(s, mixed, columns.shifted(n * S::LANES), sums[n]);
    }
}

/// Where the gradient of a bank goes, and whether it is added to what is there; [`None`] where nobody wants it.
pub type BankGradient<'a> = Option<(bool, MatMut<'a>)>;

dispatch! {
    /// Gradients of [`gate_combine_seen`] with respect to the logits and the banks, as
    /// [`gate_combine_dx`](super::gate_combine_dx).
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn gate_combine_seen_dx(
        seen: &Seen, weights: Mat<'_>, banks: [Mat<'_>; 2], d_mixed: Mat<'_>,
        accumulate_logits: bool, d_logits: MatMut<'_>, d_banks: [BankGradient<'_>; 2],
    ) = gate_combine_seen_dx_body;
}

#[inline(always)]
fn gate_combine_seen_dx_body<S: Simd>(
    s: S,
    seen: &Seen,
    weights: Mat<'_>,
    banks: [Mat<'_>; 2],
    d_mixed: Mat<'_>,
    accumulate_logits: bool,
    mut d_logits: MatMut<'_>,
    mut d_banks: [BankGradient<'_>; 2],
) {
    let rows = weights.rows();
    assert_eq!(d_mixed.rows(), rows, "gate: rows differ");
    assert_eq!(
        (d_logits.rows(), d_logits.cols()),
        (rows, weights.cols()),
        "gate: d_logits and weights differ"
    );
    let cols = bank_cols(rows, banks);
    let width = expert_width(seen, weights.cols(), cols, d_mixed.cols());
    for (_, d_bank) in d_banks.iter().flatten() {
        assert_eq!((d_bank.rows(), d_bank.cols()), (rows, cols), "gate: a bank's gradient has another shape");
    }
    if let Some((accumulate, d_bank)) = &mut d_banks[1]
        && !std::mem::replace(accumulate, true)
    {
        // Not every expert is read there.
        d_bank.fill(0.0);
    }
    if !accumulate_logits {
        d_logits.fill(0.0);
    }
    for r in 0..rows {
        for gate in 0..seen.gates() {
            let (from, own) = seen.of(gate);
            let weights = &weights.row(r)[from..from + own.len()];
            let d_mixed = &d_mixed.row(r)[gate * width..(gate + 1) * width];
            let d_logits = &mut d_logits.row_mut(r)[from..from + own.len()];
            let mut mean = 0.0;
            for i in 0..own.len() {
                let (at, which) = (own[i] * width, usize::from(seen.apart[from + i]));
                let expert = &banks[which].row(r)[at..at + width];
                let dw = match &mut d_banks[which] {
                    Some((accumulate, d_bank)) => {
                        let add = *accumulate || !seen.first[from + i];
                        let d_expert = &mut d_bank.row_mut(r)[at..at + width];
                        let [dw] = expert_dx::<S, 1>(s, [weights[i]], expert, d_mixed, add, d_expert);
                        dw
                    }
                    None => dot(s, expert, d_mixed),
                };
                d_logits[i] += weights[i] * dw;
                mean += weights[i] * dw;
            }
            for i in 0..own.len() {
                d_logits[i] -= weights[i] * mean;
            }
        }
    }
}
