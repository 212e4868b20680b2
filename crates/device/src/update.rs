//! How a run moves parameters and tables: what follows the plan's own launches.

use crate::by_loss::{ByLoss, LossWeights, Upload, flat_gradients, upload_kinds, upload_pieces};
use crate::weights::TableShape;
use manygate_core::{Error, Result};
use manygate_cuda::embedding::{self, Ids, RowSums, Source, SparseGradients, SparseMemory};
use manygate_cuda::loss_gradients::{LossRows, clip_rows};
use manygate_cuda::optim::{Clipping, Parameters, Piece, Step, clip_factor, optimise, sum_squares};
use manygate_cuda::{DeviceMat, Launch, Precision, loss_gradients};
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
    /// How long the gradient may be.
    pub clip: Option<Clip>,
    /// Where losses have gradients of their own.
    pub by_loss: Option<ByLoss>,
}

/// A limit for the gradient of the parameters, and of some tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// The limit.
    pub limit: Limit,
    /// By table: whether its gradient counts.
    pub tables: Vec<bool>,
}

/// How long a gradient may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// In Euclidean norm.
    Norm(f64),
    /// In each absolute value.
    Value(f32),
}

impl Clip {
    /// What the norm may be, which is measured in any case: what is not finite would be hidden by a limit of values.
    fn norm(&self) -> f64 {
        match self.limit {
            Limit::Norm(limit) => limit,
            Limit::Value(_) => f64::INFINITY,
        }
    }

    /// What is done to gradients, with the factor that the norm gives.
    fn clipping(&self, factor: u64) -> Clipping {
        match self.limit {
            Limit::Norm(_) => Clipping { factor: Some(factor), ..Clipping::NONE },
            Limit::Value(limit) => Clipping { factor: None, limit },
        }
    }
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
    sizes: UpdateSizes,
}

/// Memory that the launches need.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UpdateSizes {
    /// Bytes of scratch.
    pub(crate) scratch: u64,
    /// f32 values of gradients of the parameters by run.
    pub(crate) by_run: usize,
    /// Distinct rows whose gradients are summed before anything moves.
    pub(crate) rows: usize,
    /// f32 values of these gradients.
    pub(crate) row_sums: usize,
    /// Products of gradients that a step tells.
    pub(crate) products: usize,
}

