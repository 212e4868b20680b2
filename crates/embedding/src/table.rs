//! Storage of embedding tables: weights and, while training, the optimiser's state beside them.

use manygate_core::{Buffer, Error, Executor, Result, Stream, run_parts};
use manygate_graph::{Init, TableSource, TableSpec, name_hash};
use manygate_kernels::embedding::Rows;

/// One table. Row 0 is the unknown row.
#[derive(Clone, Debug)]
pub struct Table {
    spec: TableSpec,
    state_width: usize,
    /// The rows, and behind them room for more: zeros.
    data: Buffer,
}

/// Random numbers of initial values: keyed by row, or by id in a table that grows.
const BY_ROW: u64 = 0;
const BY_ID: u64 = 1;

impl Table {
    /// A table of zeros with room for `state_width` values of optimiser state beside each row.
    pub fn zeroed(spec: TableSpec, state_width: usize) -> Table {
        let data = Buffer::zeroed(spec.rows * (spec.dim + state_width));
        Table { spec, state_width, data }
    }

    /// A table with the initial values of `seed`: a function of the seed, the table's name and the row alone.
    pub fn initial(spec: TableSpec, state_width: usize, seed: u64, exec: &dyn Executor) -> Table {
        const ROWS_A_PIECE: usize = 4096;
        let mut table = Table::zeroed(spec, state_width);
        let stream = Stream::new(seed, BY_ROW, name_hash(&table.spec.name));
        let (rows, dim, stride) = (table.spec.rows, table.spec.dim, table.stride());
        let (init, fan) = (&table.spec.init, rows + dim);
        let piece = |i: usize| i * ROWS_A_PIECE * stride..rows.min((i + 1) * ROWS_A_PIECE) * stride;
        let pieces: Vec<_> = (0..rows.div_ceil(ROWS_A_PIECE)).map(piece).collect();
        run_parts(exec, &pieces, [&mut table.data], |i, [part]| {
            for (r, row) in part.chunks_exact_mut(stride).enumerate() {
                initialise(init, &stream, fan, (i * ROWS_A_PIECE + r) as u64, &mut row[..dim]);
            }
        });
        table
    }

    /// Appends a row for each of `ids`, with zero optimiser state. Its initial values are a function of `seed`, the
    /// table's name and the id alone: they depend neither on the row nor on when the id came.
    ///
    /// # Errors
    /// When rows start in a way that depends on their number, or there would be more than a u32 can tell apart.
    pub fn grow(&mut self, ids: &[u64], seed: u64) -> Result<()> {
        let (rows, stride, dim) = (self.spec.rows + ids.len(), self.stride(), self.spec.dim);
        if self.spec.init == Init::XavierUniform {
            let message =
                "its rows start by their number, which changes as it grows; let them start otherwise";
            return Err(Error::graph(&self.spec.name, message));
        }
        if u32::try_from(rows).is_err() {
            let message = format!("would grow to {rows} rows, more than {}", u32::MAX);
            return Err(Error::graph(&self.spec.name, message));
        }
        if rows * stride > self.data.len() {
            let mut data = Buffer::zeroed(rows.max(2 * self.spec.rows) * stride);
            let live = self.values();
            data[..live.len()].copy_from_slice(live);
            self.data = data;
        }
        let stream = Stream::new(seed, BY_ID, name_hash(&self.spec.name));
        let new = self.data[self.spec.rows * stride..].chunks_exact_mut(stride);
        for (&id, row) in ids.iter().zip(new) {
            initialise(&self.spec.init, &stream, 0, id, &mut row[..dim]);
        }
        self.spec.rows = rows;
        Ok(())
    }

    /// Room for `state_width` values of optimiser state beside each row, all zero: that of another optimiser, or of one
    /// that begins anew.
    pub fn begin_state(&mut self, state_width: usize) {
        if state_width == self.state_width {
            let (dim, stride) = (self.spec.dim, self.stride());
            self.values_mut().chunks_exact_mut(stride).for_each(|row| row[dim..].fill(0.0));
        } else {
            let mut table = Table::zeroed(self.spec.clone(), state_width);
            let strides = [table.stride(), self.stride()];
            let rows = table.data.chunks_exact_mut(strides[0]).zip(self.values().chunks_exact(strides[1]));
            rows.for_each(|(to, from)| to[..self.spec.dim].copy_from_slice(&from[..self.spec.dim]));
            *self = table;
        }
    }

    /// The declaration.
    pub fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// Values from one row to the next: weights, then state.
    pub fn stride(&self) -> usize {
        self.spec.dim + self.state_width
    }

    /// Values of optimiser state a row.
    pub fn state_width(&self) -> usize {
        self.state_width
    }

