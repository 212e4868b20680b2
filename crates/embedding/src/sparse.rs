//! Sparse gradients: (id, gradient row) pairs sorted by id, summed per id and applied by a fused row optimiser.
//!
//! The order of every sum is that of the look-ups, whatever the number of threads: an id belongs to one piece of work.

use crate::table::Table;
use manygate_core::{Bag, Batch, Executor};
use manygate_graph::{LookupSource, Plan, SparseSource, Workspace};
use manygate_kernels::embedding::{GradientSources, RowOptimizer, TableMut};
use manygate_kernels::embedding::{coalesce, run_start, sort_lookups, update_rows};
use manygate_kernels::{Isa, Mat, MatMut};
use std::sync::{PoisonError, RwLock};

/// Most look-ups (fields, bags, sequences) that may share one table.
pub const MAX_SOURCES: usize = 64;

/// Keys that a thread takes at a time; fixed, so that pieces never depend on threads.
const KEYS_A_PIECE: usize = 8192;

/// The sorted look-ups of one table.
#[derive(Debug, Default)]
struct Lookups {
    sources: Vec<SparseSource>,
    keys: Vec<u64>,
    spare: Vec<u64>,
}

/// The look-ups of a plan's tables in one batch. Allocates only while a batch has more look-ups than any before.
#[derive(Debug)]
pub struct SparseGradients {
    tables: Vec<RwLock<Lookups>>,
    /// Table and number of the piece.
    pieces: Vec<(usize, usize)>,
    row_bits: u32,
    isa: Isa,
}

impl SparseGradients {
    /// For batches of at most `rows` rows.
    ///
    /// # Panics
    /// When more than [`MAX_SOURCES`] look-ups share a table.
    pub fn new(plan: &Plan, rows: usize) -> SparseGradients {
        let mut tables: Vec<Lookups> = plan.tables().iter().map(|_| Lookups::default()).collect();
        for &source in plan.sparse_sources() {
            tables[source.table].sources.push(source);
        }
        assert!(
            tables.iter().all(|t| t.sources.len() <= MAX_SOURCES),
            "over {MAX_SOURCES} look-ups share a table"
        );
        SparseGradients {
            tables: tables.into_iter().map(RwLock::new).collect(),
            pieces: Vec::new(),
            row_bits: usize::BITS - (rows * plan.rows_a_sample()).max(1).leading_zeros(),
            isa: plan.isa(),
        }
    }

    /// Makes room for batches of `rows` rows out of `data`, so that [`sort`](SparseGradients::sort) never allocates.
    pub fn reserve_for(&mut self, data: &Batch, rows: usize) {
        let mut pieces = 0;
        for table in &mut self.tables {
            let table = table.get_mut().unwrap_or_else(PoisonError::into_inner);
            let most: usize = table.sources.iter().map(|s| rows * longest(s.source, data)).sum();
            table.keys.reserve(most);
            table.spare.reserve(most);
            pieces += most.div_ceil(KEYS_A_PIECE);
        }
        self.pieces.reserve(pieces);
    }

    /// Collects and sorts the look-ups of `batch`.
    pub fn sort(&mut self, exec: &dyn Executor, batch: &Batch) {
        let row_bits = self.row_bits;
        exec.run(self.tables.len(), &|t, _| {
            let mut table = self.tables[t].write().unwrap_or_else(PoisonError::into_inner);
            table.collect(batch, row_bits);
            table.sort();
        });
        self.pieces.clear();
        for (t, table) in self.tables.iter_mut().enumerate() {
            let keys = table.get_mut().unwrap_or_else(PoisonError::into_inner).keys.len();
            self.pieces.extend((0..keys.div_ceil(KEYS_A_PIECE)).map(|piece| (t, piece)));
        }
    }

    /// Applies the gradients of the plan's last run to `tables`, each by its own optimiser; [`None`] leaves a table
    /// as it is. Row 0, the unknown row, is never trained.
    pub fn apply(
        &self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &Workspace,
        tables: &mut [Table],
        optimizers: &[Option<RowOptimizer>],
    ) {
        assert_eq!(
            (tables.len(), optimizers.len()),
            (self.tables.len(), self.tables.len()),
            "tables of another plan"
        );
        let tables: &[Table] = tables;
        exec.run(self.pieces.len(), &|i, _| {
            let (t, piece) = self.pieces[i];
            let Some(optimizer) = &optimizers[t] else { return };
            let lookups = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
            let keys = lookups.piece(piece);
            let table = &tables[t];
            let spec = table.spec();
            // SAFETY: `tables` is borrowed exclusively by `apply`, and pieces are cut between ids.
            let rows = unsafe { TableMut::from_raw(table.shared_ptr(), spec.rows, spec.dim, table.stride()) };
            lookups.with_sources(plan, ws, self.row_bits, |sources| {
                update_rows(self.isa, keys, sources, rows, optimizer, true);
            });
        });
    }

