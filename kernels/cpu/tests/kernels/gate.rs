use crate::testing::{close, values, widen};
use manygate_kernels::gate::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    gates: usize,
    experts: usize,
    width: usize,
}

/// Softmax weights and mixed outputs by plain loops.
fn reference(case: Case, logits: &[f64], bank: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let Case { rows, gates, experts, width } = case;
    let mut weights = vec![0.0; rows * gates * experts];
    let mut mixed = vec![0.0; rows * gates * width];
    for gate in 0..rows * gates {
        let row = gate / gates;
        let logits = &logits[gate * experts..][..experts];
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        for e in 0..experts {
            let w = logits[e].exp() / total;
            weights[gate * experts + e] = w;
            for c in 0..width {
                mixed[gate * width + c] += w * bank[(row * experts + e) * width + c];
            }
        }
    }
    (weights, mixed)
}

fn cases() -> impl Strategy<Value = Case> {
    (0usize..4, 1usize..7, 1usize..6, 0usize..40).prop_map(|(rows, gates, experts, width)| Case {
        rows,
        gates,
        experts,
        width,
    })
}

proptest! {
    #[test]
    fn forward_agrees_with_f64(case in cases(), seed: u64) {
        let Case { rows, gates, experts, width } = case;
        let logits = values(seed, rows * gates * experts, 5.0);
        let bank = values(seed ^ 1, rows * experts * width, 1.0);
        let (expected_weights, expected) = reference(case, &widen(&logits), &widen(&bank));
        for isa in Isa::available() {
            // The gates' outputs are columns of wider buffers here.
            let mut weights = vec![7.0; rows * (gates * experts + 2)];
            let mut mixed = vec![7.0; rows * (gates * width + 1)];
            gate_combine(isa, gates, Mat::new(&logits, rows, gates * experts),
                Mat::new(&bank, rows, experts * width),
                MatMut::strided(&mut weights, rows, gates * experts, gates * experts + 2),
                MatMut::strided(&mut mixed, rows, gates * width, gates * width + 1));
            let weights = Mat::strided(&weights, rows, gates * experts, gates * experts + 2);
            let mixed = Mat::strided(&mixed, rows, gates * width, gates * width + 1);
            for r in 0..rows {
                for (c, &w) in weights.row(r).iter().enumerate() {
                    prop_assert!(close(w, expected_weights[r * gates * experts + c], 1e-6), "{isa} weights");
                }
                for (c, &m) in mixed.row(r).iter().enumerate() {
                    prop_assert!(close(m, expected[r * gates * width + c], 2e-6), "{isa} mixed");
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences(case in cases(), accumulate: bool, seed: u64) {
        let Case { rows, gates, experts, width } = case;
        let logits = values(seed, rows * gates * experts, 2.0);
        let bank = values(seed ^ 1, rows * experts * width, 1.0);
        let upstream = values(seed ^ 2, rows * gates * width, 1.0);
        let loss = |logits: &[f64], bank: &[f64]| -> f64 {
            reference(case, logits, bank).1.iter().zip(&upstream).map(|(m, &u)| m * f64::from(u)).sum()
        };
        let slope = |which: usize, i: usize| {
            let h = 1e-4;
            let at = |delta: f64| {
                let mut both = [widen(&logits), widen(&bank)];
                both[which][i] += delta;
                loss(&both[0], &both[1])
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for isa in Isa::available() {
            let mut weights = vec![0.0; logits.len()];
            let mut mixed = vec![0.0; upstream.len()];
            let before = if accumulate { 0.5 } else { f32::NAN };
            let mut d_logits = vec![before; logits.len()];
            let mut d_bank = vec![before; bank.len()];
            let bank_view = Mat::new(&bank, rows, experts * width);
            gate_combine(isa, gates, Mat::new(&logits, rows, gates * experts), bank_view,
                MatMut::new(&mut weights, rows, gates * experts), MatMut::new(&mut mixed, rows, gates * width));
            gate_combine_dx(isa, gates, Mat::new(&weights, rows, gates * experts), bank_view,
                Mat::new(&upstream, rows, gates * width),
                accumulate, MatMut::new(&mut d_logits, rows, gates * experts),
                accumulate, MatMut::new(&mut d_bank, rows, experts * width));
            let base = if accumulate { 0.5 } else { 0.0 };
            for i in 0..logits.len() {
                prop_assert!(close(d_logits[i], base + slope(0, i), 1e-5), "{isa} logit {i}: {}", d_logits[i]);
            }
            for i in (0..bank.len()).step_by(7) {
                prop_assert!(close(d_bank[i], base + slope(1, i), 1e-5), "{isa} expert value {i}: {}", d_bank[i]);
            }
        }
    }
}

#[test]
fn large_logits_do_not_overflow_and_nan_is_not_hidden() {
    for isa in Isa::available() {
        let bank = [1.0, 2.0, 3.0];
        let run = |logits: [f32; 3]| {
            let (mut weights, mut mixed) = ([0.0; 3], [0.0; 1]);
            gate_combine(
                isa,
                1,
                Mat::new(&logits, 1, 3),
                Mat::new(&bank, 1, 3),
                MatMut::new(&mut weights, 1, 3),
                MatMut::new(&mut mixed, 1, 1),
            );
            (weights, mixed[0])
        };
        assert_eq!(run([1e30, -1e30, f32::NEG_INFINITY]), ([1.0, 0.0, 0.0], 1.0));
        assert!(run([0.0, f32::NAN, 0.0]).1.is_nan());
        assert!(run([0.0, f32::INFINITY, 0.0]).1.is_nan());
    }
}
