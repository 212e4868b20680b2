//! Gradients of rows: sums and updates have the bits of the CPU but for runs that are summed in parts, and for the mean
//! of squares of row-wise Adagrad, whose order differs.

use crate::batch::{Batch, Kind, Lists, random_lists};
use crate::{Numbers, Table};
use manygate_cuda::embedding::{Ids, Source, SparseGradients, step_to_bytes, update_rows};
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::Gpu;
use manygate_kernels::embedding::RowOptimizer;
use proptest::prelude::*;

/// Rows whose look-ups are more are summed in parts.
const LONGEST: usize = 256;

fn optimizers() -> [RowOptimizer; 5] {
    let correction = RowOptimizer::adam_correction(0.9, 0.999, 3);
    [
        RowOptimizer::LazyAdam { rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, correction, l2: 0.01 },
        RowOptimizer::Adagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
        RowOptimizer::RowwiseAdagrad { rate: 0.05, epsilon: 1e-8, l2: 0.02 },
        RowOptimizer::Ftrl { alpha: 0.1, beta: 1.0, l1: 0.3, l2: 0.02 },
        RowOptimizer::Sgd { rate: 0.1, l2: 0.03 },
    ]
}

/// A table for an optimiser: state is positive, as second moments are.
fn table_for(
    gpu: &mut Gpu,
    numbers: &mut Numbers,
    rows: u32,
    dim: u32,
    pad: u32,
    optimizer: &RowOptimizer,
) -> Table {
    let state = optimizer.state_width(dim as usize) as u32 + pad;
    let mut table = Table::new(gpu, numbers, rows, dim, state);
    for row in table.data.chunks_mut(table.stride.max(1) as usize) {
        row.iter_mut().skip(dim as usize).for_each(|x| *x = 0.1 + x.abs());
    }
    table.device.address = gpu.upload(&table.data);
    table
}

/// Whether values agree to their bits, or, with a `tolerance`, up to that.
fn assert_agree(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&x, &y)) in got.iter().zip(expected).enumerate() {
        assert!((x - y).abs() <= tolerance * y.abs().max(1.0), "{what} [{i}]: {x}, {y}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(&[Kind::Field, Kind::Bag, Kind::Positions][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn sums_have_the_bits_of_the_cpu(
        tables in prop::collection::vec((1u32..40, prop::sample::select(&[1u32, 2, 3, 4, 7, 16, 33, 64, 130][..])), 1..5),
        lists in prop::collection::vec((0usize..4, kinds()), 0..6),
        rows in 0usize..40, pad in 0u32..5, room in 0u32..300, bf16: [bool; 6], seed: u64,
    ) {
        let mut gpu = Gpu::new();
        let mut numbers = Numbers(seed);
        let tables: Vec<_> =
            tables.iter().map(|&(rows, dim)| Table::new(&mut gpu, &mut numbers, rows, dim, 0)).collect();
        let lists = lists.iter().zip(bf16).map(|(&(t, kind), bf16)| {
            let t = t % tables.len();
            let element = if bf16 { Element::Bf16 } else { Element::F32 };
            random_lists(&mut numbers, t, kind, &tables[t], rows, element)
        }).collect();
        let mut batch = Batch::new(gpu, tables, lists, pad, room);
        batch.sort();
        let (keys, sums) = batch.coalesced();
        let (expected_keys, expected_sums) = batch.expected_sums();
        prop_assert_eq!(keys, expected_keys);
        prop_assert_eq!(sums, expected_sums);
    }

    #[test]
    fn rows_move_as_on_the_cpu(
        dims in prop::collection::vec(prop::sample::select(&[1u32, 3, 4, 7, 16, 33, 64, 130][..]), 5), pad in 0u32..3,
        shift in 0usize..5, rows in 1usize..30, stays in 0usize..7, seed: u64,
    ) {
        let mut gpu = Gpu::new();
        let mut numbers = Numbers(seed);
        let mut optimizers = optimizers();
        optimizers.rotate_left(shift);
        let tables: Vec<_> = optimizers.iter().zip(&dims)
            .map(|(optimizer, &dim)| table_for(&mut gpu, &mut numbers, 9, dim, 4 * pad, optimizer)).collect();
        let kinds = [Kind::Field, Kind::Bag, Kind::Positions, Kind::Field, Kind::Bag, Kind::Bag, Kind::Field];
        let lists = kinds.iter().enumerate()
            .map(|(i, &kind)| random_lists(&mut numbers, i % 5, kind, &tables[i % 5], rows, Element::F32)).collect();
        let mut batch = Batch::new(gpu, tables, lists, 4, 9);
        batch.sort();
        let steps: Vec<_> = optimizers.iter().enumerate().map(|(i, o)| (i != stays).then_some(*o)).collect();
        for by_sums in [false, true, false] {
            let before: Vec<_> = (0..5).map(|t| batch.table(t)).collect();
            if by_sums {
                batch.update_by_sums(&steps);
            } else {
                batch.update(&steps);
            }
            for t in 0..5 {
                let expected = batch.expected_table(t, &before[t], steps[t].as_ref());
                let tolerance = if matches!(steps[t], Some(RowOptimizer::RowwiseAdagrad { .. })) { 1e-6 } else { 0.0 };
                assert_agree(&batch.table(t), &expected, tolerance, &format!("{:?}", steps[t]));
            }
        }
    }
}

