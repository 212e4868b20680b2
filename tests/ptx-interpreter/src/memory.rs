//! Device memory.
//!
//! Addresses say what they point to: allocations and variables of modules lie in the window of device memory, and
//! generic addresses of the block's and the thread's memory have windows of their own, outside of it.

use crate::decode::ModuleVariable;
use crate::fault::{FaultKind, Problem};
use crate::race::Order;
use crate::region::{Region, Scope};
use std::collections::HashMap;

/// Where device memory begins.
const DEVICE_WINDOW: u64 = 0x7000_0000_0000;
/// Where generic addresses of the block's memory begin.
pub(crate) const SHARED_WINDOW: u64 = 0x7a00_0000_0000;
/// Where generic addresses of the thread's memory begin.
pub(crate) const LOCAL_WINDOW: u64 = 0x7b00_0000_0000;
/// Bytes of a window of the block's or the thread's memory.
pub(crate) const WINDOW: u64 = 1 << 32;

/// What the addresses of allocations are multiples of, as on the device.
const ALIGN: u64 = 256;
/// Bytes at least between two allocations: what leaves one does not come into the next.
const GAP: u64 = 4096;

/// Device memory: allocations with what is known about each byte.
pub struct Memory {
    /// In the order of their addresses.
    allocations: Vec<Allocation>,
    /// Address and length of what was freed. Addresses are not used again.
    freed: Vec<(u64, usize)>,
    next: u64,
    /// Where the variables of modules begin.
    modules: HashMap<u64, u64>,
    /// The allocation that was used last.
    latest: usize,
    pub(crate) order: Order,
}

struct Allocation {
    address: u64,
    region: Region,
    constant: bool,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Memory {
    /// Memory in which nothing is allocated.
    pub fn new() -> Memory {
        Memory {
            allocations: Vec::new(),
            freed: Vec::new(),
            next: DEVICE_WINDOW,
            modules: HashMap::new(),
            latest: 0,
            order: Order::default(),
        }
    }

    /// Address of `bytes` bytes that are not initialised: a kernel that reads what nothing was written to is at fault.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        self.allocate_as(bytes, false)
    }

    fn allocate_as(&mut self, bytes: usize, constant: bool) -> u64 {
        let address = self.next;
        self.next = (address + bytes as u64 + GAP).next_multiple_of(ALIGN);
        self.allocations.push(Allocation { address, region: Region::new(bytes, Scope::Device), constant });
        address
    }

    /// Frees what [`Memory::allocate`] gave `address` of. False if there is no such allocation.
    pub fn free(&mut self, address: u64) -> bool {
        let Ok(at) = self.allocations.binary_search_by_key(&address, |allocation| allocation.address) else {
            return false;
        };
        let allocation = self.allocations.remove(at);
        self.freed.push((address, allocation.region.len()));
        true
    }

    /// `len` bytes from `address` on, for the host to read or write; none if they do not lie in one allocation.
    /// They count as initialised from then on.
    pub fn bytes(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        if len == 0 {
            return Some(&mut []);
        }
        let (allocation, at) = self.find(address, len)?;
        Some(self.allocations[allocation].region.host_bytes(at, len))
    }

    /// Number of the allocation that `len` bytes at `address` lie in, and where.
    #[inline]
    fn find(&mut self, address: u64, len: usize) -> Option<(usize, usize)> {
        let within = |allocation: &Allocation| {
            let at = address.wrapping_sub(allocation.address);
            (at <= allocation.region.len() as u64 && len as u64 <= allocation.region.len() as u64 - at)
                .then_some(at as usize)
        };
        if let Some(at) = self.allocations.get(self.latest).and_then(within) {
            return Some((self.latest, at));
        }
        let number = self.allocations.partition_point(|a| a.address <= address).checked_sub(1)?;
        let at = within(&self.allocations[number])?;
        self.latest = number;
        Some((number, at))
    }

    /// The region that `len` bytes at `address` lie in, and where, for a kernel. Besides, what orders accesses.
    #[inline]
    pub(crate) fn locate(
        &mut self,
        address: u64,
        len: usize,
        writes: bool,
    ) -> Option<(&mut Region, usize, &Order)> {
        let (number, at) = self.find(address, len)?;
        let allocation = &mut self.allocations[number];
        (!writes || !allocation.constant).then_some((&mut allocation.region, at, &self.order))
    }

    /// Why `len` bytes at `address` cannot be accessed.
    #[cold]
    pub(crate) fn not_there(&mut self, address: u64, len: usize) -> Problem {
        if self.find(address, len).is_some() {
            return Problem::new(FaultKind::ReadOnly, "stores to a constant");
        }
        let contains = |start: u64, bytes: usize| (start..=start + bytes as u64).contains(&address);
        if let Some((start, bytes)) = self.freed.iter().find(|(start, bytes)| contains(*start, *bytes)) {
            let offset = address - start;
            let message = format!("{len} bytes at {offset} of an allocation of {bytes} that was freed");
            return Problem::new(FaultKind::UseAfterFree, message);
        }
        let before = self.allocations.partition_point(|a| a.address <= address).checked_sub(1);
        let message = match before.map(|number| &self.allocations[number]) {
            Some(a) if address - a.address < a.region.len() as u64 + GAP => {
                format!("{len} bytes at {} of an allocation of {}", address - a.address, a.region.len())
            }
            _ => format!("{len} bytes at {address:#x}, where nothing is allocated"),
        };
        Problem::new(FaultKind::OutOfBounds, format!("out of bounds: {message}"))
    }

    /// Where the variables of a module begin; they are allocated when they are first asked for.
    pub(crate) fn module_variables(&mut self, module: u64, variables: &[ModuleVariable]) -> u64 {
        if let Some(address) = self.modules.get(&module) {
            return *address;
        }
        let start = self.next;
        for ModuleVariable { offset, bytes, constant } in variables {
            self.next = start + offset;
            let address = self.allocate_as(bytes.len(), *constant);
            self.bytes(address, bytes.len()).expect("just allocated").copy_from_slice(bytes);
        }
        self.modules.insert(module, start);
        start
    }

    /// A launch of blocks of `warps` warps begins.
    pub(crate) fn begin_launch(&mut self, warps: usize) {
        if self.order.begin_launch(warps) {
            for allocation in &mut self.allocations {
                allocation.region.forget_accesses();
            }
        }
    }
}
