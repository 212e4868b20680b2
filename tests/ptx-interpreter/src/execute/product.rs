//! Products of warpgroups (`wgmma`). Each warp computes its own rows when it comes to the instruction, and reads all
//! of both factors, as the warpgroup does.
//!
//! Warp w of a warpgroup has rows 16 w to 16 w + 15. Within them the results of a lane lie as those of `mma.sync` do,
//! once for each eight columns: accumulators 4 n to 4 n + 3 belong to columns 8 n to 8 n + 7.

use super::access::{Access, each_region};
use super::block::Context;
use super::matrix::place_of_sum;
use super::tile::{DEPTH, PIECE, Tile};
use super::warp::{ALL, Warp};
use super::warpgroup::{Pending, WARPS};
use crate::arithmetic::half::bf16_to_f32;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Ordering, Register, WarpgroupMultiply};
use crate::lane::{LANES, Lane};
use crate::race::Order;
use crate::region::{Extent, Region};
use crate::types::Space;

/// Rows of a warp.
const ROWS: usize = 16;
/// Columns whose results lie as those of `mma.sync`.
const COLUMNS: usize = 8;

impl Warp {
    pub(super) fn start_product(
        &mut self,
        context: &mut Context<'_>,
        multiply: &WarpgroupMultiply,
    ) -> Result<(), Problem> {
        let WarpgroupMultiply { columns, accumulators, a, b, adds } = multiply;
        let operands = [
            self.uniform(a.descriptor, "a matrix descriptor")?,
            self.uniform(b.descriptor, "a matrix descriptor")?,
            self.uniform(*adds, "scale-d")?,
        ];
        self.agree(context, operands)?;
        let tiles = [
            Tile::new(operands[0], WARPS * ROWS, a.transposed)?,
            Tile::new(operands[1], *columns, b.transposed)?,
        ];
        self.products.claim(accumulators, *columns, self.counter)?;
        let adds = operands[2] != 0;
        if adds {
            for register in accumulators {
                self.expect_defined(*register, ALL)?;
            }
        }
        let since = context.memory.order.tick();
        let first = self.values(context, &tiles[0])?;
        let second = self.values(context, &tiles[1])?;
        self.products.begin(Pending::new(self.counter, since, tiles));
        let mut sums = if adds { self.accumulated(accumulators) } else { vec![0.0; ROWS * columns] };
        let sign = if a.negated == b.negated { 1.0 } else { -1.0 };
        let start = self.number % WARPS * ROWS;
        for (row, sums) in sums.chunks_exact_mut(*columns).enumerate() {
            for (first, second) in first.chunks_exact(WARPS * ROWS).zip(second.chunks_exact(*columns)) {
                let a = sign * first[start + row];
                for (sum, b) in sums.iter_mut().zip(second) {
                    *sum += a * b;
                }
            }
        }
        self.set_accumulators(accumulators, &sums);
        Ok(())
    }

    /// What a product read that has ended, it has read by now: nobody may have written to it meanwhile, and whoever
    /// writes to it from now on does so after the present moment.
    pub(super) fn end_product(
        &mut self,
        context: &mut Context<'_>,
        product: &Pending,
    ) -> Result<(), Problem> {
        let who = self.accessor(context, Ordering::Weak);
        for tile in product.tiles() {
            self.each_piece(context, tile, |region, extent, order, _| {
                region.end_read_by_proxy(extent, &who, order, product.since())
            })?;
        }
        Ok(())
    }

    /// The value of an operand that the lanes agree on.
    fn uniform(&self, register: Register, what: &str) -> Result<u64, Problem> {
        self.expect_defined(register, ALL)?;
        let row = &self.registers[register.index()];
        let first = row.get(0);
        match (0..LANES).find(|lane| row.get(*lane) != first) {
            None => Ok(first),
            Some(lane) => {
                let message = format!("lanes of a warp differ in {what}");
                Err(Problem::new(FaultKind::InvalidOperand, message).at(lane as u32))
            }
        }
    }

    /// The values of a matrix: for each summand those of all lines.
    fn values(&mut self, context: &mut Context<'_>, tile: &Tile) -> Result<Vec<f32>, Problem> {
        let who = self.accessor(context, Ordering::Weak);
        let lines = tile.lines();
        let mut values = vec![0.0; DEPTH * lines];
        self.each_piece(context, tile, |region, extent, order, first| {
            region.read_by_proxy(extent, &who, order)?;
            for lane in lanes_of(extent.lanes) {
                let halves = region.bytes(extent.offsets[lane], PIECE).as_chunks().0;
                for ((line, summand), half) in tile.places(first + lane).zip(halves) {
                    values[summand * lines + line] = bf16_to_f32(u16::from_le_bytes(*half));
                }
            }
            Ok(())
        })?;
        Ok(values)
    }

    /// Calls `body` with the pieces of a matrix, one for each lane, and the number of the first lane's.
    fn each_piece(
        &mut self,
        context: &mut Context<'_>,
        tile: &Tile,
        mut body: impl FnMut(&mut Region, &Extent, &Order, usize) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        for first in (0..tile.pieces()).step_by(LANES) {
            let count = (tile.pieces() - first).min(LANES);
            let addresses = std::array::from_fn(|lane| tile.address(first + lane.min(count - 1)));
            let lanes = ALL >> (LANES - count);
            let access = Access { space: Space::Shared, lanes, addresses, bytes: PIECE, writes: false };
            each_region(context, &mut self.local, &access, |region, extent, order| {
                body(region, extent, order, first)
            })?;
        }
        Ok(())
    }

    /// The rows that the accumulators hold.
    fn accumulated(&self, accumulators: &[Register]) -> Vec<f32> {
        let columns = 2 * accumulators.len();
        let mut sums = vec![0.0; ROWS * columns];
        for (i, register) in accumulators.iter().enumerate() {
            let values = &self.registers[register.index()];
            for lane in 0..LANES {
                sums[place(lane, i, columns)] = f32::from_lane(values.get(lane));
            }
        }
        sums
    }

    fn set_accumulators(&mut self, accumulators: &[Register], sums: &[f32]) {
        let columns = 2 * accumulators.len();
        for (i, register) in accumulators.iter().enumerate() {
            for lane in 0..LANES {
                self.results[0].set(lane, sums[place(lane, i, columns)].to_lane());
            }
            self.write(*register, 0, ALL);
        }
    }
}

/// Where among rows of `columns` columns the result is of a lane's accumulator `i`.
fn place(lane: usize, i: usize, columns: usize) -> usize {
    let (row, column) = place_of_sum(lane, i % 4);
    row * columns + i / 4 * COLUMNS + column
}