/// What the launches of a step read and write.
pub(crate) struct StepMemory<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) memory: &'a DeviceMemory,
    pub(crate) capacity: &'a Capacity,
    /// Address of what [`fill`](Updates::fill) wrote.
    pub(crate) block: u64,
    pub(crate) moments: [u64; 2],
    /// Address of a u32 that is 0 where nothing may move.
    pub(crate) go_on: u64,
    /// Gradients of the parameters by run.
    pub(crate) by_run: u64,
    /// Gradients of distinct rows by run. Behind their number is that of the rows that move.
    pub(crate) rows: RowSums,
    /// Products of gradients, f64.
    pub(crate) products: u64,
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
        let updates =
            Updates { optimizers, precision, tables: tables.to_vec(), sizes: UpdateSizes::default() };
        let lookups = lookups(plan, capacity);
        if lookups >= 1 << 31 {
            let message = format!("batches with {lookups} look-ups; take a smaller batch");
            return Err(Error::Device { message });
        }
        let sizes = updates.measure(plan, capacity);
        Ok(Updates { sizes, ..updates })
    }

    fn measure(&self, plan: &Plan, capacity: &Capacity) -> UpdateSizes {
        // Sizes do not depend on where things lie.
        let nowhere = DeviceMemory {
            kept: vec![0; plan.device_kept_len(capacity).len()],
            tables: self.tables.iter().map(|table| table.at(0)).collect(),
            batch: BatchLayout::new(plan, capacity).at(0),
            ..DeviceMemory::default()
        };
        let sparse = self.sparse(plan, &nowhere, capacity);
        let (memory, sums) =
            (SparseMemory { descriptions: 0, scratch: 0 }, RowSums { keys: 0, sums: 0, distinct: 0 });
        let rows = LossRows { gradients: &sparse, memory, sums, kinds: 0 };
        let (blocks, by_loss) = (rows.blocks(), self.optimizers.by_loss.as_ref());
        // Sums of squares, and behind them the factor.
        let clipping = 8 * (self.pieces().len() as u64 + u64::from(blocks) + 1);
        let multiplying = by_loss.map_or(0, |by_loss| by_loss.scratch(blocks));
        let matrices = by_loss.map_or(1, |by_loss| by_loss.runs() + 1);
        let (are_summed, runs) = (self.sums_rows(plan), by_loss.map_or(0, ByLoss::runs));
        UpdateSizes {
            scratch: sparse.scratch().max(clipping).max(multiplying),
            by_run: runs * flat_gradients(plan, 0).stride as usize,
            rows: if are_summed { sparse.max_lookups() as usize } else { 0 },
            row_sums: if are_summed { matrices * rows.stride() as usize } else { 0 },
            products: by_loss.map_or(0, ByLoss::products),
        }
    }

    /// Whether gradients of rows are summed before anything moves: something else reads them.
    fn sums_rows(&self, plan: &Plan) -> bool {
        let are_clipped = self.optimizers.clip.as_ref().is_some_and(|clip| clip.tables.contains(&true));
        !plan.sparse_sources().is_empty() && (are_clipped || self.optimizers.by_loss.is_some())
    }

    /// What learns, in pieces that a block takes.
    fn pieces(&self) -> Vec<Piece> {
        let ranges = self.optimizers.pieces.iter();
        ranges
            .flat_map(|(range, group)| Piece::cut(range.start as u64..range.end as u64, *group as u32))
            .collect()
    }

    pub(crate) fn sizes(&self) -> UpdateSizes {
        self.sizes
    }

    /// Where losses have gradients of their own.
    pub(crate) fn by_loss(&self) -> Option<&ByLoss> {
        self.optimizers.by_loss.as_ref()
    }

    /// Bytes of what [`fill`](Updates::fill) writes.
    pub(crate) fn block_bytes(&self) -> u64 {
        let weights = self.by_loss().map_or(0, |by_loss| 2 * 8 * by_loss.runs());
        (self.weights_at() + weights).next_multiple_of(ALIGN) as u64
    }

    fn tables_at(&self) -> usize {
        (Step::BYTES * self.optimizers.groups).next_multiple_of(ALIGN)
    }

    fn weights_at(&self) -> usize {
        (self.tables_at() + TABLE_STEP * self.tables.len()).next_multiple_of(ALIGN)
    }

    /// Writes what the launches read of a step.
    pub(crate) fn fill(&self, step: &StepConstants, weights: Option<LossWeights<'_>>, block: &mut [u8]) {
        for (to, step) in block.chunks_exact_mut(Step::BYTES).zip(&step.dense) {
            to.copy_from_slice(&step.to_bytes());
        }
        let tables = block[self.tables_at()..].chunks_exact_mut(TABLE_STEP);
        for (to, optimizer) in tables.zip(&step.tables) {
            to.copy_from_slice(&embedding::step_to_bytes(optimizer.as_ref()));
        }
        let to = block[self.weights_at()..].chunks_exact_mut(8);
        let weights = weights.into_iter().flat_map(LossWeights::to_bytes);
        to.zip(weights).for_each(|(to, weight)| to.copy_from_slice(&weight));
    }

    /// The launches that move everything by the gradients of the plan's own launches.
    pub(crate) fn launches(&self, at: &StepMemory<'_>, upload: &mut Upload<'_>) -> Result<Vec<Launch>> {
        if !self.sums_rows(at.plan) {
            let mut launches = self.move_parameters(at, None, upload)?;
            if !at.plan.sparse_sources().is_empty() {
                let sparse = self.sparse(at.plan, at.memory, at.capacity);
                let memory = self.sparse_memory(&sparse, at, upload)?;
                launches.extend(self.sort(&sparse, memory, at));
                launches.extend(embedding::update_rows(&sparse, memory, self.table_steps(at)));
            }
            return Ok(launches);
        }
        let sparse = self.sparse(at.plan, at.memory, at.capacity);
        let rows = self.rows(&sparse, at, upload)?;
        let mut launches = self.sum_rows(rows, at);
        launches.extend(self.move_all(rows, at, upload)?);
        Ok(launches)
    }

    /// Those that keep the gradients of run number `run`; behind the last one they are multiplied with each other.
    pub(crate) fn keep(
        &self,
        by_loss: &ByLoss,
        run: usize,
        at: &StepMemory<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let sparse = self.sparse(at.plan, at.memory, at.capacity);
        let rows = self.sums_rows(at.plan).then(|| self.rows(&sparse, at, upload)).transpose()?;
        let mut launches = rows.map_or(Vec::new(), |rows| self.sum_rows(rows.of_loss(run as u32), at));
        if run + 1 == by_loss.runs() {
            let (flat, scratch) = (flat_gradients(at.plan, at.by_run), at.memory.scratch);
            launches.extend(by_loss.multiply(flat, rows, scratch, at.products, upload)?);
        }
        Ok(launches)
    }

    /// Those that weigh the gradients of all runs and move everything by what they make.
    pub(crate) fn combine(
        &self,
        by_loss: &ByLoss,
        at: &StepMemory<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let sparse = self.sparse(at.plan, at.memory, at.capacity);
        let rows = self.sums_rows(at.plan).then(|| self.rows(&sparse, at, upload)).transpose()?;
        let (flat, weights) = (flat_gradients(at.plan, at.by_run), at.block + self.weights_at() as u64);
        let mut launches = by_loss.combine(flat, rows, weights, at.memory.gradients, upload)?;
        launches.extend(match rows {
            Some(rows) => self.move_all(rows.of_loss(by_loss.runs() as u32), at, upload)?,
            None => self.move_parameters(at, None, upload)?,
        });
        Ok(launches)
    }

    /// Clips and moves parameters, by their gradients, and the rows of tables, by those in `rows`.
    fn move_all(
        &self,
        rows: LossRows<'_>,
        at: &StepMemory<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let clip = self.optimizers.clip.as_ref();
        let unclipped = vec![false; self.tables.len()];
        let kinds = upload_kinds(clip.map_or(&unclipped, |clip| &clip.tables), upload)?;
        let rows = LossRows { kinds, ..rows };
        let mut launches = self.move_parameters(at, Some(rows), upload)?;
        let clipping = clip.map_or(Clipping::NONE, |clip| clip.clipping(self.factor(at, Some(rows))));
        let moving = rows.sums.distinct + 4;
        launches.push(clip_rows(at.go_on, rows, clipping, moving));
        let sums = RowSums { distinct: moving, ..rows.sums };
        let descriptions = upload(&rows.gradients.sums_to_bytes(sums.sums))?;
        let steps = self.table_steps(at);
        launches.push(embedding::update_rows_by_sums(rows.gradients, rows.memory, sums, descriptions, steps));
        Ok(launches)
    }

    /// Clips the gradients of parameters, with those of `rows` that count, and moves the parameters.
    fn move_parameters(
        &self,
        at: &StepMemory<'_>,
        rows: Option<LossRows<'_>>,
        upload: &mut Upload<'_>,
    ) -> Result<Vec<Launch>> {
        let (mut launches, mut clipping) = (Vec::new(), Clipping::NONE);
        let pieces = upload_pieces(&self.pieces(), upload)?;
        if let Some(clip) = &self.optimizers.clip {
            let (squares, factor) = (at.memory.scratch, self.factor(at, rows));
            let of_rows = squares + 8 * u64::from(pieces.count);
            let parts = pieces.count + rows.map_or(0, |rows| rows.blocks());
            launches.push(sum_squares(pieces.address, pieces.count, at.memory.gradients, squares));
            launches.extend(rows.map(|rows| loss_gradients::row_products(rows, 1, parts, of_rows)));
            launches.push(clip_factor(squares, parts, clip.norm(), factor, at.go_on));
            clipping = clip.clipping(factor);
        }
        let parameters = Parameters {
            weights: at.memory.params,
            gradients: at.memory.gradients,
            first: at.moments[0],
            second: at.moments[1],
        };
        launches.push(optimise(Some(at.go_on), pieces.address, pieces.count, at.block, clipping, parameters));
        Ok(launches)
    }

    /// Where the factor is that clips: behind the sums of squares of pieces and of rows.
    fn factor(&self, at: &StepMemory<'_>, rows: Option<LossRows<'_>>) -> u64 {
        let parts = self.pieces().len() as u64 + rows.map_or(0, |rows| rows.blocks().into());
        at.memory.scratch + 8 * parts
    }

    /// Address of the steps of tables.
    fn table_steps(&self, at: &StepMemory<'_>) -> u64 {
        at.block + self.tables_at() as u64
    }

    fn sparse_memory(
        &self,
        sparse: &SparseGradients,
        at: &StepMemory<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<SparseMemory> {
        Ok(SparseMemory { descriptions: upload(&sparse.to_bytes())?, scratch: at.memory.scratch })
    }

    /// The gradients of rows, of the first run.
    fn rows<'a>(
        &self,
        sparse: &'a SparseGradients,
        at: &StepMemory<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<LossRows<'a>> {
        let memory = self.sparse_memory(sparse, at, upload)?;
        Ok(LossRows { gradients: sparse, memory, sums: at.rows, kinds: 0 })
    }

    /// The launches that sort the look-ups.
    fn sort(&self, sparse: &SparseGradients, memory: SparseMemory, at: &StepMemory<'_>) -> Vec<Launch> {
        let mut launches = vec![embedding::number_lookups(Some(at.go_on), sparse, memory)];
        launches.push(embedding::make_keys(sparse, memory));
        launches.extend(sparse.sort_lookups(memory));
        launches
    }

    /// Those that sum their gradients by distinct row.
    fn sum_rows(&self, rows: LossRows<'_>, at: &StepMemory<'_>) -> Vec<Launch> {
        let mut launches = self.sort(rows.gradients, rows.memory, at);
        launches.extend(embedding::coalesce(rows.gradients, rows.memory, rows.sums));
        launches
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
