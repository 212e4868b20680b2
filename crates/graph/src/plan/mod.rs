//! The plan: a graph compiled to steps over tiles, with every buffer placed.
//!
//! `schedule` decides which ops run, in which phase, and which gradients flow; `flow` orders the steps; `storage` and
//! `arena` place every value and gradient; `steps` puts all of it together; `reach` follows each part of the loss back to
//! what it depends on; [`describe`] prints the result.
//! [`crate::run`] executes it.

mod arena;
pub mod describe;
mod flow;
mod reach;
mod schedule;
mod steps;
mod storage;

pub use describe::Description;
pub use reach::Reached;

use crate::graph::{Graph, Kind, LossPart, Value};
use crate::op::{Lookup, LookupSource, Op, Reads};
use crate::param::{Layout, ParamSpec, TableSpec};
use manygate_core::{Error, Result};
use manygate_kernels::activation::Activation;
use manygate_kernels::{Isa, gemm};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a plan is compiled.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Rows of a tile. 128 keeps a tile's activations near the core and its weights read often enough.
    pub tile_rows: usize,
    /// Fewest rows that a lane is worth having for. Part of the plan: another number sums in another order.
    pub lane_rows: usize,
    /// Whether a training plan also computes the outputs; an evaluation plan always does.
    pub outputs: bool,
    /// Patterns of parameter names (`experts.0.*`, `*.bias`) that do not learn.
    pub frozen: Vec<String>,
    /// Instruction set.
    pub isa: Isa,
}

impl Default for PlanOptions {
    fn default() -> Self {
        let isa = Isa::best();
        PlanOptions { tile_rows: 128, lane_rows: 256, outputs: false, frozen: Vec::new(), isa }
    }
}

impl PlanOptions {
    /// Whether the parameter tensor or table `name` is one that does not learn.
    pub(crate) fn freezes(&self, name: &str) -> bool {
        self.frozen.iter().any(|pattern| matches(pattern, name))
    }
}

/// Where a value or a gradient lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the worker's arena, for the rows of one tile: samples, or the ids of a list.
    Tile { offset: usize, stride: usize, cols: usize, bag: Option<usize> },
    /// In a buffer of its own, for the rows of the whole batch: what crosses a join or outlives the step.
    Kept { buffer: usize, column: usize, stride: usize, cols: usize, bag: Option<usize> },
    /// A matrix in the parameters.
    Param { offset: usize, rows: usize, cols: usize, stride: usize },
    /// A matrix in the state.
    State { offset: usize, rows: usize, cols: usize, stride: usize },
    /// A matrix computed at a join.
    Once { offset: usize, rows: usize, cols: usize, stride: usize },
    /// No values: the output of a loss.
    Nothing,
    /// A value that a backward step may not read: its op did not save it.
    Gone,
}

impl Place {
    /// Columns `from .. from + count`.
    fn part(self, from: usize, count: usize) -> Place {
        let mut place = self;
        match &mut place {
            Place::Tile { offset: start, cols, .. }
            | Place::Kept { column: start, cols, .. }
            | Place::Param { offset: start, cols, .. }
            | Place::State { offset: start, cols, .. }
            | Place::Once { offset: start, cols, .. } => {
                *start += from;
                *cols = count;
            }
            Place::Nothing | Place::Gone => {}
        }
        place
    }
}

/// Where the gradient of a step's input goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GradientPlace {
    /// `Tile` or `Kept`; for the lane's sums `Param` or `Once`.
    pub(crate) place: Place,
    /// Adds to what is there (for lane sums: on the lane's first tile).
    pub(crate) accumulate: bool,
    /// Fused slope of the producer's activation, with the output that it is taken from.
    pub(crate) mask: Option<(Activation, Place)>,
}

/// One op over one tile, in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) node: usize,
    pub(crate) backward: bool,
    /// Whether its op was a reduction when the plan was compiled: places depend on it, whatever the op says later.
    pub(crate) reduces: bool,
    pub(crate) inputs: Vec<Place>,
    pub(crate) output: Place,
    /// What the forward step leaves for the backward step.
    pub(crate) extra: Place,
    /// Backward: the gradient of the output.
    pub(crate) output_gradient: Place,
    /// Backward: by input.
    pub(crate) gradients: Vec<Option<GradientPlace>>,
    pub(crate) activation_done: bool,
    /// Backward: the inputs whose gradient must be taken, as a bit set.
    pub(crate) wanted: u64,
    /// Backward: gradients of inputs that start at zero here, because not all of their columns get a contribution.
    pub(crate) zero: Vec<Place>,
    /// Offset and length of the packed weights.
    pub(crate) packs: Vec<(usize, usize)>,
    /// Forward, for a reduction: its part of the lane's partial sums.
    pub(crate) partial: Range<usize>,
}

impl Step {
    fn of(node: usize, op: &dyn Op, backward: bool) -> Step {
        Step {
            node,
            backward,
            reduces: op.reduction().is_some(),
            inputs: Vec::new(),
            output: Place::Nothing,
            extra: Place::Nothing,
            output_gradient: Place::Nothing,
            gradients: Vec::new(),
            activation_done: false,
            wanted: 0,
            zero: Vec::new(),
            packs: Vec::new(),
            partial: 0..0,
        }
    }
}

