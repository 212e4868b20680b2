//! Embedding tables: pooled look-ups, the sort of look-ups by row, and the update of the rows that were looked up.

use super::Size;
use super::case::{Case, Prepared, Shape, Work};
use super::reference::{Error, sample};
use super::workbench::{Random, Workbench};
use manygate_cuda::device::DeviceError;
use manygate_cuda::embedding::{
    DeviceTable, Ids, Piece, Pieces, Source, SparseGradients, SparseMemory, lookup, make_keys,
    number_lookups, step_to_bytes, update_rows,
};
use manygate_cuda::peak::Stream;
use manygate_cuda::{DeviceMat, Element, Launch, Precision, elementwise};
use manygate_kernels::embedding::{Pooling, RowOptimizer};

/// Ids in a bag; one id is a field.
const BAGS: [u32; 4] = [1, 5, 10, 20];
/// Weights of a row.
const DIMS: [u32; 2] = [64, 128];
/// Fewest rows of a table for which memory is looked for.
const FEWEST_ROWS: u32 = 1000;
/// Values behind the weights of a row that moves: the state of row-wise Adagrad, and what keeps rows aligned to 16 bytes.
pub(super) const BEHIND: u32 = 4;
/// Largest weight. As far as a step moves it: what moved is then as exact as what is there.
pub(super) const WEIGHT: f32 = 0.01;
pub(super) const RATE: f32 = 0.01;
pub(super) const EPSILON: f32 = 1e-8;
/// Rows of the batch, or of a table, that are compared.
const COMPARED: u32 = 32;

/// Look-ups by bags of the same length, each table by its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bags {
    pub(super) batch: u32,
    pub(super) tables: u32,
    pub(super) rows: u32,
    pub(super) dim: u32,
    pub(super) bag: u32,
}

/// All cases; tables have as many rows as fit `free` bytes.
pub(super) fn cases(size: Size, free: u64) -> Vec<Case> {
    let bags = DIMS.iter().flat_map(|&dim| BAGS.map(|bag| Bags::new(size, free, dim, bag)));
    let bags: Vec<Bags> = bags.collect();
    let sorts = bags.iter().filter(|bags| bags.dim == DIMS[0]);
    let forward = bags.iter().map(|bags| bags.forward());
    forward.chain(bags.iter().map(|bags| bags.update())).chain(sorts.map(|bags| bags.sort())).collect()
}

impl Bags {
    pub(super) fn new(size: Size, free: u64, dim: u32, bag: u32) -> Bags {
        let (batch, tables, mut rows) = match size {
            Size::Full => (65_536, 26, 1_000_000),
            Size::Small => (32, 3, 50),
        };
        let needed = |rows: u32| {
            let of_lookups = 24 * u64::from(batch) * u64::from(bag);
            let values = u64::from(rows) * u64::from(dim + BEHIND) + u64::from(batch) * u64::from(dim);
            u64::from(tables) * (4 * values + of_lookups)
        };
        while needed(rows) > free / 10 * 9 && rows / 2 >= FEWEST_ROWS {
            rows /= 2;
        }
        Bags { batch, tables, rows, dim, bag }
    }

    fn shape(&self) -> Shape {
        let Bags { batch, tables, rows, dim, bag } = *self;
        Shape::new(&[("batch", batch), ("tables", tables), ("rows", rows), ("dim", dim), ("bag", bag)])
    }

    pub(super) fn lookups(&self) -> u32 {
        self.batch * self.tables * self.bag
    }

    /// How many rows are looked up, each counted once: what is to be expected.
    pub(super) fn distinct_rows(&self) -> f64 {
        let (rows, lookups) = (f64::from(self.rows), f64::from(self.batch * self.bag));
        f64::from(self.tables) * rows * (1.0 - (1.0 - 1.0 / rows).powf(lookups))
    }