/// A batch of one field whose ids occur as often as `runs` says, from id `first` on, in any order.
fn batch_of_runs(runs: &[usize], first: u32, dim: u32, optimizer: &RowOptimizer, seed: u64) -> Batch {
    let mut gpu = Gpu::new();
    gpu.seed = seed;
    let mut numbers = Numbers(17);
    let mut ids: Vec<u32> = runs.iter().zip(first..).flat_map(|(&n, id)| vec![id; n]).collect();
    for i in (1..ids.len()).rev() {
        ids.swap(i, numbers.below(i as u32 + 1) as usize);
    }
    let table = table_for(&mut gpu, &mut numbers, runs.len() as u32 + first, dim, 0, optimizer);
    let gradient = numbers.values(ids.len() * dim as usize);
    let offsets = (0..=ids.len() as u32).collect();
    let rows = 0..ids.len();
    let lists =
        vec![Lists { table: 0, kind: Kind::Field, offsets, ids, rows, gradient, element: Element::F32 }];
    let mut batch = Batch::new(gpu, vec![table], lists, 0, 0);
    batch.sort();
    batch
}

/// Runs that end where tiles do, before and behind, that reach into one tile more or over several, with short ones
/// between.
const RUNS: [usize; 16] = [513, 255, 256, 257, 3, 252, 1, 512, 512, 1, 200, 100, 300, 1, 254, 1];

#[test]
fn long_runs_are_summed_in_parts_and_others_in_order() {
    for dim in [4, 33] {
        let sgd = RowOptimizer::Sgd { rate: 0.1, l2: 0.0 };
        let mut batch = batch_of_runs(&RUNS, 0, dim, &sgd, 0);
        let (keys, sums) = batch.coalesced();
        let (expected_keys, expected) = batch.expected_sums();
        assert_eq!(keys, expected_keys);
        let width = batch.gradients.width() as usize;
        for (i, &lookups) in RUNS.iter().enumerate() {
            let tolerance = if lookups > LONGEST { 5e-5 } else { 0.0 };
            let of_run = i * width..(i + 1) * width;
            assert_agree(&sums[of_run.clone()], &expected[of_run], tolerance, &format!("{lookups} look-ups"));
        }
    }
}

#[test]
fn rows_of_long_runs_move() {
    for optimizer in optimizers() {
        for dim in [3, 16, 136] {
            for update in [Batch::update, Batch::update_by_sums] {
                let mut batch = batch_of_runs(&[700, 5, 300, 1, 1030], 1, dim, &optimizer, 0);
                let before = batch.table(0);
                update(&mut batch, &[Some(optimizer)]);
                let expected = batch.expected_table(0, &before, Some(&optimizer));
                assert_agree(&batch.table(0), &expected, 2e-5, &format!("{optimizer:?}"));
            }
        }
    }
}

/// More look-ups of one row than a warp has lanes for tiles, and a block that has several long rows to move.
#[test]
fn hot_rows_are_moved_by_few_blocks() {
    let optimizer = optimizers()[2];
    let mut batch = batch_of_runs(&[9000, 300, 1, 2000, 280], 1, 4, &optimizer, 0);
    let before = batch.table(0);
    let steps = batch.gpu.upload(&step_to_bytes(Some(&optimizer)));
    for mut launch in update_rows(&batch.gradients, batch.memory, steps) {
        if launch.kernel == "update_long_rows" {
            launch.grid[0] = 2;
        }
        batch.gpu.launch(&launch);
    }
    assert_agree(&batch.table(0), &batch.expected_table(0, &before, Some(&optimizer)), 2e-5, "moved");
}

#[test]
fn the_order_of_warps_changes_no_bits() {
    let optimizer = optimizers()[2];
    let tables: Vec<_> = [0, 1, 5]
        .iter()
        .map(|&seed| {
            let mut batch = batch_of_runs(&[900, 5, 300, 1, 40], 1, 16, &optimizer, seed);
            batch.update(&[Some(optimizer)]);
            batch.table(0)
        })
        .collect();
    assert_eq!(tables[0], tables[1]);
    assert_eq!(tables[0], tables[2]);
}

