//! Rows of tables moved by their gradients.

use super::gradients::{Ids, SOURCE_BYTES, Source, SparseGradients, SparseMemory};
use super::sort::{Pairs, sort_lookups};
use crate::launch::{Arguments, Launch};
use crate::module::EMBEDDING_UPDATE;
use crate::view::DeviceMat;
use manygate_kernels::embedding::RowOptimizer;

/// Look-ups and threads of a block.
pub(super) const TILE: u32 = 256;
/// Most blocks that take rows with more look-ups than a tile has: each takes one after the other.
const LONG_BLOCKS: u32 = 1024;

impl SparseGradients {
    /// Sorts the pairs of [`make_keys`](super::make_keys).
    pub fn sort_lookups(&self, memory: SparseMemory) -> Vec<Launch> {
        self.sorting(memory).0
    }

    /// The sorted pairs.
    pub fn sorted(&self, memory: SparseMemory) -> Pairs {
        self.sorting(memory).1
    }

    fn sorting(&self, memory: SparseMemory) -> (Vec<Launch>, Pairs) {
        let scratch = self.layout(memory.scratch);
        let (count, most) = (scratch.count, self.max_lookups());
        sort_lookups(scratch.pairs, scratch.spare, count, most, self.max_key(), scratch.sort)
    }

    fn tiles(&self) -> u32 {
        self.max_lookups().div_ceil(TILE)
    }

    fn long_blocks(&self) -> u32 {
        (self.max_lookups() / (TILE + 1)).min(LONG_BLOCKS)
    }

    fn lookups(&self, memory: SparseMemory) -> Arguments {
        let (sorted, count) = (self.sorted(memory), self.layout(memory.scratch).count);
        self.lookups_of(memory, sorted, count, memory.descriptions, self.row_bits())
    }

    /// The `Lookups` of embedding_runs.cuh: as many pairs as the u32 at `count`, of the sources at `sources`.
    fn lookups_of(
        &self,
        memory: SparseMemory,
        pairs: Pairs,
        count: u64,
        sources: u64,
        row_bits: u32,
    ) -> Arguments {
        let scratch = self.layout(memory.scratch);
        let own = Arguments::new().with_u64(pairs.keys).with_u64(pairs.positions).with_u64(count);
        let own = own.with_u64(sources).with_u64(self.tables_at(memory));
        let own = own.with_u32(self.tables().len() as u32).with_u32(row_bits);
        let own = own.with_u64(scratch.parts).with_u32(self.width()).with_u64(scratch.long_runs);
        Arguments::new().with_bytes(own.bytes(), 8)
    }

    /// What [`update_rows_by_sums`] reads of where gradients are that are summed already, to be copied to device memory.
    pub fn sums_to_bytes(&self, sums: u64) -> Vec<u8> {
        let gradient = DeviceMat::new(sums, self.max_lookups(), self.width());
        let source =
            self.source_to_bytes(&Source { table: 0, ids: Ids::Field { ids: 0 }, rows: 0, gradient }, 0);
        let numbers = (0..self.max_lookups()).flat_map(u32::to_le_bytes);
        source.into_iter().chain(numbers).collect()
    }
}

/// Gradients of distinct rows: what [`coalesce`] writes, with room for as many rows as look-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSums {
    /// Address of their keys ([`SparseGradients::first_key`]), ascending.
    pub keys: u64,
    /// Address of the sums, `[rows, width]` (see [`SparseGradients::width`]), a multiple of 16. A row has the values that its
    /// table's has, the rest is left.
    pub sums: u64,
    /// Address of how many rows they are, a u32.
    pub distinct: u64,
}

