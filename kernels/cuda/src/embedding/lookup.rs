//! Look-ups of rows, single and pooled.

use super::{DeviceTable, THREADS, lane_bits};
use crate::launch::{Arguments, Launch};
use crate::module::EMBEDDING_LOOKUP;
use crate::view::DeviceMat;
use manygate_kernels::embedding::Pooling;

/// Rows of a piece that a group of lanes takes.
const ROWS: u32 = 4;

/// A part of a trunk: columns of its own in the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece {
    /// Row `ids[r]` of a table.
    Field {
        /// The table.
        table: DeviceTable,
        /// Address of the ids.
        ids: u64,
    },
    /// The rows `ids[offsets[r] .. offsets[r + 1]]`, pooled; zeros where there are none.
    Bag {
        /// The table.
        table: DeviceTable,
        /// Address of the offsets, one more than rows.
        offsets: u64,
        /// Address of the ids.
        ids: u64,
        /// How rows become one.
        pooling: Pooling,
    },
    /// Row `r` of a matrix: numbers as they are. The table has as many rows as the output.
    Dense(DeviceTable),
}

impl Piece {
    fn table(&self) -> DeviceTable {
        match *self {
            Piece::Field { table, .. } | Piece::Bag { table, .. } | Piece::Dense(table) => table,
        }
    }

    /// What all scenarios have in common: width and kind.
    fn kind(&self) -> (u32, Option<Option<Pooling>>) {
        let kind = match *self {
            Piece::Field { .. } => Some(None),
            Piece::Bag { pooling, .. } => Some(Some(pooling)),
            Piece::Dense(_) => None,
        };
        (self.table().dim, kind)
    }
}

/// The pieces of a trunk as the kernels read them; see [`lookup`].
#[derive(Clone, Debug, PartialEq)]
pub struct Pieces {
    slots: Vec<Slot>,
    scenarios: u32,
    out: DeviceMat,
}

/// Columns of the output from `column` on, and the piece that fills them in each scenario.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    column: u32,
    pieces: Vec<Piece>,
}

impl Pieces {
    /// Pieces side by side in `out`.
    ///
    /// # Panics
    /// When they are not as wide as `out` together.
    pub fn new(pieces: &[Piece], out: DeviceMat) -> Pieces {
        Pieces::by_scenario(&[pieces], out)
    }

    /// Pieces for each scenario, of the same widths and kinds.
    ///
    /// # Panics
    /// When they differ in width or kind, are not as wide as `out` together, or there is no scenario.
    pub fn by_scenario(scenarios: &[&[Piece]], out: DeviceMat) -> Pieces {
        let kinds = |pieces: &[Piece]| pieces.iter().map(Piece::kind).collect::<Vec<_>>();
        let first = kinds(scenarios[0]);
        assert!(
            scenarios.iter().all(|s| kinds(s) == first),
            "the pieces of scenarios differ in width or kind"
        );
        let mut slots = Vec::new();
        let mut column = 0;
        for (i, (dim, _)) in first.into_iter().enumerate() {
            slots.push(Slot { column, pieces: scenarios.iter().map(|s| s[i]).collect() });
            column += dim;
        }
        assert_eq!(column, out.cols, "lookup: pieces and output differ in width");
        Pieces { slots, scenarios: scenarios.len() as u32, out }
    }

    /// Those that are means of bags, whose gradients lie in `d`, a matrix of the output's shape:
    /// for [`scale_bag_gradient`].
    ///
    /// # Panics
    /// When `d` has another shape than the output.
    pub fn means(&self, d: DeviceMat) -> Pieces {
        assert_eq!((d.rows, d.cols), (self.out.rows, self.out.cols), "a gradient of another shape");
        let is_mean = |slot: &&Slot| matches!(slot.pieces[0], Piece::Bag { pooling: Pooling::Mean, .. });
        Pieces { slots: self.slots.iter().filter(is_mean).cloned().collect(), out: d, ..*self }
    }