    /// The rows, for looking up.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.data, self.spec.rows, self.spec.dim, self.stride())
    }

    /// All values: row after row, weights and state.
    pub fn values(&self) -> &[f32] {
        &self.data[..self.spec.rows * self.stride()]
    }

    /// All values, for writing.
    pub fn values_mut(&mut self) -> &mut [f32] {
        let len = self.spec.rows * self.stride();
        &mut self.data[..len]
    }

    pub(crate) fn shared_ptr(&self) -> *mut f32 {
        self.data.shared_ptr()
    }

    /// The weights alone, `[rows, dim]`.
    pub fn weights(&self) -> Vec<f32> {
        self.columns(0, self.spec.dim)
    }

    /// The optimiser's state alone, `[rows, state_width]`.
    pub fn state(&self) -> Vec<f32> {
        self.columns(self.spec.dim, self.state_width)
    }

    fn columns(&self, from: usize, count: usize) -> Vec<f32> {
        self.values().chunks_exact(self.stride()).flat_map(|row| &row[from..from + count]).copied().collect()
    }

    /// Overwrites the weights with `[rows, dim]` values.
    ///
    /// # Errors
    /// When their number differs.
    pub fn set_weights(&mut self, weights: &[f32]) -> Result<()> {
        self.set_columns(0, self.spec.dim, weights)
    }

    /// Overwrites the optimiser's state with `[rows, state_width]` values.
    ///
    /// # Errors
    /// When their number differs.
    pub fn set_state(&mut self, state: &[f32]) -> Result<()> {
        self.set_columns(self.spec.dim, self.state_width, state)
    }

    /// Moves every weight a share of the way to that of `target`: `w ← (1 − share) w + share w'`. The optimiser's state
    /// stays, and that of `target`, which need not have as much, does not count.
    ///
    /// # Errors
    /// When `target` has another shape.
    pub fn move_towards(&mut self, target: &Table, share: f32) -> Result<()> {
        let (own, other) = (&self.spec, &target.spec);
        if (own.rows, own.dim) != (other.rows, other.dim) {
            let message = format!(
                "is [{}, {}], the target `{}` is [{}, {}]",
                own.rows, own.dim, other.name, other.rows, other.dim
            );
            return Err(Error::graph(&own.name, message));
        }
        let (stride, target_stride, dim) = (self.stride(), target.stride(), own.dim);
        let rows =
            self.values_mut().chunks_exact_mut(stride).zip(target.values().chunks_exact(target_stride));
        for (row, target) in rows {
            for (weight, target) in row[..dim].iter_mut().zip(target) {
                *weight = (1.0 - share) * *weight + share * target;
            }
        }
        Ok(())
    }

    fn set_columns(&mut self, from: usize, count: usize, values: &[f32]) -> Result<()> {
        if values.len() != self.spec.rows * count {
            let shape =
                format!("[{}, {count}] values are needed, {} were given", self.spec.rows, values.len());
            return Err(Error::graph(&self.spec.name, shape));
        }
        let stride = self.stride();
        if count > 0 {
            for (row, new) in self.values_mut().chunks_exact_mut(stride).zip(values.chunks_exact(count)) {
                row[from..from + count].copy_from_slice(new);
            }
        }
        Ok(())
    }
}

/// The initial values of one row, with `key` for its random numbers; `fan` is the number of rows and columns.
fn initialise(init: &Init, stream: &Stream, fan: usize, key: u64, row: &mut [f32]) {
    let xavier = |fan: usize, uniform: f32| (6.0 / fan as f32).sqrt() * (2.0 * uniform - 1.0);
    for (w, column) in row.iter_mut().zip(0..) {
        *w = match init {
            Init::Constant(c) => *c,
            Init::Normal(deviation) => deviation * stream.normal(key, column),
            Init::XavierUniform => xavier(fan, stream.uniform(key, column)),
            Init::XavierOf { out, input } => xavier(out + input, stream.uniform(key, column)),
            // Pieces of a row and squares of blocks are for weights; tables hold embeddings.
            Init::Rows(_) | Init::Diagonal { .. } => 0.0,
        };
    }
}

/// The tables of a model, in its plan's order.
#[derive(Clone, Debug, Default)]
pub struct Tables(pub Vec<Table>);

impl Tables {
    /// Moves the weights of every table a share of the way to those of `target`, see [`Table::move_towards`].
    ///
    /// # Errors
    /// When there are not as many tables, or one has another shape: those before it have moved.
    pub fn move_towards(&mut self, target: &Tables, share: f32) -> Result<()> {
        if self.0.len() != target.0.len() {
            let message = format!("{} of them cannot follow {}", self.0.len(), target.0.len());
            return Err(Error::graph("tables", message));
        }
        self.0.iter_mut().zip(&target.0).try_for_each(|(own, target)| own.move_towards(target, share))
    }
}

