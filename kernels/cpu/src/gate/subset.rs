//! Gates that see a part of the bank each. What a gate does not see is neither read nor multiplied for it.

use super::{expert_dx, softmax};
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
    /// Whether no gate before sees the expert: its gradient begins there.
    first: Vec<bool>,
}

impl Seen {
    /// Of `experts` in the bank, gate `t` sees `gates[t]`.
    ///
    /// # Errors
    /// When there is no gate, a gate sees nothing, sees an expert twice or one that the bank does not have, or an expert
    /// is seen by nobody: it would be computed in vain.
    pub fn new(experts: usize, gates: &[Vec<usize>]) -> Result<Seen, String> {
        let mut by_gate = vec![usize::MAX; experts];
        let (mut seen, mut starts, mut first) = (Vec::new(), vec![0], Vec::new());
        for (t, own) in gates.iter().enumerate() {
            for &e in own {
                match by_gate.get_mut(e) {
                    None => return Err(format!("gate {t} sees expert {e} of {experts}")),
                    Some(last) if *last == t => return Err(format!("gate {t} sees expert {e} twice")),
                    Some(last) => {
                        first.push(*last == usize::MAX);
                        *last = t;
                    }
                }
                seen.push(e);
            }
            if own.is_empty() {
                return Err(format!("gate {t} sees no expert"));
            }
            starts.push(seen.len());
        }
        match by_gate.iter().position(|&gate| gate == usize::MAX) {
            _ if gates.is_empty() => Err("there is no gate".into()),
            Some(e) => Err(format!("no gate sees expert {e}")),
            None => Ok(Seen { experts, seen, starts, first }),
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

    /// Position of the first logit of a gate, and the experts that it sees.
    ///
    /// # Panics
    /// When there is no such gate.
    pub fn of(&self, gate: usize) -> (usize, &[usize]) {
        let from = self.starts[gate];
        (from, &self.seen[from..self.starts[gate + 1]])
    }
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
    /// values of `logits` `[rows, logits]`, and `mixed` `[rows, T * d]` the sums of the experts of the bank `experts`
    /// `[rows, E * d]` by these weights.
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn gate_combine_seen(
        seen: &Seen, logits: Mat<'_>, experts: Mat<'_>, weights: MatMut<'_>, mixed: MatMut<'_>,
    ) = gate_combine_seen_body;
}

#[inline(always)]
fn gate_combine_seen_body<S: Simd>(
    s: S,
    seen: &Seen,
    logits: Mat<'_>,
    experts: Mat<'_>,
    mut weights: MatMut<'_>,
    mut mixed: MatMut<'_>,
) {
    let rows = logits.rows();
    assert!(experts.rows() == rows && weights.rows() == rows && mixed.rows() == rows, "gate: rows differ");
    assert_eq!(weights.cols(), logits.cols(), "gate: weights and logits differ in width");
    let width = expert_width(seen, logits.cols(), experts.cols(), mixed.cols());
    for r in 0..rows {
        for gate in 0..seen.gates() {
            let (from, own) = seen.of(gate);
            let to = from + own.len();
            let weights = &mut weights.row_mut(r)[from..to];
            softmax(s, &logits.row(r)[from..to], weights, own.len());
            let mixed = &mut mixed.row_mut(r)[gate * width..(gate + 1) * width];
            let whole = width / (4 * S::LANES) * (4 * S::LANES);
            for at in (0..whole).step_by(4 * S::LANES) {
                combine_columns::<S, 4>(
                    s,
                    own,
                    weights,
                    experts.row(r),
                    mixed,
                    Span { from: at, lanes: S::LANES },
                );
            }
            for span in spans(s, width - whole) {
                combine_columns::<S, 1>(s, own, weights, experts.row(r), mixed, span.shifted(whole));
            }
        }
    }
}

/// `N` vectors of columns of one gate's mixture (in part only where `N` is 1).
#[inline(always)]
fn combine_columns<S: Simd, const N: usize>(
    s: S,
    own: &[usize],
    weights: &[f32],
    bank: &[f32],
    mixed: &mut [f32],
    columns: Span,
) {
    let width = mixed.len();
    let mut sums = [s.splat(0.0); N];
    for i in 0..own.len() {
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

dispatch! {
    /// Gradients of [`gate_combine_seen`] with respect to the logits and the experts, as
    /// [`gate_combine_dx`](super::gate_combine_dx).
    ///
    /// # Panics
    /// When the shapes do not fit together.
    pub fn gate_combine_seen_dx(
        seen: &Seen, weights: Mat<'_>, experts: Mat<'_>, d_mixed: Mat<'_>,
        accumulate_logits: bool, d_logits: MatMut<'_>, accumulate_experts: bool, d_experts: MatMut<'_>,
    ) = gate_combine_seen_dx_body;
}

#[inline(always)]
fn gate_combine_seen_dx_body<S: Simd>(
    s: S,
    seen: &Seen,
    weights: Mat<'_>,
    experts: Mat<'_>,
    d_mixed: Mat<'_>,
    accumulate_logits: bool,
    mut d_logits: MatMut<'_>,
    accumulate_experts: bool,
    mut d_experts: MatMut<'_>,
) {
    let rows = weights.rows();
    assert!(experts.rows() == rows && d_mixed.rows() == rows, "gate: rows differ");
    assert_eq!(
        (d_logits.rows(), d_logits.cols()),
        (rows, weights.cols()),
        "gate: d_logits and weights differ"
    );
    assert_eq!(
        (d_experts.rows(), d_experts.cols()),
        (rows, experts.cols()),
        "gate: d_experts and experts differ"
    );
    let width = expert_width(seen, weights.cols(), experts.cols(), d_mixed.cols());
    if !accumulate_logits {
        d_logits.fill(0.0);
    }
    for r in 0..rows {
        let (bank, d_bank) = (experts.row(r), d_experts.row_mut(r));
        for gate in 0..seen.gates() {
            let (from, own) = seen.of(gate);
            let weights = &weights.row(r)[from..from + own.len()];
            let d_mixed = &d_mixed.row(r)[gate * width..(gate + 1) * width];
            let d_logits = &mut d_logits.row_mut(r)[from..from + own.len()];
            let mut mean = 0.0;
            for i in 0..own.len() {
                let at = own[i] * width;
                let (expert, d_expert) = (&bank[at..at + width], &mut d_bank[at..at + width]);
                let add = accumulate_experts || !seen.first[from + i];
                let [dw] = expert_dx::<S, 1>(s, [weights[i]], expert, d_mixed, add, d_expert);
                d_logits[i] += weights[i] * dw;
                mean += weights[i] * dw;
            }
            for i in 0..own.len() {
                d_logits[i] -= weights[i] * mean;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{close, values, widen};
    use proptest::prelude::*;

    /// Two tasks with an expert or two of their own, shared ones, and a gate that sees all.
    fn gates() -> impl Strategy<Value = (usize, Vec<Vec<usize>>)> {
        (1usize..3, 0usize..3, any::<bool>()).prop_map(|(own, shared, all)| {
            let experts = 2 * own + shared;
            let gate = |task: usize| (task * own..(task + 1) * own).chain(2 * own..experts).collect();
            let mut gates: Vec<Vec<usize>> = (0..2).map(gate).collect();
            gates.extend(all.then(|| (0..experts).rev().collect()));
            (experts, gates)
        })
    }

    fn reference(gates: &[Vec<usize>], rows: usize, width: usize, logits: &[f64], bank: &[f64]) -> Vec<f64> {
        let (count, experts) =
            (gates.iter().map(Vec::len).sum::<usize>(), bank.len() / (rows * width).max(1));
        let mut mixed = Vec::new();
        for r in 0..rows {
            let mut from = r * count;
            for own in gates {
                let terms: Vec<f64> = logits[from..from + own.len()].iter().map(|z| z.exp()).collect();
                let total: f64 = terms.iter().sum();
                for c in 0..width {
                    let expert = |e: usize| bank[(r * experts + e) * width + c];
                    mixed.push(own.iter().zip(&terms).map(|(&e, term)| term / total * expert(e)).sum());
                }
                from += own.len();
            }
        }
        mixed
    }

    proptest! {
        #[test]
        fn mixtures_and_gradients_agree_with_f64(
            (experts, gates) in gates(), rows in 1usize..4, width in 1usize..70, accumulate: bool, seed: u64,
        ) {
            let seen = Seen::new(experts, &gates).unwrap();
            let (count, out) = (seen.logits(), gates.len() * width);
            let logits = values(seed, rows * count, 2.0);
            let bank = values(seed ^ 1, rows * experts * width, 1.0);
            let upstream = values(seed ^ 2, rows * out, 1.0);
            let expected = reference(&gates, rows, width, &widen(&logits), &widen(&bank));
            let slope = |which: usize, i: usize| {
                let h = 1e-4;
                let at = |delta: f64| -> f64 {
                    let mut both = [widen(&logits), widen(&bank)];
                    both[which][i] += delta;
                    let mixed = reference(&gates, rows, width, &both[0], &both[1]);
                    mixed.iter().zip(&upstream).map(|(m, &u)| m * f64::from(u)).sum()
                };
                (at(h) - at(-h)) / (2.0 * h)
            };
            for isa in Isa::available() {
                let (mut weights, mut mixed) = (vec![7.0; rows * count], vec![7.0; rows * (out + 1)]);
                let bank_view = Mat::new(&bank, rows, experts * width);
                gate_combine_seen(isa, &seen, Mat::new(&logits, rows, count), bank_view,
                    MatMut::new(&mut weights, rows, count), MatMut::strided(&mut mixed, rows, out, out + 1));
                for r in 0..rows {
                    for (c, &m) in mixed[r * (out + 1)..][..out].iter().enumerate() {
                        prop_assert!(close(m, expected[r * out + c], 2e-6), "{isa} mixed");
                    }
                }
                let before = if accumulate { 0.5 } else { f32::NAN };
                let (mut d_logits, mut d_bank) = (vec![before; logits.len()], vec![before; bank.len()]);
                gate_combine_seen_dx(isa, &seen, Mat::new(&weights, rows, count), bank_view,
                    Mat::new(&upstream, rows, out),
                    accumulate, MatMut::new(&mut d_logits, rows, count),
                    accumulate, MatMut::new(&mut d_bank, rows, experts * width));
                let base = if accumulate { 0.5 } else { 0.0 };
                for i in 0..logits.len() {
                    prop_assert!(close(d_logits[i], base + slope(0, i), 1e-5), "{isa} logit {i}: {}", d_logits[i]);
                }
                for i in (0..bank.len()).step_by(11) {
                    prop_assert!(close(d_bank[i], base + slope(1, i), 1e-5), "{isa} expert value {i}: {}", d_bank[i]);
                }
            }
        }
    }

    #[test]
    fn gates_that_do_not_fit_are_told() {
        let wrong = |experts, gates: &[&[usize]]| {
            Seen::new(experts, &gates.iter().map(|own| own.to_vec()).collect::<Vec<_>>()).unwrap_err()
        };
        assert_eq!(wrong(2, &[&[0, 1], &[2]]), "gate 1 sees expert 2 of 2");
        assert_eq!(wrong(2, &[&[0, 0, 1]]), "gate 0 sees expert 0 twice");
        assert_eq!(wrong(2, &[&[0, 1], &[]]), "gate 1 sees no expert");
        assert_eq!(wrong(3, &[&[0], &[2]]), "no gate sees expert 1");
        assert_eq!(wrong(0, &[]), "there is no gate");
    }

    #[test]
    fn what_a_gate_does_not_see_is_not_read() {
        let seen = Seen::new(3, &[vec![0, 2], vec![1, 2]]).unwrap();
        for isa in Isa::available() {
            let (mut weights, mut mixed) = ([0.0; 4], [0.0; 2]);
            let bank = [1.0, f32::NAN, 3.0];
            gate_combine_seen(
                isa,
                &seen,
                Mat::new(&[0.0; 4], 1, 4),
                Mat::new(&bank, 1, 3),
                MatMut::new(&mut weights, 1, 4),
                MatMut::new(&mut mixed, 1, 2),
            );
            assert_eq!(mixed[0], 2.0);
            assert!(mixed[1].is_nan());
        }
    }
}
