//! Loads and stores.

use super::block::Context;
use super::warp::{ALL, Warp};
use crate::arithmetic::convert::extend;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Address, Load, Ordering, Store};
use crate::lane::{LANES, Row};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, WINDOW};
use crate::program::SharedVariable;
use crate::race::{Accessor, Order, StrongAccess};
use crate::region::Region;
use crate::types::{Space, Type, low_bits};

/// What the lanes of a warp access: `bytes` at an address each.
pub(super) struct Access {
    pub(super) space: Space,
    pub(super) addresses: [u64; LANES],
    /// A power of two, at most 16.
    pub(super) bytes: usize,
    pub(super) writes: bool,
}

impl Access {
    /// The lowest and the highest address of the lanes of `mask`, of which there is one at least.
    fn range(&self, mask: u32) -> (u64, u64) {
        let (mut low, mut high) = (u64::MAX, 0);
        for lane in lanes_of(mask) {
            low = low.min(self.addresses[lane]);
            high = high.max(self.addresses[lane]);
        }
        (low, high)
    }

    pub(super) fn check_alignment(&self, mask: u32) -> Result<(), Problem> {
        let below = self.bytes as u64 - 1;
        if self.addresses.iter().fold(0, |all, address| all | address) & below == 0 {
            return Ok(());
        }
        match lanes_of(mask).find(|lane| self.addresses[*lane] & below != 0) {
            None => Ok(()),
            Some(lane) => {
                let message = format!("misaligned: {} bytes at {:#x}", self.bytes, self.addresses[lane]);
                Err(Problem::new(FaultKind::Misaligned, message).at(lane as u32))
            }
        }
    }

