//! Matrices in shared memory as products of warpgroups see them: where a descriptor says that their values lie.
//!
//! With the 128-byte swizzle memory consists of atoms of 1024 bytes, eight rows of 128. Along such a row lie values of
//! one line (a row of the first factor, a column of the second one) if the matrix is K-major, or of one summand of 64
//! lines if it is transposed (MN-major). Bits 4 to 6 of an address, which say which sixteenth of a row, are combined
//! with bits 7 to 9, which say which row: lines and summands alike spread over all banks.

use crate::fault::{FaultKind, Problem};

/// Products that are added up for one result.
pub(super) const DEPTH: usize = 16;
/// Bytes that are read at once, and lie together whatever the swizzle.
pub(super) const PIECE: usize = 16;
/// Values of a piece.
const VALUES: usize = PIECE / 2;
/// Rows of an atom, and bytes of a row.
const ATOM_ROWS: usize = 8;
const ROW: u64 = 128;
const ATOM: u64 = ATOM_ROWS as u64 * ROW;
/// Lines whose values of one summand lie in a row of a transposed matrix.
const ROW_VALUES: usize = ROW as usize / 2;

/// The bits of a descriptor that mean something: start, leading offset, stride, base offset, layout.
const FIELDS: u64 = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62;

/// A matrix of some lines with [`DEPTH`] values each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    start: u64,
    /// Bytes from 64 lines to the next ones, of a transposed matrix.
    leading: u64,
    /// Bytes from eight lines to the next ones, or from eight summands of a transposed matrix.
    stride: u64,
    lines: usize,
    transposed: bool,
}

impl Tile {
    /// The matrix of a descriptor.
    pub(super) fn new(descriptor: u64, lines: usize, transposed: bool) -> Result<Tile, Problem> {
        let wrong = |message: String| Err(Problem::new(FaultKind::InvalidOperand, message));
        let bytes = |shift: u32| (descriptor >> shift & 0x3fff) << 4;
        let (start, leading, stride) = (bytes(0), bytes(16), bytes(32));
        if descriptor & !FIELDS != 0 {
            return wrong(format!("the matrix descriptor {descriptor:#x} has bits that mean nothing"));
        }
        let layout = descriptor >> 62;
        if layout != 1 {
            return wrong(format!(
                "matrices without the 128-byte swizzle (layout {layout}) are not modelled"
            ));
        }
        let base = descriptor >> 49 & 7;
        if base != 0 || start % ATOM >= ROW {
            return wrong(format!(
                "a matrix whose atoms do not begin at multiples of {ATOM} is not modelled (start {start:#x}, base \
                 offset {base})"
            ));
        }
        let (strides, row_bytes) = match transposed {
            false => ([stride, stride], 2 * DEPTH),
            true => ([stride, if lines > ROW_VALUES { leading } else { stride }], 2 * lines.min(ROW_VALUES)),
        };
        if start % ROW + row_bytes as u64 > ROW {
            return wrong(format!("a matrix that starts at {start:#x} leaves the rows of {ROW} bytes"));
        }
        let wrong_stride = |stride: &u64| *stride == 0 || !stride.is_multiple_of(ATOM);
        if (transposed || lines > ATOM_ROWS)
            && let Some(stride) = strides.into_iter().find(wrong_stride)
        {
            return wrong(format!("{stride} bytes from atom to atom, which must be a multiple of {ATOM}"));
        }
        Ok(Tile { start, leading, stride, lines, transposed })
    }

    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    pub(super) fn pieces(&self) -> usize {
        self.lines * DEPTH / VALUES
    }

    /// Line and summand of each value of a piece.
    pub(super) fn places(&self, piece: usize) -> impl Iterator<Item = (usize, usize)> {
        let (line, summand) = self.first_place(piece);
        let transposed = self.transposed;
        (0..VALUES).map(move |i| if transposed { (line + i, summand) } else { (line, summand + i) })
    }

    fn first_place(&self, piece: usize) -> (usize, usize) {
        if self.transposed {
            (piece / DEPTH * VALUES, piece % DEPTH)
        } else {
            let pieces_of_line = DEPTH / VALUES;
            (piece / pieces_of_line, piece % pieces_of_line * VALUES)
        }
    }

    /// The shared address of a piece.
    pub(super) fn address(&self, piece: usize) -> u64 {
        let (line, summand) = self.first_place(piece);
        let (row, atom, within) = if self.transposed {
            let atom = (line / ROW_VALUES) as u64 * self.leading + (summand / ATOM_ROWS) as u64 * self.stride;
            (summand % ATOM_ROWS, atom, line % ROW_VALUES)
        } else {
            (line % ATOM_ROWS, (line / ATOM_ROWS) as u64 * self.stride, summand)
        };
        let address = self.start + atom + row as u64 * ROW + 2 * within as u64;
        address ^ (address >> 7 & 7) << 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(start: u64, leading: u64, stride: u64) -> u64 {
        start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | 1 << 62
    }

    #[test]
    fn lines_lie_along_rows() {
        let tile = Tile::new(descriptor(2048 + 32, 16, 1024), 64, false).expect("a matrix");
        let piece = |line: usize, half: usize| 2 * line + half;
        assert_eq!(tile.pieces(), 128);
        assert_eq!(tile.address(piece(0, 0)), 2048 + 32);
        assert_eq!(tile.address(piece(0, 1)), 2048 + 48);
        assert_eq!(tile.address(piece(3, 0)), 2048 + 3 * 128 + (32 ^ 48));
        assert_eq!(tile.address(piece(21, 1)), 2048 + 2 * 1024 + 5 * 128 + (48 ^ 80));
        assert!(tile.places(piece(21, 1)).eq((8..16).map(|summand| (21, summand))));
    }

    #[test]
    fn summands_lie_along_rows() {
        let tile = Tile::new(descriptor(1024, 4096, 2048), 128, true).expect("a matrix");
        let piece = |lines: usize, summand: usize| 16 * lines + summand;
        assert_eq!(tile.pieces(), 256);
        assert_eq!(tile.address(piece(0, 0)), 1024);
        assert_eq!(tile.address(piece(2, 3)), 1024 + 3 * 128 + (32 ^ 48));
        assert_eq!(tile.address(piece(9, 13)), 1024 + 4096 + 2048 + 5 * 128 + (16 ^ 80));
        assert!(tile.places(piece(9, 13)).eq((72..80).map(|line| (line, 13))));
    }
}
