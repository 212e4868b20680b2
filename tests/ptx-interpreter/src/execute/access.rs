//! From addresses to memory.

use super::block::Context;
use super::warp::Warp;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Address, Ordering};
use crate::lane::LANES;
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::program::SharedVariable;
use crate::race::{Accessor, Kind, Order, StrongAccess};
use crate::region::{Extent, Region};
use crate::types::Space;

/// What lanes of a warp access: `bytes` at an address each.
pub(super) struct Access {
    pub(super) space: Space,
    pub(super) lanes: u32,
    /// Those of lanes that do not take part are another one's.
    pub(super) addresses: [u64; LANES],
    /// A power of two, at most 16.
    pub(super) bytes: usize,
    pub(super) writes: bool,
}

impl Access {
    /// The lowest and the highest address.
    fn range(&self) -> (u64, u64) {
        self.addresses
            .iter()
            .fold((u64::MAX, 0), |(low, high), address| (low.min(*address), high.max(*address)))
    }

    pub(super) fn check_alignment(&self) -> Result<(), Problem> {
        let below = self.bytes as u64 - 1;
        if self.addresses.iter().fold(0, |all, address| all | address) & below == 0 {
            return Ok(());
        }
        let lane = lanes_of(self.lanes).find(|lane| self.addresses[*lane] & below != 0).unwrap_or(0);
        let message = format!("misaligned: {} bytes at {:#x}", self.bytes, self.addresses[lane]);
        Err(Problem::new(FaultKind::Misaligned, message).at(lane as u32))
    }
}

/// A region, where in it, and what orders accesses to it.
type Place<'a> = (&'a mut Region, usize, &'a Order);

/// The region that `bytes` at `address` are in; none if they do not lie in one allocation or variable.
#[inline]
fn find<'a>(
    context: &'a mut Context<'_>,
    local: &'a mut Region,
    space: Space,
    address: u64,
    bytes: usize,
    writes: bool,
) -> Option<Place<'a>> {
    let within = |region: &Region| {
        (address.checked_add(bytes as u64)? <= region.len() as u64).then_some(address as usize)
    };
    match space {
        Space::Global | Space::Const => context.memory.locate(address, bytes, writes),
        Space::Shared => {
            let at = in_shared(&context.shared_variables, address, bytes)?;
            Some((&mut context.shared, at, &context.memory.order))
        }
        Space::Local => within(local).map(|at| (local, at, &context.memory.order)),
        Space::Param => {
            within(&context.parameters).map(|at| (&mut context.parameters, at, &context.memory.order))
        }
        Space::Generic => {
            let (space, start) = resolve(address);
            find(context, local, space, address - start, bytes, writes)
        }
    }
}

/// The space that a generic address is in, and where its window begins.
fn resolve(address: u64) -> (Space, u64) {
    match address {
        SHARED_WINDOW.. if address < SHARED_WINDOW + WINDOW => (Space::Shared, SHARED_WINDOW),
        LOCAL_WINDOW.. if address < LOCAL_WINDOW + WINDOW => (Space::Local, LOCAL_WINDOW),
        _ => (Space::Global, 0),
    }
}

/// Where `bytes` at `address` of the block's memory are: in one of its variables.
fn in_shared(variables: &[SharedVariable], address: u64, bytes: usize) -> Option<usize> {
    let within = |v: &SharedVariable| v.offset as u64 <= address && address + bytes as u64 <= v.end() as u64;
    variables.iter().any(within).then_some(address as usize)
}

/// Why [`find`] finds nothing.
#[cold]
fn not_found(context: &mut Context<'_>, local: &Region, space: Space, address: u64, bytes: usize) -> Problem {
    let (all, of) = match space {
        Space::Global | Space::Const => return context.memory.not_there(address, bytes),
        Space::Generic => {
            let (space, start) = resolve(address);
            return not_found(context, local, space, address - start, bytes);
        }
        Space::Shared => {
            let before =
                context.shared_variables.iter().rev().find(|v| v.offset as u64 <= address && v.bytes > 0);
            if let Some(variable) = before {
                let message = format!(
                    "out of bounds: {bytes} bytes at {} of a shared variable of {}",
                    address - variable.offset as u64,
                    variable.bytes
                );
                return Problem::new(FaultKind::OutOfBounds, message);
            }
            (context.shared.len(), "shared memory")
        }
        Space::Local => (local.len(), "the thread's memory"),
        Space::Param => (context.parameters.len(), "parameters"),
    };
    Problem::new(
        FaultKind::OutOfBounds,
        format!("out of bounds: {bytes} bytes at {address} of {all} of {of}"),
    )
}