    /// The gradient of table `t` in the plan's last run: distinct ids, ascending, and their rows `[ids, dim]`.
    pub fn coalesced(&self, plan: &Plan, ws: &Workspace, t: usize) -> (Vec<u32>, Vec<f32>) {
        let (dim, most) = (plan.tables()[t].dim, self.lookups(t));
        let mut ids = vec![0; most];
        let mut rows = vec![0.0; most * dim];
        let count = self.coalesce_into(plan, ws, t, &mut ids, MatMut::new(&mut rows, most, dim));
        ids.truncate(count);
        rows.truncate(count * dim);
        (ids, rows)
    }

    /// The same into `ids` and `rows`, which have room for every distinct id; returns their number.
    pub(crate) fn coalesce_into(
        &self,
        plan: &Plan,
        ws: &Workspace,
        t: usize,
        ids: &mut [u32],
        rows: MatMut<'_>,
    ) -> usize {
        let lookups = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        lookups.with_sources(plan, ws, self.row_bits, |sources| {
            count = coalesce(self.isa, &lookups.keys, sources, plan.tables()[t].dim, ids, rows);
        });
        count
    }

    /// Look-ups of table `t` in the batch sorted last.
    pub(crate) fn lookups(&self, t: usize) -> usize {
        self.tables[t].read().unwrap_or_else(PoisonError::into_inner).keys.len()
    }

    /// Look-ups of table `t` that there is room for.
    pub(crate) fn room(&self, t: usize) -> usize {
        self.tables[t].read().unwrap_or_else(PoisonError::into_inner).keys.capacity()
    }
}

/// Most ids that a row has in a source.
fn longest(source: LookupSource, data: &Batch) -> usize {
    match source {
        LookupSource::Field(_) => 1,
        LookupSource::Bag(b) | LookupSource::Positions(b) => {
            data.bags[b].offsets.windows(2).map(|w| (w[1] - w[0]) as usize).max().unwrap_or(0)
        }
    }
}

impl Lookups {
    fn collect(&mut self, batch: &Batch, row_bits: u32) {
        self.keys.clear();
        for (s, source) in self.sources.iter().enumerate() {
            let key = |id: u32, row: usize| u64::from(id) << 32 | (s as u64) << row_bits | row as u64;
            let rows = source.scenario.map_or(0..batch.rows, |scenario| batch.rows_of_scenario(scenario));
            match source.source {
                LookupSource::Field(f) => {
                    let ids = batch.ids[f][rows.clone()].iter();
                    self.keys.extend(ids.zip(rows).map(|(&id, row)| key(id, row)));
                }
                LookupSource::Bag(b) => {
                    let bag = &batch.bags[b];
                    for row in rows {
                        self.keys.extend(bag.row(row).iter().map(|&id| key(id, row)));
                    }
                }
                LookupSource::Positions(b) => {
                    let Bag { offsets, ids } = &batch.bags[b];
                    let positions = offsets[rows.start] as usize..offsets[rows.end] as usize;
                    self.keys
                        .extend(ids[positions.clone()].iter().zip(positions).map(|(&id, at)| key(id, at)));
                }
            }
        }
    }

    fn sort(&mut self) {
        let largest = self.keys.iter().map(|k| (k >> 32) as u32).max().unwrap_or(0);
        self.spare.resize(self.keys.len(), 0);
        sort_lookups(&mut self.keys, &mut self.spare, largest);
    }

    /// The keys of a piece: cut where a new id begins.
    fn piece(&self, piece: usize) -> &[u64] {
        let cut = |at: usize| run_start(&self.keys, at.min(self.keys.len()));
        let (from, to) = (cut(piece * KEYS_A_PIECE), cut((piece + 1) * KEYS_A_PIECE));
        &self.keys[from..to]
    }

    fn with_sources(
        &self,
        plan: &Plan,
        ws: &Workspace,
        row_bits: u32,
        then: impl FnOnce(GradientSources<'_>),
    ) {
        let mut sources = [Mat::new(&[], 0, 0); MAX_SOURCES];
        for (to, source) in sources.iter_mut().zip(&self.sources) {
            *to = plan.sparse_gradient(ws, source);
        }
        then(GradientSources::new(&sources[..self.sources.len()], row_bits));
    }
}
