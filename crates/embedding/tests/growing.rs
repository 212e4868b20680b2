//! A table that grows while it is trained ends as one whose rows were there from the start, bit for bit.

use manygate_core::{Serial, Stream};
use manygate_embedding::{IdMap, RowOptimizer, Table};
use manygate_graph::{Init, TableSpec};
use manygate_kernels::embedding::{GradientSources, TableMut, sort_lookups, update_rows};
use manygate_kernels::{Isa, Mat};

const DIM: usize = 5;
const BATCH: usize = 64;
const STEPS: u64 = 12;
const SEED: u64 = 3;
const ROW_BITS: u32 = 8;

/// A map with its table.
struct Grown {
    map: IdMap,
    table: Table,
}

impl Grown {
    /// With rows for `known`, in this order.
    fn new(max_rows: usize, optimizer: &RowOptimizer, known: &[u64]) -> Grown {
        let name = "embedding.item.weight".to_owned();
        let spec = TableSpec { name, rows: 1, dim: DIM, init: Init::Normal(0.1) };
        let table = Table::initial(spec, optimizer.state_width(DIM), SEED, &Serial);
        let mut grown = Grown { map: IdMap::new(max_rows).unwrap(), table };
        grown.rows(known);
        grown
    }

    /// The rows of `ids`, after making those that are missing.
    fn rows(&mut self, ids: &[u64]) -> Vec<u32> {
        let (mut rows, mut new) = (vec![0; ids.len()], Vec::new());
        self.map.rows_of(ids, &mut rows, &mut new);
        self.table.grow(&new, SEED).unwrap();
        assert_eq!(self.map.rows(), self.table.spec().rows);
        rows
    }

    /// One step on the look-ups of `ids`: each has a gradient of its own, which depends on the weights.
    fn step(&mut self, step: u64, ids: &[u64], optimizer: &RowOptimizer) {
        let rows = self.rows(ids);
        let noise = Stream::new(9, step, 0);
        let value = |(position, &row): (usize, &u32), column: usize| {
            self.table.rows().row(row)[column] + 0.5 * noise.normal(position as u64, column as u64)
        };
        let gradients: Vec<f32> = rows
            .iter()
            .enumerate()
            .flat_map(|look_up| (0..DIM).map(move |column| (look_up, column)))
            .map(|(look_up, column)| value(look_up, column))
            .collect();
        let mut keys: Vec<u64> = rows.iter().zip(0..).map(|(&row, at)| u64::from(row) << 32 | at).collect();
        let largest = rows.iter().copied().max().unwrap_or(0);
        sort_lookups(&mut keys, &mut vec![0; rows.len()], largest);
        let sources = [Mat::new(&gradients, rows.len(), DIM)];
        let (count, stride) = (self.table.spec().rows, self.table.stride());
        let table = TableMut::new(self.table.values_mut(), count, DIM, stride);
        update_rows(Isa::best(), &keys, GradientSources::new(&sources, ROW_BITS), table, optimizer, true);
    }

    /// Weights and state of `id`.
    fn values(&self, id: u64) -> &[f32] {
        let stride = self.table.stride();
        &self.table.values()[self.map.row(id) as usize * stride..][..stride]
    }
}

/// The ids of a step; later steps bring more of them.
fn ids(step: u64) -> Vec<u64> {
    let stream = Stream::new(4, step, 0);
    let ends = [0, u64::MAX];
    (0..BATCH as u64)
        .map(|i| match stream.below(i, 0, 10 + 10 * step) {
            end @ 0..2 => ends[end as usize],
            other => other.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        })
        .collect()
}

fn optimizers() -> [RowOptimizer; 5] {
    let (rate, epsilon, l2) = (0.05, 1e-8, 0.01);
    let correction = RowOptimizer::adam_correction(0.9, 0.999, 3);
    [
        RowOptimizer::LazyAdam { rate, beta1: 0.9, beta2: 0.999, epsilon, correction, l2 },
        RowOptimizer::Adagrad { rate, epsilon, l2 },
        RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 },
        RowOptimizer::Ftrl { alpha: rate, beta: 1.0, l1: 0.01, l2 },
        RowOptimizer::Sgd { rate, l2 },
    ]
}

#[test]
fn a_growing_table_equals_one_whose_rows_were_known() {
    let mut all: Vec<u64> = (0..STEPS).flat_map(ids).collect();
    all.sort_unstable();
    all.dedup();
    for optimizer in optimizers() {
        let mut growing = Grown::new(1000, &optimizer, &[]);
        // Known in the order of ids, which is not that of their coming.
        let mut fixed = Grown::new(1000, &optimizer, &all);
        assert_eq!(fixed.table.spec().rows, all.len() + 1);
        for step in 0..STEPS {
            growing.step(step, &ids(step), &optimizer);
            fixed.step(step, &ids(step), &optimizer);
        }
        assert_eq!(growing.map.len(), all.len());
        assert_ne!(growing.map.ids(), fixed.map.ids());
        for &id in &all {
            assert_eq!(growing.values(id), fixed.values(id), "{optimizer:?}, id {id}");
        }
    }
}

#[test]
fn a_map_that_comes_from_bytes_goes_on_with_its_table() {
    let optimizer = optimizers()[0];
    let mut whole = Grown::new(1000, &optimizer, &[]);
    (0..STEPS / 2).for_each(|step| whole.step(step, &ids(step), &optimizer));
    let map = IdMap::from_bytes(&whole.map.to_bytes()).unwrap();
    let mut resumed = Grown { map, table: whole.table.clone() };
    for step in STEPS / 2..STEPS {
        whole.step(step, &ids(step), &optimizer);
        resumed.step(step, &ids(step), &optimizer);
    }
    assert_eq!(resumed.map.to_bytes(), whole.map.to_bytes());
    assert_eq!(resumed.table.values(), whole.table.values());
}

/// Ids beyond the last row share the unknown row, which does not learn.
#[test]
fn a_full_table_sends_new_ids_to_the_unknown_row() {
    let optimizer = optimizers()[4];
    let mut full = Grown::new(20, &optimizer, &[]);
    let unknown = full.table.rows().row(0).to_vec();
    (0..STEPS).for_each(|step| full.step(step, &ids(step), &optimizer));
    assert_eq!(full.table.spec().rows, 20);
    assert_eq!(full.table.rows().row(0), unknown);
    let distinct: std::collections::BTreeSet<u64> = (0..STEPS).flat_map(ids).collect();
    let without = distinct.iter().filter(|&&id| full.map.row(id) == 0).count();
    assert_eq!(without, distinct.len() - 19);
    assert!(full.map.refused() >= without as u64);
}
