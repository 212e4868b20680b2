//! Sparse gradients of several losses, one for each: aligned on the rows that the batch looks up, summed by id.
//!
//! The losses of a batch touch the same rows, so that their gradients have the same ids in the same order: inner
//! products and sums over losses run over touched rows alone, and no dense gradient of a table exists.

use crate::sparse::SparseGradients;
use crate::table::Table;
use manygate_core::Executor;
use manygate_graph::{Plan, Workspace};
use manygate_kernels::embedding::{GradientSources, RowOptimizer, TableMut, update_rows};
use manygate_kernels::optim::sum_squares;
use manygate_kernels::{Isa, Mat, MatMut};
use std::sync::{PoisonError, RwLock};

/// Position bits of a key: there is one source of rows.
const ROW_BITS: u32 = 32;

/// The gradients of one table.
#[derive(Debug)]
struct OfTable {
    dim: usize,
    /// Distinct ids, ascending.
    ids: Vec<u32>,
    /// `id << 32 | row`, for the update.
    keys: Vec<u64>,
    /// By loss: `[ids, dim]`, with room for more.
    rows: Vec<Vec<f32>>,
    /// Sum over losses, `[ids, dim]`.
    sum: Vec<f32>,
}

/// Gradients of `losses` losses at the rows of one batch.
#[derive(Debug)]
pub struct GradientsByLoss {
    tables: Vec<RwLock<OfTable>>,
    losses: usize,
    isa: Isa,
}

impl GradientsByLoss {
    /// For the tables of `plan` and a number of losses.
    pub fn new(plan: &Plan, losses: usize) -> GradientsByLoss {
        let of_table = |dim| OfTable {
            dim,
            ids: Vec::new(),
            keys: Vec::new(),
            rows: vec![Vec::new(); losses],
            sum: Vec::new(),
        };
        let tables = plan.tables().iter().map(|spec| RwLock::new(of_table(spec.dim))).collect();
        GradientsByLoss { tables, losses, isa: plan.isa() }
    }

    /// Makes room for as many rows as `sparse` has room for look-ups, so that [`record`](Self::record) never allocates.
    pub fn reserve_for(&mut self, sparse: &SparseGradients, plan: &Plan) {
        for (t, table) in self.tables.iter_mut().enumerate() {
            let table = table.get_mut().unwrap_or_else(PoisonError::into_inner);
            table.make_room(sparse.room(t).min(plan.tables()[t].rows));
        }
    }

    /// Takes the gradients of the plan's last run as those of loss number `loss`; `sparse` has sorted the batch.
    ///
    /// # Panics
    /// When there is no such loss, or the tables are those of another plan.
    pub fn record(
        &self,
        exec: &dyn Executor,
        plan: &Plan,
        ws: &Workspace,
        sparse: &SparseGradients,
        loss: usize,
    ) {
        assert!(loss < self.losses, "loss {loss} of {}", self.losses);
        exec.run(self.tables.len(), &|t, _| {
            let mut table = self.tables[t].write().unwrap_or_else(PoisonError::into_inner);
            let most = sparse.lookups(t).min(plan.tables()[t].rows);
            table.make_room(most);
            let OfTable { dim, ids, keys, rows, .. } = &mut *table;
            ids.resize(most, 0);
            let to = MatMut::new(&mut rows[loss], most, *dim);
            let count = sparse.coalesce_into(plan, ws, t, ids, to);
            ids.truncate(count);
            keys.clear();
            keys.extend(ids.iter().zip(0u64..).map(|(&id, row)| u64::from(id) << 32 | row));
        });
    }

    /// Adds the inner products of the gradients of table `t` to `into`, `[losses, losses]`, f64, both triangles. The
    /// unknown row does not learn and does not count.
    ///
    /// # Panics
    /// When there is no such table, or `into` has another size.
    pub fn add_products(&self, t: usize, losses: usize, into: &mut [f64]) {
        assert!(losses <= self.losses && into.len() == losses * losses, "products of {losses} losses");
        let table = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
        let range = table.known();
        for a in 0..losses {
            for b in 0..=a {
                let pairs = table.rows[a][range.clone()].iter().zip(&table.rows[b][range.clone()]);
                let product: f64 = pairs.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                into[a * losses + b] += product;
                if a != b {
                    into[b * losses + a] += product;
                }
            }
        }
    }

