//! A device: its memory and what was made on it.

use crate::capture::{Capture, Graph};
use crate::kernel::{Function, Loaded};
use crate::knobs::Knobs;
use crate::pinned::Pinned;
use crate::refusal::{Answer, Refusal, invalid, refuse};
use crate::table::{Kind, Table};
use crate::work::{Event, Stream};
use cudarc::driver::sys::CUresult;
use manygate_ptx_interpreter::Memory;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// The driver gives out memory in pieces of so many bytes.
const GRANULE: u64 = 512;

/// A piece of device memory.
struct Allocation {
    bytes: usize,
    is_pooled: bool,
}

/// The memory pool of a device.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pool {
    /// Bytes of the device that are the pool's.
    pub(crate) reserved: u64,
    /// Bytes of them that are allocated.
    pub(crate) used: u64,
    /// Bytes that it may keep.
    pub(crate) threshold: u64,
}

pub(crate) struct Device {
    pub(crate) ordinal: usize,
    /// Its compute capability.
    pub(crate) capability: (u32, u32),
    /// How often the primary context was asked for.
    users: usize,
    pub(crate) memory: Memory,
    /// By address.
    allocated: BTreeMap<u64, Allocation>,
    /// Bytes that are used outside of the pool.
    used: u64,
    pub(crate) pool: Pool,
    /// By address.
    pinned: BTreeMap<usize, Pinned>,
    pub(crate) streams: Table<Stream>,
    pub(crate) events: Table<Event>,
    pub(crate) modules: Table<Arc<Loaded>>,
    pub(crate) functions: Table<Function>,
    pub(crate) captures: Table<Capture>,
    pub(crate) graphs: Table<Arc<Graph>>,
    pub(crate) executables: Table<Arc<Graph>>,
    /// What a kernel did. Nothing works any more.
    fault: Option<Refusal>,
    /// Bytes that copies have brought to the host.
    pub(crate) downloaded: u64,
    /// Order of warps, and of streams among each other.
    pub(crate) seed: u64,
    /// State of the random numbers that choose among streams.
    pub(crate) random: u64,
}

impl Device {
    pub(crate) fn new(ordinal: usize, capability: (u32, u32)) -> Device {
        let seed = Knobs::get().seed;
        Device {
            ordinal,
            capability,
            users: 0,
            memory: Memory::new(),
            allocated: BTreeMap::new(),
            used: 0,
            pool: Pool::default(),
            pinned: BTreeMap::new(),
            streams: Table::new(ordinal, Kind::Stream),
            events: Table::new(ordinal, Kind::Event),
            modules: Table::new(ordinal, Kind::Module),
            functions: Table::new(ordinal, Kind::Function),
            captures: Table::new(ordinal, Kind::Capture),
            graphs: Table::new(ordinal, Kind::Graph),
            executables: Table::new(ordinal, Kind::Executable),
            fault: None,
            downloaded: 0,
            seed,
            random: seed,
        }
    }

    /// Asks for the primary context.
    pub(crate) fn retain(&mut self) {
        self.users += 1;
    }

    /// Gives the primary context back. With the last user goes all that was made, and what a kernel did.
    pub(crate) fn release(&mut self) -> Answer {
        self.check_in_use()?;
        self.users -= 1;
        if self.users == 0 {
            let live = self.live();
            if self.fault.is_none() && live != [0; 6] {
                say(&format!("device {} is left with {live:?} (see `Live`)", self.ordinal));
            }
            *self = Device { seed: self.seed, ..Device::new(self.ordinal, self.capability) };
        }
        Ok(())
    }

    pub(crate) fn check_in_use(&self) -> Answer {
        if self.users > 0 {
            return Ok(());
        }
        let why = format!("nobody retains the context of device {}", self.ordinal);
        refuse(CUresult::CUDA_ERROR_INVALID_CONTEXT, why)
    }

    /// Refuses everything when a kernel failed.
    pub(crate) fn check_fault(&self) -> Answer {
        self.fault.clone().map_or_else(|| self.check_in_use(), Err)
    }