    /// Bytes of ids, and of offsets where bags have them.
    fn id_bytes(&self) -> f64 {
        let offsets = if self.bag > 1 { self.batch } else { 0 };
        4.0 * (f64::from(self.lookups()) + f64::from(offsets))
    }

    pub(super) fn case(
        self,
        kernel: &'static str,
        bytes: f64,
        prepare: fn(Bags, &mut Workbench) -> Result<Prepared, DeviceError>,
    ) -> Case {
        Case {
            kernel,
            shape: self.shape(),
            precision: Precision::F32,
            work: Work { bytes, flops: 0.0 },
            tolerance: 1e-5,
            prepare: Box::new(move |bench| prepare(self, bench)),
        }
    }

    /// Sums of bags of all tables, in one launch.
    fn forward(self) -> Case {
        let values = f64::from(self.dim) * (f64::from(self.lookups()) + f64::from(self.batch * self.tables));
        self.case("embedding_bag_forward", 4.0 * values + self.id_bytes(), Bags::prepare_forward)
    }

    /// Keys of look-ups, their sort, and row-wise Adagrad: a gradient row for each look-up, weights and state of each
    /// distinct row, read and written.
    fn update(self) -> Case {
        let (dim, distinct) = (f64::from(self.dim), self.distinct_rows());
        let gradients = 4.0 * dim * f64::from(self.lookups());
        let sorted = 8.0 * f64::from(self.lookups());
        let bytes = gradients + 8.0 * (dim + 1.0) * distinct + sorted + self.sort_bytes();
        self.case("embedding_bag_update", bytes, Bags::prepare_update)
    }

    /// Keys of look-ups and their sort. They are made anew each time: to sort what is sorted is another task.
    fn sort(self) -> Case {
        let Bags { batch, tables, rows, bag, .. } = self;
        let shape = Shape::new(&[("batch", batch), ("tables", tables), ("rows", rows), ("bag", bag)]);
        Case { shape, tolerance: 0.0, ..self.case("sort_lookups", self.sort_bytes(), Bags::prepare_sort) }
    }

    /// Of making pairs, and in each pass of 8 bits of keys twice and positions once, both written.
    fn sort_bytes(&self) -> f64 {
        let passes = (u32::BITS - (self.tables * self.rows - 1).leading_zeros()).div_ceil(8);
        self.id_bytes() + f64::from(8 + 20 * passes) * f64::from(self.lookups())
    }

    fn prepare_forward(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let ids = Lists::new(self, bench)?;
        let values = self.table_values(bench, self.dim)?;
        let out = bench.mat(self.batch, self.tables * self.dim, Element::F32)?;
        let piece = |t: u32| {
            let table = self.table(values.mat, t);
            match ids.of_table(t) {
                Ids::Field { ids } => Piece::Field { table, ids },
                Ids::Bag { offsets, ids } | Ids::Positions { offsets, ids } => {
                    Piece::Bag { table, offsets, ids, pooling: Pooling::Sum }
                }
            }
        };
        let pieces = Pieces::new(&(0..self.tables).map(piece).collect::<Vec<_>>(), out);
        let at = bench.upload(&pieces.to_bytes())?;
        Prepared::new(vec![lookup(&pieces, at, 0)], move |bench| {
            let mut error = Error::default();
            for row in sample(self.batch, COMPARED) {
                let found = bench.row(out, row)?;
                for (t, found) in (0..).zip(found.chunks(self.dim as usize)) {
                    let rows = (0..self.bag).map(|k| values.row(t * self.rows + ids.id(t, row, k)));
                    error.add_all(found, &sum(self.dim, rows));
                }
            }
            Ok(error.relative())
        })
    }

    fn prepare_sort(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let ids = Lists::new(self, bench)?;
        let none = DeviceMat::new(0, self.tables * self.rows, self.dim);
        let d = DeviceMat::new(0, self.batch, self.tables * self.dim);
        let (gradients, memory) = self.gradients(bench, &ids, none, d)?;
        let launches = sorting(&gradients, memory);
        let keys = gradients.sorted(memory).keys;
        Prepared::new(launches, move |bench| {
            let mut expected: Vec<u32> = ids.keys().collect();
            expected.sort_unstable();
            let found: Vec<u32> = bench.download(keys, expected.len())?;
            let wrong = found.iter().zip(&expected).filter(|(found, expected)| found != expected).count();
            Ok(wrong as f64 / expected.len() as f64)
        })
    }

