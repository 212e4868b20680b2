//! Asynchronous copies from device to shared memory: nothing is there before a wait, and for other threads not
//! before a barrier after it.

use super::access::{Access, each_region};
use super::block::Context;
use super::warp::Warp;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{CopyAsync, Ordering, Register};
use crate::lane::LANES;
use crate::race::Accessor;
use crate::region::Region;
use crate::types::Space;

/// Copies that a warp waits for.
#[derive(Default)]
pub(super) struct Copies {
    pending: Vec<Copy>,
    /// Groups that each lane has committed.
    groups: [u32; LANES],
}

struct Copy {
    lane: usize,
    group: u32,
    /// Offset in shared memory.
    target: u64,
    bytes: [u8; 16],
    len: usize,
}

impl Copies {
    /// What the lanes have copied since their last group is a group.
    pub(super) fn commit(&mut self, lanes: u32) {
        for lane in lanes_of(lanes) {
            self.groups[lane] += 1;
        }
    }
}

impl Warp {
    pub(super) fn start_copy(
        &mut self,
        context: &mut Context<'_>,
        copy: &CopyAsync,
        mask: u32,
    ) -> Result<(), Problem> {
        let operands =
            [Some(copy.target.base), Some(copy.source.base), copy.source_bytes, copy.ignore_source];
        for register in operands.into_iter().flatten() {
            self.expect_defined(register, mask)?;
        }
        let source = self.access(copy.source, mask, Space::Global, copy.bytes as usize, false)?;
        source.check_alignment()?;
        let target = self.access(copy.target, mask, Space::Shared, copy.bytes as usize, true)?;
        let who = self.accessor(context, Ordering::Weak);
        for lane in lanes_of(mask) {
            let value = |register: Register| self.registers[register.index()].get(lane);
            let ignored = copy.ignore_source.is_some_and(|predicate| value(predicate) != 0);
            let given = copy.source_bytes.map_or(copy.bytes, |register| value(register) as u32);
            if given > copy.bytes {
                let message = format!("{given} bytes of a copy of {}", copy.bytes);
                return Err(Problem::new(FaultKind::InvalidOperand, message).at(lane as u32));
            }
            let count = if ignored { 0 } else { given };
            let bytes = read_source(context, &mut self.local, source.addresses[lane], lane, &who, count)?;
            self.copies.pending.push(Copy {
                lane,
                group: self.copies.groups[lane],
                target: target.addresses[lane],
                bytes,
                len: copy.bytes as usize,
            });
        }
        each_region(context, &mut self.local, &target, |region, extent, order| {
            region.write(extent, &who, order)?;
            for lane in lanes_of(extent.lanes) {
                region.begin_copy(extent.offsets[lane], extent.bytes);
            }
            Ok(())
        })
    }

    /// The copies of all groups of the lanes are there, but for those of the last `groups_left`.
    pub(super) fn wait_for_copies(
        &mut self,
        context: &mut Context<'_>,
        groups_left: Option<u32>,
        mask: u32,
    ) -> Result<(), Problem> {
        let groups = self.copies.groups;
        let is_due = |copy: &Copy| {
            mask >> copy.lane & 1 == 1
                && groups_left.is_none_or(|left| copy.group < groups[copy.lane].saturating_sub(left))
        };
        let (due, pending) = std::mem::take(&mut self.copies.pending).into_iter().partition(is_due);
        self.copies.pending = pending;
        let due: Vec<Copy> = due;
        let who = self.accessor(context, Ordering::Weak);
        for Copy { lane, target, bytes, len, .. } in due {
            let (lanes, addresses) = (1 << lane, [target; LANES]);
            let access = Access { space: Space::Shared, lanes, addresses, bytes: len, writes: true };
            each_region(context, &mut self.local, &access, |region, extent, order| {
                region.write(extent, &who, order)?;
                region.end_copy(extent.offsets[lane], &bytes[..len]);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The first `count` bytes of the source of a lane's copy; zeros follow. They are read in pieces as large as
/// accesses are, which are aligned as the whole is.
fn read_source(
    context: &mut Context<'_>,
    local: &mut [Region],
    start: u64,
    lane: usize,
    who: &Accessor,
    count: u32,
) -> Result<[u8; 16], Problem> {
    let mut bytes = [0; 16];
    let mut done = 0;
    while done < count as usize {
        let piece = 1 << (count as usize - done).ilog2();
        let (lanes, addresses) = (1 << lane, [start + done as u64; LANES]);
        let access = Access { space: Space::Global, lanes, addresses, bytes: piece, writes: false };
        each_region(context, local, &access, |region, extent, order| {
            region.read(extent, who, order)?;
            bytes[done..done + piece].copy_from_slice(region.bytes(extent.offsets[lane], piece));
            Ok(())
        })?;
        done += piece;
    }
    Ok(bytes)
}