    /// Whether the lanes of `mask` access the same.
    fn is_uniform(&self, mask: u32) -> bool {
        let first = self.addresses[mask.trailing_zeros() as usize];
        lanes_of(mask).all(|lane| self.addresses[lane] == first)
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

/// Calls `body` with the place of each lane of `mask`, in order.
#[inline]
pub(super) fn each_lane(
    context: &mut Context<'_>,
    local: &mut [Region],
    access: &Access,
    mask: u32,
    mut body: impl FnMut(usize, Place<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    access.check_alignment(mask)?;
    let &Access { space, ref addresses, bytes, writes } = access;
    let (low, high) = access.range(mask);
    let is_private = space == Space::Local || space == Space::Generic && resolve(low).0 == Space::Local;
    let span = usize::try_from(high - low).unwrap_or(usize::MAX).saturating_add(bytes);
    // As a rule all lanes access the same region.
    if !is_private && let Some((region, at, order)) = find(context, &mut local[0], space, low, span, writes) {
        for lane in lanes_of(mask) {
            let place = (&mut *region, at + (addresses[lane] - low) as usize, order);
            body(lane, place).map_err(|problem| problem.at(lane as u32))?;
        }
        return Ok(());
    }
    for lane in lanes_of(mask) {
        let done = match find(context, &mut local[lane], space, addresses[lane], bytes, writes) {
            Some(place) => body(lane, place),
            None => Err(not_found(context, &local[lane], space, addresses[lane], bytes)),
        };
        done.map_err(|problem| problem.at(lane as u32))?;
    }
    Ok(())
}

impl Warp {
    /// The warp as one that accesses memory now.
    pub(super) fn accessor(&self, context: &Context<'_>, ordering: Ordering) -> Accessor {
        context.memory.order.accessor(self.number, self.counter, ordering != Ordering::Weak)
    }

    /// An access of `bytes` at `address`.
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
        let addresses = std::array::from_fn(|lane| base.get(lane).wrapping_add_signed(address.offset) & kept);
        Ok(Access { space, addresses, bytes, writes })
    }

    pub(super) fn load(&mut self, context: &mut Context<'_>, load: &Load, mask: u32) -> Result<(), Problem> {
        match load.ty.bytes() {
            1 => self.load_values::<1>(context, load, mask),
            2 => self.load_values::<2>(context, load, mask),
            4 => self.load_values::<4>(context, load, mask),
            _ => self.load_values::<8>(context, load, mask),
        }
    }

    /// Loads values of `SIZE` bytes.
    fn load_values<const SIZE: usize>(
        &mut self,
        context: &mut Context<'_>,
        load: &Load,
        mask: u32,
    ) -> Result<(), Problem> {
        let bytes = SIZE * load.targets.len();
        let access = self.access(load.address, mask, load.space, bytes, false)?;
        let who = self.accessor(context, load.ordering);
        // One lane reads for all that read the same.
        let is_uniform = load.space != Space::Local && access.is_uniform(mask);
        let lanes = if is_uniform { 1 << mask.trailing_zeros() } else { mask };
        let mut undefined = 0;
        let results = &mut self.results;
        each_lane(context, &mut self.local, &access, lanes, |lane, (region, at, order)| {
            let readers = if is_uniform { mask } else { 1 << lane };
            // Structures of the thread are copied with what lies between their members, which nobody looks at.
            if !region.is_thread() {
                region.read((at, bytes), readers, &who, order)?;
            } else if !region.is_any_initialised(at, bytes) {
                undefined |= readers;
            }
            for (value, result) in
                region.bytes(at, bytes).as_chunks::<SIZE>().0.iter().zip(results.iter_mut())
            {
                result.set(lane, little_endian(value));
            }
            Ok(())
        })?;
        if is_uniform {
            for result in &mut self.results[..load.targets.len()] {
                *result = Row::splat(result.get(lanes.trailing_zeros() as usize));
            }
        }
        self.tell_strong(context, &access, load.ordering, true, mask);
        self.loaded(load, mask, undefined);
        Ok(())
    }

    /// Tells of accesses that may race what they order.
    pub(super) fn tell_strong(
        &self,
        context: &mut Context<'_>,
        access: &Access,
        ordering: Ordering,
        reads: bool,
        mask: u32,
    ) {
        let order = &mut context.memory.order;
        let acquires = matches!(ordering, Ordering::Acquire | Ordering::AcquireRelease);
        let releases = matches!(ordering, Ordering::Release | Ordering::AcquireRelease);
        if ordering == Ordering::Weak || !(order.has_releases() || releases) {
            return;
        }
        for lane in lanes_of(mask) {
            let (address, writes) = (access.addresses[lane], access.writes);
            let space = if access.space == Space::Generic { resolve(address).0 } else { access.space };
            if space != Space::Global {
                continue;
            }
            let thread = (self.number * LANES + lane) as u16;
            order.strong_access(StrongAccess { address, reads, writes, acquires, releases }, thread);
        }
    }

    /// Copies what was loaded to its registers.
    fn loaded(&mut self, load: &Load, mask: u32, undefined: u32) {
        let widens = load.ty.is_signed() && load.target_bits > load.ty.bits();
        for (i, target) in load.targets.iter().enumerate() {
            if widens {
                widen(&mut self.results[i], load.ty, load.target_bits);
            }
            self.write(*target, i, mask);
            self.undefine(*target, undefined);
        }
    }

    pub(super) fn store(
        &mut self,
        context: &mut Context<'_>,
        store: &Store,
        mask: u32,
    ) -> Result<(), Problem> {
        let defined = store.sources.iter().fold(ALL, |lanes, source| lanes & self.defined[source.index()]);
        let size = store.ty.bytes();
        let access = self.access(store.address, mask, store.space, size * store.sources.len(), true)?;
        let who = self.accessor(context, store.ordering);
        let bytes = access.bytes;
        let registers = &self.registers;
        each_lane(context, &mut self.local, &access, mask, |lane, (region, at, order)| {
            let is_defined = defined >> lane & 1 == 1;
            if !is_defined && !region.is_thread() {
                let message = "stores a register that nothing was written to";
                return Err(Problem::new(FaultKind::Uninitialised, message));
            }
            region.write((at, bytes), lane, &who, order)?;
            for (i, source) in store.sources.iter().enumerate() {
                region.set_value(at + i * size, size, registers[source.index()].get(lane));
            }
            if !is_defined {
                region.undefine(at, bytes);
            }
            Ok(())
        })?;
        self.tell_strong(context, &access, store.ordering, false, mask);
        Ok(())
    }
}

/// The value of up to eight bytes.
#[inline]
fn little_endian<const SIZE: usize>(bytes: &[u8; SIZE]) -> u64 {
    let mut all = [0; 8];
    all[..SIZE].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// Fills the bits of a wider register with the sign.
fn widen(row: &mut Row, ty: Type, target_bits: u32) {
    for lane in 0..LANES {
        row.set(lane, extend(row.get(lane), ty) as u64 & low_bits(target_bits));
    }
}
