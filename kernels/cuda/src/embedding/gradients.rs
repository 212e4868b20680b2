//! Where the look-ups of a plan's tables come from, and where the gradients of their rows lie.

use super::THREADS;
use super::scratch::Scratch;
use crate::launch::{Arguments, Launch};
use crate::module::EMBEDDING_SORT;
use crate::view::{DeviceMat, Element};

/// Bytes of a `Source` of embedding_gradients.cuh.
pub(super) const SOURCE_BYTES: u64 = 56;

/// A table in device memory: rows of `stride` values of f32, of which the first `dim` are weights. Row 0 is the unknown
/// one. Rows are read fastest where address, stride and dim are whole multiples of four values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTable {
    /// Address of the first value.
    pub address: u64,
    /// Number of rows, above 0.
    pub rows: u32,
    /// Weights in a row.
    pub dim: u32,
    /// Values from one row to the next.
    pub stride: u32,
}

impl DeviceTable {
    /// Whether its rows can be read four values at a time.
    pub(super) fn has_quads(self) -> bool {
        self.address.is_multiple_of(16) && self.stride.is_multiple_of(4) && self.dim.is_multiple_of(4)
    }
}

/// Ids that look rows of a table up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// One a row.
    Field {
        /// Address of the ids.
        ids: u64,
    },
    /// A list a row, whose ids share the gradient at their pooled row.
    Bag {
        /// Address of the offsets, one more than rows.
        offsets: u64,
        /// Address of the ids.
        ids: u64,
    },
    /// A list a row, where each id has a gradient row of its own: as many as ids of all lists.
    Positions {
        /// Address of the offsets, one more than rows.
        offsets: u64,
        /// Address of the ids.
        ids: u64,
    },
}

/// Look-ups of one table by one field, bag or sequence, and the gradients of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index of the table.
    pub table: usize,
    /// The ids.
    pub ids: Ids,
    /// Address of two u32: the first row of the batch that is looked up here and the one behind the last. Those of a
    /// scenario where rows stand in the order of their scenarios.
    pub rows: u64,
    /// The gradients, as wide as the table: one row for each row of the batch, or for each id of all lists. Where live
    /// rows are counted plays no part: rows that no look-up names are not read.
    pub gradient: DeviceMat,
}

/// The look-ups of a plan's tables: what is fixed when the plan is.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseGradients {
    tables: Vec<DeviceTable>,
    /// Key of row 0 of each table, and behind them the number of all rows.
    first_keys: Vec<u64>,
    sources: Vec<Source>,
    max_rows: u32,
    max_lookups: u32,
    row_bits: u32,
}

/// The device memory of a [`SparseGradients`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseMemory {
    /// Address of [`SparseGradients::to_bytes`].
    pub descriptions: u64,
    /// Address of [`SparseGradients::scratch`] bytes, a multiple of 256.
    pub scratch: u64,
}

impl SparseGradients {
    /// Look-ups of `tables` by `sources`, in the order in which gradients of a row are to be added, in batches of at most
    /// `max_rows` rows with at most `max_lookups` look-ups in all.
    ///
    /// # Panics
    /// When the tables have 2^32 rows or more in all or one has none, a gradient is not as wide as its table, or there are
    /// too many sources for so many gradient rows: both are told apart in 32 bits.
    pub fn new(
        tables: &[DeviceTable],
        sources: &[Source],
        max_rows: u32,
        max_lookups: u32,
    ) -> SparseGradients {
        let mut first_keys = vec![0];
        for table in tables {
            assert!(table.rows > 0, "a table without rows");
            assert!(
                table.dim <= table.stride,
                "{} weights do not fit a stride of {}",
                table.dim,
                table.stride
            );
            first_keys.push(first_keys[first_keys.len() - 1] + u64::from(table.rows));
        }
        let rows = first_keys[tables.len()];
        assert!(rows < 1 << 32, "tables of {rows} rows in all: at most 2^32 - 1 are told apart");
        for Source { table, gradient, .. } in sources {
            assert_eq!(gradient.cols, tables[*table].dim, "a gradient is not as wide as its table");
        }
        let gradient_rows = sources.iter().map(|s| s.gradient.rows).max().unwrap_or(0);
        let row_bits = bits(gradient_rows.saturating_sub(1));
        let source_bits = bits((sources.len() as u32).saturating_sub(1));
        assert!(
            row_bits < 32 && row_bits + source_bits <= 32,
            "{} sources of up to {gradient_rows} gradient rows: over 2^32",
            sources.len()
        );
        let (tables, sources) = (tables.to_vec(), sources.to_vec());
        SparseGradients { tables, first_keys, sources, max_rows, max_lookups, row_bits }
    }

    /// The tables.
    pub fn tables(&self) -> &[DeviceTable] {
        &self.tables
    }

    /// The key of row 0 of table `t`; row `r` has that plus `r`.
    pub fn first_key(&self, t: usize) -> u32 {
        self.first_keys[t] as u32
    }

    /// The widest table's weights, rounded up to a multiple of four: the stride of summed gradients.
    pub fn width(&self) -> u32 {
        self.tables.iter().map(|t| t.dim).max().unwrap_or(0).next_multiple_of(4)
    }