/// Calls `body` with each region that is accessed, and what lanes access there.
#[inline]
pub(super) fn each_region(
    context: &mut Context<'_>,
    local: &mut [Region],
    access: &Access,
    mut body: impl FnMut(&mut Region, &Extent, &Order) -> Result<(), Problem>,
) -> Result<(), Problem> {
    access.check_alignment()?;
    let &Access { space, lanes, ref addresses, bytes, writes } = access;
    let (low, high) = access.range();
    let is_private = space == Space::Local || space == Space::Generic && resolve(low).0 == Space::Local;
    let span = usize::try_from(high - low).unwrap_or(usize::MAX).saturating_add(bytes);
    let mut extent = Extent { lanes, offsets: [0; LANES], bytes };
    // As a rule all lanes access the same region.
    if !is_private && let Some((region, at, order)) = find(context, &mut local[0], space, low, span, writes) {
        for lane in 0..LANES {
            extent.offsets[lane] = at + (addresses[lane] - low) as usize;
        }
        return body(region, &extent, order);
    }
    for lane in lanes_of(lanes) {
        extent.lanes = 1 << lane;
        match find(context, &mut local[lane], space, addresses[lane], bytes, writes) {
            Some((region, at, order)) => {
                extent.offsets[lane] = at;
                body(region, &extent, order)?;
            }
            None => {
                let problem = not_found(context, &local[lane], space, addresses[lane], bytes);
                return Err(problem.at(lane as u32));
            }
        }
    }
    Ok(())
}

impl Warp {
    /// The warp as one that accesses memory now.
    pub(super) fn accessor(&self, context: &Context<'_>, ordering: Ordering) -> Accessor {
        let kind = match ordering {
            Ordering::Weak => Kind::Plain,
            Ordering::ReadOnly => Kind::ReadOnly,
            Ordering::Relaxed | Ordering::Acquire | Ordering::Release | Ordering::AcquireRelease => {
                Kind::Strong
            }
        };
        context.memory.order.accessor(self.number, self.counter, kind)
    }

    /// An access of `bytes` at `address` by the lanes of `mask`.
    pub(super) fn access(
        &self,
        address: Address,
        mask: u32,
        space: Space,
        bytes: usize,
        writes: bool,
    ) -> Result<Access, Problem> {
        self.expect_defined(address.base, mask)?;
        // Addresses of the block's and the thread's memory have 32 bits.
        let kept = match space {
            Space::Shared | Space::Local | Space::Param => 0xffff_ffff,
            Space::Generic | Space::Global | Space::Const => u64::MAX,
        };
        let base = &self.registers[address.base.index()];
        let first = mask.trailing_zeros() as usize;
        let addresses = std::array::from_fn(|lane| {
            let lane = if mask >> lane & 1 == 1 { lane } else { first };
            base.get(lane).wrapping_add_signed(address.offset) & kept
        });
        Ok(Access { space, lanes: mask, addresses, bytes, writes })
    }

    /// Tells of accesses that may race what they order.
    pub(super) fn tell_strong(
        &self,
        context: &mut Context<'_>,
        access: &Access,
        ordering: Ordering,
        reads: bool,
    ) {
        let order = &mut context.memory.order;
        let acquires = matches!(ordering, Ordering::Acquire | Ordering::AcquireRelease);
        let releases = matches!(ordering, Ordering::Release | Ordering::AcquireRelease);
        let is_strong = !matches!(ordering, Ordering::Weak | Ordering::ReadOnly);
        if !is_strong || !(order.has_releases() || releases) {
            return;
        }
        for lane in lanes_of(access.lanes) {
            let (address, writes) = (access.addresses[lane], access.writes);
            let space = if access.space == Space::Generic { resolve(address).0 } else { access.space };
            if space != Space::Global {
                continue;
            }
            let thread = (self.number * LANES + lane) as u16;
            order.strong_access(StrongAccess { address, reads, writes, acquires, releases }, thread);
        }
    }
}