    fn prepare_update(self, bench: &mut Workbench) -> Result<Prepared, DeviceError> {
        let ids = Lists::new(self, bench)?;
        let values = self.table_values(bench, self.dim + BEHIND)?;
        let state = DeviceMat { cols: self.dim + BEHIND, ..values.mat }.columns(self.dim, BEHIND);
        bench.run(&[elementwise::fill(0.0, state)])?;
        let d = bench.random(self.batch, self.tables * self.dim, Element::F32, 1e-3)?;
        let (gradients, memory) = self.gradients(bench, &ids, values.mat, d.mat)?;
        let optimizer = RowOptimizer::RowwiseAdagrad { rate: RATE, epsilon: EPSILON, l2: 0.0 };
        let steps = bench.upload(&step_to_bytes(Some(&optimizer)).repeat(self.tables as usize))?;
        let mut launches = sorting(&gradients, memory);
        launches.extend(update_rows(&gradients, memory, steps));
        Prepared::new(launches, move |bench| {
            let mut error = Error::default();
            for t in sample(self.tables, 3) {
                self.compare_moves(bench, t, &ids, values, d, &mut error)?;
            }
            Ok(error.relative())
        })
    }

    /// Compares how rows of table `t` moved: of the first step, from a state of zeros.
    fn compare_moves(
        &self,
        bench: &Workbench,
        t: u32,
        ids: &Lists,
        values: Random,
        d: Random,
        error: &mut Error,
    ) -> Result<(), DeviceError> {
        let mut compared: Vec<u32> = sample(self.batch, COMPARED).map(|row| ids.id(t, row, 0)).collect();
        compared.sort_unstable();
        compared.dedup();
        let mut sums = vec![vec![0.0; self.dim as usize]; compared.len()];
        let d = d.columns(t * self.dim, self.dim);
        for row in 0..self.batch {
            for k in 0..self.bag {
                if let Ok(which) = compared.binary_search(&ids.id(t, row, k)) {
                    add_to(&mut sums[which], &d.row(row));
                }
            }
        }
        for (&id, gradient) in compared.iter().zip(&sums) {
            let row = t * self.rows + id;
            let (before, after) = (values.row(row), bench.row(values.mat, row)?);
            let moved: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
            // The unknown row stays.
            let expected = if id == 0 { vec![0.0; gradient.len()] } else { first_move(gradient) };
            error.add_all(&moved, &expected);
        }
        Ok(())
    }

    /// Rows of all tables, one table behind the other, with `stride` values each of which the first `dim` count.
    fn table_values(&self, bench: &mut Workbench, stride: u32) -> Result<Random, DeviceError> {
        let mat = bench.mat_with(self.tables * self.rows, self.dim, stride, Element::F32)?;
        bench.fill(mat, WEIGHT)
    }

    pub(super) fn table(&self, values: DeviceMat, t: u32) -> DeviceTable {
        let before = u64::from(t) * u64::from(self.rows) * u64::from(values.stride);
        let address = values.address + 4 * before;
        DeviceTable { address, rows: self.rows, dim: self.dim, stride: values.stride }
    }

    pub(super) fn gradients(
        &self,
        bench: &mut Workbench,
        ids: &Lists,
        values: DeviceMat,
        d: DeviceMat,
    ) -> Result<(SparseGradients, SparseMemory), DeviceError> {
        let tables: Vec<DeviceTable> = (0..self.tables).map(|t| self.table(values, t)).collect();
        let rows = bench.upload_u32([0, self.batch])?;
        let source = |t: u32| Source {
            table: t as usize,
            ids: ids.of_table(t),
            rows,
            gradient: d.columns(t * self.dim, self.dim),
        };
        let sources: Vec<Source> = (0..self.tables).map(source).collect();
        let gradients = SparseGradients::new(&tables, &sources, self.batch, self.lookups());
        let descriptions = bench.upload(&gradients.to_bytes())?;
        let scratch = bench.allocate(gradients.scratch())?;
        Ok((gradients, SparseMemory { descriptions, scratch }))
    }
}

