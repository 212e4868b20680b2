//! The memory of a running plan: allocated once, never during a step.

use crate::op::Facts;
use crate::plan::Plan;
use manygate_core::{Buffer, Error, Result};
use std::sync::Arc;

/// What an evaluation plan computes of its weights alone: packed weights, and weights that are computed from others.
/// Made once ([`Plan::prepare`]) and shared by any number of workspaces, on any threads.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The plan that it was made for.
    pub(crate) plan: u64,
    pub(crate) packed: Arc<Buffer>,
    pub(crate) once: Arc<Buffer>,
}

impl Prepared {
    /// Bytes of its buffers.
    pub fn bytes(&self) -> usize {
        (self.packed.len() + self.once.len()) * size_of::<f32>()
    }
}

/// Everything that a plan writes: tile arenas, kept values, lane sums, packed weights.
///
/// Made for a number of threads and a largest batch; smaller batches fit as well.
#[derive(Debug)]
pub struct Workspace {
    /// The plan that it was made for.
    pub(crate) plan: u64,
    /// Whether weights have been packed.
    pub(crate) is_packed: bool,
    /// Whether the weights that an evaluation plan computes are those of the packed parameters.
    pub(crate) has_computed: bool,
    pub(crate) capacity: usize,
    /// One tile arena a worker.
    pub(crate) arenas: Vec<Buffer>,
    /// Values with a row for every row of the batch.
    pub(crate) kept: Vec<Buffer>,
    /// `[lanes, lane_len]`: gradients of parameters, then of values of joins.
    pub(crate) lanes: Buffer,
    pub(crate) lane_len: usize,
    /// Values of joins, perhaps shared with other workspaces, and the sums of their gradients.
    pub(crate) once: Arc<Buffer>,
    pub(crate) once_gradients: Buffer,
    /// `[lanes, partial_len]`: partial sums of reductions.
    pub(crate) partials: Vec<f64>,
    /// `[lanes, sums]`: sums of losses, one for each group of rows of a part.
    pub(crate) losses: Vec<f64>,
    /// Packed weights, perhaps shared with other workspaces.
    pub(crate) packed: Arc<Buffer>,
    pub(crate) facts: Facts,
    /// Loss of each part in the last run, unweighted: sum over its rows / number of its rows.
    pub(crate) part_losses: Vec<f64>,
    /// Lanes of the last run.
    pub(crate) last_lanes: usize,
}

impl Workspace {
    /// Memory to run `plan` on `threads` threads over batches of at most `rows` rows.
    pub fn new(plan: &Plan, threads: usize, rows: usize) -> Workspace {
        let (packed, once) = (Buffer::zeroed(plan.packed_len), Buffer::zeroed(plan.once_len));
        Workspace::over(plan, threads, rows, Arc::new(packed), Arc::new(once))
    }

    /// The same for an evaluation plan, over weights that were prepared once: nothing needs to be packed.
    ///
    /// # Errors
    /// When they were prepared for another plan.
    pub fn sharing(plan: &Plan, threads: usize, rows: usize, weights: &Prepared) -> Result<Workspace> {
        if weights.plan != plan.id {
            return Err(Error::graph("workspace", "the weights were prepared for another plan"));
        }
        let (packed, once) = (Arc::clone(&weights.packed), Arc::clone(&weights.once));
        let mut ws = Workspace::over(plan, threads, rows, packed, once);
        (ws.is_packed, ws.has_computed) = (true, true);
        Ok(ws)
    }

    fn over(plan: &Plan, threads: usize, rows: usize, packed: Arc<Buffer>, once: Arc<Buffer>) -> Workspace {
        let rows = rows.max(1);
        // Lanes grow with the rows: the largest batch has the most.
        let lanes = plan.lanes(rows);
        let gradients_of_joins = if plan.goes_back { plan.once_len } else { 0 };
        let lane_len = if plan.goes_back { plan.layout.len() + gradients_of_joins } else { 0 };
        let parts = plan.graph.losses.len();
        Workspace {
            plan: plan.id,
            is_packed: false,
            has_computed: false,
            capacity: rows,
            arenas: (0..threads.max(1)).map(|_| Buffer::zeroed(plan.arena_len)).collect(),
            kept: plan.kept.iter().map(|k| Buffer::zeroed(k.stride * rows * k.rows_a_sample)).collect(),
            lanes: Buffer::zeroed(lanes * lane_len),
            lane_len,
            once,
            once_gradients: Buffer::zeroed(gradients_of_joins),
            partials: vec![0.0; lanes * plan.partial_len],
            losses: vec![0.0; lanes * plan.loss_sums_len()],
            packed,
            facts: Facts {
                rows: 0,
                divisors: plan.losses().iter().map(|loss| vec![1.0; loss.groups()]).collect(),
                scale: plan.losses().iter().map(|loss| vec![0.0; loss.groups()]).collect(),
                scenario_rows: vec![0; plan.reads.scenarios.unwrap_or(0)],
                positions: vec![0; plan.reads.bags],
            },
            part_losses: vec![0.0; parts],
            last_lanes: 0,
        }
    }

    /// Takes copies of what other workspaces share, where there are any: before something is written there.
    pub(crate) fn own_weights(&mut self) {
        Arc::make_mut(&mut self.packed);
        Arc::make_mut(&mut self.once);
    }

    /// Most rows that a batch may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Overwrites what a run must not read before writing it with NaN, so that a test can tell.
    pub(crate) fn spoil(&mut self) {
        for buffer in self.arenas.iter_mut().chain(&mut self.kept) {
            buffer.fill(f32::NAN);
        }
    }

    /// Bytes of all buffers, shared ones included.
    pub fn bytes(&self) -> usize {
        let buffers = self.arenas.iter().chain(&self.kept).map(|b| b.len()).sum::<usize>();
        let own = self.lanes.len() + self.once.len() + self.once_gradients.len() + self.packed.len();
        (buffers + own) * size_of::<f32>() + (self.partials.len() + self.losses.len()) * size_of::<f64>()
    }

    /// Loss of each part in the last run, unweighted: the sum over its rows divided by their number.
    pub fn part_losses(&self) -> &[f64] {
        &self.part_losses
    }
}
