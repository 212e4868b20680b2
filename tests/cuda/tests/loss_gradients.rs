//! Gradients of several losses: products and sums against plain loops, and clipped rows.

use manygate_cuda::embedding::{DeviceTable, RowSums, SparseGradients, SparseMemory};
use manygate_cuda::loss_gradients::{
    FlatGradients, FlatPieces, LossRows, clip_rows, combine_gradients, combine_rows, gradient_products,
    pairs, row_products, sum_products,
};
use manygate_cuda::optim::{Clipping, Piece};
use manygate_cuda_tests::{Gpu, first_difference, values};
use proptest::prelude::*;
use std::ops::Range;

/// `Σ_i a_i b_i` in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `Σ_t weights[t] · gradients[t]`, value by value.
fn weighted(gradients: &[&[f32]], weights: &[f64]) -> Vec<f32> {
    let terms = |i: usize| gradients.iter().zip(weights).map(move |(g, w)| w * f64::from(g[i]));
    (0..gradients[0].len()).map(|i| terms(i).fold(0.0, |sum, term| sum + term) as f32).collect()
}

fn upload_pieces(gpu: &mut Gpu, ranges: &[(Range<usize>, u32)]) -> FlatPieces {
    let cut = |(range, group): &(Range<usize>, u32)| Piece::cut(range.start as u64..range.end as u64, *group);
    let pieces: Vec<Piece> = ranges.iter().flat_map(cut).collect();
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
    FlatPieces { address: gpu.upload(&bytes), count: pieces.len() as u32 }
}

/// What the products of `losses` losses are, pair by pair.
fn expected_products(losses: usize, product: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..losses).flat_map(|a| (0..=a).map(move |b| (a, b))).map(|(a, b)| product(a, b)).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} for {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn gradients_of_parameters_are_multiplied_and_weighed(
        lengths in prop::collection::vec((prop_oneof![0usize..20, 1000usize..1100], 0usize..6), 0..4),
        losses in 1usize..5, seed: u64,
    ) {
        let (mut ranges, mut end) = (vec![], 0);
        for (i, (length, gap)) in lengths.into_iter().enumerate() {
            ranges.push((end + gap..end + gap + length, i as u32 % 2));
            end += gap + length;
        }
        let stride = end.next_multiple_of(4);
        let all = values(seed, losses * stride, 1.0);
        let of_loss = |loss: usize, range: &Range<usize>| &all[loss * stride..][range.clone()];
        let weights: Vec<f64> = values(seed ^ 1, 2 * losses, 2.0).into_iter().map(f64::from).collect();

        let mut gpu = Gpu::with_order(seed);
        let pieces = upload_pieces(&mut gpu, &ranges);
        let gradients = FlatGradients { address: gpu.upload(&all), stride: stride as u64 };
        let (partials, count) = (gpu.allocate::<f64>(pairs(losses as u32) as usize * pieces.count as usize), losses as u32);
        let (products, to) = (gpu.allocate::<f64>(pairs(count) as usize), gpu.upload(&vec![7.0f32; stride]));
        gpu.launch(&gradient_products(pieces, count, gradients, pieces.count, partials));
        gpu.launch(&sum_products(count, partials, pieces.count, products));
        let at = gpu.upload(&weights);
        gpu.launch(&combine_gradients(pieces, at, count, gradients, to));

        let product = |a: usize, b: usize| ranges.iter().map(|(range, _)| dot(of_loss(a, range), of_loss(b, range))).sum();
        assert_close(&gpu.download(products, pairs(count) as usize), &expected_products(losses, product));
        let mut expected = vec![7.0; stride];
        for (range, group) in &ranges {
            let own: Vec<&[f32]> = (0..losses).map(|loss| of_loss(loss, range)).collect();
            let weights = &weights[*group as usize * losses..][..losses];
            expected[range.clone()].copy_from_slice(&weighted(&own, weights));
        }
        prop_assert_eq!(first_difference(&gpu.download::<f32>(to, stride), &expected), None);
    }
}

/// Rows of tables by several losses, on both sides.
struct Rows {
    gpu: Gpu,
    gradients: SparseGradients,
    keys: Vec<u32>,
    /// By loss: `[most, width]`.
    sums: Vec<f32>,
    at: RowSums,
    memory: SparseMemory,
}

impl Rows {
    /// Of tables with these numbers of rows and weights, every `step`-th row of all.
    fn new(tables: &[(u32, u32)], step: u32, spare: u32, losses: usize, seed: u64) -> Rows {
        let mut gpu = Gpu::with_order(seed);
        let tables: Vec<DeviceTable> =
            tables.iter().map(|&(rows, dim)| DeviceTable { address: 0, rows, dim, stride: dim }).collect();
        let all: u32 = tables.iter().map(|table| table.rows).sum();
        let keys: Vec<u32> = (0..all).step_by(step as usize).collect();
        let gradients = SparseGradients::new(&tables, &[], 0, keys.len() as u32 + spare);
        let sums = values(seed ^ 2, losses * (gradients.max_lookups() * gradients.width()) as usize, 1.0);
        let at = RowSums {
            keys: gpu.upload(&keys),
            sums: gpu.upload(&sums),
            distinct: gpu.upload(&[keys.len() as u32]),
        };
        let memory = SparseMemory { descriptions: gpu.upload(&gradients.to_bytes()), scratch: 0 };
        Rows { gpu, gradients, keys, sums, at, memory }
    }

