use manygate_kernels::embedding::*;

use crate::testing::{close, values, widen};
use manygate_kernels::simd::Scalar;
use proptest::prelude::*;

/// Algorithm 1 of the paper, from w = 0, in f64: weights after `gradients`, one step each.
fn paper(gradients: &[f32], [alpha, beta, l1, l2]: [f64; 4]) -> f64 {
    let (mut w, mut z, mut n) = (0.0f64, 0.0f64, 0.0f64);
    for &g in gradients {
        let g = f64::from(g);
        let sigma = ((n + g * g).sqrt() - n.sqrt()) / alpha;
        z += g - sigma * w;
        n += g * g;
        w = if z.abs() <= l1 { 0.0 } else { -(z - z.signum() * l1) / ((beta + n.sqrt()) / alpha + l2) };
    }
    w
}

proptest! {
    #[test]
    fn ftrl_is_the_papers_algorithm(
        dim in 1usize..6, steps in 1usize..12, l1 in 0.0f32..1.0, l2 in 0.0f32..1.0, seed: u64,
    ) {
        let (alpha, beta) = (0.1f32, 1.0f32);
        let optimizer = RowOptimizer::Ftrl { alpha, beta, l1, l2 };
        let gradients = values(seed, steps * dim, 1.0);
        let mut row = vec![0.0; 3 * dim];
        for g in gradients.chunks_exact(dim) {
            optimizer.apply(Scalar, &mut g.to_vec(), &mut row);
        }
        for c in 0..dim {
            let own: Vec<f32> = gradients.iter().skip(c).step_by(dim).copied().collect();
            let expected = paper(&own, [alpha, beta, l1, l2].map(f64::from));
            prop_assert!(close(row[c], expected, 1e-5), "{} {expected}", row[c]);
        }
    }

    #[test]
    fn a_row_that_ftrl_meets_without_a_gradient_stays(seed: u64, l1 in 0.0f32..1.0, l2 in 0.0f32..1.0) {
        let before = values(seed, 31, 1.0);
        let mut row = before.clone();
        row.resize(93, 0.0);
        let optimizer = RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1, l2 };
        for _ in 0..3 {
            optimizer.apply(Scalar, &mut [0.0; 31], &mut row);
        }
        for (w, before) in row.iter().zip(widen(&before)) {
            prop_assert!(close(*w, before, 1e-6), "{w} {before}");
        }
    }
}

#[test]
fn ftrl_sets_weights_to_exactly_0() {
    let optimizer = RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1: 10.0, l2: 0.0 };
    let mut row = [0.0; 3];
    optimizer.apply(Scalar, &mut [9.0], &mut row);
    assert_eq!(row, [0.0, 9.0, 81.0]);
    optimizer.apply(Scalar, &mut [9.0], &mut row);
    assert!(row[0] < 0.0, "{row:?}");
}

/// Weight decay through the gradient: with a gradient of 0, every method that has it moves weights towards 0.
#[test]
fn l2_shrinks_the_weights_of_a_row_that_is_looked_up() {
    let (rate, epsilon, l2) = (0.01, 1e-8, 0.5);
    let correction = RowOptimizer::adam_correction(0.9, 0.999, 1);
    let methods = [
        RowOptimizer::LazyAdam { rate, beta1: 0.9, beta2: 0.999, epsilon, correction, l2 },
        RowOptimizer::Adagrad { rate, epsilon, l2 },
        RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 },
        RowOptimizer::Sgd { rate, l2 },
    ];
    for optimizer in methods {
        let mut row = vec![0.5, -0.25];
        row.resize(2 + optimizer.state_width(2), 0.0);
        optimizer.apply(Scalar, &mut [0.0, 0.0], &mut row);
        assert!(row[0] < 0.5 && row[0] > 0.45 && row[1] > -0.25 && row[1] < -0.2, "{optimizer:?}: {row:?}");
    }
}
