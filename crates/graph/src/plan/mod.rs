//! The plan: a graph compiled to steps over tiles, with every buffer placed.
//!
//! [`schedule`] decides which ops run, in which phase and which gradients flow; [`storage`] places every value and
//! gradient; [`describe`] prints the result. [`crate::run`] executes it.

pub mod describe;
pub mod schedule;
pub mod storage;

use crate::graph::{Graph, Kind, LossPart, Mode, Value};
use crate::op::{LookupSource, Op};
use crate::param::{Layout, TableSpec};
use manygate_core::{Error, Result};
use manygate_kernels::activation::Activation;
use manygate_kernels::{Isa, gemm};
use std::sync::Arc;

/// How a plan is compiled.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Rows of a tile. 128 keeps a tile's activations near the core and its weights read often enough.
    pub tile_rows: usize,
    /// Whether a training plan also computes the outputs; an evaluation plan always does.
    pub outputs: bool,
    /// Patterns of parameter names (`experts.0.*`, `*.bias`) that do not learn.
    pub frozen: Vec<String>,
    /// Instruction set.
    pub isa: Isa,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { tile_rows: 128, outputs: false, frozen: Vec::new(), isa: Isa::best() }
    }
}

/// Where a value or a gradient lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the worker's arena, for the rows of one tile.
    Tile { offset: usize, stride: usize, cols: usize },
    /// In a buffer of its own, for the rows of the whole batch: what crosses a join or outlives the step.
    Kept { buffer: usize, column: usize, stride: usize, cols: usize },
    /// A matrix in the parameters.
    Param { offset: usize, rows: usize, cols: usize, stride: usize },
    /// A matrix in the state.
    State { offset: usize, rows: usize, cols: usize, stride: usize },
    /// A matrix computed at a join.
    Once { offset: usize, rows: usize, cols: usize, stride: usize },
    /// No values: the output of a loss.
    Nothing,
}

/// Where the gradient of a step's input goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GradientPlace {
    /// A `Tile` or `Kept` place, or `Once` for the lane's sums (parameters first, then values of joins).
    pub(crate) place: Place,
    /// Adds to what is there (for lane sums: on the lane's first tile).
    pub(crate) accumulate: bool,
    /// Fused slope of the producer's activation, with the output that it is taken from.
    pub(crate) mask: Option<(Activation, Place)>,
    /// The whole gradient buffer is zeroed before this contribution.
    pub(crate) zero_first: Option<Place>,
}

/// One op over one tile, in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) node: usize,
    pub(crate) backward: bool,
    pub(crate) inputs: Vec<Place>,
    pub(crate) output: Place,
    /// What the forward step leaves for the backward step.
    pub(crate) extra: Place,
    /// Backward: the gradient of the output.
    pub(crate) output_gradient: Place,
    /// Backward: by input.
    pub(crate) gradients: Vec<Option<GradientPlace>>,
    pub(crate) activation_done: bool,
    /// Offsets of the packed weights.
    pub(crate) packs: Vec<(usize, usize)>,
}

/// The steps between two joins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    pub(crate) steps: Vec<Step>,
    /// Reductions whose sums are complete after this phase: node, offset of the partial sums, their number.
    pub(crate) reductions: Vec<(usize, usize, usize)>,
    /// Values of joins whose gradient is complete after this phase: offset among the `Once` values, length.
    pub(crate) once_gradients: Vec<(usize, usize)>,
}

/// A packed weight of the plan.
#[derive(Clone, Debug)]
pub(crate) struct PackedWeight {
    pub(crate) source: Place,
    pub(crate) groups: Vec<usize>,
    pub(crate) transposed: bool,
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
    pub(crate) place: Place,
}

