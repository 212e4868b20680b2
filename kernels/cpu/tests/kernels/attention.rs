use crate::testing::{close, values};
use manygate_kernels::attention::*;
use manygate_kernels::isa::Isa;
use manygate_kernels::sequence::Sink;
use manygate_kernels::view::{Mat, MatMut};
use proptest::prelude::*;

/// The output, and the gradients of q, k and v, of one head.
fn reference(x: [&dyn Fn(usize, usize) -> f64; 4], tokens: usize, width: usize, scale: f64) -> [Vec<f64>; 4] {
    let [q, k, v, dout] = x;
    let dot = |a: &dyn Fn(usize, usize) -> f64, i, b: &dyn Fn(usize, usize) -> f64, j| -> f64 {
        (0..width).map(|c| a(i, c) * b(j, c)).sum()
    };
    let mut results = [(); 4].map(|()| vec![0.0; tokens * width]);
    for i in 0..tokens {
        let scores: Vec<f64> = (0..tokens).map(|j| scale * dot(q, i, k, j)).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp() / sum).collect();
        let mean: f64 = (0..tokens).map(|j| weights[j] * dot(dout, i, v, j)).sum();
        for (j, &weight) in weights.iter().enumerate() {
            let slope = scale * weight * (dot(dout, i, v, j) - mean);
            for c in 0..width {
                results[0][i * width + c] += weight * v(j, c);
                results[1][i * width + c] += slope * k(j, c);
                results[2][j * width + c] += slope * q(i, c);
                results[3][j * width + c] += weight * dout(i, c);
            }
        }
    }
    results
}

proptest! {
    #[test]
    fn attention_and_its_gradients_agree_with_f64(
        tokens in prop_oneof![0usize..10, 25usize..70], width in 1usize..36, heads in 1usize..4, pad in 0usize..3,
        accumulate: bool, seed: u64,
    ) {
        let (cols, stride, scale) = (heads * width, heads * width + pad, 0.4);
        let inputs = [0, 1, 2, 3].map(|i| values(seed ^ i, tokens * stride, 1.5));
        let [q, k, v, dout] = [0, 1, 2, 3].map(|i| Mat::strided(&inputs[i], tokens, cols, stride));
        let start = if accumulate { 0.5 } else { 0.0 };
        let of = Tokens { q, k, v, heads, scale };
        for isa in Isa::available() {
            let mut scratch = vec![f32::NAN; self_attention_scratch(tokens, width)];
            let mut got = [(); 4].map(|()| vec![if accumulate { 0.5 } else { f32::NAN }; tokens * stride]);
            let [out, dq, dk, dv] = &mut got;
            self_attention(isa, of, &mut scratch, MatMut::strided(out, tokens, cols, stride));
            let [dq, dk, dv] = [dq, dk, dv].map(|to| {
                Some(Sink { to: MatMut::strided(to, tokens, cols, stride), accumulate })
            });
            scratch.fill(f32::NAN);
            self_attention_backward(isa, of, dout, &mut scratch, dq, dk, dv);
            for head in 0..heads {
                let at = |m: usize| {
                    let values = &inputs[m];
                    move |t: usize, c: usize| f64::from(values[t * stride + head * width + c])
                };
                let expected = reference([&at(0), &at(1), &at(2), &at(3)], tokens, width, f64::from(scale));
                for (m, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    for (i, expected) in expected.iter().enumerate() {
                        let got = got[i / width * stride + head * width + i % width];
                        let expected = expected + if m > 0 { start } else { 0.0 };
                        prop_assert!(close(got, expected, 1e-4), "{isa} {m} [{i}]: {got}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn large_scores_stay_finite() {
    for isa in Isa::available() {
        let x = [300.0, -300.0, 200.0];
        let m = Mat::new(&x, 3, 1);
        let (mut out, mut scratch) = ([0.0; 3], vec![0.0; self_attention_scratch(3, 1)]);
        let of = Tokens { q: m, k: m, v: m, heads: 1, scale: 1.0 };
        self_attention(isa, of, &mut scratch, MatMut::new(&mut out, 3, 1));
        assert_eq!(out, [300.0, -300.0, 300.0], "{isa}");
    }
}
