//! Look-ups: bits are those of the CPU.

use crate::{Numbers, Table, rounded};
use manygate_cuda::embedding::{Piece, Pieces, gather, lookup, scale_bag_gradient};
use manygate_cuda::{DeviceMat, Element};
use manygate_cuda_tests::Gpu;
use manygate_kernels::embedding::{self as cpu, Pooling};
use manygate_kernels::{Isa, MatMut};
use proptest::prelude::*;

/// What lies between and behind the values of a matrix.
const GAP: f32 = 7.0;

/// Widths: of one lane, of some, of a warp, of several steps, read by fours and not.
const DIMS: [u32; 9] = [1, 2, 3, 4, 7, 16, 33, 64, 130];

/// One piece on both sides: where its values go to on the CPU, given offsets and ids.
struct Lists {
    offsets: Option<Vec<u32>>,
    ids: Vec<u32>,
    pooling: Pooling,
}

impl Lists {
    fn new(numbers: &mut Numbers, rows: usize, table_rows: u32) -> Lists {
        let pooling = if numbers.below(2) == 0 { Pooling::Sum } else { Pooling::Mean };
        if numbers.below(2) == 0 {
            return Lists { offsets: None, ids: numbers.ids(rows, table_rows), pooling };
        }
        let offsets = numbers.offsets(rows, 12);
        let ids = numbers.ids(offsets[rows] as usize, table_rows);
        Lists { offsets: Some(offsets), ids, pooling }
    }

    fn piece(&self, gpu: &mut Gpu, table: &Table) -> Piece {
        let ids = gpu.upload(&self.ids);
        match &self.offsets {
            None => Piece::Field { table: table.device, ids },
            Some(offsets) => {
                Piece::Bag { table: table.device, offsets: gpu.upload(offsets), ids, pooling: self.pooling }
            }
        }
    }

    /// Rows `[rows, dim]` on the CPU.
    fn expected(&self, table: &Table, rows: usize) -> Vec<f32> {
        let dim = table.dim as usize;
        let mut out = vec![0.0; rows * dim];
        let to = MatMut::new(&mut out, rows, dim);
        match &self.offsets {
            None => cpu::gather(Isa::Scalar, table.rows(), &self.ids[..rows], to),
            Some(offsets) => {
                cpu::gather_bag(Isa::Scalar, table.rows(), &offsets[..=rows], &self.ids, self.pooling, to);
            }
        }
        out
    }

    /// Whether it is a mean, and by how much the gradient of a row is divided then.
    fn divisor(&self, row: usize) -> Option<f32> {
        let offsets = self.offsets.as_ref().filter(|_| self.pooling == Pooling::Mean)?;
        Some((offsets[row + 1] - offsets[row]).max(1) as f32)
    }
}

/// A matrix whose every value is [`GAP`].
fn untouched(gpu: &mut Gpu, rows: u32, cols: u32, stride: u32, element: Element) -> DeviceMat {
    let count = (rows * stride) as usize;
    let address = match element {
        Element::F32 => gpu.upload(&vec![GAP; count]),
        Element::Bf16 => gpu.upload(&vec![(GAP.to_bits() >> 16) as u16; count]),
    };
    DeviceMat { address, live_rows: 0, rows, cols, stride, element }
}

fn download(gpu: &mut Gpu, mat: DeviceMat) -> Vec<f32> {
    let count = (mat.rows * mat.stride) as usize;
    match mat.element {
        Element::F32 => gpu.download(mat.address, count),
        Element::Bf16 => {
            let bits: Vec<u16> = gpu.download(mat.address, count);
            bits.into_iter().map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()
        }
    }
}

