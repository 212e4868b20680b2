//! What samples have of the ids of their lists, on the device against plain loops.

use manygate_cuda::sequence::{self as cuda, Weights};
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::{Gpu, Sampled, Window};
use manygate_kernels::embedding::Pooling;
use proptest::prelude::*;

/// Widths: none, few, whole fours, more than a thread's.
fn widths() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..10, Just(16), 30usize..36]
}

/// `to += factor * from`.
fn add(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, v)| *to += factor * v);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Ids of the first list that have a partner in the second, which is the first again where there is none.
fn pairs(lists: &Sampled, others: Option<&Sampled>) -> Vec<(usize, usize, usize)> {
    let of = |r: usize| {
        let (ids, partners) = (lists.ids(r), others.unwrap_or(lists).ids(r));
        ids.rev().zip(partners.rev()).map(move |(i, j)| (r, i, j)).collect::<Vec<_>>()
    };
    (0..lists.samples[0]).flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pools(lists in Sampled::any(), n in widths(), mean: bool, accumulate: bool) {
        let pooling = if mean { Pooling::Mean } else { Pooling::Sum };
        let scale = |r: usize| if mean { 1.0 / lists.ids(r).len().max(1) as f32 } else { 1.0 };
        let (x, y) = (lists.of_ids(n), lists.of_samples(n));
        let launch = |_: &mut Gpu, of, x: &[DeviceMat], y| vec![cuda::sequence_pool(of, pooling, x[0], y)];
        lists.check(&[x], y, false, launch, |x, y| {
            for (r, y) in y.chunks_exact_mut(n).enumerate() {
                lists.ids(r).for_each(|i| add(y, scale(r), &x[0][i * n..][..n]));
            }
        })?;
        let launch = |_: &mut Gpu, of, dy: &[DeviceMat], dx| {
            vec![cuda::sequence_pool_dx(of, pooling, dy[0], accumulate, dx)]
        };
        lists.check(&[y], x, accumulate, launch, |dy, dx| {
            for (r, dy) in dy[0].chunks_exact(n).enumerate() {
                lists.ids(r).for_each(|i| add(&mut dx[i * n..][..n], scale(r), dy));
            }
        })?;
    }

    #[test]
    fn softmaxes(lists in Sampled::any(), n in widths(), accumulate: bool) {
        let x = lists.of_ids(n);
        let launch = |_: &mut Gpu, of, x: &[DeviceMat], p| vec![cuda::sequence_softmax(of, x[0], p)];
        lists.check(&[x], x, false, launch, |x, p| {
            for (r, c) in (0..lists.samples[0]).flat_map(|r| (0..n).map(move |c| (r, c))) {
                let sum: f32 = lists.ids(r).map(|i| x[0][i * n + c].exp()).sum();
                lists.ids(r).for_each(|i| p[i * n + c] = x[0][i * n + c].exp() / sum);
            }
        })?;
        let launch = |_: &mut Gpu, of, p: &[DeviceMat], dx| {
            vec![cuda::sequence_softmax_dx(of, p[0], p[1], accumulate, dx)]
        };
        lists.check(&[x, x], x, accumulate, launch, |of, dx| {
            for (r, c) in (0..lists.samples[0]).flat_map(|r| (0..n).map(move |c| (r, c))) {
                let at = |m: usize, i: usize| of[m][i * n + c];
                let mean: f32 = lists.ids(r).map(|i| at(0, i) * at(1, i)).sum();
                lists.ids(r).for_each(|i| dx[i * n + c] += at(0, i) * (at(1, i) - mean));
            }
        })?;
    }

    #[test]
    fn weighted_pools(lists in Sampled::any(), lens in prop::collection::vec(0u32..7, 14), n in widths(),
                      two: bool, accumulate: bool) {
        let mut others = lists.clone();
        for r in 0..lists.samples[0] {
            others.offsets[r + 1] = others.offsets[r] + lens[r];
        }
        let (beside, second) = if two { (Some(&others), &others) } else { (None, &lists) };
        let pairs = pairs(&lists, beside);
        let of_weights = |of: &Sampled| Window { element: Element::F32, ..of.of_ids(1) };
        let (x, y, w, u) = (lists.of_ids(n), lists.of_samples(n), of_weights(&lists), of_weights(second));
        let weights = |gpu: &mut Gpu, w: DeviceMat, u: DeviceMat| Weights {
            w,
            beside: two.then(|| (u, gpu.upload(&others.offsets))),
        };
        let partner = |u: &[f32], j: usize| if two { u[j] } else { 1.0 };
        let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], y| {
            vec![cuda::weighted_pool(of, weights(gpu, from[1], from[2]), from[0], y)]
        };
        lists.check(&[x, w, u], y, false, launch, |of, y| {
            for &(r, i, j) in &pairs {
                add(&mut y[r * n..][..n], of[1][i] * partner(&of[2], j), &of[0][i * n..][..n]);
            }
        })?;
        let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], dx| {
            vec![cuda::weighted_pool_dx(of, weights(gpu, from[1], from[2]), from[0], accumulate, dx)]
        };
        lists.check(&[y, w, u], x, accumulate, launch, |of, dx| {
            for &(r, i, j) in &pairs {
                add(&mut dx[i * n..][..n], of[1][i] * partner(&of[2], j), &of[0][r * n..][..n]);
            }
        })?;
        let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], dw| {
            let weights = weights(gpu, from[2], from[3]);
            vec![cuda::weighted_pool_dw(of, weights, from[0], from[1], Some((dw, accumulate)), None)]
        };
        lists.check(&[x, y, w, u], w, accumulate, launch, |of, dw| {
            for &(r, i, j) in &pairs {
                dw[i] += partner(&of[3], j) * dot(&of[0][i * n..][..n], &of[1][r * n..][..n]);
            }
        })?;
        if !two {
            return Ok(());
        }
        let launch = |gpu: &mut Gpu, of, from: &[DeviceMat], du| {
            let weights = weights(gpu, from[2], from[3]);
            vec![cuda::weighted_pool_dw(of, weights, from[0], from[1], None, Some((du, accumulate)))]
        };
        lists.check(&[x, y, w, u], u, accumulate, launch, |of, du| {
            for &(r, i, j) in &pairs {
                du[j] += of[2][i] * dot(&of[0][i * n..][..n], &of[1][r * n..][..n]);
            }
        })?;
    }

    #[test]
    fn comparisons(lists in Sampled::any(), n in widths(), accumulate: bool) {
        let (q, k, z) = (lists.of_samples(n), lists.of_ids(n), lists.of_ids(4 * n));
        let all = || (0..lists.samples[0]).flat_map(|r| lists.ids(r).map(move |i| (r, i)));
        let launch = |_: &mut Gpu, of, x: &[DeviceMat], z| vec![cuda::compare(of, x[0], x[1], z)];
        lists.check(&[q, k], z, false, launch, |of, z| {
            for ((r, i), c) in all().flat_map(|at| (0..n).map(move |c| (at, c))) {
                let (q, k) = (of[0][r * n + c], of[1][i * n + c]);
                let parts = [q, k, q - k, q * k].into_iter().enumerate();
                parts.for_each(|(part, v)| z[(4 * i + part) * n + c] = v);
            }
        })?;
        let launch =
            |_: &mut Gpu, of, x: &[DeviceMat], dk| vec![cuda::compare_dk(of, x[0], x[1], accumulate, dk)];
        lists.check(&[q, z], k, accumulate, launch, |of, dk| {
            for ((r, i), c) in all().flat_map(|at| (0..n).map(move |c| (at, c))) {
                let [b, less, d] = [1, 2, 3].map(|part| of[1][(4 * i + part) * n + c]);
                dk[i * n + c] += b - less + of[0][r * n + c] * d;
            }
        })?;
        let launch =
            |_: &mut Gpu, of, x: &[DeviceMat], dq| vec![cuda::compare_dq(of, x[0], x[1], accumulate, dq)];
        lists.check(&[k, z], q, accumulate, launch, |of, dq| {
            for ((r, i), c) in all().flat_map(|at| (0..n).map(move |c| (at, c))) {
                let [a, less, d] = [0, 2, 3].map(|part| of[1][(4 * i + part) * n + c]);
                dq[r * n + c] += a + less + of[0][i * n + c] * d;
            }
        })?;
    }

    #[test]
    fn places(lists in Sampled::any(), n in widths(), more in 0usize..3, accumulate: bool) {
        let longest = (0..lists.samples[0]).map(|r| lists.ids(r).len()).max().unwrap_or(0) + more;
        let (x, p) = (lists.of_ids(n), Window::whole(longest, n));
        let all = || {
            (0..lists.samples[0]).flat_map(|r| lists.ids(r).enumerate())
        };
        let launch = |_: &mut Gpu, of, x: &[DeviceMat], y| vec![cuda::position_embedding(of, x[0], x[1], y)];
        lists.check(&[x, p], x, false, launch, |of, y| {
            for (place, i) in all() {
                add(&mut y[i * n..][..n], 1.0, &of[0][i * n..][..n]);
                add(&mut y[i * n..][..n], 1.0, &of[1][place * n..][..n]);
            }
        })?;
        let launch = |gpu: &mut Gpu, of: cuda::Lists, dy: &[DeviceMat], dp: DeviceMat| {
            let bytes = cuda::position_sums_scratch(of.most, dp.rows, dp.cols);
            let scratch = gpu.allocate::<u8>(bytes as usize);
            cuda::position_sums(of, dy[0], accumulate, dp, scratch)
        };
        lists.check(&[x], p, accumulate, launch, |dy, dp| {
            all().for_each(|(place, i)| add(&mut dp[place * n..][..n], 1.0, &dy[0][i * n..][..n]));
        })?;
    }
}
