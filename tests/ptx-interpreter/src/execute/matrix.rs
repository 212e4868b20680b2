//! Matrices whose elements are spread over the lanes of a warp (`ldmatrix`, `mma.sync`).
//!
//! In a quad of lanes stand the columns of a row: lane l has row l / 4 and, of it, columns 2 (l % 4) and the next one,
//! or column l % 4 of values that fill a register.

use super::access::each_region;
use super::block::Context;
use super::warp::{ALL, Warp};
use crate::arithmetic::half::{bf16_to_f32, f16_to_f32, tf32_to_f32};
use crate::bits::lanes_of;
use crate::fault::Problem;
use crate::instruction::{Address, Format, Multiply, Ordering, Register};
use crate::lane::{LANES, Lane};
use crate::types::Space;

/// Rows of a matrix that `ldmatrix` loads, and columns of 16 bits.
const SIDE: usize = 8;

impl Warp {
    /// Loads a matrix for each target: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
    pub(super) fn load_matrix(
        &mut self,
        context: &mut Context<'_>,
        targets: &[Register],
        address: Address,
        transposed: bool,
    ) -> Result<(), Problem> {
        let lanes = ALL >> (LANES - targets.len() * SIDE);
        let access = self.access(address, lanes, Space::Shared, 2 * SIDE, false)?;
        let who = self.accessor(context, Ordering::Weak);
        let mut rows = [[0u16; SIDE]; LANES];
        each_region(context, &mut self.local, &access, |region, extent, order| {
            // The read counts as that of the lane that gives the address.
            region.read(extent, &who, order)?;
            for lane in lanes_of(extent.lanes) {
                let at = extent.offsets[lane];
                rows[lane] = std::array::from_fn(|column| region.value(at + 2 * column, 2) as u16);
            }
            Ok(())
        })?;
        for (target, rows) in targets.iter().zip(rows.chunks(SIDE)) {
            for lane in 0..LANES {
                let pair = [0, 1].map(|half| {
                    let (row, column) = (lane / 4, lane % 4 * 2 + half);
                    u64::from(if transposed { rows[column][row] } else { rows[row][column] })
                });
                self.results[0].set(lane, pair[1] << 16 | pair[0]);
            }
            self.write(*target, 0, ALL);
        }
        Ok(())
    }

    /// d = a b + c: products are exact, sums are f32.
    pub(super) fn multiply(&mut self, multiply: &Multiply) -> Result<(), Problem> {
        let Multiply { format, depth, d, a, b, c } = multiply;
        for register in a.iter().chain(b).chain(c) {
            self.expect_defined(*register, ALL)?;
        }
        let first = self.first_factor(*format, a);
        let second = self.second_factor(*format, b);
        let mut sums = [[0f32; 8]; 16];
        for (lane, i) in (0..LANES).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = place_of_sum(lane, i);
            sums[row][column] = f32::from_lane(self.registers[c[i].index()].get(lane));
        }
        for (sums, row) in sums.iter_mut().zip(&first) {
            for (a, b) in row.iter().zip(&second).take(*depth) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
        for (lane, i) in (0..LANES).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (row, column) = place_of_sum(lane, i);
            self.results[i].set(lane, sums[row][column].to_lane());
        }
        for (i, target) in d.iter().enumerate() {
            self.write(*target, i, ALL);
        }
        Ok(())
    }

    /// The rows of the first factor.
    fn first_factor(&self, format: Format, a: &[Register]) -> [[f32; 16]; 16] {
        let mut rows = [[0.0; 16]; 16];
        for lane in 0..LANES {
            for (i, register) in a.iter().enumerate() {
                let row = &mut rows[lane / 4 + i % 2 * 8];
                let start = i / 2 * values_of_quad(format);
                self.unpack_values(format, *register, lane, |column, value| row[start + column] = value);
            }
        }
        rows
    }

    /// The rows of the second factor.
    fn second_factor(&self, format: Format, b: &[Register]) -> [[f32; 8]; 16] {
        let mut rows = [[0.0; 8]; 16];
        for lane in 0..LANES {
            for (i, register) in b.iter().enumerate() {
                let start = i * values_of_quad(format);
                self.unpack_values(format, *register, lane, |row, value| rows[start + row][lane / 4] = value);
            }
        }
        rows
    }

    /// Gives `to` the values of a lane's register, with their places among those of the quad.
    fn unpack_values(&self, format: Format, register: Register, lane: usize, mut to: impl FnMut(usize, f32)) {
        let bits = self.registers[register.index()].get(lane) as u32;
        let halves = [bits as u16, (bits >> 16) as u16];
        match format {
            Format::Tf32 => to(lane % 4, tf32_to_f32(bits)),
            Format::Bf16 => (0..2).for_each(|i| to(lane % 4 * 2 + i, bf16_to_f32(halves[i]))),
            Format::F16 => (0..2).for_each(|i| to(lane % 4 * 2 + i, f16_to_f32(halves[i]))),
        }
    }
}

/// Row and column of a lane's sum `i`.
pub(super) fn place_of_sum(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2)
}

/// Values that the registers of four lanes hold.
fn values_of_quad(format: Format) -> usize {
    if format == Format::Tf32 { 4 } else { 8 }
}