    /// Most look-ups of a batch.
    pub fn max_lookups(&self) -> u32 {
        self.max_lookups
    }

    /// Bytes of scratch memory that a step needs. Nothing has to be in it before, and nothing is kept in it from step to
    /// step.
    pub fn scratch(&self) -> u64 {
        self.layout(0).end
    }

    /// What the kernels read of sources and tables, to be copied to device memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Arguments::new();
        for (s, source) in self.sources.iter().enumerate() {
            bytes = bytes.with_bytes(&self.source_to_bytes(source, s as u32 * self.blocks_a_source()), 8);
        }
        for t in 0..self.tables.len() {
            bytes = bytes.with_bytes(&self.table_to_bytes(t), 8);
        }
        bytes.bytes().to_vec()
    }

    pub(super) fn source_to_bytes(&self, source: &Source, first_block: u32) -> Vec<u8> {
        let (offsets, ids, by_position) = match source.ids {
            Ids::Field { ids } => (0, ids, false),
            Ids::Bag { offsets, ids } => (offsets, ids, false),
            Ids::Positions { offsets, ids } => (offsets, ids, true),
        };
        let DeviceMat { address, stride, element, .. } = source.gradient;
        let bytes = Arguments::new().with_u64(ids).with_u64(offsets).with_u64(source.rows).with_u64(address);
        let bytes = bytes.with_u32(stride).with_u32(u32::from(element == Element::Bf16));
        let bytes = bytes.with_u32(self.first_key(source.table)).with_u32(self.tables[source.table].rows);
        bytes.with_u32(u32::from(by_position)).with_u32(first_block).bytes().to_vec()
    }

    /// The `TableRows` of embedding_gradients.cuh.
    fn table_to_bytes(&self, t: usize) -> Vec<u8> {
        let DeviceTable { address, dim, stride, .. } = self.tables[t];
        let bytes =
            Arguments::new().with_u64(address).with_u32(self.first_key(t)).with_u32(dim).with_u32(stride);
        bytes.with_u32(u32::from(self.quads(t))).bytes().to_vec()
    }

    /// Whether rows and gradients of table `t` are read four values at a time.
    fn quads(&self, t: usize) -> bool {
        let mut own = self.sources.iter().filter(|source| source.table == t);
        self.tables[t].has_quads() && own.all(|source| source.gradient.has_quads())
    }

    fn blocks_a_source(&self) -> u32 {
        self.max_rows.div_ceil(THREADS)
    }

    pub(super) fn source_count(&self) -> u32 {
        self.sources.len() as u32
    }

    /// Address of what the kernels read of tables, the `TableRows` of embedding_gradients.cuh.
    pub(crate) fn tables_at(&self, memory: SparseMemory) -> u64 {
        memory.descriptions + SOURCE_BYTES * self.sources.len() as u64
    }

    /// Bits of the gradient row in a position.
    pub(super) fn row_bits(&self) -> u32 {
        self.row_bits
    }

    /// The largest key.
    pub(super) fn max_key(&self) -> u32 {
        self.first_keys[self.tables.len()].saturating_sub(1) as u32
    }

    /// Where what a step needs lies in scratch memory from address `scratch` on.
    pub(super) fn layout(&self, scratch: u64) -> Scratch {
        Scratch::new(scratch, self.source_count(), self.max_lookups, self.width())
    }
}

/// Bits that numbers up to `largest` need.
fn bits(largest: u32) -> u32 {
    u32::BITS - largest.leading_zeros()
}

/// Numbers the look-ups of a batch, source by source. Where the u32 at `go_on` is 0 there are none, and what follows moves
/// nothing.
pub fn number_lookups(go_on: Option<u64>, gradients: &SparseGradients, memory: SparseMemory) -> Launch {
    let arguments = Arguments::new().with_u64(go_on.unwrap_or(0)).with_u64(memory.descriptions);
    let arguments = arguments.with_u32(gradients.source_count());
    launch("number_lookups", 1, arguments.with_u64(gradients.layout(memory.scratch).starts))
}

/// Makes the pairs (key, position) of all look-ups of a batch, in the order of sources and rows. Comes after
/// [`number_lookups`].
///
/// A batch with more look-ups than there is room for is an error of whoever launches this.
pub fn make_keys(gradients: &SparseGradients, memory: SparseMemory) -> Launch {
    let Scratch { starts, pairs, .. } = gradients.layout(memory.scratch);
    let arguments = Arguments::new().with_u64(memory.descriptions).with_u32(gradients.source_count());
    let arguments = arguments.with_u64(starts).with_u32(gradients.row_bits());
    let arguments = arguments.with_u64(pairs.keys).with_u64(pairs.positions);
    launch("make_keys", gradients.source_count() * gradients.blocks_a_source(), arguments)
}

fn launch(kernel: &'static str, blocks: u32, arguments: Arguments) -> Launch {
    Launch::new(&EMBEDDING_SORT, kernel, blocks, THREADS, arguments)
}
