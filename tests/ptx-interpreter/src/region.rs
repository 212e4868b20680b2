//! A stretch of memory that lies together: its bytes, which of them are initialised, and who accessed them last.

use crate::bits::{Bits, lanes_of};
use crate::fault::{FaultKind, Problem};
use crate::lane::{LANES, Row};
use crate::race::{Accessor, Conflict, Order, Shadow};

/// Bytes that nothing was written to, to make their use visible should it not be noticed.
const POISON: u8 = 0xcb;

/// Who shares a region's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All blocks.
    Device,
    /// The threads of a block.
    Block,
    /// One thread: nothing to be ordered.
    Thread,
}

/// What lanes of a warp access of a region: `bytes` at an offset each, a power of two, at most 16, that divides it.
pub(crate) struct Extent {
    pub(crate) lanes: u32,
    pub(crate) offsets: [usize; LANES],
    pub(crate) bytes: usize,
}

pub(crate) struct Region {
    bytes: Vec<u8>,
    initialised: Bits,
    /// What an asynchronous copy goes to that nobody has waited for.
    awaited: Bits,
    shadow: Shadow,
    scope: Scope,
}

impl Region {
    pub(crate) fn new(bytes: usize, scope: Scope) -> Region {
        Region {
            bytes: vec![POISON; bytes],
            initialised: Bits::new(bytes),
            awaited: Bits::new(bytes),
            shadow: Shadow::new(bytes),
            scope,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is one thread's own.
    #[inline]
    pub(crate) fn is_thread(&self) -> bool {
        self.scope == Scope::Thread
    }

    /// Nothing is initialised any more, as at the beginning of a block.
    pub(crate) fn forget(&mut self) {
        self.bytes.fill(POISON);
        self.initialised.clear();
        self.awaited.clear();
    }

    /// Nobody has accessed anything.
    pub(crate) fn forget_accesses(&mut self) {
        self.shadow = Shadow::new(self.len());
    }

    /// `count` bytes from `at` on, for the host, which initialises them.
    pub(crate) fn host_bytes(&mut self, at: usize, count: usize) -> &mut [u8] {
        self.initialised.fill(at, count, true);
        &mut self.bytes[at..at + count]
    }

    pub(crate) fn bytes(&self, at: usize, count: usize) -> &[u8] {
        &self.bytes[at..at + count]
    }

    /// The value of up to eight bytes at `at`.
    pub(crate) fn value(&self, at: usize, size: usize) -> u64 {
        let mut all = [0; 8];
        all[..size].copy_from_slice(&self.bytes[at..at + size]);
        u64::from_le_bytes(all)
    }

    /// Sets the value of up to eight bytes at `at`.
    pub(crate) fn set_value(&mut self, at: usize, size: usize, value: u64) {
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Values of `SIZE` bytes, those of a lane one after the other, each to a row.
    pub(crate) fn load<const SIZE: usize>(&self, extent: &Extent, rows: &mut [Row]) {
        for lane in lanes_of(extent.lanes) {
            let at = extent.offsets[lane];
            let values = self.bytes[at..at + SIZE * rows.len()].as_chunks::<SIZE>().0;
            for (value, row) in values.iter().zip(rows.iter_mut()) {
                let mut all = [0; 8];
                all[..SIZE].copy_from_slice(value);
                row.set(lane, u64::from_le_bytes(all));
            }
        }
    }

    /// Stores a row's values, as the `number`th ones of `SIZE` bytes each.
    pub(crate) fn store<const SIZE: usize>(&mut self, extent: &Extent, number: usize, row: &Row) {
        for lane in lanes_of(extent.lanes) {
            let at = extent.offsets[lane] + number * SIZE;
            self.bytes[at..at + SIZE].copy_from_slice(&row.get(lane).to_le_bytes()[..SIZE]);
        }
    }

    /// Whether `count` bytes at `at` are initialised; at most 16, `at` a multiple of `count`.
    pub(crate) fn is_initialised(&self, at: usize, count: usize) -> bool {
        self.initialised.all_of_few(at, count)
    }

    /// The lanes of whose bytes none is initialised.
    pub(crate) fn uninitialised_lanes(&self, extent: &Extent) -> u32 {
        let is_new = |lane: &usize| !self.initialised.any_of_few(extent.offsets[*lane], extent.bytes);
        lanes_of(extent.lanes).filter(is_new).fold(0, |set, lane| set | 1 << lane)
    }

    /// `count` bytes at `at` are not initialised any more.
    pub(crate) fn undefine(&mut self, at: usize, count: usize) {
        self.initialised.fill(at, count, false);
    }

    /// `count` bytes at `at` are not initialised until an asynchronous copy ends.
    pub(crate) fn begin_copy(&mut self, at: usize, count: usize) {
        self.undefine(at, count);
        self.awaited.fill(at, count, true);
    }

    /// An asynchronous copy of `bytes` to `at` ends.
    pub(crate) fn end_copy(&mut self, at: usize, bytes: &[u8]) {
        self.awaited.fill(at, bytes.len(), false);
        self.host_bytes(at, bytes.len()).copy_from_slice(bytes);
    }

    /// Lanes are about to read.
    pub(crate) fn read(&mut self, extent: &Extent, who: &Accessor, order: &Order) -> Result<(), Problem> {
        let is_new = |lane: &usize| !self.initialised.all_of_few(extent.offsets[*lane], extent.bytes);
        let new = lanes_of(extent.lanes).find(is_new);
        // Without a barrier some lanes may read what was written and others what was not: the first one is told of.
        let lanes = new.map_or(extent.lanes, |lane| extent.lanes & ((1 << lane) - 1));
        let read = self.shadow.read(extent, lanes, who, order, self.scope);
        read.map_err(|conflict| race("read", conflict, order))?;
        match new {
            None => Ok(()),
            Some(lane) => Err(self.not_initialised(extent.offsets[lane], extent.bytes).at(lane as u32)),
        }
    }

    /// The asynchronous proxy is about to read for the lanes.
    pub(crate) fn read_by_proxy(
        &mut self,
        extent: &Extent,
        who: &Accessor,
        order: &Order,
    ) -> Result<(), Problem> {
        self.read(extent, who, order)?;
        let is_hidden = |time, thread, lane: usize| !order.is_published(thread, time, who.thread(lane));
        match self.shadow.find_write(extent, who, is_hidden) {
            None => Ok(()),
            Some(conflict) => Err(unfenced(conflict)),
        }
    }

    /// What the asynchronous proxy read for the lanes from time `since` on, it has read by now.
    pub(crate) fn end_read_by_proxy(
        &mut self,
        extent: &Extent,
        who: &Accessor,
        order: &Order,
        since: u32,
    ) -> Result<(), Problem> {
        let read = self.shadow.read(extent, extent.lanes, who, order, self.scope);
        read.map_err(|conflict| race("read", conflict, order))?;
        match self.shadow.find_write(extent, who, |time, _, _| time >= since) {
            None => Ok(()),
            Some(conflict) => Err(overwritten(conflict)),
        }
    }

    /// Lanes are about to write.
    pub(crate) fn write(&mut self, extent: &Extent, who: &Accessor, order: &Order) -> Result<(), Problem> {
        for lane in lanes_of(extent.lanes) {
            self.initialised.set_few(extent.offsets[lane], extent.bytes);
        }
        if self.scope == Scope::Thread {
            return Ok(());
        }
        let written = self.shadow.write(extent, who, order, self.scope);
        written.map_err(|conflict| race("write", conflict, order))
    }

    #[cold]
    fn not_initialised(&self, at: usize, count: usize) -> Problem {
        let first = self.initialised.first_clear(at, count).unwrap_or(at);
        let why = match self.awaited.first_clear(first, 1) {
            None => "to which an asynchronous copy goes that was not waited for",
            Some(_) if self.scope == Scope::Block => "which no thread has written to by now",
            Some(_) => "which nothing was written to",
        };
        let message = format!("reads byte {first} of {}, {why}", self.len());
        Problem::new(FaultKind::Uninitialised, message)
    }
}

#[cold]
fn unfenced(Conflict { lane, thread, counter, .. }: Conflict) -> Problem {
    let message = format!(
        "reads what thread {thread} wrote without `fence.proxy.async` between that and the barrier after it"
    );
    Problem { earlier: Some(counter), ..Problem::new(FaultKind::Unfenced, message).at(lane as u32) }
}

#[cold]
fn overwritten(Conflict { lane, thread, counter, .. }: Conflict) -> Problem {
    let message = format!("a product that ends here read what thread {thread} wrote meanwhile");
    Problem { earlier: Some(counter), ..Problem::new(FaultKind::InFlight, message).at(lane as u32) }
}

#[cold]
fn race(access: &str, conflict: Conflict, order: &Order) -> Problem {
    let Conflict { lane, wrote, read_only, thread, time, counter } = conflict;
    let before = if wrote { "wrote" } else { "read" };
    let block = match order.block_before(time) {
        Some([x, y, z]) => format!(" of block ({x}, {y}, {z})"),
        None => String::new(),
    };
    let message = match read_only {
        true => {
            format!("race: reads as not changing (`.nc`) what thread {thread}{block} wrote in this launch")
        }
        false => format!("race: {access}s what thread {thread}{block} {before}, and nothing orders the two"),
    };
    Problem { earlier: Some(counter), ..Problem::new(FaultKind::Race, message).at(lane as u32) }
}