    /// Sums the gradients of table `t` over the losses, each times its weight.
    ///
    /// # Panics
    /// When there is no such table, or the weights are not one a loss.
    pub fn combine(&self, t: usize, weights: &[f64]) {
        assert_eq!(weights.len(), self.losses, "one weight a loss");
        let mut table = self.tables[t].write().unwrap_or_else(PoisonError::into_inner);
        let len = table.ids.len() * table.dim;
        let OfTable { rows, sum, .. } = &mut *table;
        for (at, to) in sum[..len].iter_mut().enumerate() {
            let terms = rows.iter().zip(weights).map(|(rows, weight)| weight * f64::from(rows[at]));
            *to = terms.sum::<f64>() as f32;
        }
    }

    /// Sum of the squares of what [`combine`](Self::combine) made of table `t`, f64; the unknown row does not count.
    ///
    /// # Panics
    /// When there is no such table.
    pub fn sum_squares(&self, t: usize) -> f64 {
        let table = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
        sum_squares(self.isa, &table.sum[table.known()])
    }

    /// Changes the values that [`combine`](Self::combine) made of table `t`.
    ///
    /// # Panics
    /// When there is no such table.
    pub fn change_sum(&self, t: usize, change: impl FnOnce(&mut [f32])) {
        let mut table = self.tables[t].write().unwrap_or_else(PoisonError::into_inner);
        let range = table.known();
        change(&mut table.sum[range]);
    }

    /// Moves the rows by the sums that [`combine`](Self::combine) made; [`None`] leaves a table as it is.
    pub fn apply(&self, exec: &dyn Executor, tables: &mut [Table], optimizers: &[Option<RowOptimizer>]) {
        assert_eq!((tables.len(), optimizers.len()), (self.tables.len(), self.tables.len()), "other tables");
        let tables: &[Table] = tables;
        exec.run(self.tables.len(), &|t, _| {
            let Some(optimizer) = &optimizers[t] else { return };
            let gradients = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
            let (table, dim) = (&tables[t], gradients.dim);
            let spec = table.spec();
            // SAFETY: `tables` is borrowed exclusively by `apply`, and a table belongs to one piece of work.
            let rows = unsafe { TableMut::from_raw(table.shared_ptr(), spec.rows, spec.dim, table.stride()) };
            let sums = [Mat::new(&gradients.sum, gradients.ids.len(), dim)];
            let sources = GradientSources::new(&sums, ROW_BITS);
            update_rows(self.isa, &gradients.keys, sources, rows, optimizer, true);
        });
    }

    /// The gradient of loss number `loss` at table `t`: distinct ids, ascending, and their rows `[ids, dim]`.
    pub fn gradient(&self, t: usize, loss: usize) -> (Vec<u32>, Vec<f32>) {
        let table = self.tables[t].read().unwrap_or_else(PoisonError::into_inner);
        let len = table.ids.len() * table.dim;
        (table.ids.clone(), table.rows[loss][..len].to_vec())
    }
}

impl OfTable {
    fn make_room(&mut self, rows: usize) {
        self.ids.reserve(rows.saturating_sub(self.ids.len()));
        self.keys.reserve(rows.saturating_sub(self.keys.len()));
        let values = rows * self.dim;
        for buffer in self.rows.iter_mut().chain([&mut self.sum]).filter(|buffer| buffer.len() < values) {
            buffer.resize(values, 0.0);
        }
    }

    /// The values of all rows but the unknown one, which comes first where it was looked up.
    fn known(&self) -> std::ops::Range<usize> {
        let unknown = usize::from(self.ids.first() == Some(&0));
        unknown * self.dim..self.ids.len() * self.dim
    }
}
