//! Storage of embedding tables: weights and, while training, the optimiser's state beside them.

use manygate_core::{Buffer, Error, Executor, Result, Stream, run_parts};
use manygate_graph::{Init, TableSource, TableSpec, name_hash};
use manygate_kernels::embedding::Rows;

/// One table. Row 0 is the unknown row.
#[derive(Clone, Debug)]
pub struct Table {
    spec: TableSpec,
    state_width: usize,
    data: Buffer,
}

impl Table {
    /// A table of zeros with room for `state_width` values of optimiser state beside each row.
    pub fn zeroed(spec: TableSpec, state_width: usize) -> Table {
        let data = Buffer::zeroed(spec.rows * (spec.dim + state_width));
        Table { spec, state_width, data }
    }

    /// A table with the initial values of `seed`: a function of the seed, the table's name and the row alone, so a
    /// table may grow.
    pub fn initial(spec: TableSpec, state_width: usize, seed: u64, exec: &dyn Executor) -> Table {
        const ROWS_A_PIECE: usize = 4096;
        let mut table = Table::zeroed(spec, state_width);
        let stream = Stream::new(seed, 0, name_hash(&table.spec.name));
        let (rows, dim, stride) = (table.spec.rows, table.spec.dim, table.stride());
        let init = table.spec.init.clone();
        let xavier = |fan: usize, uniform: f32| (6.0 / fan as f32).sqrt() * (2.0 * uniform - 1.0);
        let value = |row: usize, column: usize| {
            let (row, column) = (row as u64, column as u64);
            match &init {
                Init::Constant(c) => *c,
                Init::Normal(deviation) => deviation * stream.normal(row, column),
                Init::XavierUniform => xavier(rows + dim, stream.uniform(row, column)),
                Init::XavierOf { out, input } => xavier(out + input, stream.uniform(row, column)),
                // Pieces of a row are for weights that rows hold; tables hold embeddings.
                Init::Rows(_) => 0.0,
            }
        };
        let piece = |i: usize| i * ROWS_A_PIECE * stride..rows.min((i + 1) * ROWS_A_PIECE) * stride;
        let pieces: Vec<_> = (0..rows.div_ceil(ROWS_A_PIECE)).map(piece).collect();
        run_parts(exec, &pieces, [&mut table.data], |i, [part]| {
            for (r, row) in part.chunks_exact_mut(stride).enumerate() {
                for (column, w) in row[..dim].iter_mut().enumerate() {
                    *w = value(i * ROWS_A_PIECE + r, column);
                }
            }
        });
        table
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
        &self.data
    }

    /// All values, for writing.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data
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
        self.data.chunks_exact(self.stride()).flat_map(|row| &row[from..from + count]).copied().collect()
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

    fn set_columns(&mut self, from: usize, count: usize, values: &[f32]) -> Result<()> {
        if values.len() != self.spec.rows * count {
            let shape =
                format!("[{}, {count}] values are needed, {} were given", self.spec.rows, values.len());
            return Err(Error::graph(&self.spec.name, shape));
        }
        let stride = self.stride();
        if count > 0 {
            for (row, new) in self.data.chunks_exact_mut(stride).zip(values.chunks_exact(count)) {
                row[from..from + count].copy_from_slice(new);
            }
        }
        Ok(())
    }
}

/// The tables of a model, in its plan's order.
#[derive(Clone, Debug, Default)]
pub struct Tables(pub Vec<Table>);

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
    fn initial_rows_depend_on_seed_and_row_alone() {
        let small = Table::initial(spec(10), 0, 5, &Serial);
        let large = Pool::new(2).unwrap().enter(|exec| Table::initial(spec(10_000), 6, 5, exec));
        assert_eq!(small.weights(), large.weights()[..30]);
        assert!(large.state().iter().all(|&s| s == 0.0));
        assert_ne!(small.weights(), Table::initial(spec(10), 0, 6, &Serial).weights());
    }

    #[test]
    fn weights_and_state_round_trip() {
        let mut table = Table::zeroed(spec(2), 2);
        table.set_weights(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        table.set_state(&[7.0, 8.0, 9.0, 10.0]).unwrap();
        assert_eq!(table.rows().row(1), [4.0, 5.0, 6.0]);
        assert_eq!(table.values()[3..5], [7.0, 8.0]);
        let message = table.set_weights(&[1.0]).unwrap_err().to_string();
        assert!(message.contains("[2, 3] values are needed, 1 were given"), "{message}");
    }
}