/// A trunk of fields, bags and numbers for each of `scenarios`, forward and the gradient of means.
fn check_trunk(dims: &[u32], rows: u32, live: u32, pad: u32, element: Element, scenarios: u32, seed: u64) {
    let mut gpu = Gpu::new();
    let mut numbers = Numbers(seed);
    let state = |numbers: &mut Numbers| numbers.below(3) * 4;
    let tables: Vec<Vec<Table>> = (0..scenarios)
        .map(|_| {
            let table = |&dim| {
                let state = state(&mut numbers);
                Table::new(&mut gpu, &mut numbers, 9, dim, state)
            };
            dims.iter().map(table).collect()
        })
        .collect();
    let lists: Vec<Lists> = dims.iter().map(|_| Lists::new(&mut numbers, rows as usize, 9)).collect();
    let dense = Table::new(&mut gpu, &mut numbers, rows.max(1), 5, 0);
    let scenario_of_row: Vec<u32> = (0..rows).map(|_| numbers.below(scenarios)).collect();

    let cols = dims.iter().sum::<u32>() + 5;
    let live_rows = gpu.upload(&[live]);
    let out = DeviceMat { live_rows, ..untouched(&mut gpu, rows, cols, cols + pad, element) };
    let pieces_of = |gpu: &mut Gpu, tables: &[Table]| -> Vec<Piece> {
        let mut pieces: Vec<Piece> = tables.iter().zip(&lists).map(|(t, l)| l.piece(gpu, t)).collect();
        pieces.push(Piece::Dense(dense.device));
        pieces
    };
    let by_scenario: Vec<Vec<Piece>> = tables.iter().map(|tables| pieces_of(&mut gpu, tables)).collect();
    let pieces = Pieces::by_scenario(&by_scenario.iter().map(Vec::as_slice).collect::<Vec<_>>(), out);
    let at = gpu.upload(&pieces.to_bytes());
    let scenario_address = if scenarios > 1 { gpu.upload(&scenario_of_row) } else { 0 };
    gpu.launch(&lookup(&pieces, at, scenario_address));

    let d = DeviceMat { live_rows, ..untouched(&mut gpu, rows, cols, cols + pad, element) };
    let means = pieces.means(d);
    let at = gpu.upload(&means.to_bytes());
    gpu.launch(&scale_bag_gradient(&means, at, scenario_address));

    let stored = |x: f32| if element == Element::Bf16 { rounded(x) } else { x };
    let (out, d) = (download(&mut gpu, out), download(&mut gpu, d));
    let mut expected = vec![GAP; out.len()];
    let mut expected_d = vec![GAP; out.len()];
    let mut column = 0;
    for (i, &dim) in dims.iter().enumerate() {
        let dim = dim as usize;
        let of_scenario: Vec<_> = tables.iter().map(|t| lists[i].expected(&t[i], live as usize)).collect();
        for r in 0..live as usize {
            let from = &of_scenario[scenario_of_row[r] as usize][r * dim..][..dim];
            let at = r * (cols + pad) as usize + column;
            expected[at..at + dim].iter_mut().zip(from).for_each(|(to, &x)| *to = stored(x));
            if let Some(divisor) = lists[i].divisor(r) {
                expected_d[at..at + dim].fill(stored(GAP * (1.0 / divisor)));
            }
        }
        column += dim;
    }
    for r in 0..live as usize {
        let at = r * (cols + pad) as usize + column;
        let from = &dense.data[5 * r..][..5];
        expected[at..at + 5].iter_mut().zip(from).for_each(|(to, &x)| *to = stored(x));
    }
    assert_eq!(out, expected);
    assert_eq!(d, expected_d);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn trunks_have_the_bits_of_the_cpu(
        dims in prop::collection::vec(prop::sample::select(&DIMS[..]), 0..5), rows in 0u32..40, dead in 0u32..5,
        pad in 0u32..9, bf16: bool, scenarios in 1u32..4, seed: u64,
    ) {
        let element = if bf16 { Element::Bf16 } else { Element::F32 };
        check_trunk(&dims, rows, rows.saturating_sub(dead), pad, element, scenarios, seed);
    }

    #[test]
    fn lists_of_ids_have_the_bits_of_the_cpu(
        dim in prop::sample::select(&DIMS[..]), state in 0u32..5, ids in 0u32..50, dead in 0u32..5, pad in 0u32..5,
        seed: u64,
    ) {
        let mut gpu = Gpu::new();
        let mut numbers = Numbers(seed);
        let table = Table::new(&mut gpu, &mut numbers, 11, dim, state);
        let list = numbers.ids(ids as usize, 11);
        let live = ids.saturating_sub(dead);
        let live_rows = gpu.upload(&[live]);
        let out = DeviceMat { live_rows, ..untouched(&mut gpu, ids, dim, dim + pad, Element::F32) };
        let address = gpu.upload(&list);
        gpu.launch(&gather(table.device, address, out));
        let mut expected = vec![GAP; (ids * (dim + pad)) as usize];
        let [live, dim, stride] = [live, dim, dim + pad].map(|n| n as usize);
        let to = MatMut::strided(&mut expected[..live * stride], live, dim, stride);
        cpu::gather(Isa::Scalar, table.rows(), &list[..live], to);
        prop_assert_eq!(gpu.download_mat(out), expected);
    }
}

/// Aligned throughout: rows are read four values at a time, by groups of 1 to 32 lanes.
#[test]
fn wide_reads_have_the_bits_of_the_cpu() {
    for scenarios in [1, 3] {
        check_trunk(&[4, 16, 64, 128, 132, 8, 12], 70, 67, 3, Element::F32, scenarios, 5);
        check_trunk(&[4, 16, 64, 128, 132, 8, 12], 70, 67, 3, Element::Bf16, scenarios, 6);
    }
}

#[test]
fn more_pieces_than_lanes_find_their_blocks() {
    check_trunk(&[3; 70], 3, 3, 0, Element::F32, 1, 8);
}

#[test]
fn a_long_bag_is_added_in_its_order() {
    let mut gpu = Gpu::new();
    let mut numbers = Numbers(4);
    let table = Table::new(&mut gpu, &mut numbers, 100, 8, 0);
    let lists =
        Lists { offsets: Some(vec![0, 0, 701, 702]), ids: numbers.ids(702, 100), pooling: Pooling::Mean };
    let out = untouched(&mut gpu, 3, 8, 8, Element::F32);
    let pieces = Pieces::new(&[lists.piece(&mut gpu, &table)], out);
    let at = gpu.upload(&pieces.to_bytes());
    gpu.launch(&lookup(&pieces, at, 0));
    assert_eq!(gpu.download_mat(out), lists.expected(&table, 3));
}

/// Host code refuses such ids; a launch must not read beyond the table all the same.
#[test]
fn an_id_beyond_the_table_is_the_unknown_row() {
    let mut gpu = Gpu::new();
    let table = Table::new(&mut gpu, &mut Numbers(4), 5, 4, 0);
    let ids = gpu.upload(&[5u32, 4, u32::MAX]);
    let out = untouched(&mut gpu, 3, 4, 4, Element::F32);
    gpu.launch(&gather(table.device, ids, out));
    let expected = [&table.data[..4], &table.data[16..], &table.data[..4]].concat();
    assert_eq!(gpu.download_mat(out), expected);
}

#[test]
#[should_panic(expected = "differ in width")]
fn pieces_of_another_width_than_the_output_are_refused() {
    let mut gpu = Gpu::new();
    let table = Table::new(&mut gpu, &mut Numbers(4), 5, 4, 0);
    Pieces::new(&[Piece::Dense(table.device)], DeviceMat::new(0, 5, 5));
}
