//! How a run moves parameters and tables: what follows the plan's own launches.

use crate::weights::TableShape;
use manygate_core::{Error, Result};
use manygate_cuda::embedding::{self, Ids, Source, SparseGradients, SparseMemory};
use manygate_cuda::optim::{Clipping, Parameters, Piece, Step, clip_factor, optimise, sum_squares};
use manygate_cuda::{DeviceMat, Launch, Precision};
use manygate_graph::device::{BatchLayout, Capacity, DeviceMemory};
use manygate_graph::{LookupSource, Plan, SparseSource};
use manygate_kernels::embedding::RowOptimizer;
use std::collections::BTreeMap;
use std::ops::Range;

/// What moves: the same at each step.
#[derive(Clone, Debug, Default)]
pub struct Optimizers {
    /// Ranges of the parameters that learn, and the group of each.
    pub pieces: Vec<(Range<usize>, usize)>,
    /// Number of groups.
    pub groups: usize,
    /// How long the gradient of these parameters may be.
    pub clip: Option<Clip>,
}

/// A limit for the dense gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// Of its Euclidean norm.
    Norm(f64),
    /// Of each absolute value.
    Value(f32),
}

/// What a step does.
#[derive(Clone, Debug, Default)]
pub struct StepConstants {
    /// By group.
    pub dense: Vec<Step>,
    /// By table; [`None`] where its rows stay.
    pub tables: Vec<Option<RowOptimizer>>,
}

/// The launches that move parameters and tables.
pub(crate) struct Updates {
    optimizers: Optimizers,
    precision: Precision,
    tables: Vec<TableShape>,
    scratch: u64,
}

/// Distance between parts of the block, in bytes.
const ALIGN: usize = 256;
/// Bytes of a table's step.
const TABLE_STEP: usize = 40;

impl Updates {
    /// # Errors
    /// When the tables have more rows, or a batch more look-ups, than can be told apart.
    pub(crate) fn new(
        plan: &Plan,
        capacity: &Capacity,
        precision: Precision,
        tables: &[TableShape],
        optimizers: Optimizers,
    ) -> Result<Updates> {
        let rows: usize = tables.iter().map(|table| table.rows).sum();
        if u32::try_from(rows).is_err() {
            let message =
                format!("tables of {rows} rows in all, at most {} are possible on a device", u32::MAX);
            return Err(Error::Device { message });
        }
        let updates = Updates { optimizers, precision, tables: tables.to_vec(), scratch: 0 };
        let lookups = lookups(plan, capacity);
        if lookups >= 1 << 31 {
            let message = format!("batches with {lookups} look-ups; take a smaller batch");
            return Err(Error::Device { message });
        }
        // Sizes do not depend on where things lie.
        let nowhere = DeviceMemory {
            kept: vec![0; plan.device_kept_len(capacity).len()],
            tables: tables.iter().map(|table| table.at(0)).collect(),
            batch: BatchLayout::new(plan, capacity).at(0),
            ..DeviceMemory::default()
        };
        let sparse = updates.sparse(plan, &nowhere, capacity).scratch();
        // Sums of squares, and behind them the factor.
        let clipping = 8 * (updates.pieces().len() as u64 + 1);
        Ok(Updates { scratch: sparse.max(clipping), ..updates })
    }

    /// What learns, in pieces that a block takes.
    fn pieces(&self) -> Vec<Piece> {
        let ranges = self.optimizers.pieces.iter();
        ranges
            .flat_map(|(range, group)| Piece::cut(range.start as u64..range.end as u64, *group as u32))
            .collect()
    }

    pub(crate) fn scratch(&self) -> u64 {
        self.scratch
    }

    /// Bytes of what [`fill`](Updates::fill) writes.
    pub(crate) fn block_bytes(&self) -> u64 {
        (self.tables_at() + TABLE_STEP * self.tables.len()).next_multiple_of(ALIGN) as u64
    }

    fn tables_at(&self) -> usize {
        (Step::BYTES * self.optimizers.groups).next_multiple_of(ALIGN)
    }

    /// Writes what the launches read of a step.
    pub(crate) fn fill(&self, step: &StepConstants, block: &mut [u8]) {
        for (to, step) in block.chunks_exact_mut(Step::BYTES).zip(&step.dense) {
            to.copy_from_slice(&step.to_bytes());
        }
        let tables = block[self.tables_at()..].chunks_exact_mut(TABLE_STEP);
        for (to, optimizer) in tables.zip(&step.tables) {
            to.copy_from_slice(&embedding::step_to_bytes(optimizer.as_ref()));
        }
    }