    fn on_device(&mut self, kinds: &[u32]) -> LossRows<'_> {
        let kinds = self.gpu.upload(kinds);
        LossRows { gradients: &self.gradients, memory: self.memory, sums: self.at, kinds }
    }

    /// Values of one loss.
    fn stride(&self) -> usize {
        (self.gradients.max_lookups() * self.gradients.width()) as usize
    }

    /// By row that learns: its table, and where its values are among those of a loss.
    fn learning(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        self.keys.iter().enumerate().filter_map(|(row, &key)| {
            let tables = self.gradients.tables();
            let t = (0..tables.len()).rfind(|&t| self.gradients.first_key(t) <= key)?;
            let from = row * self.gradients.width() as usize;
            (self.gradients.first_key(t) != key).then_some((t, from..from + tables[t].dim as usize))
        })
    }
}

fn tables() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let dim = prop::sample::select(&[1u32, 3, 4, 16, 33, 130][..]);
    prop::collection::vec((prop_oneof![1u32..30, Just(400)], dim), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn gradients_of_rows_are_multiplied_and_weighed(
        tables in tables(), step in 1u32..4, spare in 0u32..300, losses in 1usize..4, kinds: [bool; 4], seed: u64,
    ) {
        let kinds: Vec<u32> = kinds[..tables.len()].iter().map(|&kind| kind.into()).collect();
        let mut rows = Rows::new(&tables, step, spare, losses, seed);
        let (count, stride) = (losses as u32, rows.stride());
        let weights: Vec<f64> = values(seed ^ 1, 2 * losses, 2.0).into_iter().map(f64::from).collect();
        let at = rows.gpu.upload(&weights);
        let (to, products) = (rows.gpu.upload(&vec![7.0f32; stride]), rows.gpu.allocate::<f64>(pairs(count) as usize));
        let parts = rows.on_device(&kinds).blocks();
        let partials = rows.gpu.allocate::<f64>((pairs(count) * parts) as usize);
        let of_rows = rows.on_device(&kinds);
        let launches = [
            row_products(of_rows, count, parts, partials),
            sum_products(count, partials, parts, products),
            combine_rows(of_rows, at, count, to),
        ];
        launches.iter().for_each(|launch| rows.gpu.launch(launch));

        let of_loss = |loss: usize, range: &Range<usize>| &rows.sums[loss * stride..][range.clone()];
        let mut expected = vec![7.0; stride];
        for (t, range) in rows.learning() {
            let own: Vec<&[f32]> = (0..losses).map(|loss| of_loss(loss, &range)).collect();
            expected[range].copy_from_slice(&weighted(&own, &weights[kinds[t] as usize * losses..][..losses]));
        }
        let counted: Vec<Range<usize>> =
            rows.learning().filter(|(t, _)| kinds[*t] == 1).map(|(_, range)| range).collect();
        let product = |a: usize, b: usize| counted.iter().map(|range| dot(of_loss(a, range), of_loss(b, range))).sum();
        let expected_products = expected_products(losses, product);
        assert_close(&rows.gpu.download(products, pairs(count) as usize), &expected_products);
        prop_assert_eq!(first_difference(&rows.gpu.download::<f32>(to, stride), &expected), None);
    }

    #[test]
    fn gradients_of_rows_are_clipped(
        tables in tables(), step in 1u32..4, spare in 0u32..300, kinds: [bool; 4],
        factor in prop_oneof![Just(None), (0.1f32..1.0).prop_map(Some)],
        limit in prop_oneof![Just(f32::INFINITY), Just(0.3)], go_on in 0u32..2, seed: u64,
    ) {
        let kinds: Vec<u32> = kinds[..tables.len()].iter().map(|&kind| kind.into()).collect();
        let mut rows = Rows::new(&tables, step, spare, 1, seed);
        let clipping = Clipping { factor: factor.map(|factor| rows.gpu.upload(&[factor])), limit };
        let (go_on_at, moving) = (rows.gpu.upload(&[go_on]), rows.gpu.allocate::<u32>(1));
        let launch = clip_rows(go_on_at, rows.on_device(&kinds), clipping, moving);
        rows.gpu.launch(&launch);

        let mut expected = rows.sums.clone();
        for (_, range) in rows.learning().filter(|(t, _)| kinds[*t] == 1) {
            expected[range].iter_mut().for_each(|g| *g = (*g * factor.unwrap_or(1.0)).clamp(-limit, limit));
        }
        let (sums, len) = (rows.at.sums, rows.sums.len());
        prop_assert_eq!(first_difference(&rows.gpu.download::<f32>(sums, len), &expected), None);
        prop_assert_eq!(rows.gpu.download::<u32>(moving, 1), [go_on * rows.keys.len() as u32]);
    }
}
