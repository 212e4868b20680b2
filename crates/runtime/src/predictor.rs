//! Inference: a plan, weights, and memory made once.

use crate::model::Model;
use manygate_core::{Batch, Error, Executor, Result};
use manygate_embedding::Tables;
use manygate_graph::{Draws, Input, Parameters, Plan, RowOrder, Workspace};
use manygate_kernels::Mat;
use std::sync::Arc;

/// Rows that are predicted at a time when there are many.
pub const CHUNK_ROWS: usize = 4096;
/// Most rows that a predictor can be made for.
pub const MAX_CAPACITY: usize = 1 << 20;

/// Plan and weights of a predictor.
#[derive(Debug)]
enum Held<'m> {
    Shared(Arc<Model>),
    Borrowed { plan: &'m Plan, params: &'m Parameters, state: &'m Parameters, tables: &'m Tables },
}

impl Held<'_> {
    fn plan(&self) -> &Plan {
        match self {
            Held::Shared(model) => &model.plan,
            Held::Borrowed { plan, .. } => plan,
        }
    }

    fn input<'a>(&'a self, batch: &'a Batch, seeds: &'a [f32]) -> Input<'a> {
        let (params, state, tables) = match self {
            Held::Shared(model) => (&model.weights().params, &model.weights().state, &model.weights().tables),
            Held::Borrowed { params, state, tables, .. } => (*params, *state, *tables),
        };
        Input { params, state, tables, batch, seeds, draws: Draws::default() }
    }
}

/// Runs an evaluation plan over batches of at most a fixed number of rows. What depends on the weights alone is computed
/// before; a prediction allocates nothing but what the caller's buffers need, once batches have had the size that they
/// get.
#[derive(Debug)]
pub struct Predictor<'m> {
    held: Held<'m>,
    seeds: Vec<f32>,
    order: RowOrder,
    ws: Workspace,
}

impl<'m> Predictor<'m> {
    /// Prepares to predict up to `capacity` rows at a time with these weights.
    ///
    /// # Errors
    /// When the weights are not those of the plan, the plan is one of training, or `capacity` is 0 or above
    /// [`MAX_CAPACITY`].
    pub fn new(
        plan: &'m Plan,
        params: &'m Parameters,
        state: &'m Parameters,
        tables: &'m Tables,
        exec: &dyn Executor,
        capacity: usize,
    ) -> Result<Predictor<'m>> {
        check_capacity(capacity)?;
        let weights = plan.prepare(exec, params, state, tables)?;
        let ws = Workspace::sharing(plan, exec.threads(), capacity, &weights)?;
        Ok(Predictor::over(Held::Borrowed { plan, params, state, tables }, ws))
    }

    fn over(held: Held<'m>, ws: Workspace) -> Predictor<'m> {
        let seeds = vec![1.0; held.plan().losses().len()];
        Predictor { held, seeds, order: RowOrder::default(), ws }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.held.plan()
    }

    /// Names of the outputs, in order: those of the tasks, and what else the model tells.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.plan().output_names()
    }

    /// Most rows at a time.
    pub fn capacity(&self) -> usize {
        self.ws.capacity()
    }

    /// Appends the outputs of each row of `batch` to `out`, `[output][row]`. A row's bits do not depend on the others.
    ///
    /// # Errors
    /// When the batch does not fit the model or is larger than the capacity, `out` has another number of columns than the
    /// model has outputs, or a number of the batch or an output is not finite; then `out` is as it was.
    pub fn predict(&mut self, exec: &dyn Executor, batch: &Batch, out: &mut [Vec<f32>]) -> Result<()> {
        let outputs = self.output_names().count();
        if out.len() != outputs {
            let message = format!("{} columns to write, the model has {outputs} outputs", out.len());
            return Err(Error::graph("predict", message));
        }
        self.run(exec, batch)?;
        for (output, column) in out.iter_mut().enumerate() {
            let start = column.len();
            column.resize(start + batch.rows, 0.0);
            self.each(output, |row, value| column[start + row] = value)?;
        }
        Ok(())
    }

    /// Writes the outputs of each row of `batch`, `[rows, outputs]` row-major, and allocates nothing itself.
    ///
    /// # Errors
    /// As [`Predictor::predict`]; `out` must have rows · outputs values.
    pub fn predict_into(&mut self, exec: &dyn Executor, batch: &Batch, out: &mut [f32]) -> Result<()> {
        let outputs = self.output_names().count();
        if out.len() != batch.rows.saturating_mul(outputs) {
            let (rows, len) = (batch.rows, out.len());
            let message = format!("{len} values to write, {rows} rows with {outputs} outputs need others");
            return Err(Error::graph("predict", message));
        }
        self.run(exec, batch)?;
        (0..outputs)
            .try_for_each(|output| self.each(output, |row, value| out[row * outputs + output] = value))
    }

    /// Runs the plan, and looks at what goes in and what comes out.
    fn run(&mut self, exec: &dyn Executor, batch: &Batch) -> Result<()> {
        check_numbers(batch)?;
        let Predictor { held, seeds, order, ws } = self;
        let rows = batch.rows;
        let batch = order.arrange(held.plan(), batch)?.batch;
        held.plan().run(exec, ws, &held.input(batch, seeds))?;
        for (output, name) in held.plan().output_names().enumerate() {
            let values = held.plan().output_at(ws, output)?;
            if (values.rows(), values.cols()) != (rows, 1) {
                let shape = format!("is [{}, {}], not one number a row", values.rows(), values.cols());
                return Err(Error::graph(format!("output {name}"), shape));
            }
            if let Some(r) = (0..rows).find(|&r| !value(&values, r).is_finite()) {
                return Err(not_finite(name, value(&values, r), order.caller_row(r)));
            }
        }
        Ok(())
    }

    /// Hands on each row of the caller's with an output of the last run.
    fn each(&self, output: usize, mut put: impl FnMut(usize, f32)) -> Result<()> {
        let values = self.plan().output_at(&self.ws, output)?;
        (0..values.rows()).for_each(|r| put(self.order.caller_row(r), value(&values, r)));
        Ok(())
    }

    /// Predicts any number of rows, [`CHUNK_ROWS`] (or the capacity) at a time: `[output][row]`.
    ///
    /// # Errors
    /// As [`Predictor::predict`].
    pub fn predict_all(&mut self, exec: &dyn Executor, data: &Batch) -> Result<Vec<Vec<f32>>> {
        let chunks = chunks(data, CHUNK_ROWS.min(self.ws.capacity()))?;
        // Here rows are the caller's.
        check_numbers(data)?;
        let mut out = vec![Vec::with_capacity(data.rows); self.output_names().count()];
        let mut part = Batch::empty_like(data);
        for rows in chunks {
            part.gather(data, &rows);
            self.predict(exec, &part, &mut out)?;
        }
        Ok(out)
    }
}