/// Moves the rows of all tables that the sorted look-ups name, each by the sum of its gradients and the step of its table.
/// Row 0 of a table, the unknown one, is never trained. Comes after [`SparseGradients::sort_lookups`].
///
/// `steps` is the address of [`step_to_bytes`] of each table, one behind the other: written anew before each step. That a
/// table's stride has room for the state of its optimiser is up to who writes them.
pub fn update_rows(gradients: &SparseGradients, memory: SparseMemory, steps: u64) -> Vec<Launch> {
    let arguments = gradients.lookups(memory).with_u64(steps);
    let all = launch("update_rows", gradients.tiles(), arguments.clone());
    vec![all, launch("update_long_rows", gradients.long_blocks(), arguments)]
}

/// The same by gradients that are summed already, of which [`SparseGradients::sums_to_bytes`] lies at `descriptions`.
pub fn update_rows_by_sums(
    gradients: &SparseGradients,
    memory: SparseMemory,
    sums: RowSums,
    descriptions: u64,
    steps: u64,
) -> Launch {
    // Every row has one gradient, in the one source that there is.
    let pairs = Pairs { keys: sums.keys, positions: descriptions + SOURCE_BYTES };
    let lookups = gradients.lookups_of(memory, pairs, sums.distinct, descriptions, u32::BITS - 1);
    launch("update_rows", gradients.tiles(), lookups.with_u64(steps))
}

/// Writes the summed gradients of all distinct rows to `sums`. Comes after [`SparseGradients::sort_lookups`], before
/// [`update_rows`] or instead of it.
pub fn coalesce(gradients: &SparseGradients, memory: SparseMemory, sums: RowSums) -> Vec<Launch> {
    let scratch = gradients.layout(memory.scratch);
    let keys = gradients.sorted(memory).keys;
    let counted = Arguments::new().with_u64(keys).with_u64(scratch.count).with_u64(scratch.runs);
    let numbered = Arguments::new().with_u64(scratch.count).with_u64(scratch.runs).with_u64(sums.distinct);
    let written = gradients.lookups(memory).with_u64(scratch.runs).with_u64(sums.keys).with_u64(sums.sums);
    let written = written.with_u32(gradients.width());
    vec![
        launch("count_runs", gradients.tiles(), counted),
        Launch { threads: 1024, ..launch("number_runs", 1, numbered) },
        launch("coalesce", gradients.tiles(), written.clone()),
        launch("coalesce_long", gradients.long_blocks(), written),
    ]
}

fn launch(kernel: &'static str, blocks: u32, arguments: Arguments) -> Launch {
    Launch::new(&EMBEDDING_UPDATE, kernel, blocks, TILE, arguments)
}

/// What [`update_rows`] reads of the step of a table: how its rows move, or, for [`None`], that they stay.
pub fn step_to_bytes(optimizer: Option<&RowOptimizer>) -> [u8; 40] {
    // Method, rate, l2, epsilon, decays of two moments and what they leave to 1, FTRL's start and l1.
    let (method, values) = match optimizer {
        None => (0, [0.0; 9]),
        Some(&RowOptimizer::LazyAdam { rate, beta1, beta2, epsilon, correction, l2 }) => {
            (1, [rate * correction, l2, epsilon, beta1, beta2, 1.0 - beta1, 1.0 - beta2, 0.0, 0.0])
        }
        Some(&RowOptimizer::Adagrad { rate, epsilon, l2 }) => {
            (2, [rate, l2, epsilon, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        }
        Some(&RowOptimizer::RowwiseAdagrad { rate, epsilon, l2 }) => {
            (3, [rate, l2, epsilon, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        }
        Some(&RowOptimizer::Ftrl { alpha, beta, l1, l2 }) => {
            (4, [1.0 / alpha, l2, 0.0, 0.0, 0.0, 0.0, 0.0, beta / alpha + l2, l1])
        }
        Some(&RowOptimizer::Sgd { rate, l2 }) => (5, [rate, l2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
    };
    let mut bytes = [0; 40];
    bytes[..4].copy_from_slice(&u32::to_le_bytes(method));
    for (to, value) in bytes[4..].chunks_exact_mut(4).zip(values) {
        to.copy_from_slice(&f32::to_le_bytes(value));
    }
    bytes
}
