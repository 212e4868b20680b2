//! Embedding tables beside the way of `embedding.rs`: rows by one id, means of bags backward, gradients summed by distinct row,
//! and rows moved by such sums.

use super::Size;
use super::case::{Case, Prepared};
use super::embedding::{BEHIND, Bags, EPSILON, Lists, RATE, WEIGHT, add_to, first_move, sorting};
use super::layer::compare_rows;
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::embedding::{
    DeviceTable, Ids, Piece, Pieces, RowSums, SparseGradients, SparseMemory, coalesce, gather,
    scale_bag_gradient, step_to_bytes, update_rows_by_sums,
};
use manygate_cuda::{DeviceMat, Element, elementwise};
use manygate_kernels::embedding::{Pooling, RowOptimizer};

/// Weights of a row, and ids in a bag.
const DIM: u32 = 64;
const BAG: u32 = 10;
/// Distinct rows that are compared.
const COMPARED: u32 = 32;

/// All cases; tables have as many rows as fit `free` bytes.
pub(super) fn cases(size: Size, free: u64) -> Vec<Case> {
    let bags = Bags::new(size, free, DIM, BAG);
    let single = Bags { tables: 1, bag: 1, ..Bags::new(size, free, DIM, 1) };
    vec![single_ids(single), means(bags), summed(bags), moved(single)]
}

/// One id of one table.
fn single_ids(bags: Bags) -> Case {
    let bytes = 4.0 * f64::from(bags.batch) * f64::from(2 * bags.dim + 1);
    bags.case("gather", bytes, |bags, bench| {
        let Bags { batch, rows, dim, .. } = bags;
        let ids = Lists::new(bags, bench)?;
        let values = bench.random_contiguous(rows, dim, Element::F32, WEIGHT)?;
        let out = bench.mat(batch, dim, Element::F32)?;
        let Ids::Field { ids: at } = ids.of_table(0) else { unreachable!("a bag of one id is a field") };
        let launch = gather(bags.table(values.mat, 0), at, out);
        Prepared::new(vec![launch], move |bench| {
            compare_rows(bench, out, &|row| values.row(ids.id(0, row, 0)))
        })
    })
}

/// Gradients at means of bags, in place.
fn means(bags: Bags) -> Case {
    let values = f64::from(bags.batch) * f64::from(bags.tables * bags.dim);
    bags.case("scale_bag_gradient", 8.0 * values + 4.0 * f64::from(bags.batch), |bags, bench| {
        let Bags { batch, tables, rows, dim, bag } = bags;
        let ids = Lists::new(bags, bench)?;
        let d = bench.random(batch, tables * dim, Element::F32, 1.0)?;
        let piece = |t: u32| {
            let Ids::Bag { offsets, ids } = ids.of_table(t) else { unreachable!("bags have several ids") };
            let table = DeviceTable { address: 0, rows, dim, stride: dim };
            Piece::Bag { table, offsets, ids, pooling: Pooling::Mean }
        };
        let pieces = Pieces::new(&(0..tables).map(piece).collect::<Vec<_>>(), d.mat).means(d.mat);
        let launch = scale_bag_gradient(&pieces, bench.upload(&pieces.to_bytes())?, 0);
        Prepared::new(vec![launch], move |bench| {
            compare_rows(bench, d.mat, &|row| d.row(row).iter().map(|d| d / f64::from(bag)).collect())
        })
    })
}

/// Gradients of sorted look-ups, by distinct row.
fn summed(bags: Bags) -> Case {
    let (lookups, distinct, dim) = (f64::from(bags.lookups()), bags.distinct_rows(), f64::from(bags.dim));
    let bytes = lookups * (8.0 + 4.0 * dim) + distinct * (4.0 + 4.0 * dim);
    bags.case("coalesce", bytes, |bags, bench| {
        let Bags { batch, tables, rows, dim, .. } = bags;
        let ids = Lists::new(bags, bench)?;
        let none = DeviceMat::new(0, tables * rows, dim);
        let d = bench.random(batch, tables * dim, Element::F32, 1.0)?;
        let (gradients, memory) = bags.gradients(bench, &ids, none, d.mat)?;
        bench.run(&sorting(&gradients, memory))?;
        let most = u64::from(bags.lookups());
        let sums = RowSums {
            keys: bench.allocate(4 * most)?,
            sums: bench.allocate(4 * most * u64::from(gradients.width()))?,
            distinct: bench.allocate(4)?,
        };
        Prepared::new(coalesce(&gradients, memory, sums), move |bench| {
            compare_sums(bench, bags, &ids, d, sums)
        })
    })
}

