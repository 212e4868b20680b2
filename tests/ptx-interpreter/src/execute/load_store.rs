//! Loads and stores.

use super::access::each_region;
use super::block::Context;
use super::warp::{ALL, Warp};
use crate::arithmetic::convert::extend;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Load, Store};
use crate::lane::{LANES, Row};
use crate::types::{Type, low_bits};

impl Warp {
    pub(super) fn load(&mut self, context: &mut Context<'_>, load: &Load, mask: u32) -> Result<(), Problem> {
        let size = load.ty.bytes();
        let count = load.targets.len();
        let access = self.access(load.address, mask, load.space, size * count, false)?;
        let who = self.accessor(context, load.ordering);
        let mut undefined = 0;
        let results = &mut self.results[..count];
        each_region(context, &mut self.local, &access, |region, extent, order| {
            // Structures of the thread are copied with what lies between their members, which nobody looks at.
            if region.is_thread() {
                undefined |= region.uninitialised_lanes(extent);
            } else {
                region.read(extent, &who, order)?;
            }
            match size {
                1 => region.load::<1>(extent, results),
                2 => region.load::<2>(extent, results),
                4 => region.load::<4>(extent, results),
                _ => region.load::<8>(extent, results),
            }
            Ok(())
        })?;
        self.tell_strong(context, &access, load.ordering, true);
        let widens = load.ty.is_signed() && load.target_bits > load.ty.bits();
        for (i, target) in load.targets.iter().enumerate() {
            if widens {
                widen(&mut self.results[i], load.ty, load.target_bits);
            }
            self.write(*target, i, mask);
            self.undefine(*target, undefined);
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        context: &mut Context<'_>,
        store: &Store,
        mask: u32,
    ) -> Result<(), Problem> {
        let undefined =
            mask & !store.sources.iter().fold(ALL, |lanes, source| lanes & self.defined[source.index()]);
        let size = store.ty.bytes();
        let access = self.access(store.address, mask, store.space, size * store.sources.len(), true)?;
        let who = self.accessor(context, store.ordering);
        let registers = &self.registers;
        each_region(context, &mut self.local, &access, |region, extent, order| {
            let undefined = undefined & extent.lanes;
            if undefined != 0 && !region.is_thread() {
                let message = "stores a register that nothing was written to";
                return Err(Problem::new(FaultKind::Uninitialised, message).at(undefined.trailing_zeros()));
            }
            region.write(extent, &who, order)?;
            for (i, source) in store.sources.iter().enumerate() {
                let row = &registers[source.index()];
                match size {
                    1 => region.store::<1>(extent, i, row),
                    2 => region.store::<2>(extent, i, row),
                    4 => region.store::<4>(extent, i, row),
                    _ => region.store::<8>(extent, i, row),
                }
            }
            for lane in lanes_of(undefined) {
                region.undefine(extent.offsets[lane], extent.bytes);
            }
            Ok(())
        })?;
        self.tell_strong(context, &access, store.ordering, false);
        Ok(())
    }
}

/// Fills the bits of a wider register with the sign.
fn widen(row: &mut Row, ty: Type, target_bits: u32) {
    for lane in 0..LANES {
        row.set(lane, extend(row.get(lane), ty) as u64 & low_bits(target_bits));
    }
}