/// The rows of `data`, so many at a time.
///
/// # Errors
/// When its columns do not fit each other, or there are more rows than can be numbered.
pub(crate) fn chunks(data: &Batch, at_once: usize) -> Result<impl Iterator<Item = Vec<u32>>> {
    data.validate()?;
    let Ok(rows) = u32::try_from(data.rows) else {
        return Err(Error::graph("predict", format!("{} rows are more than 4294967295", data.rows)));
    };
    let starts = (0..rows).step_by(at_once);
    Ok(starts.map(move |start| (start..rows.min(start.saturating_add(at_once as u32))).collect()))
}

/// That a model can do something with the numbers of a batch.
pub(crate) fn check_numbers(batch: &Batch) -> Result<()> {
    let Some(at) = batch.dense.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (row, column) = (at / batch.dense_width.max(1), at % batch.dense_width.max(1));
    let message = format!("number {column} of row {row} is {}; give a finite one", batch.dense[at]);
    Err(Error::graph("predict", message))
}

/// What is said of an output that is no number.
pub(crate) fn not_finite(output: &str, value: f32, row: usize) -> Error {
    let message = format!(
        "is {value} for row {row}: the weights are damaged, or an input is far out of the range that they were \
         trained on"
    );
    Error::graph(format!("output {output}"), message)
}

impl Predictor<'static> {
    /// A predictor that holds a share of its model: it can move to another thread and live as long as it likes. All
    /// predictors of a model read one set of weights, packed once.
    ///
    /// # Errors
    /// When `capacity` is 0 or above [`MAX_CAPACITY`].
    pub fn of(model: Arc<Model>, exec: &dyn Executor, capacity: usize) -> Result<Predictor<'static>> {
        let ws = workspace(&model, exec, capacity)?;
        Ok(Predictor::over(Held::Shared(model), ws))
    }
}

impl Model {
    /// A predictor for up to `capacity` rows at a time, over the model's weights.
    ///
    /// # Errors
    /// When `capacity` is 0 or above [`MAX_CAPACITY`].
    pub fn predictor(&self, exec: &dyn Executor, capacity: usize) -> Result<Predictor<'_>> {
        let ws = workspace(self, exec, capacity)?;
        let weights = self.weights();
        let (params, state, tables) = (&weights.params, &weights.state, &weights.tables);
        Ok(Predictor::over(Held::Borrowed { plan: &self.plan, params, state, tables }, ws))
    }
}

fn workspace(model: &Model, exec: &dyn Executor, capacity: usize) -> Result<Workspace> {
    check_capacity(capacity)?;
    Workspace::sharing(&model.plan, exec.threads(), capacity, model.prepared())
}

fn check_capacity(capacity: usize) -> Result<()> {
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        let message = format!("{capacity} rows at a time: give 1 to {MAX_CAPACITY}");
        return Err(Error::config("capacity", message));
    }
    Ok(())
}

fn value(output: &Mat<'_>, row: usize) -> f32 {
    output.row(row)[0]
}