fn compare_sums(
    bench: &Workbench,
    bags: Bags,
    ids: &Lists,
    d: Random,
    sums: RowSums,
) -> Result<f64, DeviceError> {
    let mut keys: Vec<u32> = ids.keys().collect();
    keys.sort_unstable();
    keys.dedup();
    let distinct = bench.download::<u32>(sums.distinct, 1)?[0];
    if distinct as usize != keys.len() || bench.download::<u32>(sums.keys, keys.len())? != keys {
        return Ok(f64::INFINITY);
    }
    let places: Vec<u32> = sample(distinct, COMPARED).collect();
    let mut expected = vec![vec![0.0; bags.dim as usize]; places.len()];
    let own: Vec<u32> = places.iter().map(|&place| keys[place as usize]).collect();
    for (i, key) in ids.keys().enumerate() {
        if let Ok(which) = own.binary_search(&key) {
            let (t, row) = (key / bags.rows, i as u32 % (bags.batch * bags.bag) / bags.bag);
            add_to(&mut expected[which], &d.columns(t * bags.dim, bags.dim).row(row));
        }
    }
    let found = DeviceMat::new(sums.sums, distinct, bags.dim);
    let mut error = Error::default();
    for (&place, expected) in places.iter().zip(&expected) {
        error.add_all(&bench.row(found, place)?, expected);
    }
    Ok(error.relative())
}

/// Row-wise Adagrad over all rows of a table but the unknown one, by a sum for each.
fn moved(bags: Bags) -> Case {
    let distinct = bags.rows - 1;
    let bytes = f64::from(distinct) * (4.0 + 4.0 * f64::from(bags.dim) + 8.0 * f64::from(bags.dim + 1));
    let sizes = [("rows", distinct), ("dim", bags.dim)];
    Case::once("update_rows_by_sums", &sizes, bytes, move |bench| {
        let Bags { rows, dim, .. } = bags;
        let mat = bench.mat_with(rows, dim, dim + BEHIND, Element::F32)?;
        let (values, d) =
            (bench.fill(mat, WEIGHT)?, bench.random_contiguous(distinct, dim, Element::F32, 1e-3)?);
        let state = DeviceMat { cols: dim + BEHIND, ..mat }.columns(dim, BEHIND);
        bench.run(&[elementwise::fill(0.0, state)])?;
        let gradients = SparseGradients::new(&[bags.table(mat, 0)], &[], 0, distinct);
        let memory = SparseMemory {
            descriptions: bench.upload(&gradients.to_bytes())?,
            scratch: bench.allocate(gradients.scratch())?,
        };
        let keys = bench.upload_u32(1..rows)?;
        let sums = RowSums { keys, sums: d.mat.address, distinct: bench.upload_u32([distinct])? };
        let optimizer = RowOptimizer::RowwiseAdagrad { rate: RATE, epsilon: EPSILON, l2: 0.0 };
        let steps = bench.upload(&step_to_bytes(Some(&optimizer)))?;
        let descriptions = bench.upload(&gradients.sums_to_bytes(sums.sums))?;
        let launch = update_rows_by_sums(&gradients, memory, sums, descriptions, steps);
        Prepared::new(vec![launch], move |bench| {
            let mut error = Error::default();
            for row in sample(distinct, COMPARED) {
                let (before, after) = (values.row(row + 1), bench.row(mat, row + 1)?);
                let moved: Vec<f64> =
                    after.iter().zip(&before).map(|(after, before)| after - before).collect();
                error.add_all(&moved, &first_move(&d.row(row)));
            }
            Ok(error.relative())
        })
    })
}