/// What a join does. Its steps run one after the other, when all lanes have come.
#[derive(Clone, Debug)]
pub(crate) enum JoinStep {
    /// Makes a value of the sums of a reduction, whose forward step this is.
    Reduce(Step),
    /// Runs an op on values that exist once, in one direction.
    Run(Step),
    /// Packs a computed weight.
    Pack(usize),
    /// Sums the gradient of a value that exists once over the lanes.
    Gradient(OnceGradient),
}

/// The gradient of what a join computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnceGradient {
    pub(crate) node: usize,
    /// Offset among the values of joins.
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// A packed weight of the plan.
#[derive(Clone, Debug)]
pub(crate) struct PackedWeight {
    pub(crate) source: Place,
    pub(crate) groups: Vec<usize>,
    pub(crate) transposed: bool,
    /// Equal shares of the groups, of which each tile reads that of its scenario.
    pub(crate) scenarios: usize,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// One source of gradient rows for a table.
#[derive(Clone, Copy, Debug)]
pub struct SparseSource {
    /// The table.
    pub table: usize,
    /// Its ids.
    pub source: LookupSource,
    /// The scenario whose rows it has, where scenarios have tables of their own.
    pub scenario: Option<usize>,
    pub(crate) place: Place,
}

/// A buffer with a row for every row of the batch.
#[derive(Clone, Debug)]
pub(crate) struct KeptBuffer {
    pub(crate) name: String,
    pub(crate) stride: usize,
    /// Most rows for each of the batch.
    pub(crate) rows_a_sample: usize,
}

/// A compiled graph.
#[derive(Debug)]
pub struct Plan {
    /// Tells plans apart: memory made for one does not fit another.
    pub(crate) id: u64,
    pub(crate) graph: Graph,
    pub(crate) options: PlanOptions,
    /// Steps over tiles; join `p` comes before phase `p`, and one more after the last.
    pub(crate) phases: Vec<Vec<Step>>,
    pub(crate) joins: Vec<Vec<JoinStep>>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) state_layout: Arc<Layout>,
    pub(crate) packed: Vec<PackedWeight>,
    pub(crate) packed_len: usize,
    pub(crate) arena_len: usize,
    pub(crate) scratch_offset: usize,
    pub(crate) kept: Vec<KeptBuffer>,
    pub(crate) once_len: usize,
    pub(crate) partial_len: usize,
    pub(crate) sparse: Vec<SparseSource>,
    pub(crate) outputs: Vec<(String, Place)>,
    pub(crate) taps: Vec<(String, Place)>,
    /// What its ops read of a batch, taken together.
    pub(crate) reads: Reads,
    /// Every look-up of its ops.
    pub(crate) lookups: Vec<Lookup>,
    /// Frozen tensors inside of parameters that learn: their gradients are set to zero.
    pub(crate) frozen: Vec<Range<usize>>,
    /// By loss part: where its sums lie among a lane's, one for each group of its rows.
    pub(crate) loss_sums: Vec<Range<usize>>,
    /// Whether it has a backward step; one of losses alone has none.
    pub(crate) goes_back: bool,
    /// By part of the loss.
    reached: Vec<Reached>,
    multiply_adds: usize,
}

/// Most lanes.
const MAX_LANES: usize = 16;

impl Plan {
    /// Compiles `graph`.
    ///
    /// # Errors
    /// When the graph has nothing to compute, or needs what a plan cannot do.
    pub fn compile(graph: Graph, options: PlanOptions) -> Result<Plan> {
        static PLANS: AtomicU64 = AtomicU64::new(0);
        if options.tile_rows == 0 || options.lane_rows == 0 {
            return Err(Error::graph("plan", "tiles and lanes need at least one row"));
        }
        let schedule = schedule::Schedule::new(&graph, &options)?;
        let goes_back = schedule.backward.iter().any(Option::is_some);
        let flow = flow::Flow::new(&graph, &schedule);
        let layout = Arc::new(Layout::new(graph.params.clone()));
        let state_layout = Arc::new(Layout::new(graph.states.clone()));
        let storage = storage::Storage::new(&graph, &options, &schedule, &flow, [&layout, &state_layout])?;
        let steps = steps::Steps::new(&graph, &options, &schedule, &flow, &storage)?;
        Ok(Plan {
            id: PLANS.fetch_add(1, Ordering::Relaxed),
            phases: steps.phases,
            joins: steps.joins,
            packed: steps.packed,
            packed_len: steps.packed_len,
            arena_len: storage.arena_len,
            scratch_offset: storage.scratch_offset,
            kept: storage.kept,
            once_len: storage.once_len,
            partial_len: steps.partial_len,
            sparse: steps.sparse,
            outputs: steps.outputs,
            taps: steps.taps,
            reads: schedule.reads(&graph)?,
            lookups: schedule.live_ops(&graph).flat_map(|(op, _)| op.lookups()).copied().collect(),
            frozen: if goes_back { frozen_ranges(&graph, &options, &layout) } else { Vec::new() },
            goes_back,
            loss_sums: loss_sums(&graph),
            reached: reach::reached(&graph, &options, &schedule, &layout),
            multiply_adds: schedule.multiply_adds(&graph),
            layout,
            state_layout,
            graph,
            options,
        })
    }

