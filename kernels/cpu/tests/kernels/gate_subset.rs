use crate::testing::{close, values, widen};
use manygate_kernels::gate::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::view::{Mat, MatMut};
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

/// The second gate reads what it shares with the first, the expert number 2 say, from the other bank.
fn is_apart(gate: usize, expert: usize) -> bool {
    gate == 1 && expert == 2
}

fn reference(
    gates: &[Vec<usize>],
    apart: bool,
    [rows, width]: [usize; 2],
    [logits, bank, other]: &[Vec<f64>; 3],
) -> Vec<f64> {
    let (count, experts) = (gates.iter().map(Vec::len).sum::<usize>(), bank.len() / (rows * width).max(1));
    let mut mixed = Vec::new();
    for r in 0..rows {
        let mut from = r * count;
        for (gate, own) in gates.iter().enumerate() {
            let terms: Vec<f64> = logits[from..from + own.len()].iter().map(|z| z.exp()).collect();
            let total: f64 = terms.iter().sum();
            for c in 0..width {
                let expert = |e: usize| {
                    let bank = if apart && is_apart(gate, e) { other } else { bank };
                    bank[(r * experts + e) * width + c]
                };
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
        (experts, gates) in gates(), rows in 1usize..4, width in 1usize..70, accumulate: bool, apart: bool, seed: u64,
    ) {
        // Only what another gate reads from the first bank may be read apart.
        let apart = apart && gates[0].contains(&2);
        let seen = Seen::reading_apart(experts, &gates, |t, e| apart && is_apart(t, e)).unwrap();
        prop_assert_eq!(seen.has_apart(), apart && gates[1].contains(&2));
        let (count, out) = (seen.logits(), gates.len() * width);
        let logits = values(seed, rows * count, 2.0);
        let banks = [1, 3].map(|salt| values(seed ^ salt, rows * experts * width, 1.0));
        let upstream = values(seed ^ 2, rows * out, 1.0);
        let all = [widen(&logits), widen(&banks[0]), widen(&banks[1])];
        let expected = reference(&gates, apart, [rows, width], &all);
        let slope = |which: usize, i: usize| {
            let h = 1e-4;
            let at = |delta: f64| -> f64 {
                let mut all = all.clone();
                all[which][i] += delta;
                let mixed = reference(&gates, apart, [rows, width], &all);
                mixed.iter().zip(&upstream).map(|(m, &u)| m * f64::from(u)).sum()
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for isa in Isa::available() {
            let (mut weights, mut mixed) = (vec![7.0; rows * count], vec![7.0; rows * (out + 1)]);
            let views = [0, 1].map(|i| Mat::new(&banks[i], rows, experts * width));
            gate_combine_seen(isa, &seen, Mat::new(&logits, rows, count), views,
                MatMut::new(&mut weights, rows, count), MatMut::strided(&mut mixed, rows, out, out + 1));
            for r in 0..rows {
                for (c, &m) in mixed[r * (out + 1)..][..out].iter().enumerate() {
                    prop_assert!(close(m, expected[r * out + c], 2e-6), "{isa} mixed");
                }
            }
            let (before, base) = if accumulate { (0.5, 0.5) } else { (f32::NAN, 0.0) };
            let mut d_banks = [0, 1].map(|i| vec![before; banks[i].len()]);
            for other in [false, true] {
                let mut d_logits = vec![before; logits.len()];
                let [own, others] = &mut d_banks;
                own.fill(before);
                let others = other.then_some((accumulate, MatMut::new(others, rows, experts * width)));
                gate_combine_seen_dx(isa, &seen, Mat::new(&weights, rows, count), views,
                    Mat::new(&upstream, rows, out), accumulate, MatMut::new(&mut d_logits, rows, count),
                    [Some((accumulate, MatMut::new(own, rows, experts * width))), others]);
                for i in 0..logits.len() {
                    prop_assert!(close(d_logits[i], base + slope(0, i), 1e-5), "{isa} logit {i}");
                }
            }
            for (bank, d_bank) in d_banks.iter().enumerate() {
                for i in (0..d_bank.len()).step_by(11) {
                    let expected = base + slope(1 + bank, i);
                    prop_assert!(close(d_bank[i], expected, 1e-5), "{isa} bank {bank} {i}: {}", d_bank[i]);
                }
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
            [Mat::new(&bank, 1, 3); 2],
            MatMut::new(&mut weights, 1, 4),
            MatMut::new(&mut mixed, 1, 2),
        );
        assert_eq!(mixed[0], 2.0);
        assert!(mixed[1].is_nan());
    }
}