    /// What a kernel did, if one did.
    pub(crate) fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    /// Notes what a kernel did.
    pub(crate) fn set_fault(&mut self, fault: Refusal) {
        // Who waited for the stream where it happened notes it again.
        if self.fault.is_none() {
            say(&format!("device {}: {}", self.ordinal, fault.why));
            self.fault = Some(fault);
        }
    }

    /// Bytes that are nobody's, not the pool's either, and bytes of the device.
    pub(crate) fn free_and_total(&self) -> (u64, u64) {
        let total = Knobs::get().memory;
        (total - self.used - self.pool.reserved, total)
    }

    pub(crate) fn allocate(&mut self, bytes: usize, is_pooled: bool) -> Answer<u64> {
        if bytes == 0 {
            return invalid("an allocation of 0 bytes");
        }
        let (free, total) = self.free_and_total();
        let kept = if is_pooled { self.pool.reserved - self.pool.used } else { 0 };
        let pieces = (bytes as u64).checked_next_multiple_of(GRANULE).filter(|pieces| *pieces <= free + kept);
        let Some(pieces) = pieces else {
            let why = format!("{bytes} bytes wanted, {free} of {total} free");
            return refuse(CUresult::CUDA_ERROR_OUT_OF_MEMORY, why);
        };
        if is_pooled {
            self.pool.used += pieces;
            self.pool.reserved = self.pool.reserved.max(self.pool.used);
        } else {
            self.used += pieces;
        }
        let address = self.memory.allocate(bytes);
        self.allocated.insert(address, Allocation { bytes, is_pooled });
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64) -> Answer {
        let Some(Allocation { bytes, is_pooled }) = self.allocated.remove(&address) else {
            return invalid(format!("{address:#x} is not allocated"));
        };
        let pieces = (bytes as u64).next_multiple_of(GRANULE);
        if is_pooled {
            self.pool.used -= pieces;
            self.pool.reserved = self.pool.used.max(self.pool.reserved.min(self.pool.threshold));
        } else {
            self.used -= pieces;
        }
        self.memory.free(address);
        Ok(())
    }

    /// Checks that memory is allocated.
    pub(crate) fn check_range(&self, address: u64, len: usize) -> Answer {
        let before = self.allocated.range(..=address).next_back();
        let inside = before.is_some_and(|(from, allocation)| {
            (address - from).checked_add(len as u64).is_some_and(|end| end <= allocation.bytes as u64)
        });
        if inside { Ok(()) } else { invalid(format!("{len} bytes at {address:#x} are not allocated")) }
    }

    pub(crate) fn allocate_pinned(&mut self, bytes: usize) -> Answer<usize> {
        let Some(pinned) = Pinned::allocate(bytes) else {
            return refuse(CUresult::CUDA_ERROR_OUT_OF_MEMORY, format!("{bytes} bytes of the host wanted"));
        };
        let address = pinned.address();
        self.pinned.insert(address, pinned);
        Ok(address)
    }

    pub(crate) fn free_pinned(&mut self, address: usize) -> Answer {
        match self.pinned.remove(&address) {
            Some(_) => Ok(()),
            None => invalid(format!("{address:#x} is not pinned")),
        }
    }

    /// Whether memory of the host is pinned.
    pub(crate) fn is_pinned(&self, address: usize, len: usize) -> bool {
        let before = self.pinned.range(..=address).next_back();
        before.is_some_and(|(from, pinned)| address - from + len <= pinned.bytes())
    }

    /// How much there is of what must be given back: see `Live`.
    pub(crate) fn live(&self) -> [u64; 6] {
        let (modules, graphs) = (self.modules.len(), self.graphs.len() + self.executables.len());
        let (streams, events) = (self.streams.len(), self.events.len());
        [self.allocated.len(), self.pinned.len(), streams, events, modules, graphs].map(|count| count as u64)
    }
}

/// Tells people, in one piece.
fn say(what: &str) {
    // A test that nobody reads goes on.
    let _ = io::stderr().write_all(format!("stand-in driver: {what}\n").as_bytes());
}