/// How a row moves at the first step, by the sum of its gradients.
pub(super) fn first_move(gradient: &[f64]) -> Vec<f64> {
    let mean = gradient.iter().map(|g| g * g).sum::<f64>() / gradient.len() as f64;
    let factor = -f64::from(RATE) / (mean.sqrt() + f64::from(EPSILON));
    gradient.iter().map(|g| factor * g).collect()
}

/// Makes the pairs of look-ups, and sorts them.
pub(super) fn sorting(gradients: &SparseGradients, memory: SparseMemory) -> Vec<Launch> {
    let made = [number_lookups(None, gradients, memory), make_keys(gradients, memory)];
    made.into_iter().chain(gradients.sort_lookups(memory)).collect()
}

/// The ids of all tables, `[tables, batch, bag]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists {
    bags: Bags,
    ids: u64,
    stream: Stream,
    offsets: u64,
}

impl Lists {
    pub(super) fn new(bags: Bags, bench: &mut Workbench) -> Result<Lists, DeviceError> {
        let (ids, stream) = bench.ids(bags.lookups().into(), bags.rows)?;
        let offsets = bench.upload_u32((0..=bags.batch).map(|row| row * bags.bag))?;
        Ok(Lists { bags, ids, stream, offsets })
    }

    /// Those of a table.
    pub(super) fn of_table(&self, t: u32) -> Ids {
        let ids = self.ids + 4 * self.first(t, 0);
        if self.bags.bag == 1 { Ids::Field { ids } } else { Ids::Bag { offsets: self.offsets, ids } }
    }

    /// The keys of all look-ups, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = u32> {
        let Lists { bags, .. } = *self;
        let lookups = (0..bags.tables).flat_map(move |t| (0..bags.batch * bags.bag).map(move |i| (t, i)));
        lookups.map(move |(t, i)| t * bags.rows + self.id(t, i / bags.bag, i % bags.bag))
    }

    /// Id `k` of a row's list.
    pub(super) fn id(&self, t: u32, row: u32, k: u32) -> u32 {
        self.stream.id(self.first(t, row) + u64::from(k), self.bags.rows)
    }

    fn first(&self, t: u32, row: u32) -> u64 {
        (u64::from(t) * u64::from(self.bags.batch) + u64::from(row)) * u64::from(self.bags.bag)
    }
}

pub(super) fn add_to(sum: &mut [f64], row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

fn sum(dim: u32, rows: impl Iterator<Item = Vec<f64>>) -> Vec<f64> {
    rows.fold(vec![0.0; dim as usize], |mut sum, row| {
        add_to(&mut sum, &row);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_shrink_to_the_memory_there_is() {
        let rows = |free: u64| Bags::new(Size::Full, free, 128, 20).rows;
        assert_eq!(rows(80 << 30), 1_000_000);
        assert_eq!(rows(12 << 30), 500_000);
        assert_eq!(rows(0), 1953, "no fewer than a thousand");
    }

    #[test]
    fn bytes_are_those_of_a_batch() {
        let bags = Bags { batch: 65_536, tables: 26, rows: 1_000_000, dim: 64, bag: 10 };
        let gigabytes = |case: Case| case.work.bytes * 1e-9;
        assert!((gigabytes(bags.forward()) - 4.87).abs() < 0.01);
        assert!((bags.distinct_rows() * 1e-6 - 12.5).abs() < 0.02);
        assert!((gigabytes(bags.sort()) - 1.57).abs() < 0.01);
    }
}
