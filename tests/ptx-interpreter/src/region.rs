//! A stretch of memory that lies together: its bytes, which of them are initialised, and who accessed them last.

use crate::bits::Bits;
use crate::fault::{FaultKind, Problem};
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

    /// The value of `size` bytes (1, 2, 4 or 8) at `at`.
    #[inline]
    pub(crate) fn value(&self, at: usize, size: usize) -> u64 {
        let bytes = &self.bytes[at..at + size];
        match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
        }
    }

    /// Sets the value of `size` bytes (1, 2, 4 or 8) at `at`.
    #[inline]
    pub(crate) fn set_value(&mut self, at: usize, size: usize, value: u64) {
        let bytes = &mut self.bytes[at..at + size];
        match size {
            1 => bytes.copy_from_slice(&(value as u8).to_le_bytes()),
            2 => bytes.copy_from_slice(&(value as u16).to_le_bytes()),
            4 => bytes.copy_from_slice(&(value as u32).to_le_bytes()),
            _ => bytes.copy_from_slice(&value.to_le_bytes()),
        }
    }

    pub(crate) fn bytes(&self, at: usize, count: usize) -> &[u8] {
        &self.bytes[at..at + count]
    }

    /// Whether `count` bytes at `at` are initialised; at most 16, `at` a multiple of `count`.
    #[inline]
    pub(crate) fn is_initialised(&self, at: usize, count: usize) -> bool {
        self.initialised.all_of_few(at, count)
    }

    /// Whether any of `count` bytes at `at` is initialised; at most 16, `at` a multiple of `count`.
    #[inline]
    pub(crate) fn is_any_initialised(&self, at: usize, count: usize) -> bool {
        self.initialised.any_of_few(at, count)
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

    /// `lanes` are about to read `count` bytes at `at`: at most 16, `at` a multiple of `count`.
    #[inline]
    pub(crate) fn read(
        &mut self,
        (at, count): (usize, usize),
        lanes: u32,
        who: &Accessor,
        order: &Order,
    ) -> Result<(), Problem> {
        if !self.initialised.all_of_few(at, count) {
            return Err(self.not_initialised(at, count));
        }
        let read = self.shadow.read((at, count), lanes, who, order, self.scope);
        read.map_err(|conflict| race("read", conflict, order))
    }

    /// `lane` is about to write `count` bytes at `at`: at most 16, `at` a multiple of `count`.
    #[inline]
    pub(crate) fn write(
        &mut self,
        (at, count): (usize, usize),
        lane: usize,
        who: &Accessor,
        order: &Order,
    ) -> Result<(), Problem> {
        self.initialised.set_few(at, count);
        if self.scope == Scope::Thread {
            return Ok(());
        }
        let written = self.shadow.write((at, count), lane, who, order, self.scope);
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
fn race(access: &str, conflict: Conflict, order: &Order) -> Problem {
    let Conflict { wrote, thread, time, counter } = conflict;
    let before = if wrote { "wrote" } else { "read" };
    let block = match order.block_before(time) {
        Some([x, y, z]) => format!(" of block ({x}, {y}, {z})"),
        None => String::new(),
    };
    let message = format!("race: {access}s what thread {thread}{block} {before}, and nothing orders the two");
    Problem { earlier: Some(counter), ..Problem::new(FaultKind::Race, message) }
}
