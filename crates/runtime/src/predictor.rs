//! Inference: a plan, weights, and memory made once.

use manygate_core::{Batch, Executor, Result};
use manygate_embedding::Tables;
use manygate_graph::{Input, Parameters, Plan, RowOrder, Workspace};

/// Rows that are predicted at a time when there are many.
pub const CHUNK_ROWS: usize = 4096;

/// Runs an evaluation plan over batches of at most a fixed number of rows. Weights are packed once, and nothing is
/// allocated a prediction but what the caller's buffers need.
pub struct Predictor<'m> {
    plan: &'m Plan,
    params: &'m Parameters,
    state: &'m Parameters,
    tables: &'m Tables,
    seeds: Vec<f32>,
    order: RowOrder,
    ws: Workspace,
}

impl<'m> Predictor<'m> {
    /// Prepares to predict up to `capacity` rows at a time with these weights.
    pub fn new(
        plan: &'m Plan,
        params: &'m Parameters,
        state: &'m Parameters,
        tables: &'m Tables,
        exec: &dyn Executor,
        capacity: usize,
    ) -> Predictor<'m> {
        let mut ws = Workspace::new(plan, exec.threads(), capacity);
        plan.pack(exec, &mut ws, params);
        Predictor {
            plan,
            params,
            state,
            tables,
            seeds: vec![1.0; plan.losses().len()],
            order: RowOrder::default(),
            ws,
        }
    }

    /// Names of the outputs, in order: those of the tasks, and what else the model tells.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.plan.output_names()
    }

    /// Appends the outputs of each row of `batch` to `out`, `[output][row]`. A row's bits do not depend on the others.
    ///
    /// # Errors
    /// When the batch does not fit the model or is larger than the capacity.
    ///
    /// # Panics
    /// When `out` has another number of columns than the model has outputs.
    pub fn predict(&mut self, exec: &dyn Executor, batch: &Batch, out: &mut [Vec<f32>]) -> Result<()> {
        let (rows, batch) = (batch.rows, self.order.arrange(self.plan, batch)?);
        let (params, state) = (self.params, self.state);
        let input = Input { params, state, tables: self.tables, batch, seeds: &self.seeds };
        self.plan.run(exec, &mut self.ws, &input)?;
        let names = self.plan.output_names();
        assert_eq!(names.count(), out.len(), "one column an output");
        for (name, column) in self.plan.output_names().zip(out) {
            let values = self.plan.output(&self.ws, name)?;
            let start = column.len();
            column.resize(start + rows, 0.0);
            (0..rows).for_each(|r| column[start + self.order.caller_row(r)] = values.row(r)[0]);
        }
        Ok(())
    }

    /// Predicts any number of rows, [`CHUNK_ROWS`] (or the capacity) at a time: `[output][row]`.
    ///
    /// # Errors
    /// As [`Predictor::predict`].
    pub fn predict_all(&mut self, exec: &dyn Executor, data: &Batch) -> Result<Vec<Vec<f32>>> {
        let mut out = vec![Vec::with_capacity(data.rows); self.plan.output_names().count()];
        let chunk = CHUNK_ROWS.min(self.ws.capacity());
        let mut part = Batch::empty_like(data);
        let rows: Vec<u32> = (0..data.rows as u32).collect();
        for rows in rows.chunks(chunk) {
            part.gather(data, rows);
            self.predict(exec, &part, &mut out)?;
        }
        Ok(out)
    }
}