#[test]
fn the_unknown_row_is_never_trained() {
    let optimizer = optimizers()[0];
    let mut batch = batch_of_runs(&[800, 3], 0, 4, &optimizer, 0);
    let before = batch.table(0);
    batch.update(&[Some(optimizer)]);
    let stride = batch.tables[0].stride as usize;
    assert_eq!(batch.table(0)[..stride], before[..stride]);
    assert_ne!(batch.table(0)[stride..], before[stride..]);
}

/// Host code refuses such ids; no launch must reach beyond the table all the same.
#[test]
fn an_id_beyond_the_table_is_the_unknown_row() {
    let mut gpu = Gpu::new();
    let table = Table::new(&mut gpu, &mut Numbers(1), 3, 4, 0);
    let (ids, rows) = (vec![1, 3, 2, u32::MAX], 0..4);
    let gradient = (0..16).map(|x| x as f32).collect();
    let lists = Lists {
        table: 0,
        kind: Kind::Field,
        offsets: (0..5).collect(),
        ids,
        rows,
        gradient,
        element: Element::F32,
    };
    let mut batch = Batch::new(gpu, vec![table], vec![lists], 0, 0);
    batch.sort();
    let (keys, sums) = batch.coalesced();
    assert_eq!(keys, [0, 1, 2]);
    assert_eq!(sums, [16.0, 18.0, 20.0, 22.0, 0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0, 11.0]);
}

/// Every look-up a row of its own, in several tiles of several tables.
#[test]
fn distinct_rows_move_alone() {
    let optimizer = optimizers()[1];
    let mut batch = batch_of_runs(&[1; 600], 1, 8, &optimizer, 0);
    let before = batch.table(0);
    batch.update(&[Some(optimizer)]);
    assert_eq!(batch.table(0), batch.expected_table(0, &before, Some(&optimizer)));
}

/// Sums are written out, as for clipping, and rows moved by the same sort.
#[test]
fn rows_move_after_their_sums_were_written_out() {
    let optimizer = optimizers()[4];
    let mut batch = batch_of_runs(&RUNS, 1, 4, &optimizer, 0);
    let before = batch.table(0);
    batch.coalesced();
    batch.update(&[Some(optimizer)]);
    let expected = batch.expected_table(0, &before, Some(&optimizer));
    assert_agree(&batch.table(0), &expected, 5e-5, "moved");
}

#[test]
fn keys_of_32_bits_are_sorted() {
    let mut gpu = Gpu::new();
    let mut numbers = Numbers(2);
    // Only the last rows of a table are looked up: the table begins far before what is allocated of it.
    let rows = (1u64 << 31) as u32;
    let mut table = Table::new(&mut gpu, &mut numbers, 64, 4, 0);
    let whole = manygate_cuda::embedding::DeviceTable {
        rows,
        address: table.device.address.wrapping_sub(u64::from(rows - 64) * 16),
        ..table.device
    };
    let ids: Vec<u32> = numbers.ids(90, 64).iter().map(|id| id + rows - 64).collect();
    let gradient = numbers.values(90 * 4);
    table.rows = rows;
    table.device = whole;
    let lists = |table, gradient| Lists {
        table,
        kind: Kind::Field,
        offsets: (0..91).collect(),
        ids: ids.clone(),
        rows: 0..90,
        gradient,
        element: Element::F32,
    };
    let filler = Table { data: Vec::new(), rows: rows - 1, dim: 4, stride: 4, device: whole };
    let filler =
        Table { device: manygate_cuda::embedding::DeviceTable { rows: rows - 1, ..whole }, ..filler };
    let mut batch = Batch::new(gpu, vec![filler, table], vec![lists(1, gradient.clone())], 0, 0);
    batch.sort();
    let (keys, sums) = batch.coalesced();
    let (expected_keys, expected_sums) = batch.expected_sums();
    assert_eq!(keys, expected_keys);
    assert_eq!(sums, expected_sums);
}

#[test]
#[should_panic(expected = "at most 2^32 - 1 are told apart")]
fn more_rows_than_keys_are_refused() {
    let table = manygate_cuda::embedding::DeviceTable { address: 0, rows: u32::MAX, dim: 4, stride: 4 };
    SparseGradients::new(&[table, table], &[], 1, 1);
}

#[test]
#[should_panic(expected = "sources of up to")]
fn more_positions_than_32_bits_are_refused() {
    let table = manygate_cuda::embedding::DeviceTable { address: 0, rows: 9, dim: 4, stride: 4 };
    let gradient = DeviceMat::new(0, 1 << 30, 4);
    let source = Source { table: 0, ids: Ids::Field { ids: 0 }, rows: 0, gradient };
    SparseGradients::new(&[table], &[source; 5], 1, 1);
}
