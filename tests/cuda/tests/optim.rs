//! Optimisers on the device: the bits of the CPU's fused instruction sets.

use manygate_cuda::optim::{self, Clipping, Piece, Step};
use manygate_cuda_tests::{Gpu, first_difference, values};
use manygate_kernels::optim::{
    AdagradStep, AdamStep, MomentumStep, SgdStep, adagrad, adam, clamp, momentum, scale, sgd, sum_squares,
};
use manygate_kernels::{Isa, Mat};
use proptest::prelude::*;
use std::ops::Range;

/// Parameters, and what is laid out like them.
#[derive(Clone, Debug)]
struct State {
    weights: Vec<f32>,
    gradients: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl State {
    fn new(len: usize, seed: u64) -> State {
        State {
            weights: values(seed, len, 1.0),
            gradients: values(seed ^ 1, len, 1.0),
            first: values(seed ^ 2, len, 0.1),
            second: values(seed ^ 3, len, 0.1).iter().map(|v| v.abs()).collect(),
        }
    }

    fn step_on_cpu(&mut self, range: Range<usize>, step: &Step, factor: Option<f32>, limit: f32) {
        let mut g = self.gradients[range.clone()].to_vec();
        if let Some(factor) = factor {
            scale(Isa::Scalar, &mut g, factor);
        }
        clamp(Isa::Scalar, &mut g, limit);
        let g = Mat::new(&g, 1, g.len());
        let [w, m, v] =
            [&mut self.weights, &mut self.first, &mut self.second].map(|all| &mut all[range.clone()]);
        match step {
            Step::Still => {}
            Step::Adagrad(step) => adagrad(Isa::Scalar, w, g, v, step),
            Step::Adam(step) => adam(Isa::Scalar, w, g, m, v, step),
            Step::Momentum(step) => momentum(Isa::Scalar, w, g, m, step),
            Step::Sgd(step) => sgd(Isa::Scalar, w, g, step),
        }
    }

    fn upload(&self, gpu: &mut Gpu) -> optim::Parameters {
        optim::Parameters {
            weights: gpu.upload(&self.weights),
            gradients: gpu.upload(&self.gradients),
            first: gpu.upload(&self.first),
            second: gpu.upload(&self.second),
        }
    }

    fn download(&self, gpu: &mut Gpu, at: optim::Parameters) -> State {
        let mut of = |address| gpu.download(address, self.weights.len());
        State {
            weights: of(at.weights),
            gradients: of(at.gradients),
            first: of(at.first),
            second: of(at.second),
        }
    }

    fn difference(&self, expected: &State) -> Option<String> {
        let of = |name: &str, found: &[f32], expected: &[f32]| {
            first_difference(found, expected).map(|difference| format!("{name}: {difference}"))
        };
        of("weights", &self.weights, &expected.weights)
            .or_else(|| of("gradients", &self.gradients, &expected.gradients))
            .or_else(|| of("first", &self.first, &expected.first))
            .or_else(|| of("second", &self.second, &expected.second))
    }
}

/// One of each method.
fn steps(l2: f32, weight_decay: f32) -> Vec<Step> {
    let (rate, epsilon) = (0.01, 1e-8);
    let betas = (0.9f32, 0.999f32);
    let momentum = |nesterov| MomentumStep { rate, momentum: 0.9, nesterov, l2, weight_decay };
    vec![
        Step::Still,
        Step::Adagrad(AdagradStep { rate, epsilon, l2 }),
        Step::Adam(AdamStep {
            rate,
            beta1: betas.0,
            beta2: betas.1,
            epsilon,
            correction1: 1.0 - betas.0.powi(3),
            correction2: 1.0 - betas.1.powi(3),
            l2,
            weight_decay,
        }),
        Step::Momentum(momentum(false)),
        Step::Momentum(momentum(true)),
        Step::Sgd(SgdStep { rate, l2 }),
    ]
}

/// Pieces, their number, and what groups do, each of which has one range.
fn upload_groups(gpu: &mut Gpu, groups: &[(Range<usize>, Step)]) -> (u64, u32, u64) {
    let cut = |(i, (range, _)): (usize, &(Range<usize>, Step))| {
        Piece::cut(range.start as u64..range.end as u64, i as u32)
    };
    let pieces: Vec<Piece> = groups.iter().enumerate().flat_map(cut).collect();
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
    let steps: Vec<u8> = groups.iter().flat_map(|(_, step)| step.to_bytes()).collect();
    (gpu.upload(&bytes), pieces.len() as u32, gpu.upload(&steps))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_group_moves_by_its_method(
        lengths in prop::collection::vec((prop_oneof![0usize..20, 1000usize..1100], 0usize..6), 6),
        l2 in prop_oneof![Just(0.0f32), 0.0f32..0.1], decay in prop_oneof![Just(0.0f32), 0.0f32..0.1],
        factor in prop_oneof![Just(None), (0.1f32..1.0).prop_map(Some)],
        limit in prop_oneof![Just(f32::INFINITY), Just(0.3)], seed: u64,
    ) {
        let (mut groups, mut end) = (vec![], 0);
        for ((length, gap), step) in lengths.into_iter().zip(steps(l2, decay)) {
            groups.push((end + gap..end + gap + length, step));
            end += gap + length;
        }
        let mut state = State::new(end, seed);
        let mut gpu = Gpu::with_order(seed);
        let at = state.upload(&mut gpu);
        let (pieces, count, table) = upload_groups(&mut gpu, &groups);
        let clipping = Clipping { factor: factor.map(|factor| gpu.upload(&[factor])), limit };
        for _ in 0..2 {
            gpu.launch(&optim::optimise(None, pieces, count, table, clipping, at));
            for (range, step) in &groups {
                state.step_on_cpu(range.clone(), step, factor, limit);
            }
        }
        prop_assert_eq!(state.download(&mut gpu, at).difference(&state), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn long_gradients_are_made_as_short_as_the_limit(
        first in 0usize..9, len in prop_oneof![0usize..20, 1020usize..1030, Just(5000)], tables in 0usize..600,
        limit in prop_oneof![0.01f64..1.0, 10.0f64..100.0], seed: u64,
    ) {
        let gradients = values(seed, first + len + 3, 1.0);
        let of_tables: Vec<f64> = values(seed ^ 1, tables, 0.1).iter().map(|&v| f64::from(v).abs()).collect();
        let of = |order: u64| {
            let mut gpu = Gpu::with_order(order);
            let (pieces, count, _) = upload_groups(&mut gpu, &[(first..first + len, Step::Still)]);
            let sums: Vec<f64> = vec![f64::NAN; count as usize].into_iter().chain(of_tables.clone()).collect();
            let (at, partials) = (gpu.upload(&gradients), gpu.upload(&sums));
            let (factor, go_on) = (gpu.allocate::<f32>(1), gpu.upload(&[7u32]));
            gpu.launch(&optim::sum_squares(pieces, count, at, partials));
            let all = count + tables as u32;
            gpu.launch(&optim::clip_factor(partials, all, limit, factor, go_on));
            (gpu.download::<f32>(factor, 1)[0], gpu.download::<u32>(go_on, 1)[0])
        };
        let squares = sum_squares(Isa::Scalar, &gradients[first..first + len]) + of_tables.iter().sum::<f64>();
        let norm = squares.sqrt();
        let expected = if norm > limit { limit / norm } else { 1.0 };
        let (factor, go_on) = of(0);
        prop_assert!((f64::from(factor) - expected).abs() <= 6e-8 * expected, "{} {}", factor, expected);
        prop_assert_eq!(go_on, 7);
        prop_assert_eq!(of(seed | 1), (factor, go_on), "the order of warps shows");
    }
}

#[test]
fn a_gradient_that_is_not_finite_stops_where_it_is_measured() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut gpu = Gpu::new();
        let (pieces, count, _) = upload_groups(&mut gpu, &[(0..3, Step::Still)]);
        let (at, partials) = (gpu.upload(&[1.0, bad, 2.0]), gpu.allocate::<f64>(1));
        let (factor, go_on) = (gpu.allocate::<f32>(1), gpu.upload(&[1u32]));
        gpu.launch(&optim::sum_squares(pieces, count, at, partials));
        gpu.launch(&optim::clip_factor(partials, count, 1.0, factor, go_on));
        assert_eq!(gpu.download::<u32>(go_on, 1), [0], "{bad}");
    }
}

#[test]
fn nothing_moves_where_the_flag_says_stop() {
    let mut gpu = Gpu::new();
    let mut state = State::new(40, 3);
    let at = state.upload(&mut gpu);
    let adam = steps(0.1, 0.1)[2];
    let (pieces, count, table) = upload_groups(&mut gpu, &[(0..40, adam)]);
    let flags = gpu.upload(&[0u32, 1]);
    gpu.launch(&optim::optimise(Some(flags), pieces, count, table, Clipping::NONE, at));
    assert_eq!(state.download(&mut gpu, at).difference(&state), None);
    gpu.launch(&optim::optimise(Some(flags + 4), pieces, count, table, Clipping::NONE, at));
    state.step_on_cpu(0..40, &adam, None, f32::INFINITY);
    assert_eq!(state.download(&mut gpu, at).difference(&state), None);
}

#[test]
fn gradients_that_are_not_finite_are_not_hidden() {
    let mut gpu = Gpu::new();
    let mut state = State::new(4, 4);
    state.gradients = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
    let at = state.upload(&mut gpu);
    let (pieces, count, table) = upload_groups(&mut gpu, &[(0..4, steps(0.0, 0.0)[5])]);
    gpu.launch(&optim::optimise(None, pieces, count, table, Clipping::NONE, at));
    let weights = state.download(&mut gpu, at).weights;
    assert!(
        weights[0].is_nan() && weights[1] == f32::NEG_INFINITY && weights[2] == f32::INFINITY,
        "{weights:?}"
    );
    assert!(weights[3].is_finite());
}

#[test]
fn pieces_cover_a_range_and_stay_inside_a_block() {
    let lengths = |range: Range<u64>| Piece::cut(range, 0).count();
    assert_eq!([lengths(5..5), lengths(0..1024), lengths(1023..1025), lengths(1..4096)], [0, 1, 2, 4]);
}

#[test]
#[should_panic(expected = "are not aligned")]
fn addresses_that_are_not_aligned_are_refused() {
    let at = optim::Parameters { weights: 16, gradients: 32, first: 4, second: 0 };
    optim::optimise(None, 0, 1, 0, Clipping::NONE, at);
}