/// A compiled graph.
#[derive(Debug)]
pub struct Plan {
    pub(crate) graph: Graph,
    pub(crate) options: PlanOptions,
    pub(crate) phases: Vec<Phase>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) state_layout: Arc<Layout>,
    pub(crate) packed: Vec<PackedWeight>,
    pub(crate) packed_len: usize,
    pub(crate) arena_len: usize,
    pub(crate) scratch_offset: usize,
    /// Strides of the kept buffers.
    pub(crate) kept: Vec<KeptBuffer>,
    pub(crate) once_len: usize,
    pub(crate) partial_len: usize,
    pub(crate) sparse: Vec<SparseSource>,
    pub(crate) outputs: Vec<(String, Place)>,
    pub(crate) taps: Vec<(String, Place)>,
    multiply_adds: usize,
}

/// A buffer with a row for every row of the batch.
#[derive(Clone, Debug)]
pub(crate) struct KeptBuffer {
    pub(crate) name: String,
    pub(crate) stride: usize,
}

/// Fewest rows that a lane is worth having for.
const LANE_ROWS: usize = 256;
/// Most lanes.
const MAX_LANES: usize = 16;

impl Plan {
    /// Compiles `graph`.
    ///
    /// # Errors
    /// When the graph has nothing to compute, or needs what a plan cannot do.
    pub fn compile(graph: Graph, options: PlanOptions) -> Result<Plan> {
        if options.tile_rows == 0 {
            return Err(Error::graph("plan", "a tile needs at least one row"));
        }
        let schedule = schedule::Schedule::new(&graph, &options)?;
        let layout = Arc::new(Layout::new(graph.params.clone()));
        let state_layout = Arc::new(Layout::new(graph.states.clone()));
        let multiply_adds = schedule.live_ops(&graph).map(|(op, inputs)| op.multiply_adds(&inputs)).sum();
        let placed = storage::place(&graph, &options, &schedule, &layout, &state_layout)?;
        Ok(Plan {
            phases: placed.phases,
            layout,
            state_layout,
            packed: placed.packed,
            packed_len: placed.packed_len,
            arena_len: placed.arena_len,
            scratch_offset: placed.scratch_offset,
            kept: placed.kept,
            once_len: placed.once_len,
            partial_len: placed.partial_len,
            sparse: placed.sparse,
            outputs: placed.outputs,
            taps: placed.taps,
            multiply_adds,
            graph,
            options,
        })
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

    /// Names of the outputs, in order of declaration.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|(name, _)| name.as_str())
    }

    /// Where the gradients of tables come from.
    pub fn sparse_sources(&self) -> &[SparseSource] {
        &self.sparse
    }

    /// Multiply-adds of a row in the forward pass.
    pub fn multiply_adds(&self) -> usize {
        self.multiply_adds
    }

    /// The instruction set it runs on.
    pub fn isa(&self) -> Isa {
        self.options.isa
    }

    /// Whether the parameter tensor `name` learns.
    pub fn learns(&self, name: &str) -> bool {
        !self.options.frozen.iter().any(|pattern| matches(pattern, name))
    }

    /// Number of lanes for a batch of `rows` rows: a function of batch and plan, never of threads, so that the order
    /// of every sum is fixed. As many as leave each [`LANE_ROWS`] rows, fewer where summing their gradients would
    /// cost more than about 3 % of the step (a lane's gradient is written and read once, 8 bytes a parameter at
    /// some 15 GB/s, against 6 flops a parameter and row at some 150 GFLOP/s).
    pub fn lanes(&self, rows: usize) -> usize {
        let by_rows = (rows / LANE_ROWS).clamp(1, MAX_LANES);
        if self.graph.is_training() && !self.layout.is_empty() {
            let step_flops = 6 * self.multiply_adds * rows;
            let sum_flops = self.layout.len() * 80;
            by_rows.min((step_flops * 3 / 100 / sum_flops).max(2))
        } else {
            by_rows
        }
    }

    pub(crate) fn op(&self, node: usize) -> (&dyn Op, &[Value]) {
        op_of(&self.graph, node)
    }
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

/// A mode's name, for descriptions.
pub(crate) fn mode_name(graph: &Graph) -> &'static str {
    let mode = if graph.is_training() { Mode::Training } else { Mode::Evaluation };
    match mode {
        Mode::Training => "training",
        Mode::Evaluation => "evaluation",
    }
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