impl TableSource for Tables {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn rows(&self, index: usize) -> Rows<'_> {
        self.0[index].rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manygate_core::{Pool, Serial};

    fn spec(rows: usize) -> TableSpec {
        TableSpec { name: "embedding.user.weight".into(), rows, dim: 3, init: Init::Normal(0.01) }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a table of several pieces is large")]
    fn initial_rows_depend_on_seed_and_row_alone() {
        let small = Table::initial(spec(10), 0, 5, &Serial);
        let large = Pool::new(2).unwrap().enter(|exec| Table::initial(spec(10_000), 6, 5, exec));
        assert_eq!(small.weights(), large.weights()[..30]);
        assert!(large.state().iter().all(|&s| s == 0.0));
        assert_ne!(small.weights(), Table::initial(spec(10), 0, 6, &Serial).weights());
    }

    #[test]
    fn rows_that_come_later_start_by_their_ids() {
        let ids = [7, u64::MAX, 0, 3, 8, 9, 10];
        let mut at_once = Table::initial(spec(1), 2, 5, &Serial);
        at_once.grow(&ids, 5).unwrap();
        let mut step_by_step = Table::initial(spec(1), 2, 5, &Serial);
        for id in ids {
            let before = step_by_step.values().to_vec();
            step_by_step.grow(&[id], 5).unwrap();
            assert_eq!(step_by_step.values()[..before.len()], before, "rows that are there stay");
            // What the optimiser leaves behind in a row is not that of the next.
            step_by_step.values_mut().iter_mut().skip(4).step_by(5).for_each(|s| *s = 1.0);
        }
        assert_eq!(step_by_step.weights(), at_once.weights());
        assert!(at_once.state().iter().all(|&s| s == 0.0));
        assert_eq!((at_once.spec().rows, at_once.rows().rows()), (8, 8));
        let mut backwards = Table::initial(spec(1), 0, 5, &Serial);
        let reversed: Vec<u64> = ids.into_iter().rev().collect();
        backwards.grow(&reversed, 5).unwrap();
        for row in 1..8 {
            assert_eq!(backwards.rows().row(8 - row), at_once.rows().row(row));
        }
        assert_ne!(at_once.rows().row(0), at_once.rows().row(3), "the unknown row is not id 0");
    }

    #[test]
    fn a_table_whose_start_depends_on_its_rows_does_not_grow() {
        let mut table = Table::zeroed(TableSpec { init: Init::XavierUniform, ..spec(1) }, 0);
        let told = table.grow(&[1], 5).unwrap_err().to_string();
        assert!(told.contains("embedding.user.weight: its rows start by their number"), "{told}");
    }

    #[test]
    fn weights_and_state_round_trip() {
        let mut table = Table::zeroed(spec(2), 2);
        table.set_weights(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        table.set_state(&[7.0, 8.0, 9.0, 10.0]).unwrap();
        assert_eq!(table.rows().row(1), [4.0, 5.0, 6.0]);
        assert_eq!(table.values()[3..5], [7.0, 8.0]);
        for width in [2, 1] {
            table.begin_state(width);
            assert_eq!(table.weights(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            assert_eq!(table.state(), vec![0.0; 2 * width]);
        }
        let message = table.set_weights(&[1.0]).unwrap_err().to_string();
        assert!(message.contains("[2, 3] values are needed, 1 were given"), "{message}");
    }

    #[test]
    fn a_table_follows_another_and_keeps_its_state() {
        let table = |state_width, weights: [f32; 6]| {
            let mut table = Table::zeroed(spec(2), state_width);
            table.set_weights(&weights).unwrap();
            table
        };
        let online = Tables(vec![table(0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])]);
        let mut target = Tables(vec![table(1, [0.0; 6])]);
        target.0[0].set_state(&[7.0, 8.0]).unwrap();
        target.move_towards(&online, 0.25).unwrap();
        assert_eq!(target.0[0].weights(), [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]);
        let before = target.0[0].weights();
        target.move_towards(&online, 0.0).unwrap();
        assert_eq!(target.0[0].weights(), before);
        target.move_towards(&online, 1.0).unwrap();
        assert_eq!(target.0[0].weights(), online.0[0].weights());
        assert_eq!(target.0[0].state(), [7.0, 8.0]);

        let longer = Tables(vec![Table::zeroed(spec(3), 0)]);
        let message = target.move_towards(&longer, 0.5).unwrap_err().to_string();
        assert!(message.contains("is [2, 3], the target `embedding.user.weight` is [3, 3]"), "{message}");
        let message = target.move_towards(&Tables::default(), 0.5).unwrap_err().to_string();
        assert!(message.contains("1 of them cannot follow 0"), "{message}");
    }
}