    /// How it was compiled.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Layout of the parameters.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Layout of the state.
    pub fn state_layout(&self) -> &Arc<Layout> {
        &self.state_layout
    }

    /// The tables.
    pub fn tables(&self) -> &[TableSpec] {
        &self.graph.tables
    }

    /// The parts of the loss.
    pub fn losses(&self) -> &[LossPart] {
        &self.graph.losses
    }

    /// Whether it computes losses and gradients, or outputs alone.
    pub fn is_training(&self) -> bool {
        self.graph.is_training()
    }

    /// Names of the outputs, in order of declaration.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Where the gradients of tables come from.
    pub fn sparse_sources(&self) -> &[SparseSource] {
        &self.sparse
    }

    /// Most rows, for each of the batch, of any value.
    pub fn rows_a_sample(&self) -> usize {
        self.graph.sequences.iter().map(|&(_, longest)| longest).max().unwrap_or(1)
    }

    /// Whether it reads rows in the order of their scenarios; see [`RowOrder`](crate::RowOrder).
    pub fn orders_rows(&self) -> bool {
        self.reads.by_scenario
    }

    /// Multiply-adds of a row in the forward pass.
    pub fn multiply_adds(&self) -> usize {
        self.multiply_adds
    }

    /// The instruction set it runs on.
    pub fn isa(&self) -> Isa {
        self.options.isa
    }

    /// Number of lanes for a batch of `rows` rows: a function of batch and plan, never of threads, so that the order
    /// of every sum is fixed. As many as leave each [`PlanOptions::lane_rows`] rows, fewer where summing their
    /// gradients would cost more than about 3 % of the step (a lane's gradient is written and read once, 8 bytes a
    /// parameter at some 15 GB/s, against 6 flops a parameter and row at some 150 GFLOP/s); a power of two, so that
    /// 2, 4 or 8 threads get equal shares. What is frozen does not count: a plan of losses alone sums them as the one
    /// that trains does.
    pub fn lanes(&self, rows: usize) -> usize {
        let by_rows = (rows / self.options.lane_rows).clamp(1, MAX_LANES);
        let by_cost = if self.graph.is_training() && !self.layout.is_empty() {
            let step_flops = 6 * self.multiply_adds * rows;
            let sum_flops = (self.layout.len() + self.once_len) * 80;
            (step_flops * 3 / 100 / sum_flops).max(2)
        } else {
            MAX_LANES
        };
        1 << by_rows.min(by_cost).ilog2()
    }

    /// Sums of losses that a lane has.
    pub(crate) fn loss_sums_len(&self) -> usize {
        self.loss_sums.last().map_or(0, |sums| sums.end)
    }

    pub(crate) fn op(&self, node: usize) -> (&dyn Op, &[Value]) {
        op_of(&self.graph, node)
    }
}

fn loss_sums(graph: &Graph) -> Vec<Range<usize>> {
    let ends = graph.losses.iter().scan(0, |at, loss| {
        let from = *at;
        *at += loss.groups();
        Some(from..*at)
    });
    ends.collect()
}

pub(crate) fn op_of(graph: &Graph, node: usize) -> (&dyn Op, &[Value]) {
    match &graph.nodes[node].kind {
        Kind::Op { op, inputs } => (op.as_ref(), inputs),
        other => unreachable!("steps are made of ops, not of {other:?}"),
    }
}

pub(crate) fn computes_outputs(graph: &Graph, options: &PlanOptions) -> bool {
    options.outputs || !graph.is_training()
}

pub(crate) fn group_packed_len(groups: &[usize], cols: usize, transposed: bool) -> usize {
    groups
        .iter()
        .map(|&g| if transposed { gemm::packed_len(cols, g) } else { gemm::packed_len(g, cols) })
        .sum()
}

/// Whether `name` fits `pattern`, in which `*` stands for any characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else { return false };
            (0..=tail.len()).filter(|&i| tail.is_char_boundary(i)).any(|i| matches(rest, &tail[i..]))
        }
    }
}

/// Frozen tensors that share a parameter with one that learns.
fn frozen_ranges(graph: &Graph, options: &PlanOptions, layout: &Layout) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mixed = |spec: &ParamSpec| spec.blocks.iter().any(|b| !options.freezes(&b.name));
    for (p, spec) in graph.params.iter().enumerate().filter(|(_, spec)| mixed(spec)) {
        let mut at = layout.offset(p);
        for block in &spec.blocks {
            if options.freezes(&block.name) {
                ranges.push(at..at + block.len());
            }
            at += block.len();
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        assert!(matches("experts.0.*", "experts.0.1.weight"));
        assert!(!matches("experts.0.*", "experts.10.1.weight"));
        assert!(matches("*.bias", "towers.click.0.bias"));
        assert!(matches("*", ""));
        assert!(matches("a*c*e", "abcde") && !matches("a*c*e", "abcd"));
    }
}