    /// The launches for batches of at most `capacity`; `block` is where what [`fill`](Updates::fill) wrote lies, `go_on` the
    /// address of a u32 that is 0 where nothing may move.
    pub(crate) fn launches(
        &self,
        plan: &Plan,
        memory: &DeviceMemory,
        capacity: &Capacity,
        block: u64,
        moments: [u64; 2],
        go_on: u64,
        upload: &mut dyn FnMut(&[u8]) -> Result<u64>,
    ) -> Result<Vec<Launch>> {
        let mut launches = Vec::new();
        let pieces = self.pieces();
        if !pieces.is_empty() {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
            let parameters = Parameters {
                weights: memory.params,
                gradients: memory.gradients,
                first: moments[0],
                second: moments[1],
            };
            let (at, count) = (upload(&bytes)?, pieces.len() as u32);
            let (squares, factor) = (memory.scratch, memory.scratch + 8 * u64::from(count));
            // Limits of values are measured too: what is not finite would be hidden by them.
            let (norm, clipping) = match self.optimizers.clip {
                None => (None, Clipping::NONE),
                Some(Clip::Value(limit)) => (Some(f64::INFINITY), Clipping { factor: None, limit }),
                Some(Clip::Norm(limit)) => (Some(limit), Clipping { factor: Some(factor), ..Clipping::NONE }),
            };
            if let Some(norm) = norm {
                launches.push(sum_squares(at, count, memory.gradients, squares));
                launches.push(clip_factor(squares, count, norm, factor, go_on));
            }
            launches.push(optimise(Some(go_on), at, count, block, clipping, parameters));
        }
        if !plan.sparse_sources().is_empty() {
            let sparse = self.sparse(plan, memory, capacity);
            let descriptions = upload(&sparse.to_bytes())?;
            let at = SparseMemory { descriptions, scratch: memory.scratch };
            launches.push(embedding::number_lookups(Some(go_on), &sparse, at));
            launches.push(embedding::make_keys(&sparse, at));
            launches.extend(sparse.sort_lookups(at));
            let steps = block + self.tables_at() as u64;
            launches.extend(embedding::update_rows(&sparse, at, steps));
        }
        Ok(launches)
    }

    fn sparse(&self, plan: &Plan, memory: &DeviceMemory, capacity: &Capacity) -> SparseGradients {
        let sources: Vec<Source> =
            plan.sparse_sources().iter().map(|source| self.source(plan, memory, capacity, source)).collect();
        let rows = capacity.rows as u32;
        SparseGradients::new(&memory.tables, &sources, rows, lookups(plan, capacity) as u32)
    }

    fn source(
        &self,
        plan: &Plan,
        memory: &DeviceMemory,
        capacity: &Capacity,
        source: &SparseSource,
    ) -> Source {
        let batch = &memory.batch;
        let ids = match source.source {
            LookupSource::Field(field) => Ids::Field { ids: batch.ids[field] },
            LookupSource::Bag(bag) => Ids::Bag { offsets: batch.bags[bag].offsets, ids: batch.bags[bag].ids },
            LookupSource::Positions(bag) => {
                Ids::Positions { offsets: batch.bags[bag].offsets, ids: batch.bags[bag].ids }
            }
        };
        let gradient: DeviceMat = plan.device_sparse_gradient(memory, capacity, self.precision, source);
        let rows = source.scenario.map_or(batch.row_range, |own| batch.scenario_starts + 4 * own as u64);
        Source { table: source.table, ids, rows, gradient }
    }
}

/// Most look-ups of a batch. Of sources of scenarios a row has those of its own.
fn lookups(plan: &Plan, capacity: &Capacity) -> usize {
    let (mut of_all, mut by_scenario) = (0, BTreeMap::<usize, usize>::new());
    for source in plan.sparse_sources() {
        let most = match source.source {
            LookupSource::Field(_) => capacity.rows,
            LookupSource::Bag(bag) | LookupSource::Positions(bag) => capacity.ids[bag],
        };
        *source.scenario.map_or(&mut of_all, |own| by_scenario.entry(own).or_default()) += most;
    }
    of_all + by_scenario.into_values().max().unwrap_or(0)
}
