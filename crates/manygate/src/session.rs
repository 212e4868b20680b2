//! Predictions of a model that is shared.

use manygate_core::{Batch, Error, Executor, Result, Serial};
use manygate_runtime::{Model, Predictor};
use ndarray::{ArrayView2, ArrayViewMut2};
use std::fmt;
use std::sync::Arc;

/// Predicts batches of up to a fixed number of rows. A server has one for each of its threads, over one
/// [`Model`]: weights, packed once, are shared, and only the working memory is a session's own. A prediction allocates
/// nothing, and its cost grows with its rows, not with the capacity.
///
/// ```
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/downstream/fixture");
/// use manygate::{Model, Session};
/// use std::sync::Arc;
///
/// let model = Arc::new(Model::open(folder.as_ref())?);
/// std::thread::scope(|threads| {
///     for _ in 0..2 {
///         let mut session = Session::new(Arc::clone(&model), 64)?;
///         let encoder = &model.encoder;
///         threads.spawn(move || -> manygate::Result<()> {
///             let mut batch = encoder.empty_batch(64, false);
///             for request in [["3", "14", "1|2", "0.4", "feed"], ["4", "0", "", "", "search"]] {
///                 batch.clear(); // keeps its memory: from the second request on nothing is allocated
///                 encoder.encode(&request, &mut batch).map_err(|e| e.at("request", None))?;
///                 let outputs = session.predict(&batch)?; // [rows, outputs]
///                 assert!(outputs[[0, 0]] > 0.0 && outputs[[0, 0]] < 1.0);
///             }
///             Ok(())
///         });
///     }
///     Ok::<(), manygate::Error>(())
/// })?;
/// # Ok::<(), manygate::Error>(())
/// ```
pub struct Session {
    predictor: Predictor<'static>,
    exec: Box<dyn Executor + Send>,
    /// `[rows, outputs]` of the last batch, room for the capacity.
    outputs: Vec<f32>,
    width: usize,
}

impl Session {
    /// A session for up to `capacity` rows at a time, which computes on the thread that calls it.
    ///
    /// # Errors
    /// When `capacity` is 0 or more than is possible.
    pub fn new(model: Arc<Model>, capacity: usize) -> Result<Session> {
        Session::on(Serial, model, capacity)
    }

    /// The same on threads of the caller's: large batches are divided among them.
    ///
    /// ```
    /// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/downstream/fixture");
    /// use manygate::{Columns, Model, Session, Workers, ndarray::Array2};
    /// use std::sync::Arc;
    ///
    /// let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    /// let workers = Workers::new(2, move |work| {
    ///     pool.broadcast(|_| work());
    /// });
    /// let model = Arc::new(Model::open(folder.as_ref())?);
    /// let mut session = Session::on(workers, Arc::clone(&model), 1024)?;
    /// let ids = Array2::from_shape_fn((1024, 2), |(row, _)| row as u32 % 15);
    /// let columns = Columns::new(model.encoder.schema()).ids(ids.view())?.scenario(&[0; 1024])?;
    /// let columns = columns.lists("history", &vec![[3_u32, 4]; 1024])?;
    /// let batch = columns.numbers(Array2::zeros((1024, 1)).view())?.finish()?;
    /// assert_eq!(session.predict(&batch)?.dim(), (1024, 2));
    /// # Ok::<(), manygate::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn on(exec: impl Executor + Send + 'static, model: Arc<Model>, capacity: usize) -> Result<Session> {
        let predictor = Predictor::of(model, &exec, capacity)?;
        let width = predictor.output_names().count();
        Ok(Session { outputs: vec![0.0; capacity * width], width, exec: Box::new(exec), predictor })
    }

    /// Names of the outputs, in order: those of the tasks, and what else the model tells.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.predictor.output_names()
    }

    /// The outputs of each row, `[rows, outputs]`, in memory of the session's; `.to_owned()` makes an array of them.
    ///
    /// # Errors
    /// When the batch does not fit the model, has no rows or more than the capacity, or a number of it or an output is not
    /// finite.
    pub fn predict(&mut self, batch: &Batch) -> Result<ArrayView2<'_, f32>> {
        let len = batch.rows.saturating_mul(self.width);
        let Some(out) = self.outputs.get_mut(..len) else {
            let message =
                format!("{} rows, the session was made for {}", batch.rows, self.predictor.capacity());
            return Err(Error::graph("predict", message));
        };
        self.predictor.predict_into(self.exec.as_ref(), batch, out)?;
        let shape = (batch.rows, self.width);
        ArrayView2::from_shape(shape, out).map_err(|e| Error::graph("predict", e.to_string()))
    }

    /// The same into memory of the caller's, `[rows, outputs]` of any layout.
    ///
    /// # Errors
    /// As [`Session::predict`], or when `out` has another shape; it is then as it was.
    pub fn predict_into(&mut self, batch: &Batch, mut out: ArrayViewMut2<'_, f32>) -> Result<()> {
        let needed = (batch.rows, self.width);
        if out.dim() != needed {
            let message = format!("the place for the outputs is {:?}, {needed:?} is needed", out.dim());
            return Err(Error::graph("predict", message));
        }
        out.assign(&self.predict(batch)?);
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<&str> = self.output_names().collect();
        f.debug_struct("Session")
            .field("capacity", &self.predictor.capacity())
            .field("outputs", &outputs)
            .finish_non_exhaustive()
    }
}
