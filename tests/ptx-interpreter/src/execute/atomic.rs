//! Atomic operations.

use super::access::each_region;
use super::block::Context;
use super::warp::Warp;
use crate::arithmetic::convert::extend;
use crate::arithmetic::float::flush;
use crate::bits::lanes_of;
use crate::fault::{FaultKind, Problem};
use crate::instruction::{Atomic, AtomicOperation, Register};
use crate::lane::Lane;
use crate::types::{Space, Type, low_bits};

impl Warp {
    /// One lane after the other.
    pub(super) fn atomic(
        &mut self,
        context: &mut Context<'_>,
        atomic: &Atomic,
        mask: u32,
    ) -> Result<(), Problem> {
        let [first, second] = atomic.operands;
        for register in [first, second] {
            self.expect_defined(register, mask)?;
        }
        let bytes = atomic.ty.bytes();
        let access = self.access(atomic.address, mask, atomic.space, bytes, true)?;
        let who = self.accessor(context, atomic.ordering);
        let (registers, results) = (&self.registers, &mut self.results[0]);
        each_region(context, &mut self.local, &access, |region, extent, order| {
            let is_new = |lane: &usize| !region.is_initialised(extent.offsets[*lane], bytes);
            if let Some(lane) = lanes_of(extent.lanes).find(is_new) {
                let message = "an atomic operation on what nothing was written to";
                return Err(Problem::new(FaultKind::Uninitialised, message).at(lane as u32));
            }
            region.write(extent, &who, order)?;
            for lane in lanes_of(extent.lanes) {
                let at = extent.offsets[lane];
                let before = region.value(at, bytes);
                results.set(lane, before);
                let operands = [first, second].map(|register| registers[register.index()].get(lane));
                region.set_value(at, bytes, result(atomic, before, operands));
            }
            Ok(())
        })?;
        self.tell_strong(context, &access, atomic.ordering, true);
        if atomic.target != Register::SINK {
            self.write(atomic.target, 0, mask);
        }
        Ok(())
    }
}

/// What is there after the operation.
fn result(atomic: &Atomic, before: u64, [a, b]: [u64; 2]) -> u64 {
    let ty = atomic.ty;
    let extreme = |larger: bool| {
        let (x, y) = (extend(before, ty), extend(a, ty));
        (if larger { x.max(y) } else { x.min(y) }) as u64
    };
    let value = match atomic.operation {
        AtomicOperation::Add => match ty {
            // In device memory subnormal numbers count as zero.
            Type::F32 if atomic.space != Space::Shared => {
                flush(flush(f32::from_lane(before)) + flush(f32::from_lane(a))).to_lane()
            }
            Type::F32 => (f32::from_lane(before) + f32::from_lane(a)).to_lane(),
            Type::F64 => (f64::from_bits(before) + f64::from_bits(a)).to_bits(),
            _ => before.wrapping_add(a),
        },
        AtomicOperation::Min => extreme(false),
        AtomicOperation::Max => extreme(true),
        AtomicOperation::And => before & a,
        AtomicOperation::Or => before | a,
        AtomicOperation::Xor => before ^ a,
        AtomicOperation::Exchange => a,
        AtomicOperation::CompareAndSwap => {
            if before == a {
                b
            } else {
                before
            }
        }
        AtomicOperation::Increment => {
            if before >= a {
                0
            } else {
                before + 1
            }
        }
        AtomicOperation::Decrement => {
            if before == 0 || before > a {
                a
            } else {
                before - 1
            }
        }
    };
    value & low_bits(ty.bits())
}