    /// What the kernels read, to be copied to device memory: `[scenarios, pieces]`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Arguments::new();
        for scenario in 0..self.scenarios as usize {
            let mut first_block = 0;
            for slot in &self.slots {
                bytes = bytes.with_bytes(&slot.to_bytes(scenario, self.out, first_block), 8);
                first_block += slot.blocks(self.out);
            }
        }
        bytes.bytes().to_vec()
    }

    fn blocks(&self) -> u32 {
        self.slots.iter().map(|slot| slot.blocks(self.out)).sum()
    }

    fn launch(&self, kernel: &'static str, pieces: u64, scenarios: u64) -> Launch {
        assert_eq!(scenarios != 0, self.scenarios > 1, "{kernel}: scenarios of rows for pieces by scenario");
        let arguments =
            Arguments::new().with_u64(pieces).with_u32(self.slots.len() as u32).with_u64(scenarios);
        Launch::new(&EMBEDDING_LOOKUP, kernel, self.blocks(), THREADS, arguments.with_mat(self.out))
    }
}

impl Slot {
    /// Whether its rows are read and written four values at a time, in all scenarios.
    fn quads(&self, out: DeviceMat) -> bool {
        self.column.is_multiple_of(4)
            && out.has_quads()
            && self.pieces.iter().all(|piece| piece.table().has_quads())
    }

    fn lane_bits(&self, out: DeviceMat) -> u32 {
        lane_bits(self.pieces[0].table().dim, self.quads(out))
    }

    fn blocks(&self, out: DeviceMat) -> u32 {
        out.rows.div_ceil((THREADS >> self.lane_bits(out)) * ROWS)
    }

    /// The `Piece` of embedding_lookup.cu.
    fn to_bytes(&self, scenario: usize, out: DeviceMat, first_block: u32) -> Vec<u8> {
        let piece = self.pieces[scenario];
        let (offsets, ids, mean) = match piece {
            Piece::Field { ids, .. } => (0, ids, false),
            Piece::Bag { offsets, ids, pooling, .. } => (offsets, ids, pooling == Pooling::Mean),
            Piece::Dense(_) => (0, 0, false),
        };
        let DeviceTable { address, rows, dim, stride } = piece.table();
        let bytes = Arguments::new().with_u64(address).with_u64(offsets).with_u64(ids);
        let bytes = bytes.with_u32(rows).with_u32(dim).with_u32(stride).with_u32(self.column);
        let bytes = bytes.with_u32(u32::from(mean)).with_u32(u32::from(self.quads(out)));
        bytes.with_u32(self.lane_bits(out)).with_u32(first_block).bytes().to_vec()
    }
}

/// Looks up all pieces of a trunk, to the matrix that `pieces` was made for: every live row of it.
///
/// `at` is the address of [`Pieces::to_bytes`], `scenarios` that of the scenario of each row, 0 without
/// [`Pieces::by_scenario`]. Rows of a bag are added in the order of the list.
///
/// # Panics
/// When scenarios are given for pieces without, or the other way round.
pub fn lookup(pieces: &Pieces, at: u64, scenarios: u64) -> Launch {
    pieces.launch("lookup", at, scenarios)
}

/// Turns the gradient at means of bags into the gradient of each row of a bag, in place, in the matrix that
/// [`Pieces::means`] was made for: it is divided by the number of ids. `at` and `scenarios` as for [`lookup`].
///
/// # Panics
/// When scenarios are given for pieces without, or the other way round.
pub fn scale_bag_gradient(pieces: &Pieces, at: u64, scenarios: u64) -> Launch {
    pieces.launch("scale_bag_gradient", at, scenarios)
}

/// Copies the weights of row `ids[i]` to row `i` of `out` `[ids, dim]`; `ids` is their address.
///
/// # Panics
/// When `out` is not as wide as the table.
pub fn gather(table: DeviceTable, ids: u64, out: DeviceMat) -> Launch {
    let pieces = Pieces::new(&[Piece::Field { table, ids }], out);
    let arguments = Arguments::new().with_bytes(&pieces.to_bytes(), 8).with_mat(out);
    Launch::new(&EMBEDDING_LOOKUP, "gather", pieces.blocks(), THREADS, arguments)
}
