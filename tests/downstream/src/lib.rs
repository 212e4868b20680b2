//! Ranks the items of a request: what an ad server does with a model, in small.

use manygate::{Batch, Model, Result, Session};
use std::path::Path;
use std::sync::Arc;

/// A request: who asks, and what could be shown.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its user, as text.
    pub user: &'a str,
    /// Items that the user saw last, oldest first, between `|`.
    pub history: &'a str,
    /// The placement.
    pub tab: &'a str,
    /// Candidates.
    pub items: &'a [&'a str],
}

/// One of a server's threads.
#[derive(Debug)]
pub struct Ranker {
    model: Arc<Model>,
    session: Session,
    batch: Batch,
}

/// Opens the model that all rankers share.
///
/// # Errors
/// When the folder holds no sound run.
pub fn open(folder: &Path) -> Result<Arc<Model>> {
    Model::open(folder).map(Arc::new)
}

impl Ranker {
    /// A ranker for up to `most` items a request.
    ///
    /// # Errors
    /// When `most` is no sensible number.
    pub fn new(model: Arc<Model>, most: usize) -> Result<Ranker> {
        let session = Session::new(Arc::clone(&model), most)?;
        Ok(Ranker { batch: model.encoder.empty_batch(most, false), session, model })
    }

    /// The position of the item most likely to be clicked and then bought, with that probability; [`None`] without
    /// items. A warm call allocates nothing.
    ///
    /// # Errors
    /// When a cell cannot be used, or there are too many items.
    pub fn best(&mut self, request: Request<'_>) -> Result<Option<(usize, f32)>> {
        self.batch.clear();
        for item in request.items {
            let cells = [request.user, item, request.history, "0.1", request.tab];
            self.model.encoder.encode(&cells, &mut self.batch).map_err(|wrong| wrong.at("request", None))?;
        }
        if request.items.is_empty() {
            return Ok(None);
        }
        let outputs = self.session.predict(&self.batch)?;
        let values = outputs.rows().into_iter().map(|row| row[0] * row[1]).enumerate();
        Ok(values.max_by(|(_, a), (_, b)| a.total_cmp(b)))
    }
}
